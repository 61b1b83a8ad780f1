"""Checks of a graph in reduced precision: its weights, its types, its ranges and its scales.

Weights, ranges and scales are computed here anew, with NumPy, from the artifact's weights in float32 and from
the manifest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from vconv.artifact.artifact import Artifact
from vconv.artifact.records import VariantRecord
from vconv.artifact.reduction_records import RangeRecord, ReductionRecord
from vconv.convert.ascend.atc import KEEP_DTYPE_FILE
from vconv.convert.files.safetensors_file import TensorEntry, read_header
from vconv.convert.graphs.constants import single
from vconv.convert.graphs.inferred_types import typed
from vconv.convert.graphs.nodes import of_type, producer
from vconv.convert.reduced import choices
from vconv.convert.reduced.islands import COUNTING, MOVES, NARROW_TYPES, wide_weights
from vconv.convert.reduced.narrow_weights import DTYPES as _STORED
from vconv.convert.reduced.products import WeightProduct, multiply_adds, shaped, weight_products
from vconv.convert.reduced.quantised_weights import SCALE, SMOOTHING, WHOLE
from vconv.convert.weights.pieces import WHOLE as WHOLE_TYPES
from vconv.figures import told_apart
from vconv.precisions import MIXED
from vconv.types import GRAPHS, Array, Check, Status
from vconv.validators.checks.inspected_graph import InspectedGraph

_LEVELS, _GREATEST = 255, 127
"""The steps of an unsigned 8-bit number, and the greatest magnitude of a signed one."""
_ROUNDING = 1e-5
"""What float32 arithmetic may add to a quotient, as a part of it."""
_NARROW = {"F16": ir.DataType.FLOAT16.numpy(), "BF16": ir.DataType.BFLOAT16.numpy()}
"""NumPy's type of each narrow type, which rounds to the nearest, ties to even."""


@dataclass(frozen=True)
class _Wrong:
    what: str
    fault: str


def check_reduced(artifact: Artifact, record: VariantRecord, graph: InspectedGraph) -> list[Check]:
    """Check a graph in reduced precision against the weights in float32 and its record in the manifest."""
    reduction = record.reduction
    if reduction is None or record.weights is None:
        return []
    subject = _Subject(artifact, record, reduction, graph)
    found = []
    for name, (wrong, meaning, of_whole) in _RULES.items():
        if of_whole not in (None, record.precision not in NARROW_TYPES):
            continue
        one = next(wrong(subject), None)
        title = f"{record.path}: {name}"
        if one is None:
            found.append(Check(title, Status.PASSED, meaning))
        else:
            found.append(Check(title, Status.FAILED, one.what, one.fault))
    return found


@dataclass(frozen=True)
class _Subject:
    artifact: Artifact
    record: VariantRecord
    reduction: ReductionRecord
    graph: InspectedGraph

    def model(self, name: str) -> ir.Model:
        """Return a graph in float32 of the artifact, with the type of every value."""
        return typed(ir.load(self.artifact.folder / name))

    @cached_property
    def plain(self) -> ir.Model:
        """The graph in float32 that it was made of."""
        return self.model(self.graph.path.name)

    @cached_property
    def entries(self) -> Mapping[str, TensorEntry]:
        """The tensors of its weights file."""
        assert self.record.weights
        return read_header(self.artifact.folder / self.record.weights)


def _values(entry: TensorEntry) -> Array:
    """Return a tensor in float64, or as whole numbers."""
    raw = b"".join(entry.chunks())
    if entry.dtype == "BF16":
        wide = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        return wide.astype(np.float64).reshape(entry.shape)
    kind = {"F32": "<f4", "F16": "<f2", "I8": "i1", "I64": "<i8", "I32": "<i4", "BOOL": "?"}[entry.dtype]
    held = np.frombuffer(raw, kind).reshape(entry.shape)
    return held.astype(np.float64) if held.dtype.kind == "f" else held


