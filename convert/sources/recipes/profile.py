"""What version 2 of the recipe takes from trained weights, block by block."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Depth:
    """The numbers of one depth of a network.

    Args:
        query_key: standard deviation of queries and keys, for inputs of unit variance.
        likeness: cosine of the query and key weights. Tokens then attend to tokens that are like them.
        attention: LayerScale of attention.
        attention_against: the share of the output projection that takes away what the values read.
        hidden: root mean square, over the hidden channels, of the standard deviation of their pre-GELU
            values.
        middle: mean of the pre-GELU values of a hidden channel, in its standard deviations.
        middle_spread: standard deviation of ``middle`` over the hidden channels.
        uneven: standard deviation of the logarithm of the standard deviations of the hidden channels.
        mlp: LayerScale of the MLP, whose output has unit variance.
        mlp_against: the share of the MLP's second weight that takes away what the first one reads.
        found: what a hidden channel that looks for the class token has there, after the GELU.
        class_token: the class token's value in its own channel, after the block.
    """

    query_key: float
    likeness: float
    attention: float
    attention_against: float
    hidden: float
    middle: float
    middle_spread: float
    uneven: float
    mlp: float
    mlp_against: float
    found: float
    class_token: float


PROFILE: tuple[Depth, ...] = (
    Depth(1.359, 0.6, 0.07642, -0.07821, 1.446, -1.438, 0.8, 0.6, 0.06775, 0.95, 5, 0.75),
    Depth(1.493, 0.6, 0.03064, 0.95, 0.7181, -0.5668, 0.8, 0.23, 0.0241, 0.3801, 5, 0.75),
    Depth(1.146, 0.43, 0.02265, 0.95, 0.5346, -0.8379, 0.8, 0.23, 0.01753, 0.3957, 3.837, 1.75),
    Depth(1.301, 0.2, 0.02316, 0.95, 0.523, -1.018, 0.8, 0.23, 0.0196, 0.2635, 12.5, 1.75),
    Depth(0.9458, 0.2, 0.0335, 0.9059, 0.5343, -1.146, 0.8, 0.23, 0.02486, 0.1932, 5, 1.75),
    Depth(0.9451, 0.2, 0.06051, 0.7366, 0.5675, -1.166, 0.8, 0.23, 0.04845, 0.1097, 5, 1.75),
    Depth(1.168, 0.2, 0.06948, 0.95, 0.6448, -1.398, 0.8, 0.23, 0.06168, 0.08425, 7.628, 3.3),
    Depth(1.445, 0.2, 0.1147, 0.95, 0.6586, -1.529, 0.8, 0.23, 0.08802, 0.4504, 7.237, 3.4),
    Depth(1.934, 0.2, 0.1471, 0.6321, 0.7681, -1.678, 0.8, 0.23, 0.1192, 0.4627, 7.463, 5.2),
    Depth(2.246, 0.2, 0.2022, 0.3469, 0.6765, -1.658, 0.8, 0.23, 0.1853, 0.1443, 8.079, 12.8),
    Depth(3.371, 0.2, 0.3036, 0.5452, 0.812, -1.829, 0.8, 0.23, 0.3294, 0.2438, 9.9, 13.3),
    Depth(4.845, 0.38, 1.315, 0.003155, 0.4853, -1.6, 1.4, 0.36, 0.755, 0.1192, 5, 13.3),
)
"""Of trained DINOv2-small, from the first block to the last (``benchmarks/recipe_statistics.py --fit``).

``likeness``, ``middle_spread``, ``uneven`` and ``class_token`` were measured in its weights and activations.
The others were fitted so that the statistics of its activations come out.
"""


def at(block: int, blocks: int) -> Depth:
    """Return the numbers of a block, interpolated over the depth.

    A network adds as much to the residual stream in total, however many blocks do it.
    """
    place = block / max(1, blocks - 1) * (len(PROFILE) - 1)
    rows = np.array([astuple(depth) for depth in PROFILE])
    values = [float(np.interp(place, np.arange(len(rows)), column)) for column in rows.T]
    found, share = Depth(*values), math.sqrt(len(PROFILE) / blocks)
    return replace(found, attention=found.attention * share, mlp=found.mlp * share)
