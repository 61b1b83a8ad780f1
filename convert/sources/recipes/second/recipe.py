"""Version 2 of the recipe: networks that behave as trained ones, by the statistics of trained DINOv2-small.

Plain noise is unlike a trained network in ways that matter for errors: what the tanh form of GELU costs, how
class token and patches compare, and how fast rounding errors grow. This recipe differs from noise in these:

- Patch filters are drawn in the cosine domain and even out the spectrum of photographs, whose amplitudes fall
  with the frequency. Tokens then differ in many directions, and not in their mean colour alone.
- Blocks hardly add to some channels of the residual stream, the kept ones. Queries and keys read mostly
  these, so that rounding errors that blocks add do not change what a token attends to. Positions are there.
- Keys are like queries: a token attends to those like it.
- Attention and MLPs take away a part of what they read, as trained ones do: the first MLP above all, and
  attention in the blocks after it and in the middle.
- Hidden channels differ in their range and in how often they are active. The MLP's second weight cancels the
  mean output of the GELU, as trained biases do, but not the mean difference of GELU's two forms.
- The class token has one channel to itself, in which hidden channels that find it there let it grow. The last
  attention writes two channels of great magnitude into every token.

:mod:`vconv.convert.sources.recipes.second.profile` has the numbers of each depth. A network without a class
token or without attention (ConvNeXt) gets what applies to it.
"""

from __future__ import annotations

from vconv.convert.sources.recipes.base import Recipe, by_fan_in, scaled
from vconv.convert.sources.recipes.second import attention, branch, mlp, tokens

RECIPE = Recipe(
    2,
    {
        "query": attention.query,
        "key": attention.key,
        "value": by_fan_in(),
        "qkv": attention.qkv,
        "qkv_bias": scaled(0.3),
        "attention_bias": scaled(0.3),
        "zero_bias": scaled(0.0),
        "proj": attention.proj,
        "proj_bias": attention.proj_bias,
        "fc1": mlp.fc1,
        "fc1_bias": mlp.fc1_bias,
        "fc2": mlp.fc2,
        "fc2_bias": mlp.bias,
        "gate": mlp.gate,
        "gate_bias": mlp.gate_bias,
        "up": by_fan_in(),
        "up_bias": scaled(mlp.UP_BIAS),
        "gate_up": mlp.gate_up,
        "gate_up_bias": mlp.gate_up_bias,
        "down": mlp.down,
        "down_bias": mlp.bias,
        "patch_norm": tokens.norm,
        "downsample_norm": tokens.norm,
        "depthwise": by_fan_in(),
        "depthwise_bias": scaled(0.1),
        "downsample": by_fan_in(),
        "downsample_bias": scaled(0.1),
        "attention_scale": branch.attention_scale,
        "mlp_scale": branch.mlp_scale,
        "norm": tokens.norm,
        "norm_bias": scaled(0.1),
        "patch": tokens.patch,
        "patch_bias": scaled(tokens.PATCH_BIAS),
        "class_token": tokens.class_token,
        "token": scaled(tokens.TOKEN),
        "position": tokens.position,
        "head": by_fan_in(),
        "head_bias": scaled(0.3),
    },
)
