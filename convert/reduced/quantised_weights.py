"""Weights in 8-bit whole numbers with one scale for each output, one tensor in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from vconv.convert.files.safetensors_file import PlannedTensor, TensorEntry
from vconv.convert.reduced.narrow_weights import in_float32
from vconv.convert.reduced.plan import Plan
from vconv.convert.reduced.products import WeightProduct
from vconv.convert.weights.checkpoint import values
from vconv.convert.weights.pieces import run_of
from vconv.types import Array

WHOLE, SCALE, SMOOTHING = ".int8", ".scale", ".smoothing"
"""The ends of the names of a quantised weight (inputs, outputs), of its scales (outputs,), and of what its
input is multiplied by (inputs,)."""
GREATEST = 127
"""The greatest magnitude of a quantised weight. Without -128, the numbers are symmetric."""


def smoothed(product: WeightProduct, entry: TensorEntry, smoothing: Array | None) -> Array:
    """Return the weight of a product, float32 (inputs, outputs), each row multiplied by its smoothing."""
    columns = entry.shape[1]
    run = run_of(entry, product.start * columns, product.rows * columns)
    held = np.frombuffer(b"".join(run.chunks()), np.uint8)
    weight = values(held.tobytes(), entry.dtype).reshape(product.rows, columns)
    weight = weight.T if product.transposed else weight
    return weight if smoothing is None else weight * smoothing[:, None]


def scales(weight: Array) -> Array:
    """Return the scale of each output of a weight (inputs, outputs), float32 (outputs,)."""
    greatest = np.abs(weight).max(axis=0) / GREATEST
    return np.where(greatest > 0, greatest, 1).astype(np.float32)


def _whole(product: WeightProduct, entry: TensorEntry, plan: Plan) -> Iterator[bytes]:
    weight = smoothed(product, entry, plan.quantised[product.weight].smoothing)
    yield np.rint(weight / scales(weight)).clip(-GREATEST, GREATEST).astype(np.int8).tobytes()


def _scales(product: WeightProduct, entry: TensorEntry, plan: Plan) -> Iterator[bytes]:
    yield scales(smoothed(product, entry, plan.quantised[product.weight].smoothing)).tobytes()


def _inverse(smoothing: Array) -> Iterator[bytes]:
    yield (1 / smoothing).astype(np.float32).tobytes()


def planned(
    entries: Mapping[str, TensorEntry], products: Sequence[WeightProduct], plan: Plan, both: bool = False
) -> list[PlannedTensor]:
    """Plan a weights file: the quantised weights, and the others in float32.

    Args:
        entries: the tensors of the artifact's weights file, by name.
        products: the products of a graph with weights.
        plan: the plan of the graph.
        both: whether the file also has what is quantised in float32.
    """
    made, taken, given = [], set(), set()
    for product in products:
        how = plan.quantised.get(product.weight)
        if how is None or product.weight in taken:
            continue
        taken.add(product.weight)
        entry = entries[product.stored]
        outputs, inputs = (
            (product.rows, entry.shape[1]) if product.transposed else (entry.shape[1], product.rows)
        )
        name = product.weight
        made.append(
            PlannedTensor(name + WHOLE, "I8", (inputs, outputs), partial(_whole, product, entry, plan))
        )
        made.append(PlannedTensor(name + SCALE, "F32", (outputs,), partial(_scales, product, entry, plan)))
        if how.smoothing is not None and product.given.name not in given:
            given.add(product.given.name)
            chunks = partial(_inverse, how.smoothing)
            made.append(PlannedTensor(name + SMOOTHING, "F32", (inputs,), chunks))
    left = {one.stored for one in products if one.weight not in plan.quantised}
    replaced = set() if both else {one.stored for one in products} - left
    return made + [in_float32(entry) for name, entry in entries.items() if name not in replaced]