def _wrong_weights(subject: _Subject) -> Iterator[_Wrong]:
    """Compare every weight that is not quantised with the one in float32, rounded to its type."""
    plain, entries = subject.artifact.entries, subject.entries
    quantised = {name for name in entries if name.endswith((WHOLE, SCALE, SMOOTHING))}
    replaced = _replaced(subject)
    missing = plain.keys() - entries.keys() - replaced
    extra = entries.keys() - plain.keys() - quantised
    if missing or extra:
        names = sorted(missing) or sorted(extra)
        yield _Wrong(f"{names[0]} is {'missing' if missing else 'not in the artifact'}", "weights")
    wide = _wide(subject)
    for name in sorted(entries.keys() & plain.keys()):
        kind = "F32" if name in wide else _STORED.get(subject.record.precision, "F32")
        expected = (plain[name].dtype if plain[name].dtype in WHOLE_TYPES else kind, plain[name].shape)
        if (entries[name].dtype, entries[name].shape) != expected:
            detail = f"{name} is {entries[name].dtype} {list(entries[name].shape)}, expected {expected[0]}"
            yield _Wrong(f"{detail} {list(expected[1])}", "weights")
            continue
        wanted, found = _values(plain[name]), _values(entries[name])
        narrow = _NARROW.get(entries[name].dtype)
        right = found == (wanted if narrow is None else wanted.astype(narrow).astype(np.float64))
        if not np.all(right):
            yield _Wrong(
                f"{int((~right).sum())} elements of {name} are not those in float32, rounded",
                subject.graph.fault_of(name),
            )


def _wide(subject: _Subject) -> set[str]:
    """Return the names of the weights that a graph of the folder reads in float32."""
    dtype = NARROW_TYPES.get(subject.record.precision)
    if dtype is None:
        return set(subject.artifact.entries)
    made = subject.artifact.manifest.variants
    graphs = {one.path.rpartition("/")[2] for one in made if one.weights == subject.record.weights}
    models = map(subject.model, sorted(graphs))
    return {name for model in models for name in wide_weights(model, dtype, subject.reduction.kept)}


def _replaced(subject: _Subject) -> set[str]:
    names = subject.reduction.quantised
    return {one.stored for one in weight_products(subject.plain) if one.weight in names}


def _wrong_types(subject: _Subject) -> Iterator[_Wrong]:
    """Compare the type in which each node computes with the plan."""
    plain, precision = subject.plain, subject.record.precision
    dtype, stay = NARROW_TYPES[precision], choices.in_float32(plain, precision, subject.reduction.kept)
    added = {node.name for node in subject.graph.model.graph} - {node.name for node in plain.graph}
    for node in typed(subject.graph.model).graph:
        if node.op_type in MOVES | COUNTING | {"Cast"} or node.name in added:
            continue
        wanted = ir.DataType.FLOAT if node.name in stay else dtype
        types = {value.dtype for value in node.outputs if value.dtype in (ir.DataType.FLOAT, dtype)}
        if types - {wanted}:
            yield _Wrong(f"{node.name} does not compute in {wanted}, as the manifest says", "manifest")


def _wrong_plan(subject: _Subject) -> Iterator[_Wrong]:
    """Compare the list for ATC, and the share of the multiply-adds, with what the plan says."""
    precision, reduction = subject.record.precision, subject.reduction
    model = subject.model(next(graph.path for graph in GRAPHS if graph.for_npu))
    if precision == MIXED:
        listed = subject.artifact.folder / precision / KEEP_DTYPE_FILE
        if listed.read_text() != choices.keep_dtype_list(model, precision, reduction.kept):
            yield _Wrong(f"{precision}/{KEEP_DTYPE_FILE} is not the list of the nodes in float32", "manifest")
    low = choices.low_products(model, precision, reduction.kept, reduction.quantised)
    share = choices.share_of(multiply_adds(shaped(model)), low)
    if abs(share - reduction.share) > _ROUNDING:
        yield _Wrong(f"{share:.4f} of the multiply-adds are in low precision", "manifest")


def _wrong_ranges(subject: _Subject) -> Iterator[_Wrong]:
    """Compare the scale and the zero point of each quantised activation with the range in the manifest."""
    ranges, found = subject.reduction.quantised, set()
    for node in of_type(subject.graph.model, "MatMul"):
        weight = producer(node.inputs[1], "DequantizeLinear")
        activation = producer(node.inputs[0], "DequantizeLinear")
        if weight is None or activation is None or weight.inputs[0] is None:
            continue
        name = (weight.inputs[0].name or "").removesuffix(WHOLE)
        found.add(name)
        yield from _wrong_range(name, ranges.get(name), activation)
        if weight.attributes.get_int("axis", 1) != 1:
            yield _Wrong(f"the scales of {name} are not those of its outputs", "scale")
    dynamic = {
        (node.inputs[1].name or "").removesuffix(WHOLE)
        for node in of_type(subject.graph.model, "MatMulInteger")
        if node.inputs[1] is not None
    }
    differing = (found | dynamic) ^ ranges.keys()
    if differing:
        yield _Wrong(f"{min(differing)} is quantised in one of the graph and the manifest alone", "manifest")


