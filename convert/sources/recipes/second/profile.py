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
    Depth(1.076, 0.6, 0.07234, -0.1108, 1.463, -1.424, 0.8, 0.6, 0.06275, 0.95, 5, 0.75),
    Depth(1.491, 0.6, 0.03077, 0.95, 0.7301, -0.5567, 0.8, 0.23, 0.02478, 0.3619, 5, 0.75),
    Depth(1.113, 0.43, 0.02405, 0.95, 0.5321, -0.8486, 0.8, 0.23, 0.01747, 0.3624, 4.466, 1.75),
    Depth(1.272, 0.2, 0.02208, 0.95, 0.5288, -0.9847, 0.8, 0.23, 0.01994, 0.2258, 12.5, 1.75),
    Depth(1.008, 0.2, 0.03408, 0.9167, 0.5398, -1.133, 0.8, 0.23, 0.02503, 0.1876, 5, 1.75),
    Depth(1.017, 0.2, 0.06005, 0.7948, 0.5676, -1.151, 0.8, 0.23, 0.04961, 0.1363, 5, 1.75),
    Depth(1.304, 0.2, 0.06178, 0.95, 0.6471, -1.401, 0.8, 0.23, 0.06061, 0.1114, 7.874, 3.3),
    Depth(1.576, 0.2, 0.1091, 0.95, 0.6449, -1.55, 0.8, 0.23, 0.08784, 0.4797, 7.666, 3.4),
    Depth(2.128, 0.2, 0.1446, 0.6566, 0.7707, -1.68, 0.8, 0.23, 0.1198, 0.5051, 7.933, 5.2),
    Depth(2.47, 0.2, 0.2001, 0.3583, 0.6813, -1.635, 0.8, 0.23, 0.1975, 0.1654, 8.199, 12.8),
    Depth(3.802, 0.2, 0.2856, 0.4275, 0.8154, -1.845, 0.8, 0.23, 0.3168, 0.254, 9.889, 13.3),
    Depth(5.087, 0.38, 1.37, -0.06861, 0.6083, -1.599, 1.5, 0.36, 1.014, 0.1385, 5, 13.3),
)
"""Of trained DINOv2-small, from the first block to the last (``benchmarks/recipe_statistics.py --fit``).

``likeness``, ``middle_spread``, ``uneven`` and ``class_token`` follow what was measured in its weights and
activations, in round numbers. The others were fitted so that the statistics of its activations come out.
"""
DEEP = 0.5
"""The power of the share by which queries and keys of a deeper network are smaller."""


def at(block: int, blocks: int) -> Depth:
    """Return the numbers of a block, interpolated over the depth.

    A network adds as much to the residual stream in total, however many blocks do it. Queries and keys shrink
    in a deeper network, where rounding errors add up over more blocks.
    """
    place = block / max(1, blocks - 1) * (len(PROFILE) - 1)
    rows = np.array([astuple(depth) for depth in PROFILE])
    values = [float(np.interp(place, np.arange(len(rows)), column)) for column in rows.T]
    found, share = Depth(*values), math.sqrt(len(PROFILE) / blocks)
    calm = min(1.0, share) ** DEEP
    return replace(
        found, query_key=found.query_key * calm, attention=found.attention * share, mlp=found.mlp * share
    )
