"""The choices that a plan of reduced precision is made of: islands by range, and quantised products."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import onnx_ir as ir

from vconv.convert.files.safetensors_file import TensorEntry
from vconv.convert.graphs.moves import readers
from vconv.convert.reduced.islands import COUNTING, MOVES
from vconv.convert.reduced.plan import Plan, Quantised, Range
from vconv.convert.reduced.products import PRODUCTS, WeightProduct, weight_products
from vconv.convert.reduced.quantised_weights import smoothed
from vconv.convert.weights import checkpoint
from vconv.convert.weights.pieces import WHOLE
from vconv.precisions import INT8, INT8_DYNAMIC, MIXED
from vconv.types import Array

GREATEST_FLOAT16 = 65504.0
MARGIN = 2.0
"""How many times greater than on the calibration images a value may become before it overflows float16."""
SMOOTHING_STRENGTH = 0.8
"""The share of an outlier that moves from the activation into the weight. On trained DINOv2-small, 0.5 and
0.65 kept fewer nearest neighbours, or as many."""
_SMALL = 1e-5


def overflowing(model: ir.Model, seen: Mapping[str, float], weights: Mapping[str, float]) -> set[str]:
    """Return the names of the nodes that take or give a value that may overflow float16.

    Args:
        model: the graph in float32.
        seen: the greatest magnitude of each value on the calibration images, by name.
        weights: the greatest magnitude of each weight, by name.
    """
    magnitudes = {**weights, **seen}
    bound = GREATEST_FLOAT16 / MARGIN

    def fits(value: ir.Value | None) -> bool:
        return value is None or bool(magnitudes.get(value.name or "", 0.0) <= bound)

    found = {
        node.name
        for node in model.graph
        if node.op_type not in MOVES | COUNTING and not all(map(fits, (*node.inputs, *node.outputs)))
    }
    great = [name for name, greatest in weights.items() if not greatest <= bound]
    for name in great:
        if name in model.graph.initializers:
            found |= {node.name for node in readers(model.graph.initializers[name])}
    return {name for name in found if name}


def others(model: ir.Model) -> set[str]:
    """Return the names of the nodes that compute, and are no products."""
    return {
        node.name for node in model.graph if node.op_type not in PRODUCTS | MOVES | COUNTING and node.name
    }


def products(model: ir.Model) -> set[str]:
    """Return the names of the products of a graph."""
    return {node.name for node in model.graph if node.op_type in PRODUCTS and node.name}


def mixed(kept: Iterable[str]) -> Plan:
    """Return the plan of a graph in float16 with these nodes in float32."""
    return Plan(MIXED, frozenset(kept))


def magnitudes(entries: Mapping[str, TensorEntry]) -> dict[str, float]:
    """Return the greatest magnitude of each weight, by name."""
    return {name: checkpoint.greatest(entry) for name, entry in entries.items() if entry.dtype not in WHOLE}


def quantisable(model: ir.Model) -> list[list[WeightProduct]]:
    """List the products that may be quantised, in groups that multiply the same value.

    A product is left out if anything but such products reads its stored weight, or if several values are
    multiplied by its weight: a plan has one range for each weight.
    """
    products = weight_products(model)
    nodes = {product.node for product in products}
    given: dict[str, set[ir.Value]] = {}
    for product in products:
        given.setdefault(product.weight, set()).add(product.given)
    groups: dict[str, list[WeightProduct]] = {}
    for product in products:
        read_here = {*readers(model.graph.initializers[product.stored])} <= nodes
        if read_here and len(given[product.weight]) == 1:
            groups.setdefault(product.given.name or "", []).append(product)
    return list(groups.values())


def quantised(
    groups: Iterable[Iterable[WeightProduct]],
    entries: Mapping[str, TensorEntry],
    channels: Mapping[str, Array],
) -> Plan:
    """Return the plan of a graph whose products have ranges of a calibration.

    Args:
        groups: the products that are quantised, in groups that multiply the same value.
        entries: the tensors of the artifact's weights file, by name.
        channels: by value, the least and the greatest element of each channel on the calibration images,
            (2, C).
    """
    made: dict[str, Quantised] = {}
    for group in map(list, groups):
        least, greatest = channels[group[0].given.name or ""]
        reach = np.maximum(np.abs(least), np.abs(greatest))
        rows = np.max([_row_magnitudes(product, entries[product.stored]) for product in group], axis=0)
        strength = SMOOTHING_STRENGTH
        made_even = np.maximum(reach, _SMALL) ** strength / np.maximum(rows, _SMALL) ** (1 - strength)
        factors = made_even.astype(np.float32)
        low, high = (least / factors).min(), (greatest / factors).max()
        how = Quantised(Range(min(float(low), 0.0), max(float(high), 0.0)), factors)
        made |= {product.weight: how for product in group}
    return Plan(INT8, quantised=made)


def quantised_by_run(groups: Iterable[Iterable[WeightProduct]]) -> Plan:
    """Return the plan of a graph whose products have the ranges of each run."""
    names = [product.weight for group in groups for product in group]
    return Plan(INT8_DYNAMIC, quantised=dict.fromkeys(names, Quantised(None)))


def without(plan: Plan, weights: Collection[str]) -> Plan:
    """Return a plan in which the products with some weights are not quantised."""
    left = {name: how for name, how in plan.quantised.items() if name not in weights}
    return Plan(plan.precision, plan.kept, left)


def _row_magnitudes(product: WeightProduct, entry: TensorEntry) -> Array:
    """Return the greatest magnitude of the weights of each input, (inputs,)."""
    return np.asarray(np.abs(smoothed(product, entry, None)).max(axis=1))
