"""What an output of a graph may be: the reference's outputs, and what is easily taken for one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from vconv.convert.architectures.layer_outputs import RAW, WITHOUT, named
from vconv.convert.architectures.layer_outputs import TOKENS as LAYER_TOKENS
from vconv.convert.architectures.outputs import TOKENS, output_names
from vconv.convert.network import Network
from vconv.runtime.stages.base import undivided
from vconv.types import Array, Arrays

POOLING, FINAL_NORM = "pooling", "final norm"


@dataclass(frozen=True)
class Reading:
    """One thing that an output of a graph may be.

    Args:
        value: what the reference gives for it.
        meaning: what it is, in words; empty for an output of the network.
        fault: the class of fault of a graph that gives it in place of the network's output; empty for an
            output of the network.
        instead_of: the network's output that it is easily taken for; empty for an output of the network.
    """

    value: Array
    meaning: str = ""
    fault: str = ""
    instead_of: str = ""


def without_norm(network: Network) -> str:
    """Return vconv's name of the tokens before the final norm; empty if the network has none."""
    if network.observed or network.stages or network.asked or undivided(network):
        return ""
    return named(RAW + LAYER_TOKENS, network.blocks)


def wanted(network: Network) -> tuple[str, ...]:
    """List the outputs that the reference must give for :func:`readings`, in the order of the protocol."""
    extra, own = without_norm(network), output_names(network)
    return (*own, extra) if extra and TOKENS in own else own


def readings(network: Network, outputs: Arrays) -> dict[str, Reading]:
    """List what an output of a graph may be, by name; the outputs of the network come first.

    Args:
        network: the network.
        outputs: the reference's outputs (N, ...), those of :func:`wanted`.
    """
    own = {name: Reading(outputs[name]) for name in output_names(network) if name in outputs}
    return {**own, **dict(_taken_for_another(network, outputs))}


def _taken_for_another(network: Network, outputs: Arrays) -> Iterator[tuple[str, Reading]]:
    if network.observed or TOKENS not in outputs:
        return
    first, raw = 1 + network.registers, outputs.get(without_norm(network))
    for name, value in _pooled(outputs[TOKENS], first).items():
        yield name, Reading(value, name, POOLING, "pooled")
    if raw is None:
        return
    for name, value in {**_cut(raw, first), **_pooled(raw, first)}.items():
        told = f"{name}, {WITHOUT}"
        yield told, Reading(value, told, FINAL_NORM, name if name in outputs else "pooled")


def _cut(tokens: Array, first: int) -> dict[str, Array]:
    return {TOKENS: tokens, "cls": tokens[:, 0], "patches": tokens[:, first:]}


def _pooled(tokens: Array, first: int) -> Mapping[str, Array]:
    patches = tokens[:, first:].mean(axis=1)
    return {
        "class token": tokens[:, 0],
        "mean of the patches": patches,
        "mean of all tokens": tokens.mean(axis=1),
        "greatest of the patches": tokens[:, first:].max(axis=1),
        "class token and mean of the patches": np.concatenate([tokens[:, 0], patches], axis=1),
    }
