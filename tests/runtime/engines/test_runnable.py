"""Bounds of graphs: what an engine must not be given, by whichever command."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import vconv
from vconv.artifact import manifest
from vconv.artifact.artifact import Artifact
from vconv.errors import EngineError, VconvError
from vconv.runtime.engines import runnable

small_one = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
GRAPH = "model.onnx"
ONNX = frozenset({"", "ai.onnx"})
Refused = Callable[..., Any]


def endless(model: onnx.ModelProto) -> None:
    """Put a loop of 2^62 steps before the first output."""
    graph, output = model.graph, model.graph.output[0].name
    boolean, real = TensorProto.BOOL, TensorProto.FLOAT
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["co"]), helper.make_node("Identity", ["x"], ["xo"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", boolean, []),
            helper.make_tensor_value_info("x", real, None),
        ],
        [helper.make_tensor_value_info("co", boolean, []), helper.make_tensor_value_info("xo", real, None)],
    )
    graph.initializer.append(helper.make_tensor("trip", TensorProto.INT64, [], [2**62]))
    graph.initializer.append(helper.make_tensor("go", boolean, [], [True]))
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = f"{name}_before" if name == output else name
    graph.node.append(helper.make_node("Loop", ["trip", "go", f"{output}_before"], [output], body=body))


def many(model: onnx.ModelProto) -> None:
    nodes = [helper.make_node("Identity", ["pixel_values"], [f"i{n}"]) for n in range(2**16)]
    model.graph.node.extend(nodes)


def custom(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.evil", 1))
    model.graph.node.append(helper.make_node("Run", ["pixel_values"], ["ran"], domain="com.evil"))


def function(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Identity", ["a"], ["b"])]
    model.functions.append(
        helper.make_function("com.evil", "F", ["a"], ["b"], body, [helper.make_opsetid("", 18)])
    )


def escaping(model: onnx.ModelProto) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    tensor.external_data[0].value = "../../etc/passwd"


def placed(**changed: str) -> Callable[[onnx.ModelProto], object]:
    """Say of the first weight that it lies elsewhere in its file."""

    def change(model: onnx.ModelProto) -> None:
        tensor = next(tensor for tensor in model.graph.initializer if tensor.external_data)
        for entry in tensor.external_data:
            entry.value = changed.get(entry.key, entry.value)

    return change


def reshaped(*dims: int) -> Callable[[onnx.ModelProto], object]:
    def change(model: onnx.ModelProto) -> None:
        tensor = next(tensor for tensor in model.graph.initializer if tensor.external_data)
        tensor.dims[:] = dims

    return change


PLACES: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "an offset of letters": (placed(offset="abc"), "is at 'abc', of "),
    "a negative offset": (placed(offset="-8"), "is at '-8', of "),
    "a length of letters": (placed(length="1e3"), "of '1e3' bytes"),
    "behind the end": (placed(offset=str(2**40)), "ends at byte 109951"),
    "a negative length of an axis": (reshaped(-1, 4), ", [-1, 4] of 4 bytes each, has "),
    "a huge length of an axis": (reshaped(2**40, 2**20), "of 4 bytes each, has "),
}
"""Places and shapes of a weight that do not fit its file, and what is said."""


def another_operator(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Identity", ["pixel_values"], ["copy"]))


def another_type(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "LayerNormalization")
    kept = [attribute for attribute in node.attribute if attribute.name != "epsilon"]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("epsilon", 1)])


BROKEN: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "number of nodes": (many, "expected at most 65536"),
    "control flow": (endless, "operators that run other graphs: Loop"),
    "operator sets": (custom, "operators of 'com.evil', expected only ai.onnx"),
    "external data": (escaping, "'../../etc/passwd', expected 'model.safetensors'"),
    "operators": (another_operator, "2 Identity, and 1 in the manifest"),
    "valid ONNX": (another_type, "epsilon"),
}
"""By bound: what breaks it, and what is said."""


def broken(folder: Path, change: Callable[[onnx.ModelProto], object], told: bool = False) -> Artifact:
    """Change the dynamic graph, and let the hashes fit; ``told`` if the manifest counts what is added."""
    path = folder / GRAPH
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())
    made = manifest.load(folder)
    record = made.files[GRAPH].model_copy(update=_hash(path))
    variants = list(made.variants)
    if told:
        assert variants[1].graph is not None
        counted = dict(Counter(node.op_type for node in model.graph.node))
        graph = variants[1].graph.model_copy(update={"operators": counted})
        variants[1] = variants[1].model_copy(update={"graph": graph})
    made.model_copy(update={"files": {**made.files, GRAPH: record}, "variants": tuple(variants)}).save(folder)
    return Artifact.open(folder)


def _hash(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    return {"sha256": hashlib.sha256(raw).hexdigest(), "nbytes": len(raw)}


def test_every_bound_has_a_graph_that_breaks_it() -> None:
    assert BROKEN.keys() == runnable.BOUNDS.keys()


@small_one
@pytest.mark.parametrize("bound", BROKEN)
def test_a_graph_that_breaks_a_bound_is_named_by_it_and_not_opened(
    bound: str, copied: Path, refused: Refused
) -> None:
    change, said = BROKEN[bound]
    artifact = broken(copied, change, told=bound != "operators")
    record = artifact.variant("onnx-fp32")
    name, what = runnable.broken_bound(artifact.path(record), record, ONNX)
    assert (name, said in what) == (bound, True), what
    with refused(EngineError, "is not run, because of its " + bound, said):
        vconv.load(copied, variant="onnx-fp32")


@small_one
@pytest.mark.parametrize("bound", ["control flow", "valid ONNX"])
def test_a_validation_names_it_runs_the_others_and_ends(bound: str, copied: Path) -> None:
    broken(copied, BROKEN[bound][0], told=True)
    report = vconv.validate(copied, quick=True, budget=1e-3)
    assert {check.name for check in report.checks if check.status == "failed"} == {f"{GRAPH}: {bound}"}
    rows = {row.variant: row.status for row in report.variants}
    assert (rows["onnx-fp32"], rows["onnx-fp32-npu"]) == ("failed", "passed")
    (row,) = (row for row in report.variants if row.variant == "onnx-fp32")
    assert "is not run, because of its " + bound in row.reason


@small_one
@pytest.mark.parametrize("bound", ["control flow", "external data"])
def test_bisect_refuses_it_too(bound: str, copied: Path, refused: Refused) -> None:
    broken(copied, BROKEN[bound][0])
    with refused(VconvError, "is not run, because of its " + bound):
        vconv.bisect(copied, variant="onnx-fp32")


def hidden() -> TensorProto:
    """Return a tensor that is read from a file of the system."""
    tensor = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def in_an_attribute(model: onnx.ModelProto, **value: Any) -> None:
    node = helper.make_node("Constant", [], ["constant"])
    node.attribute.add(name="value", **value)
    model.graph.node.append(node)


def sparse(**parts: TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(dims=[1], **parts)


HIDING: dict[str, Callable[[onnx.ModelProto], object]] = {
    "an attribute": lambda model: in_an_attribute(model, t=hidden()),
    "an attribute of several": lambda model: in_an_attribute(model, tensors=[hidden()]),
    "a sparse attribute": lambda model: in_an_attribute(model, sparse_tensor=sparse(values=hidden())),
    "a sparse attribute of several": lambda model: in_an_attribute(
        model, sparse_tensors=[sparse(indices=hidden())]
    ),
    "sparse values": lambda model: model.graph.sparse_initializer.append(sparse(values=hidden())),
    "sparse indices": lambda model: model.graph.sparse_initializer.append(sparse(indices=hidden())),
}


@small_one
@pytest.mark.parametrize("place", HIDING)
def test_a_file_is_found_wherever_a_graph_names_it(place: str, copied: Path) -> None:
    artifact = broken(copied, HIDING[place], told=True)
    record = artifact.variant("onnx-fp32")
    assert runnable.broken_bound(artifact.path(record), record, ONNX) == (
        "external data",
        "hidden is read from '../../etc/passwd', expected 'model.safetensors'",
    )


@small_one
def test_an_operator_set_that_no_node_uses_is_refused_too(copied: Path) -> None:
    imported = helper.make_opsetid("com.evil", 1)
    artifact = broken(copied, lambda model: model.opset_import.append(imported))
    record = artifact.variant("onnx-fp32")
    assert runnable.broken_bound(artifact.path(record), record, ONNX) == (
        "operator sets",
        "operators of 'com.evil', expected only ai.onnx",
    )


@small_one
@pytest.mark.parametrize("name", PLACES)
def test_a_weight_that_does_not_fit_its_file_is_named(name: str, copied: Path, refused: Refused) -> None:
    change, said = PLACES[name]
    artifact = broken(copied, change)
    record = artifact.variant("onnx-fp32")
    bound, what = runnable.broken_bound(artifact.path(record), record, ONNX)
    assert (bound, said in what) == ("external data", True), what
    with refused(VconvError, "is not run, because of its external data"):
        vconv.bisect(copied, variant="onnx-fp32")


@small_one
def test_a_graph_file_that_is_too_large_is_not_read(
    copied: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copied / GRAPH
    with path.open("r+b") as file:
        file.truncate(runnable.GREATEST_BYTES + 1)
    monkeypatch.setattr(onnx, "load", lambda *_, **__: pytest.fail("it was read"))
    record = Artifact.open(copied).variant("onnx-fp32")
    said = "33,554,433 bytes, expected at most 33,554,432"
    assert runnable.broken_bound(path, record, ONNX) == ("file size", said)
    with refused(EngineError, "is not run, because of its file size"):
        vconv.load(copied, variant="onnx-fp32")


@small_one
def test_a_graph_that_asks_for_too_much_memory_leaves_the_validation_incomplete(copied: Path) -> None:
    def greedy(model: onnx.ModelProto) -> None:
        huge = onnx.numpy_helper.from_array(np.array([2**20, 2**22]), "huge")
        model.graph.initializer.append(huge)
        model.graph.node.append(helper.make_node("ConstantOfShape", ["huge"], ["zeros"]))
        model.graph.node.append(helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0))
        name = model.graph.output[0].name
        for node in model.graph.node:
            for names in (node.input, node.output):
                for place, one in enumerate(names):
                    names[place] = f"{name}_before" if one == name else one
        model.graph.node.append(helper.make_node("Add", [f"{name}_before", "zero"], [name]))

    broken(copied, greedy, told=True)
    report = vconv.validate(copied, quick=True, budget=1e-3)
    assert report.status == "incomplete", [check for check in report.checks if check.status == "failed"]
    (row,) = (row for row in report.variants if row.variant == "onnx-fp32")
    assert row.status == "incomplete" and "memory" in row.reason.lower()


@small_one
def test_functions_of_a_graph_are_refused(copied: Path) -> None:
    artifact = broken(copied, function)
    record = artifact.variant("onnx-fp32")
    assert runnable.broken_bound(artifact.path(record), record, ONNX)[0] == "operator sets"
