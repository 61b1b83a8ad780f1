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
    Depth(1.166, 0.6, 0.07445, -0.1057, 1.492, -1.378, 0.8, 0.6, 0.06606, 0.95, 5, 0.75),
    Depth(1.417, 0.6, 0.02985, 0.95, 0.7199, -0.5606, 0.8, 0.23, 0.02405, 0.3694, 5, 0.75),
    Depth(1.075, 0.43, 0.02229, 0.95, 0.5306, -0.8545, 0.8, 0.23, 0.01633, 0.3806, 3.98, 1.75),
    Depth(1.227, 0.2, 0.02108, 0.95, 0.5263, -1.014, 0.8, 0.23, 0.01864, 0.2431, 12.5, 1.75),
    Depth(0.9587, 0.2, 0.03171, 0.9255, 0.5439, -1.123, 0.8, 0.23, 0.02389, 0.2008, 5, 1.75),
    Depth(0.9392, 0.2, 0.0598, 0.8039, 0.5637, -1.161, 0.8, 0.23, 0.04948, 0.1519, 5, 1.75),
    Depth(1.19, 0.2, 0.06049, 0.95, 0.641, -1.404, 0.8, 0.23, 0.06102, 0.1171, 7.7, 3.3),
    Depth(1.436, 0.2, 0.1065, 0.95, 0.6544, -1.526, 0.8, 0.23, 0.0893, 0.4626, 7.612, 3.4),
    Depth(1.934, 0.2, 0.146, 0.6768, 0.7659, -1.699, 0.8, 0.23, 0.1213, 0.487, 7.791, 5.2),
    Depth(2.254, 0.2, 0.2042, 0.3813, 0.6766, -1.662, 0.8, 0.23, 0.1952, 0.1588, 8.159, 12.8),
    Depth(3.507, 0.2, 0.2853, 0.4823, 0.8105, -1.839, 0.8, 0.23, 0.3253, 0.337, 9.686, 13.3),
    Depth(4.848, 0.38, 1.343, -0.07539, 0.6151, -1.654, 1.5, 0.36, 1.061, 0.1634, 5, 13.3),
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
