"""The choices that a plan of reduced precision is made of: islands by range, and quantised products."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import onnx_ir as ir

from vconv.convert.files.safetensors_file import TensorEntry
from vconv.convert.graphs.moves import readers
from vconv.convert.reduced.islands import COUNTING, MOVES, NARROW_TYPES, always_wide
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


def in_float32(model: ir.Model, precision: str, kept: Collection[str]) -> set[str]:
    """Return the names of the nodes of a graph in a narrow type that compute in float32.

    Args:
        model: the graph in float32.
        precision: the precision, a key of :data:`vconv.convert.reduced.islands.NARROW_TYPES`.
        kept: the names of the nodes that the plan keeps in float32.
    """
    return always_wide(model, NARROW_TYPES[precision]) | {*kept}


def keep_dtype_list(model: ir.Model, precision: str, kept: Collection[str]) -> str:
    """Return the nodes that ATC must keep in float32 if it compiles a graph in float32, a line each."""
    stay = in_float32(model, precision, kept)
    return "".join(f"{node.name}\n" for node in model.graph if node.name in stay)


def low_products(
    model: ir.Model, precision: str, kept: Collection[str], quantised: Collection[str]
) -> set[str]:
    """Return the names of the products of a graph that are in low precision.

    Args:
        model: the graph in float32.
        precision: the precision.
        kept: the names of the nodes that the plan keeps in float32.
        quantised: the names of the weights whose products are quantised.
    """
    if precision in NARROW_TYPES:
        return products(model) - in_float32(model, precision, kept)
    return {one.node.name or "" for one in weight_products(model) if one.weight in quantised}


def share_of(costs: Mapping[str, int], names: Collection[str]) -> float:
    """Return the share of all multiply-adds that some products have, from 0 to 1.

    Args:
        costs: the multiply-adds of each product, by the name of its node.
        names: the names of the products.
    """
    return sum(cost for name, cost in costs.items() if name in names) / sum(costs.values())


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
