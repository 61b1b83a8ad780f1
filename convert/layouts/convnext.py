"""DINOv3 ConvNeXt in transformers, and ConvNeXt in timm."""

from __future__ import annotations

from vconv.convert.architectures import convnext
from vconv.convert.architectures.base import FINAL_NORM, STAGE
from vconv.convert.layouts.base import Layout, linear, norm, one

_PART = f"{STAGE}.blocks.{{i}}"
_LAYER, _BLOCK = f"{STAGE}.layers.{{i}}", f"{STAGE}.blocks.{{i}}"

DINOV3 = Layout(
    family="dinov3_convnext",
    home="transformers",
    architecture=convnext.ARCHITECTURE,
    pooling="cls",
    epsilon=1e-6,
    in_memory=((r"^model\.stages\.", "stages."),),
    rules=(
        *linear("stages.0.downsample_layers.0", "patch"),
        *norm("stages.0.downsample_layers.1", "patch_norm"),
        *norm(f"{STAGE}.downsample_layers.0", f"{STAGE}.norm"),
        *linear(f"{STAGE}.downsample_layers.1", f"{STAGE}.downsample"),
        one(f"{_LAYER}.gamma", f"{_PART}.scale"),
        *linear(f"{_LAYER}.depthwise_conv", f"{_PART}.depthwise"),
        *norm(f"{_LAYER}.layer_norm", f"{_PART}.norm"),
        *linear(f"{_LAYER}.pointwise_conv1", f"{_PART}.fc1"),
        *linear(f"{_LAYER}.pointwise_conv2", f"{_PART}.fc2"),
        *norm("layer_norm", "norm", when=FINAL_NORM),
    ),
)

TIMM = Layout(
    family="timm convnext",
    home="timm",
    architecture=convnext.ARCHITECTURE,
    pooling="cls",
    epsilon=1e-6,
    rules=(
        *linear("stem.0", "patch"),
        *norm("stem.1", "patch_norm"),
        *norm(f"{STAGE}.downsample.0", f"{STAGE}.norm"),
        *linear(f"{STAGE}.downsample.1", f"{STAGE}.downsample"),
        one(f"{_BLOCK}.gamma", f"{_PART}.scale"),
        *linear(f"{_BLOCK}.conv_dw", f"{_PART}.depthwise"),
        *norm(f"{_BLOCK}.norm", f"{_PART}.norm"),
        *linear(f"{_BLOCK}.mlp.fc1", f"{_PART}.fc1"),
        *linear(f"{_BLOCK}.mlp.fc2", f"{_PART}.fc2"),
        *norm("head.norm", "norm"),
        *linear("head.fc", "classifier"),
    ),
)
