"""Faults of an export: a graph that was exported with a wrong setting, and is valid in itself."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vconv.artifact.artifact import read_config
from vconv.convert.architectures.base import ANY_SIZE, Capability
from vconv.convert.architectures.layer_outputs import find_layer
from vconv.convert.architectures.outputs import own_outputs
from vconv.convert.graphs import tracing
from vconv.convert.libraries.readers import network
from vconv.convert.patches import rope_periods, table
from vconv.types import CONFIG_FILE, INPUT
from vconv.validators.faults.base import Fault
from vconv.validators.faults.graphs import GRAPH, in_graph
from vconv.validators.faults.workshop import ArtifactCopy

_WITHOUT_REGISTERS: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "dinov3_vit": lambda config: {**config, "num_register_tokens": 0},
    "dinov2_with_registers": lambda config: {**config, "num_register_tokens": 0},
    "timm dinov3": lambda config: _argued(config, num_reg_tokens=0),
    "timm dinov2": lambda config: _argued(config, reg_tokens=0),
}
"""By family: changes the configuration to that of the network without registers."""


def _argued(config: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    return {**config, "model_args": {**config.get("model_args", {}), **arguments}}


def export_again(
    shop: ArtifactCopy,
    size: tuple[int, int],
    without_patch: str = "",
    config: dict[str, Any] | None = None,
    any_size: bool = False,
) -> None:
    """Export the dynamic graph of a copy again: for another size, without a patch, or of another network.

    Args:
        shop: the copy.
        size: (height, width) of the images.
        without_patch: the name of a patch to leave out.
        config: the configuration; None for the artifact's own.
        any_size: whether the graph takes images of any size.
    """
    given = dict(read_config(shop.folder)) if config is None else config
    net = network(given, shop.entries)
    kept = own_outputs(net)
    asked = tuple(name for name in shop.network.asked if name in kept or find_layer(name))
    net = replace(net, asked=asked)
    applied = {patch.name for patch in shop.made.patches if patch.applied}
    (opset,) = {record.graph.opset for record in shop.made.variants if record.graph and record.path == GRAPH}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / CONFIG_FILE).write_text(json.dumps(given))
        patches = table.named(applied - {without_patch})
        traced = tracing.trace(folder, net, patches, size, opset, shop.entries, any_size)
    shop.changed.add(GRAPH)
    tracing.write_graph(shop.folder / GRAPH, traced, None, net.numbers.patch if any_size else 0)


def _without_registers(shop: ArtifactCopy) -> None:
    change = _WITHOUT_REGISTERS[shop.network.layout.family]
    export_again(shop, shop.made.size, config=change(dict(read_config(shop.folder))))


def _with_librarys_periods(shop: ArtifactCopy) -> None:
    any_size = shop.made.sides is not None
    export_again(shop, shop.made.size, without_patch=rope_periods.PATCH.name, any_size=any_size)


def _of_another_size(shop: ArtifactCopy) -> None:
    """Export for images one patch higher; only declare that size if the network takes images of one size."""
    height, width = shop.made.size
    higher = height + shop.network.numbers.patch
    if ANY_SIZE in shop.network.numbers.flags:
        export_again(shop, (higher, width))
        return

    def declare(shop: ArtifactCopy, graph: Any) -> None:
        (images,) = (value for value in graph.input if value.name == INPUT)
        images.type.tensor_type.shape.dim[2].dim_value = higher

    in_graph(declare)(shop)


def _no_registers(shop: ArtifactCopy) -> str:
    if not shop.network.registers:
        return "it has no registers"
    family = shop.network.layout.family
    return (
        "" if family in _WITHOUT_REGISTERS else f"how a {family} is configured without registers is not known"
    )


def _no_periods(shop: ArtifactCopy) -> str:
    return "" if shop.applies(rope_periods.PATCH.name) else "no patch truncates its periods"


_GRID = (Capability.TOKEN_GRID,)

FAULTS = (
    Fault("a graph without registers", "registers", _without_registers, _no_registers, needs=_GRID),
    Fault("untruncated periods in a graph", "rope periods", _with_librarys_periods, _no_periods),
    Fault("a graph of another size", "image size", _of_another_size, needs=_GRID),
)
