from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from packaging.version import Version

from vconv.convert.graphs.passes.fix_batch import fix_batch

FLOAT, INT64 = ir.TensorType(ir.DataType.FLOAT), ir.TensorType(ir.DataType.INT64)
WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3)


def value(name: str, *dims: int | str | None, kind: ir.TensorType = FLOAT) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(dims), type=kind)


def constant(name: str, array: Any) -> ir.Value:
    tensor = ir.tensor(np.asarray(array), name=name)
    return ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)


def batch_model(external: Path | None = None) -> ir.Model:
    """Expand a row to the batch, as a class token is, and multiply the images by a weight."""
    images, made = value("x", "s99", 4), value("y", "s99", 3)
    shape = value("shape", 2, kind=INT64)
    first = value("first", 1, kind=INT64)
    target = value("target", 2, kind=INT64)
    rows, sums = value("rows", "s99", 4), value("sums", "s99", 4)
    flat, back = value("flat", "4*s99"), value("back", "s99", 4)
    weight = constant("w", WEIGHT)
    if external:
        external.write_bytes(WEIGHT.tobytes())
        weight.const_value = ir.ExternalTensor(
            location=external.name, offset=0, length=WEIGHT.nbytes, dtype=ir.DataType.FLOAT,
            shape=ir.Shape(WEIGHT.shape), name="w", base_dir=str(external.parent),
        )  # fmt: skip
    constants = [
        constant("row", np.float32([[1, 2, 3, 4]])), constant("zero", np.int64([0])),
        constant("one", np.int64([1])), constant("four", np.int64([4])),
        constant("flat_shape", np.int64([-1])), constant("back_shape", np.int64([-1, 4])),
    ]  # fmt: skip
    row, zero, one, four, flat_shape, back_shape = constants
    nodes = [
        ir.Node("", "Shape", [images], outputs=[shape]),
        ir.Node("", "Slice", [shape, zero, one], outputs=[first]),
        ir.Node(
            "", "Concat", [first, four], ir.convenience.convert_attributes({"axis": 0}), outputs=[target]
        ),
        ir.Node("", "Expand", [row, target], outputs=[rows]),
        ir.Node("", "Add", [images, rows], outputs=[sums]),
        ir.Node("", "Reshape", [sums, flat_shape], outputs=[flat]),
        ir.Node("", "Reshape", [flat, back_shape], outputs=[back]),
        ir.Node("", "MatMul", [back, weight], outputs=[made]),
    ]
    graph = ir.Graph(
        [images], [made], nodes=nodes, initializers=[*constants, weight], opset_imports={"": 18}, name="g"
    )
    return ir.Model(graph, ir_version=8)


def dims(found: ir.Value) -> list[int | str | None]:
    assert found.shape is not None
    return [dim if isinstance(dim, int) else dim.value for dim in found.shape]


def run(model: ir.Model, path: Path, images: Any) -> Any:
    ir.save(model, path)
    return onnxruntime.InferenceSession(path).run(None, {"x": images})[0]


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_batch_of_every_value_becomes_a_number(batch: int) -> None:
    model = batch_model()
    fix_batch(model, batch, 2**20)
    named = {made.name: dims(made) for node in model.graph for made in node.outputs}
    assert dims(model.graph.inputs[0]) == [batch, 4]
    assert dims(model.graph.outputs[0]) == [batch, 3]
    assert named["flat"] == [4 * batch]
    assert [name for name, sides in named.items() if not all(isinstance(side, int) for side in sides)] == []


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_outputs_do_not_change(batch: int, tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((batch, 4), dtype=np.float32)
    expected = run(batch_model(), tmp_path / "dynamic.onnx", images)
    model = batch_model()
    fix_batch(model, batch, 2**20)
    np.testing.assert_array_equal(run(model, tmp_path / "static.onnx", images), expected)
    np.testing.assert_allclose(expected, (images + np.float32([1, 2, 3, 4])) @ WEIGHT, rtol=0, atol=1e-4)


def test_what_is_computed_from_the_shape_is_folded_away() -> None:
    model = batch_model()
    fix_batch(model, 2, 2**20)
    operators = [node.op_type for node in model.graph]
    assert not {"Shape", "Slice", "Concat", "Expand"} & set(operators)
    assert operators[-1] == "MatMul"


@pytest.mark.skipif(
    Version(version("onnxscript")) < Version("0.6"),
    reason="onnxscript 0.5 holds the input's size to the limit",
)
def test_a_constant_beyond_the_limit_is_not_folded() -> None:
    model = batch_model()
    fix_batch(model, 1000, 100)
    sizes = [value.const_value.size for value in model.graph.initializers.values() if value.const_value]
    sizes += [node.attributes["value"].as_tensor().size for node in model.graph if node.op_type == "Constant"]
    assert max(sizes) <= 100


def test_no_weight_is_read_or_moved(tmp_path: Path) -> None:
    model = batch_model(tmp_path / "weights")
    tensor = model.graph.initializers["w"].const_value
    (tmp_path / "weights").unlink()
    fix_batch(model, 2, 2**20)
    assert model.graph.initializers["w"].const_value is tensor
    assert isinstance(tensor, ir.ExternalTensor)
    assert (tensor.location, tensor.offset, tensor.length) == ("weights", 0, WEIGHT.nbytes)


def test_a_static_dimension_and_one_without_a_name_stay() -> None:
    model = batch_model()
    output = model.graph.outputs[0]
    output.shape = ir.Shape([None, 3])
    fix_batch(model, 2, 0)
    assert dims(output)[1] == 3
    assert dims(output)[0] in (None, 2)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [("s99", 6), ("12*s99", 72), ("s99 + 1", 7), ("s99*s99", 36), ("u0", "u0"), ("s990", "s990")],
)
def test_expressions_of_the_batch_are_computed_and_other_symbols_left(
    expression: str, expected: int | str
) -> None:
    given, made = value("x", "s99", 2), value("y", expression, 5)
    node = ir.Node("", "Odd", [given], outputs=[made])
    graph = ir.Graph([given], [made], nodes=[node], opset_imports={"": 18}, name="g")
    fix_batch(ir.Model(graph, ir_version=8), 6, 0)
    assert dims(made) == [expected, 5]


@pytest.mark.parametrize("shape", [(2, 3), (None, 3)])
def test_a_graph_without_a_symbolic_batch_is_an_error(shape: tuple[int | None, ...]) -> None:
    given = value("x", *shape)
    made = value("y", 2)
    graph = ir.Graph([given], [made], nodes=[ir.Node("", "Odd", [given], outputs=[made])],
                     opset_imports={"": 18}, name="g")  # fmt: skip
    with pytest.raises(ValueError, match="tracing fixed its batch"):
        fix_batch(ir.Model(graph, ir_version=8), 2, 0)
