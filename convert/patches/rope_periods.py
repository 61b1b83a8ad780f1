"""`rope-periods`: RoPE periods in bfloat16, as the authors' files store them.

The released DINOv3 files keep the periods as a bfloat16 buffer; transformers recomputes them in float32,
and no state dict can carry them there because its buffer is not persistent. The difference at the output
is 1e-3 and more. So the graphs hold the periods, and ``vconv.load`` sets them after the stock load.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from vconv.convert.layouts import Network
from vconv.convert.patches.base import Patch, Site, Undo


def periods(theta: float, head_dim: int) -> Tensor:
    """Return the RoPE periods that the authors' files hold, as float32 (head_dim / 4,).

    ``theta ** (2 i / (head_dim / 2))``, rounded to bfloat16 (facebookresearch/dinov3, rope position
    encoding; the files store the buffer in that type).
    """
    exponents = 2 * torch.arange(head_dim // 4) / (head_dim / 2)
    return torch.pow(theta, exponents).bfloat16().float()


def of(network: Network) -> Tensor:
    """Return the periods of a network."""
    return periods(float(network.config["rope_theta"]), network.head_dim)


def _sites(model: nn.Module, network: Network) -> list[Site]:
    wanted = 1.0 / of(network)

    def assign(module: nn.Module) -> Undo:
        before = module.get_buffer("inv_freq")
        module.inv_freq = wanted if before.is_meta else wanted.to(before.device)
        return functools.partial(setattr, module, "inv_freq", before)

    return [
        Site(
            name,
            not buffer.is_meta and torch.equal(buffer.cpu(), wanted),
            functools.partial(assign, module),
        )
        for name, module in model.named_modules()
        for key, buffer in module.named_buffers(recurse=False)
        if key == "inv_freq" and buffer.shape == wanted.shape
    ]


PATCH = Patch(
    name="rope-periods",
    reason="the authors' files hold the RoPE periods in bfloat16; transformers recomputes them in float32",
    corrective=True,
    carriers=("graph", "vconv.load"),
    applies=lambda network: "rope_theta" in network.config,
    expected=lambda network: 1,
    sites=_sites,
)
