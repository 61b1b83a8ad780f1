"""`qkv-bias`: strip the query, key and value biases if all of them are zero.

In the released DINOv3 files, all query and value biases are zero. The addition of each one costs an operator
launch. If any bias is not zero, all biases stay: without a query bias or, with RoPE, a key bias, the output
changes by several per cent.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from vconv.convert.libraries.table import library_of
from vconv.convert.network import Network
from vconv.convert.patches.base import Patch, Site, Undo, WeightsFinding
from vconv.convert.weights import checkpoint
from vconv.convert.weights.ledger import MatchedTensor
from vconv.errors import PatchError


@dataclass(frozen=True)
class Proof:
    """The evidence on whether a checkpoint's query, key and value biases may be stripped.

    Args:
        biases: number of these biases.
        worst: the tensor with the greatest magnitude; empty if there are no biases.
        greatest: that magnitude.
    """

    biases: int
    worst: str
    greatest: float

    @property
    def strip(self) -> bool:
        """Whether there are biases and every element of each is zero."""
        return self.biases > 0 and self.greatest == 0.0

    def __str__(self) -> str:
        if not self.biases:
            return "there are no query, key or value biases"
        if self.strip:
            return f"max|b| = 0 over all {self.biases} query, key and value biases"
        return f"max|b| = {self.greatest:.3g} in {self.worst}"


def biases(network: Network) -> list[str]:
    """List the canonical keys of a network's query, key and value biases, block by block."""
    endings = tuple(network.layout.biases)
    return [key for key in network.tensors() if key.endswith(endings)]


def prove(network: Network, matches: Iterable[MatchedTensor]) -> Proof:
    """Read every query, key and value bias of a checkpoint, and find the greatest magnitude."""
    wanted = set(biases(network))
    sizes = {pair.canonical: checkpoint.greatest(pair.entry) for pair in matches if pair.canonical in wanted}
    worst = max(sizes, key=lambda key: sizes[key], default="")
    return Proof(len(sizes), worst, sizes.get(worst, 0.0))


def _strip(module: nn.Module) -> Undo:
    bias: Any = module.bias
    if not bias.is_meta and bool((bias != 0).any()):
        raise PatchError(
            "the patch qkv-bias would change the model",
            got=f"a bias of up to {float(bias.detach().abs().max()):.3g}",
            expected="zero in every layer",
            fix="leave this patch out for these weights",
        )
    module.register_parameter("bias", None)
    return functools.partial(setattr, module, "bias", bias)


def _sites(model: nn.Module, network: Network) -> list[Site]:
    endings = tuple(key.removesuffix(".bias") for key in network.layout.biases)
    linear = [
        (name, module)
        for name, module in model.named_modules()
        if network.layout.disk_key(name + ".").rstrip(".").endswith(endings)
    ]
    return [Site(name, module.bias is None, functools.partial(_strip, module)) for name, module in linear]


def _without_biases(network: Network, config: dict[str, Any]) -> dict[str, Any]:
    return library_of(network).switched(config, dict.fromkeys(network.layout.biases.values(), False))


def _decide(network: Network, matches: Sequence[MatchedTensor]) -> WeightsFinding:
    proof = prove(network, matches)
    return WeightsFinding(proof.strip, str(proof), tuple(biases(network)) if proof.strip else ())


PATCH = Patch(
    name="qkv-bias",
    reason="the addition of a bias that is all zero costs an operator launch and changes no value",
    corrective=False,
    carriers=lambda network: ("config", "checkpoint", "graph"),
    applies=lambda network: bool(network.layout.biases),
    expected=lambda network: len(network.layout.biases) * network.blocks,
    sites=_sites,
    edit_config=_without_biases,
    decide=_decide,
)