def _wrong_range(name: str, span: RangeRecord | None, node: ir.Node) -> Iterator[_Wrong]:
    if span is None:
        yield _Wrong(f"the manifest has no range for {name}", "manifest")
        return
    quantiser = producer(node.inputs[0], "QuantizeLinear")
    places = [one.inputs[place] for one in (node, quantiser) if one is not None for place in (1, 2)]
    held = [single(value) for value in places]
    if len(held) != 4 or any(one is None for one in held):
        yield _Wrong(f"the input of {name} is not quantised by constants", "graph")
        return
    scale, zero, *same = (float(one.item()) for one in held if one is not None)
    if [scale, zero] != same:
        yield _Wrong(f"the input of {name} is quantised and dequantised in two ways", "zero point")
    wanted = float(np.float32((span.greatest - span.least) / _LEVELS)) or 1.0
    point = float(np.clip(np.rint(-span.least / wanted), 0, _LEVELS))
    if abs(zero - point) > 0:
        yield _Wrong(
            f"the zero point of the input of {name} is {zero:.0f}, its range needs {point:.0f}", "zero point"
        )
    if scale < wanted * (1 - _ROUNDING):
        reach, wide = told_apart((_LEVELS - zero) * scale, span.greatest)
        yield _Wrong(f"the input of {name} is cut off at {reach}, its range goes to {wide}", "saturation")
    if scale > wanted * (1 + _ROUNDING):
        given, needed = told_apart(scale, wanted)
        yield _Wrong(f"the scale of the input of {name} is {given}, its range needs {needed}", "scale")


def _wrong_scales(subject: _Subject) -> Iterator[_Wrong]:
    """Compare each quantised weight with the one in float32, and its scales with its greatest magnitudes."""
    entries = subject.entries
    smoothing: dict[str, Array] = {}
    for product in weight_products(subject.plain):
        given = product.given.name or ""
        if product.weight not in subject.reduction.quantised:
            continue
        missing = [product.weight + end for end in (WHOLE, SCALE) if product.weight + end not in entries]
        if missing:
            yield _Wrong(f"{missing[0]} is missing", "weights")
            continue
        if product.weight + SMOOTHING in entries:
            smoothing[given] = _values(entries[product.weight + SMOOTHING])
        weight = _weight(product, subject.artifact.entries[product.stored])
        if given in smoothing:
            factors = smoothing[given]
            if factors.shape != weight.shape[:1] or not (np.isfinite(factors) & (factors > 0)).all():
                yield _Wrong(f"the smoothing of {given} is not one positive number a channel", "scale")
                continue
            weight = weight / factors[:, None]
        yield from _wrong_scale(
            product.weight, weight, *(_values(entries[product.weight + end]) for end in (WHOLE, SCALE))
        )


def _weight(product: WeightProduct, entry: TensorEntry) -> Array:
    """Return the weight of a product, (inputs, outputs), in float64."""
    rows = _values(entry)[product.start : product.start + product.rows]
    return rows.T if product.transposed else rows


def _wrong_scale(name: str, weight: Array, whole: Array, scales: Array) -> Iterator[_Wrong]:
    if whole.shape != weight.shape or scales.shape != weight.shape[1:]:
        yield _Wrong(f"{name} is quantised as {list(whole.shape)}, with {list(scales.shape)} scales", "scale")
        return
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        yield _Wrong(f"{name} has a scale that is no positive number", "scale")
        return
    wanted = np.abs(weight).max(axis=0) / _GREATEST
    wanted = np.where(wanted > 0, wanted, 1)
    differing = int((np.abs(scales - wanted) > _ROUNDING * wanted).sum())
    if differing:
        same = np.allclose(scales, scales[0], rtol=_ROUNDING, atol=0) and len(scales) > 1
        what = "one scale for all outputs" if same else f"another scale for {differing} outputs"
        yield _Wrong(f"{name} has {what}, expected the greatest magnitude of each, over 127", "scale")
    elif np.any(np.abs(whole * scales - weight) > scales * (0.5 + 127 * _ROUNDING)):
        yield _Wrong(f"{name} is not the weight in float32, rounded to its scales", "weights")


_RULES = {
    "reduced weights": (
        _wrong_weights,
        "every weight that is not quantised is the one in float32, rounded to its type",
        None,
    ),
    "types": (_wrong_types, "every node computes in the type that the plan has for it", False),
    "plan": (_wrong_plan, "its share of the multiply-adds is that of the plan", None),
    "ranges": (_wrong_ranges, "scales and zero points are those of the ranges in the manifest", True),
    "scales": (_wrong_scales, "every quantised weight has its own scale for each output", True),
}
"""By rule: a function that yields what is wrong, the text of the check if nothing is, and whether the rule is
for graphs of whole numbers alone, or for the others alone; None for both."""
