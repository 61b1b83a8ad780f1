"""What a graph gives where the published fusion passes of CANN fire."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

import vconv
from vconv.convert.ascend.fusions.table import FUSIONS
from vconv.runtime.simulation.arithmetic import EXACT, PROFILES, Arithmetic
from vconv.runtime.simulation.fusions import IMITATIONS, fused
from vconv.runtime.simulation.graphs import rewritten
from vconv.types import Array

OLD = Path(__file__).parents[2] / "data" / "artifact-0.1.0"
X = np.random.default_rng(0).normal(scale=2, size=(3, 8)).astype(np.float32)


def run(model: onnx.ModelProto, **inputs: Array) -> list[Any]:
    onnx.checker.check_model(model, full_check=True)
    return list(onnxruntime.InferenceSession(model.SerializeToString()).run(None, inputs))


def stock(module: torch.nn.Module, opset: int = 18) -> onnx.ModelProto:
    """Export a module of one input by torch alone."""
    given = (torch.from_numpy(X),)
    program = torch.onnx.export(module, given, dynamo=True, opset_version=opset, verbose=False)
    assert program is not None
    return program.model_proto


class TwoGelus(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first = functional.gelu(x)
        return first, functional.gelu(first + 1)


def test_a_gelu_that_is_replaced_gives_the_tanh_form_wherever_its_result_goes() -> None:
    model = stock(TwoGelus().eval())
    before = model.SerializeToString()
    made, replaced = fused(model)
    assert ([one.operator for one in replaced], model.SerializeToString()) == (["Gelu"] * 2, before)
    # Each was five nodes: none but the last one's value is left.
    values = [name for node in made.graph.node for name in node.output]
    assert [len(one.values) for one in replaced] == [5, 5]
    assert [[name in values for name in one.values] for one in replaced] == [[*[False] * 4, True]] * 2
    x = torch.from_numpy(X)
    first = functional.gelu(x, approximate="tanh")
    expected = first, functional.gelu(first + 1, approximate="tanh")
    (name,) = (value.name for value in made.graph.input)
    for value, wanted in zip(run(made, **{name: X}), expected, strict=True):
        np.testing.assert_allclose(value, wanted.numpy(), rtol=0, atol=1e-6)
    assert [value.name for value in made.graph.output] == [value.name for value in model.graph.output]
    kinds = Counter(node.op_type for node in made.graph.node)
    assert (kinds["Erf"], kinds["Tanh"]) == (0, 2)


def test_a_norm_of_a_float16_sum_gives_float16() -> None:
    nodes = [
        helper.make_node("Add", ["x", "x"], ["summed"]),
        helper.make_node("Cast", ["summed"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("LayerNormalization", ["wide", "scale"], ["y"], epsilon=1e-3, axis=-1),
    ]
    half = X.astype(np.float16)
    values = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT16, [3, 8]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 8]),
    ]
    scale = numpy_helper.from_array(np.linspace(1, 2, 8, dtype=np.float32), "scale")
    model = helper.make_model(
        helper.make_graph(nodes, "g", values[:1], values[1:], [scale]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    model = onnx.shape_inference.infer_shapes(model)
    made, replaced = fused(model)
    wide = torch.from_numpy((half + half).astype(np.float32))
    expected = functional.layer_norm(wide, (8,), torch.linspace(1, 2, 8), eps=1e-3)
    (before,), (after,) = run(model, x=half), run(made, x=half)
    assert [(one.operator, one.values) for one in replaced] == [("AddLayerNorm", ("y",))]
    np.testing.assert_allclose(before, expected.numpy(), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(after, before.astype(np.float16).astype(np.float32))


def test_every_operator_of_a_harmful_pass_is_imitated() -> None:
    assert {fusion.becomes for fusion in FUSIONS.values()} >= set(IMITATIONS)
    assert set(IMITATIONS) == {"Gelu", "AddLayerNorm", "LayerNorm"}


def test_a_float16_norm_without_a_scale_is_multiplied_by_the_number_of_the_bits_1() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float16[3, 8] x) => (float16[3, 8] y)
        {
            two = Constant<value = float {2.0}>()
            tiny = Constant<value = float {0.001}>()
            epsilon = Cast<to = 10>(tiny)
            mean = ReduceMean<axes = [-1]>(x)
            centred = Sub(x, mean)
            squares = Pow(centred, two)
            variance = ReduceMean<axes = [-1]>(squares)
            added = Add(variance, epsilon)
            root = Sqrt(added)
            y = Div(centred, root)
        }
    """
    model = onnx.parser.parse_model(text)
    half = X.astype(np.float16)
    made, found = fused(model)
    (before,), (after,) = run(model, x=half), run(made, x=half)
    assert len(found) == 1
    least = np.array([1], np.uint16).view(np.float16)
    np.testing.assert_array_equal(after, before * least)
    assert np.abs(before).max() > 1 > 1e-6 > np.abs(after).max() > 0


def test_fusions_are_a_cause_of_their_own() -> None:
    device = Arithmetic("tanh", "hf32", "fp32", fusions="on")
    assert device.causes == ("gelu", "convolution", "fusions")
    model = stock(torch.nn.GELU().eval())
    for arithmetic, count in ((device.only("fusions"), 1), (PROFILES["910b"], 0), (EXACT, 0)):
        assert rewritten(model, arithmetic)[1]["fusions"] == count


@pytest.mark.parametrize("fusions", ["on", "off"])
def test_version_0_1_0_loses_its_exact_gelu_where_fusions_are_on(fusions: str) -> None:
    images = np.random.default_rng(1).normal(size=(2, 3, 32, 32)).astype(np.float32)

    def outputs(**options: str) -> dict[str, Array]:
        with vconv.load(OLD, variant="onnx-fp32", **options) as session:  # type: ignore[arg-type]
            return dict(session(images[..., : session.size[0], : session.size[1]]))

    found = outputs(device="npu-sim", profile="910b", fusions=fusions, hf32=())  # type: ignore[arg-type]
    for name, value in outputs().items():
        error = np.linalg.norm(found[name] - value) / np.linalg.norm(value)
        assert (error > 1e-5) == (fusions == "on"), name


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_a_validation_with_fusions_says_what_they_changed(copied: Path) -> None:
    report = vconv.validate(copied, device="npu-sim", fusions="on", quick=True, budget=1e-3)
    assert report.passed
    for row in report.variants:
        assert row.prediction is not None
        assert row.prediction.arithmetic["fusions"] == "on"
        assert row.prediction.changed["fusions"] == 0
