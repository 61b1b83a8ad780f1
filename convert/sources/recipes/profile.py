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
    Depth(1.166, 0.6, 0.07445, -0.1057, 1.492, -1.378, 0.8, 0.6, 0.06605, 0.95, 5, 0.75),
    Depth(1.417, 0.6, 0.02985, 0.95, 0.7199, -0.5606, 0.8, 0.23, 0.02403, 0.3697, 5, 0.75),
    Depth(1.075, 0.43, 0.02229, 0.95, 0.5306, -0.8546, 0.8, 0.23, 0.01631, 0.3811, 3.98, 1.75),
    Depth(1.227, 0.2, 0.02107, 0.95, 0.5263, -1.014, 0.8, 0.23, 0.01861, 0.2435, 12.5, 1.75),
    Depth(0.9586, 0.2, 0.0317, 0.9282, 0.5439, -1.123, 0.8, 0.23, 0.02385, 0.2016, 5, 1.75),
    Depth(0.9389, 0.2, 0.05971, 0.8062, 0.5635, -1.161, 0.8, 0.23, 0.04938, 0.1522, 5, 1.75),
    Depth(1.19, 0.2, 0.06048, 0.95, 0.641, -1.404, 0.8, 0.23, 0.0609, 0.1169, 7.68, 3.3),
    Depth(1.436, 0.2, 0.1065, 0.95, 0.6543, -1.526, 0.8, 0.23, 0.0892, 0.463, 7.603, 3.4),
    Depth(1.934, 0.2, 0.1459, 0.6784, 0.7659, -1.699, 0.8, 0.23, 0.1213, 0.4881, 7.787, 5.2),
    Depth(2.253, 0.2, 0.2041, 0.3812, 0.6766, -1.662, 0.8, 0.23, 0.1951, 0.1592, 8.156, 12.8),
    Depth(3.508, 0.2, 0.285, 0.4839, 0.8104, -1.839, 0.8, 0.23, 0.3252, 0.3311, 9.693, 13.3),
    Depth(4.849, 0.38, 1.341, -0.075, 0.4096, -1.9, 1.5, 0.36, 1.06, 0.1752, 5, 13.3),
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
