"""DINOv3 ConvNeXt as its authors publish it (facebookresearch/dinov3).

``norms.3`` is the norm of the last stage. The authors' model uses ``norm`` there too, one tensor under two
names, which safetensors refuses to store.
"""

from __future__ import annotations

from vconv.convert.architectures import convnext
from vconv.convert.architectures.base import STAGE
from vconv.convert.layouts.base import Extra, Layout, Use, linear, norm, one

_PART = f"{STAGE}.blocks.{{i}}"
_BLOCK = f"{STAGE}.{{i}}"
_DOWN = "downsample_layers"

LAYOUT = Layout(
    family="facebook convnext",
    home="facebook",
    architecture=convnext.ARCHITECTURE,
    pooling="cls",
    epsilon=1e-6,
    rules=(
        *linear(f"{_DOWN}.0.0", "patch"),
        *norm(f"{_DOWN}.0.1", "patch_norm"),
        *norm(f"{_DOWN}.{{s}}.0", f"{STAGE}.norm"),
        *linear(f"{_DOWN}.{{s}}.1", f"{STAGE}.downsample"),
        one(f"{_BLOCK}.gamma", f"{_PART}.scale"),
        *linear(f"{_BLOCK}.dwconv", f"{_PART}.depthwise"),
        *norm(f"{_BLOCK}.norm", f"{_PART}.norm"),
        *linear(f"{_BLOCK}.pwconv1", f"{_PART}.fc1"),
        *linear(f"{_BLOCK}.pwconv2", f"{_PART}.fc2"),
        *norm("norm", "norm"),
    ),
    extras=tuple(
        Extra(f"norms.3.{kind}", Use.ALIAS, ("width",), f"norm.{kind}") for kind in ("weight", "bias")
    ),
)
