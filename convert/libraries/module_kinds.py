"""What a tensor is by the module that owns it, where the architecture of a network is not declared.

This is the role of a tensor in a derived layout. It says how synthetic weights are drawn, and nothing of what
the tensor is for in the network.
"""

from __future__ import annotations

import re
from enum import StrEnum

from torch import nn

_NORM = re.compile(r"Norm")
_POSITION = re.compile(r"pos|token|probe|latent|query|embed")
_TABLE = re.compile(r"bias_table|attention_bias|rel_pos|relative_position_bias|^rel_(h|w|height|width)$")
_TEMPERATURE = re.compile(r"logit_scale|temperature|tau$")


class ModuleKind(StrEnum):
    """What a tensor is by its module."""

    WEIGHT = "module weight"
    """The weight of a linear layer, a convolution, or any other product."""
    BIAS = "module bias"
    NORM_WEIGHT = "module norm weight"
    NORM_BIAS = "module norm bias"
    RUNNING_MEAN = "module running mean"
    RUNNING_VARIANCE = "module running variance"
    SCALE = "module scale"
    """One factor for each channel, such as LayerScale."""
    TABLE = "module table"
    """Biases of attention by relative positions."""
    EMBEDDING = "module embedding"
    """Tokens and position embeddings."""
    TEMPERATURE = "module temperature"
    """The factor, or its logarithm, that attention logits are multiplied by."""
    WHOLE = "module whole numbers"


_BUFFERS = {"running_mean": ModuleKind.RUNNING_MEAN, "running_var": ModuleKind.RUNNING_VARIANCE}


def kind_of(module: nn.Module, name: str) -> ModuleKind:
    """Return what a tensor is, from its module and its name there."""
    tensor = getattr(module, name)
    if not tensor.is_floating_point():
        return ModuleKind.WHOLE
    if name in _BUFFERS:
        return _BUFFERS[name]
    if any(_NORM.search(kind.__name__) for kind in type(module).__mro__):
        return ModuleKind.NORM_BIAS if name.endswith("bias") else ModuleKind.NORM_WEIGHT
    # A parametrised factor may have axes of length 1 beside its channels.
    long = [side for side in tensor.shape if side > 1]
    for pattern, kind in (
        (_TEMPERATURE, ModuleKind.TEMPERATURE),
        (_TABLE, ModuleKind.TABLE),
        (re.compile(r"bias"), ModuleKind.BIAS if len(long) < 2 else ModuleKind.TABLE),
    ):
        if pattern.search(name):
            return kind
    if isinstance(module, nn.Embedding) or _POSITION.search(name):
        return ModuleKind.EMBEDDING
    return ModuleKind.WEIGHT if len(long) > 1 or name == "weight" else ModuleKind.SCALE
