"""Files in reduced precision that were altered by hand: the check that sees each, and the class it names."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

import vconv
from vconv.artifact.artifact import Artifact
from vconv.artifact.reduction_records import RangeRecord, ReductionRecord
from vconv.precisions import REDUCED_PRECISIONS
from vconv.types import WEIGHTS_FILE, Check, Status
from vconv.validators.checks.claims import Evidence, check_claims
from vconv.validators.checks.inspected_graph import open_graph
from vconv.validators.checks.reduced import check_reduced
from vconv.validators.faults import reduced
from vconv.validators.faults.base import Fault
from vconv.validators.faults.classes import CLASSES

UP = "layer.1.mlp.up_proj.weight"
RULES = {
    False: ["reduced weights", "types", "plan"],
    True: ["reduced weights", "plan", "ranges", "scales"],
}
"""By whether the graph has products of whole numbers: the rules that apply to it."""


def checked(
    folder: Path, path: str, change: Callable[[ReductionRecord], ReductionRecord] = lambda one: one
) -> dict[str, Check]:
    """Check one graph of an artifact, with its record changed, and return the results by rule."""
    artifact = Artifact.open(folder)
    record = next(one for one in artifact.manifest.variants if one.path == path)
    assert record.reduction is not None
    record = record.model_copy(update={"reduction": change(record.reduction)})
    size = artifact.manifest.size
    graph = open_graph(folder, path, record.weights, artifact.network, size, record.batch)
    found = check_reduced(artifact, record, graph)
    rules = RULES[path.startswith("int8")]
    assert [one.name for one in found] == [f"{path}: {rule}" for rule in rules]
    return dict(zip(rules, found, strict=True))


@pytest.fixture
def copy(reduced_artifact: Path, tmp_path: Path) -> Path:
    """A copy of the artifact, to be altered."""
    return shutil.copytree(reduced_artifact, tmp_path / "copy")


def tensors(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of a weights file."""
    held = safetensors.torch.load_file(path)
    change(held)
    safetensors.torch.save_file(held, path)


def graph(path: Path, change: Callable[[onnx.GraphProto], object]) -> None:
    """Change a graph."""
    model = onnx.load(path, load_external_data=False)
    change(model.graph)
    onnx.save(model, path)


def nodes(given: onnx.GraphProto, operator: str) -> Iterator[onnx.NodeProto]:
    return (node for node in given.node if node.op_type == operator)


def constant(end: str, change: Callable[[Any], Any]) -> Callable[[onnx.GraphProto], None]:
    """Change the first constant with this end of its name, for everything that reads it."""

    def alter(given: onnx.GraphProto) -> None:
        tensor = next(one for one in given.initializer if one.name.endswith(end))
        before = numpy_helper.to_array(tensor)
        after = np.asarray(change(before)).astype(before.dtype)
        assert after != before
        tensor.CopyFrom(numpy_helper.from_array(after, tensor.name))

    return alter


def one_element(name: str) -> Callable[[dict[str, Tensor]], None]:
    def alter(held: dict[str, Tensor]) -> None:
        held[name].flatten()[3] += 1

    return alter


def truncated(held: dict[str, Tensor]) -> None:
    """Take the next number nearer to zero for each."""
    wide = held[UP].float()
    held[UP] = (wide.view(torch.int32) - 0x10000).view(torch.float32).bfloat16()


def in_float32(given: onnx.GraphProto) -> None:
    """Compute one activation in float32, between casts, and say nothing of its type."""
    node = next(nodes(given, "Softmax"))
    (taken,), (made,) = node.input, node.output
    casts = [
        helper.make_node("Cast", [taken], ["wide"], "before", to=TensorProto.FLOAT),
        helper.make_node("Cast", ["activated"], [made], "after", to=TensorProto.FLOAT16),
    ]
    node.input[0], node.output[0] = "wide", "activated"
    place = list(given.node).index(node)
    given.node.insert(place + 1, casts[1])
    given.node.insert(place, casts[0])


