"""ConvNeXt (Liu et al., 2022, arXiv:2201.03545), as DINOv3 was distilled into it.

A stem and four stages, each on a grid of half the height and width of the one before. A block is a depthwise
convolution of 7x7, a LayerNorm, an MLP and LayerScale. Its tokens are those that the authors define
(facebookresearch/dinov3, ``ConvNeXt.forward_features``): the class token is the mean of the last stage's
patches, and the final norm is applied to the mean and to each patch.
"""

from __future__ import annotations

from vconv.convert.architectures.base import (
    CLASSIFIER,
    STAGE,
    Architecture,
    Capability,
    Part,
    linear,
    norm,
)

_BLOCK = f"{STAGE}.blocks.{{i}}"

ARCHITECTURE = Architecture(
    "convnext",
    {
        "patch.weight": Part("patch", ("stem_width", "channels", 4, 4)),
        "patch.bias": Part("patch_bias", ("stem_width",)),
        **norm("patch_norm", "stem_width", "patch_norm"),
        **norm(f"{STAGE}.norm", "before", "downsample_norm"),
        f"{STAGE}.downsample.weight": Part("downsample", ("width", "before", 2, 2)),
        f"{STAGE}.downsample.bias": Part("downsample_bias", ("width",)),
        f"{_BLOCK}.depthwise.weight": Part("depthwise", ("width", 1, 7, 7)),
        f"{_BLOCK}.depthwise.bias": Part("depthwise_bias", ("width",)),
        **norm(f"{_BLOCK}.norm"),
        **linear(f"{_BLOCK}.fc1", "fc1", "fc1_bias", ("hidden", "width")),
        **linear(f"{_BLOCK}.fc2", "fc2", "fc2_bias", ("width", "hidden")),
        f"{_BLOCK}.scale": Part("mlp_scale", ("width",)),
        **norm("norm"),
        **linear(CLASSIFIER, "head", "head_bias", ("labels", "width"), CLASSIFIER),
    },
    capabilities=frozenset(Capability) - {Capability.BLOCKS},
    lacks={Capability.BLOCKS: "its blocks are in stages of several widths, which are not run one by one"},
)
