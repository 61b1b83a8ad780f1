from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from vconv.convert.graphs.passes.base import PassContext, PassError, run_passes
from vconv.convert.graphs.passes.range_as_slice import PASS, range_as_slice

FLOAT, WHOLE = ir.TensorType(ir.DataType.FLOAT), ir.TensorType(ir.DataType.INT64)


def counting(start: float, step: float, *, cast: bool = True) -> ir.Graph:
    """Count from ``start`` to the whole number ``n``, as the exporter writes ``torch.arange``."""
    n = ir.Value(name="n", shape=ir.Shape([]), type=WHOLE if cast else FLOAT)
    constants = [
        ir.Value(
            name=name, shape=ir.Shape([]), type=FLOAT, const_value=ir.tensor(np.float32(value), name=name)
        )
        for name, value in (("start", start), ("step", step))
    ]
    y = ir.Value(name="y", shape=ir.Shape([None]), type=FLOAT)
    limit = ir.Value(name="limit", shape=ir.Shape([]), type=FLOAT)
    made = [ir.node("Cast", [n], {"to": 1}, outputs=[limit])] if cast else []
    made.append(ir.node("Range", [constants[0], limit if cast else n, constants[1]], outputs=[y]))
    return ir.Graph([n], [y], nodes=made, initializers=constants, opset_imports={"": 18}, name="g")


@pytest.mark.parametrize("start", [0.0, 0.5, 0.25])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_a_range_becomes_the_beginning_of_a_table(start: float, count: int, tmp_path: Path) -> None:
    graph = counting(start, 1.0)
    assert range_as_slice(graph, 9) == 1
    assert "Range" not in {node.op_type for node in graph}
    ir.save(ir.Model(graph, ir_version=8), tmp_path / "g.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "g.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["y"], {"n": np.array(count)})
    np.testing.assert_array_equal(found, np.arange(start, count, dtype=np.float32))


def test_a_range_of_whole_numbers_from_0_becomes_one_too(tmp_path: Path) -> None:
    n, y = (ir.Value(name=name, shape=ir.Shape([]), type=WHOLE) for name in ("n", "y"))
    y.shape = ir.Shape([None])
    ends = [
        ir.Value(name=f"c{value}", shape=ir.Shape([]), type=WHOLE, const_value=ir.tensor(np.int64(value)))
        for value in (0, 1)
    ]
    made = ir.node("Range", [ends[0], n, ends[1]], outputs=[y])
    graph = ir.Graph([n], [y], nodes=[made], initializers=ends, opset_imports={"": 18}, name="g")
    assert range_as_slice(graph, 9) == 1
    ir.save(ir.Model(graph, ir_version=8), tmp_path / "g.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "g.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["y"], {"n": np.array(7)})
    assert (found.dtype, found.tolist()) == (np.dtype(np.int64), list(range(7)))


@pytest.mark.parametrize(("start", "step", "cast"), [(0.5, 2.0, True), (1.0, 1.0, True), (-0.5, 1.0, True),
                                                     (0.5, 1.0, False)])  # fmt: skip
def test_any_other_range_is_an_error(start: float, step: float, cast: bool) -> None:
    graph = counting(start, step, cast=cast)
    with pytest.raises(PassError, match="ensures 'no Range', but there are 1"):
        run_passes(ir.Model(graph, ir_version=8), [PASS], PassContext(greatest_grid=9))


def test_a_graph_without_one_is_left_as_it_is() -> None:
    graph: Any = counting(0.5, 1.0)
    range_as_slice(graph, 9)
    assert range_as_slice(graph, 9) == 0