def other_zero_of_one(given: onnx.GraphProto) -> None:
    """Quantise with one zero point, and dequantise with another."""
    quantiser = next(nodes(given, "QuantizeLinear"))
    before = next(one for one in given.initializer if one.name == quantiser.input[2])
    value = np.array(int(numpy_helper.to_array(before)) ^ 1, np.uint8)
    given.initializer.append(numpy_helper.from_array(value, "another_zero"))
    quantiser.input[2] = "another_zero"


def scale_of_the_image(given: onnx.GraphProto) -> None:
    """Let the graph find a scale by what it is given."""
    quantiser = next(nodes(given, "QuantizeLinear"))
    place = list(given.node).index(quantiser)
    found = helper.make_node("ReduceMax", [quantiser.input[0]], ["scale_of_run"], "scale_of_run", keepdims=0)
    quantiser.input[1] = "scale_of_run"
    given.node.insert(place, found)


def by_inputs(given: onnx.GraphProto) -> None:
    """Take the scales of a square weight for its inputs."""
    weights = (node for node in nodes(given, "DequantizeLinear") if node.input[0].endswith(".int8"))
    next(weights).attribute[0].i = 0


def shared_scale(held: dict[str, Tensor]) -> None:
    """Quantise one weight anew with one scale for all of its outputs."""
    name = f"{UP}"
    weight = held[f"{name}.int8"].float() * held[f"{name}.scale"]
    scale = weight.abs().max() / 127
    held[f"{name}.int8"] = (weight / scale).round().to(torch.int8)
    held[f"{name}.scale"] = torch.full_like(held[f"{name}.scale"], float(scale))


def wider_scale(held: dict[str, Tensor]) -> None:
    held[f"{UP}.scale"][2] *= 1.01


def turned(held: dict[str, Tensor]) -> None:
    held[f"{UP}.int8"] = held[f"{UP}.int8"].T.contiguous()


def other_smoothing(held: dict[str, Tensor]) -> None:
    name = next(one for one in held if one.endswith(".smoothing"))
    held[name][0] /= 100


def without(*names: str) -> Callable[[dict[str, Tensor]], None]:
    def alter(held: dict[str, Tensor]) -> None:
        for name in names:
            del held[name]

    return alter


def first(ranges: dict[str, RangeRecord | None], value: RangeRecord | None) -> dict[str, RangeRecord | None]:
    return {**ranges, min(ranges): value}


def quantised(
    change: Callable[[dict[str, RangeRecord | None]], object],
) -> Callable[[ReductionRecord], ReductionRecord]:
    return lambda one: one.model_copy(update={"quantised": change(one.quantised)})


def kept(change: Callable[[tuple[str, ...]], object]) -> Callable[[ReductionRecord], ReductionRecord]:
    return lambda one: one.model_copy(update={"kept": change(one.kept)})


@dataclass(frozen=True)
class Altered:
    """One alteration.

    Args:
        path: the graph that is checked.
        rule: the rule that must fail, and no other but ``also``.
        fault: the class that it names.
        told: a part of what it says.
        weights: changes the weights file beside the graph.
        graph: changes the graph.
        record: changes the record in the manifest.
        also: the other rules that must fail.
    """

    path: str
    rule: str
    fault: str
    told: str
    weights: Callable[[dict[str, Tensor]], object] | None = None
    graph: Callable[[onnx.GraphProto], object] | None = None
    record: Callable[[ReductionRecord], ReductionRecord] = field(default=lambda one: one)
    also: tuple[str, ...] = ()


