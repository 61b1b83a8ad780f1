from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from vconv.convert.graphs.passes.col2im_as_conv_transpose import col2im_as_conv_transpose

FLOAT, WHOLE = ir.TensorType(ir.DataType.FLOAT), ir.TensorType(ir.DataType.INT64)
FOLDS = {
    "overlapping, with a border": dict(
        output_size=(14, 10), kernel_size=(3, 3), stride=(2, 2), padding=(1, 1)
    ),
    "side by side": dict(output_size=(8, 12), kernel_size=(4, 2), stride=(4, 2)),
    "with rows that no window reaches": dict(output_size=(8, 9), kernel_size=(3, 3), stride=(3, 2)),
    "with holes": dict(output_size=(9, 9), kernel_size=(3, 2), dilation=(2, 3)),
}


def folding(fold: torch.nn.Fold, channels: int | str) -> ir.Graph:
    """Make a graph that folds columns, as the exporter writes it; of a known number of channels, or not."""
    x, y = (ir.Value(name=name, type=FLOAT) for name in ("x", "y"))
    x.shape = ir.Shape(["n", channels, "windows"])
    sizes = [
        ir.Value(name=name, shape=ir.Shape([2]), type=WHOLE, const_value=ir.tensor(np.array(size), name=name))
        for name, size in (("image", fold.output_size), ("block", fold.kernel_size))
    ]
    options = {"strides": fold.stride, "dilations": fold.dilation, "pads": (*fold.padding, *fold.padding)}
    made = ir.node("Col2Im", [x, *sizes], options, outputs=[y])
    return ir.Graph([x], [y], nodes=[made], initializers=sizes, opset_imports={"": 18}, name="g")


@pytest.mark.parametrize("name", FOLDS)
def test_a_fold_becomes_a_transposed_convolution_with_the_same_sums(name: str, tmp_path: Path) -> None:
    options = {"dilation": (1, 1), "padding": (0, 0), "stride": (1, 1), **FOLDS[name]}
    fold = torch.nn.Fold(**options)  # type: ignore[arg-type]
    shape = (2, 5, *options["output_size"])
    del options["output_size"]
    columns = torch.nn.functional.unfold(torch.randn(shape), **options)  # type: ignore[arg-type]
    graph = folding(fold, columns.shape[1])
    assert col2im_as_conv_transpose(graph) == 1
    assert {node.op_type for node in graph} == {"Reshape", "ConvTranspose"}
    ir.save(ir.Model(graph, ir_version=8), tmp_path / "g.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "g.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["y"], {"x": columns.numpy()})
    np.testing.assert_allclose(found, fold(columns).numpy(), rtol=0, atol=1e-6)


def test_a_fold_of_an_unknown_number_of_channels_is_left_as_it_is() -> None:
    graph = folding(torch.nn.Fold((4, 4), (2, 2), (1, 1), (0, 0), (2, 2)), "channels")
    assert col2im_as_conv_transpose(graph) == 0
    assert [node.op_type for node in graph] == ["Col2Im"]
