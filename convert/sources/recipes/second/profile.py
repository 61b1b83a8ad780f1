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
    Depth(1.05, 0.6, 0.07279, -0.1106, 1.465, -1.42, 0.8, 0.6, 0.06267, 0.95, 5, 0.75),
    Depth(1.452, 0.6, 0.03108, 0.95, 0.7301, -0.5567, 0.8, 0.23, 0.02478, 0.3621, 5, 0.75),
    Depth(1.085, 0.43, 0.02433, 0.95, 0.5321, -0.8487, 0.8, 0.23, 0.01746, 0.3631, 4.503, 1.75),
    Depth(1.241, 0.2, 0.02232, 0.95, 0.5288, -0.9849, 0.8, 0.23, 0.01993, 0.2266, 12.5, 1.75),
    Depth(0.9815, 0.2, 0.03448, 0.9179, 0.5397, -1.133, 0.8, 0.23, 0.02503, 0.1884, 5, 1.75),
    Depth(0.9902, 0.2, 0.0606, 0.7935, 0.5676, -1.151, 0.8, 0.23, 0.0496, 0.1366, 5, 1.75),
    Depth(1.269, 0.2, 0.06172, 0.95, 0.6472, -1.401, 0.8, 0.23, 0.06061, 0.1121, 7.885, 3.3),
    Depth(1.533, 0.2, 0.1094, 0.95, 0.6448, -1.55, 0.8, 0.23, 0.08789, 0.477, 7.673, 3.4),
    Depth(2.072, 0.2, 0.1445, 0.6575, 0.7708, -1.681, 0.8, 0.23, 0.1198, 0.5042, 7.927, 5.2),
    Depth(2.403, 0.2, 0.1999, 0.3586, 0.6815, -1.635, 0.8, 0.23, 0.1976, 0.1659, 8.19, 12.8),
    Depth(3.708, 0.2, 0.2841, 0.429, 0.8155, -1.845, 0.8, 0.23, 0.3163, 0.2739, 9.879, 13.3),
    Depth(4.954, 0.38, 1.371, -0.06839, 0.608, -1.604, 1.5, 0.36, 1.013, 0.1415, 5, 13.3),
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