INT8, DYNAMIC = "int8/model.onnx", "int8-dynamic/model.onnx"
ALTERED = {
    "an element of a float16 weight": Altered(
        *("fp16/model.onnx", "reduced weights", "weights", f"1 elements of {UP} are not"),
        weights=one_element(UP),
    ),
    "a bfloat16 weight that is not rounded to the nearest": Altered(
        *("bf16/model.npu.onnx", "reduced weights", "weights", f"elements of {UP} are not those in float32"),
        weights=truncated,
    ),
    "a float32 weight beside quantised ones": Altered(
        *(INT8, "reduced weights", "registers", "1 elements of embeddings.register_tokens are not"),
        weights=one_element("embeddings.register_tokens"),
    ),
    "NaN in a weight": Altered(
        *("fp16/model.onnx", "reduced weights", "weights", f"elements of {UP} are not"),
        weights=lambda held: held[UP].fill_(float("nan")),
    ),
    "a weight less": Altered(
        *("fp16/model.onnx", "reduced weights", "weights", f"{UP} is missing"), weights=without(UP)
    ),
    "a weight more": Altered(
        *("fp16/model.onnx", "reduced weights", "weights", "another is not in the artifact"),
        weights=lambda held: held.update(another=torch.ones(2)),
    ),
    "a node in float32": Altered(
        *("fp16/model.onnx", "types", "manifest", "does not compute in FLOAT16"), graph=in_float32
    ),
    "a node that the manifest has in float32": Altered(
        *("fp16/model.onnx", "types", "manifest", "does not compute in FLOAT"),
        record=kept(lambda names: ("node_layer_norm_1", "node_MatMul_1", "node_linear", "node_softmax")),
        also=("plan", "reduced weights"),
    ),
    "nodes that the manifest has in float16": Altered(
        *("mixed/model.onnx", "types", "manifest", "does not compute in FLOAT16"),
        record=kept(lambda names: ()),
        also=("plan", "reduced weights"),
    ),
    "a range that is cut off": Altered(
        *(INT8, "ranges", "saturation", "is cut off at"), graph=constant("_scale", lambda one: one / 2)
    ),
    "a range that is too wide": Altered(
        *(INT8, "ranges", "scale", "its range needs"), graph=constant("_scale", lambda one: one * 1.01)
    ),
    "another zero point": Altered(
        *(INT8, "ranges", "zero point", "the zero point of the input of"),
        graph=constant("_zero_point", lambda one: one ^ 1),
    ),
    "two zero points": Altered(*(INT8, "ranges", "zero point", "in two ways"), graph=other_zero_of_one),
    "a scale that is no constant": Altered(
        *(INT8, "ranges", "graph", "is not quantised by constants"), graph=scale_of_the_image
    ),
    "scales along another axis": Altered(
        *(INT8, "ranges", "scale", "are not those of its outputs"), graph=by_inputs
    ),
    "a wider range in the manifest": Altered(
        *(INT8, "ranges", "zero point", "the zero point of the input of"),
        record=quantised(lambda ranges: first(ranges, RangeRecord(least=-1, greatest=1e4))),
    ),
    "no range in the manifest": Altered(
        *(INT8, "ranges", "manifest", "the manifest has no range for"),
        record=quantised(lambda ranges: first(ranges, None)),
    ),
    "a product more in the manifest": Altered(
        *(INT8, "ranges", "manifest", "another is quantised in one of the graph and the manifest alone"),
        record=quantised(lambda ranges: {**ranges, "another": RangeRecord(least=0, greatest=1)}),
    ),
    "a dynamic product more in the manifest": Altered(
        *(DYNAMIC, "ranges", "manifest", "another is quantised in one of the graph and the manifest alone"),
        record=quantised(lambda ranges: {**ranges, "another": None}),
    ),
    "one scale for all outputs": Altered(
        *(INT8, "scales", "scale", "has one scale for all outputs"), weights=shared_scale
    ),
    "another scale of one output": Altered(
        *(DYNAMIC, "scales", "scale", "has another scale for 1 outputs"), weights=wider_scale
    ),
    "an element of an 8-bit weight": Altered(
        *(DYNAMIC, "scales", "weights", f"{UP} is not the weight in float32, rounded"),
        weights=one_element(f"{UP}.int8"),
    ),
    "an 8-bit weight that is transposed": Altered(
        *(INT8, "scales", "scale", f"{UP} is quantised as"), weights=turned
    ),
    "another smoothing": Altered(
        *(INT8, "scales", "scale", "has another scale for"), weights=other_smoothing
    ),
    "an 8-bit weight less": Altered(
        *(INT8, "scales", "weights", f"{UP}.int8 is missing"), weights=without(f"{UP}.int8")
    ),
    "scales less": Altered(
        *(DYNAMIC, "scales", "weights", f"{UP}.scale is missing"), weights=without(f"{UP}.scale")
    ),
}


