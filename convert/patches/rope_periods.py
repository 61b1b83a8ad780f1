"""`rope-periods`: RoPE periods in bfloat16, as the authors' files store them.

The released DINOv3 files store the periods as a bfloat16 buffer. transformers and timm recompute the periods
in float32. Their buffers are not persistent, so that a state dict cannot carry the authors' values. The
outputs differ by 1e-3 or more. So the graphs hold the authors' periods, and ``vconv.load`` sets them after
stock loading. The periods are those that a checkpoint in the authors' layout stores; for other checkpoints,
they are computed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vconv.convert.network import Network
from vconv.convert.patches.base import Patch, Site, Undo


def unrounded(theta: float, head_dim: int) -> Tensor:
    """Return the RoPE periods that the libraries compute, as float64 (head_dim / 4,).

    ``theta ** (2 i / (head_dim / 2))`` (facebookresearch/dinov3, RoPE position encoding).
    """
    exponents = 2 * torch.arange(head_dim // 4, dtype=torch.float64) / (head_dim / 2)
    return torch.pow(theta, exponents)


def periods(theta: float, head_dim: int) -> Tensor:
    """Return the RoPE periods that the authors' files hold, as float32 (head_dim / 4,).

    They are the unrounded ones in float32, rounded to bfloat16, the type of the buffer in those files.
    """
    return unrounded(theta, head_dim).float().bfloat16().float()


def of(network: Network) -> Tensor:
    """Return the periods of a network that has RoPE: those of its checkpoint, else those of the authors."""
    if network.stored_periods is not None:
        return torch.tensor(network.stored_periods, dtype=torch.float32)
    return periods(float(network.rope_base or 0.0), network.head_dim)


def _sites(model: nn.Module, network: Network) -> list[Site]:
    exact = of(network)
    return [
        Site(name, _same(buffer, BUFFERS[key](exact)), functools.partial(_assign, module, key, exact))
        for name, module in model.named_modules()
        for key, buffer in module.named_buffers(recurse=False)
        if key in BUFFERS and buffer.shape == exact.shape
    ]


def _same(buffer: Tensor, wanted: Tensor) -> bool:
    """Return whether a buffer has these values and their type, in which the angles are computed."""
    return not buffer.is_meta and buffer.dtype is wanted.dtype and torch.equal(buffer.cpu(), wanted)


def _assign(module: nn.Module, key: str, exact: Tensor) -> Undo:
    before, wanted = module.get_buffer(key), BUFFERS[key](exact)
    setattr(module, key, wanted if before.is_meta else wanted.to(before.device))
    _renew(module)

    def undo() -> None:
        setattr(module, key, before)
        if not before.is_meta:
            _renew(module)

    return undo


def _renew(module: Any) -> None:
    """Make timm recompute the embedding that it caches if the image size is fixed."""
    if getattr(module, "pos_embed_cached", None) is not None:
        module._cache_embed(module.feat_shape)


BUFFERS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "inv_freq": lambda exact: 1.0 / exact,
    "periods": lambda exact: exact,
}
"""By buffer name in transformers and in timm: the function that returns its contents from the periods."""


PATCH = Patch(
    name="rope-periods",
    reason="the authors' files hold the RoPE periods in bfloat16; the libraries recompute them in float32",
    corrective=True,
    carriers=lambda network: ("graph", "vconv.load"),
    applies=lambda network: network.rope_base is not None,
    expected=lambda network: 1,
    sites=_sites,
)