@pytest.mark.parametrize("name", ALTERED)
def test_an_alteration_fails_one_rule_that_names_its_class(name: str, copy: Path) -> None:
    altered = ALTERED[name]
    if altered.weights:
        tensors(copy / Path(altered.path).parent / WEIGHTS_FILE, altered.weights)
    if altered.graph:
        graph(copy / altered.path, altered.graph)
    found = checked(copy, altered.path, altered.record)
    failed = {rule: one for rule, one in found.items() if one.status is not Status.PASSED}
    assert sorted(failed) == sorted([altered.rule, *altered.also]), failed
    assert failed[altered.rule].status is Status.FAILED
    assert altered.told in failed[altered.rule].detail
    assert failed[altered.rule].fault == altered.fault
    assert altered.fault in CLASSES


@pytest.mark.parametrize("graph_path", ["model.onnx", "model.npu.onnx"])
@pytest.mark.parametrize("precision", REDUCED_PRECISIONS)
def test_a_graph_as_it_was_exported_passes_every_rule(
    precision: str, graph_path: str, reduced_artifact: Path
) -> None:
    path = f"{precision}/{graph_path}"
    if (precision, graph_path) == ("int8-dynamic", "model.npu.onnx"):
        assert not (reduced_artifact / path).exists()
        return
    assert {one.status for one in checked(reduced_artifact, path).values()} == {Status.PASSED}


def test_a_weight_below_the_least_normal_number_may_be_rounded_to_a_subnormal_one(copy: Path) -> None:
    """Weight decay leaves such numbers in trained weights."""
    small = torch.tensor([1e-40, -3e-41, 2e-45, 1.1754942e-38])
    for path, dtype in ((WEIGHTS_FILE, torch.float32), (f"bf16/{WEIGHTS_FILE}", torch.bfloat16)):

        def alter(held: dict[str, Tensor], dtype: torch.dtype = dtype) -> None:
            held[UP].flatten()[:4] = small.to(dtype)

        tensors(copy / path, alter)
    assert checked(copy, "bf16/model.onnx")["reduced weights"].status is Status.PASSED


@pytest.mark.parametrize(
    ("path", "said", "found"),
    [("fp16/model.onnx", "bf16", "FLOAT16"), ("int8/model.npu.onnx", "fp16", "INT8")],
)
def test_a_manifest_with_another_precision_of_a_graph_is_a_lie(
    path: str, said: str, found: str, reduced_artifact: Path
) -> None:
    artifact = Artifact.open(reduced_artifact)
    made = artifact.manifest
    lying = tuple(
        one.model_copy(update={"precision": said}) if one.path == path else one for one in made.variants
    )
    graphs = {
        one.path: open_graph(reduced_artifact, one.path, one.weights, artifact.network, made.size, one.batch)
        for one in made.variants
        if one.path.endswith(".onnx")
    }
    (true,) = check_claims(Evidence(artifact, graphs))
    assert (true.name, true.status) == ("manifest", Status.PASSED)
    told = replace(artifact, manifest=made.model_copy(update={"variants": lying}))
    wrong = {one.name: one for one in check_claims(Evidence(told, graphs))}["manifest: precision"]
    assert (wrong.status, wrong.fault) == (Status.FAILED, "manifest")
    assert wrong.detail.startswith("the narrowest type of ")
    assert wrong.detail.endswith(f"its files say {found}")


@pytest.mark.parametrize("fault", reduced.FAULTS, ids=lambda fault: fault.name)
def test_faults_of_reduced_precision_are_caught_and_named(
    reduced_artifact: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vconv.workflows.selftest.FAULTS", (fault,))
    document = vconv.selftest(reduced_artifact, clean_runs=0)
    assert [(row["class"], row["caught"]) for row in document["faults"]] == [(fault.kind, True)]


def test_a_graph_in_float32_is_not_checked(reduced_artifact: Path) -> None:
    artifact = Artifact.open(reduced_artifact)
    record = artifact.variant("onnx-fp32")
    size = artifact.manifest.size
    opened = open_graph(reduced_artifact, record.path, record.weights, artifact.network, size, None)
    assert check_reduced(artifact, record, opened) == []
