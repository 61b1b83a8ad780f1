from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import pytest

from vconv.convert.graphs.layer_norms import layer_norms

EPSILON = 3e-5
FLOAT = ir.TensorType(ir.DataType.FLOAT)


def spelled_out(**steps: str) -> ir.Model:
    """Return (x - mean) / sqrt(variance + epsilon) * scale + bias, as one graph.

    Args:
        steps: other steps than the usual ones, by name; an empty one is left out.
    """
    usual = {
        "mean": "ReduceMean<axes = [-1]>(x)",
        "difference": "Sub(x, mean)",
        "wide": "",
        "square": "Mul(difference, difference)",
        "variance": "ReduceMean<axes = [-1]>(square)",
        "small": "",
        "added": "Add(variance, epsilon)",
        "root": "Sqrt(added)",
        "normal": "Div(difference, root)",
        "narrow": "",
        "scaled": "Mul(normal, scale)",
        "sum": "Add(scaled, bias)",
        "y": "Mul(half, sum)",
    }
    lines = "\n".join(f"{name} = {step}" for name, step in (usual | steps).items() if step)
    text = f"""
        <ir_version: 7, opset_import: ["" : 13]>
        g (float[2, 8] x, float[8] scale, float[8] bias) => (float[2, 8] y)
        <float epsilon = {{3e-5}}, float half = {{0.5}}, float two = {{2.0}}, float three = {{3.0}}>
        {{ {lines} }}
    """
    return ir.from_onnx_text(text)


def as_one() -> ir.Model:
    x, scale, y = (ir.Value(name=name, type=FLOAT) for name in ("x", "scale", "y"))
    node = ir.node("LayerNormalization", [x, scale], {"epsilon": EPSILON}, outputs=[y])
    return ir.Model(ir.Graph([x, scale], [y], nodes=[node], opset_imports={"": 17}), ir_version=8)


@pytest.mark.parametrize(("make", "nodes"), [(as_one, 1), (spelled_out, 8)])
def test_a_norm_is_found_in_both_forms(make: Callable[[], ir.Model], nodes: int) -> None:
    (found,) = layer_norms(make())
    assert found.given is not None and found.scale is not None
    assert (found.given.name, found.scale.name) == ("x", "scale")
    assert found.epsilon == pytest.approx(EPSILON, rel=1e-6)
    assert len(found.nodes) == nodes


def test_the_scale_may_come_first() -> None:
    model = spelled_out()
    scaled = next(node for node in model.graph if node.outputs[0].name == "scaled")
    normal, scale = scaled.inputs
    scaled.replace_input_with(0, scale)
    scaled.replace_input_with(1, normal)
    (found,) = layer_norms(model)
    assert found.scale is scale


FORMS = {
    "a power of 2": ({"square": "Pow(difference, two)"}, 8),
    "a cast before the square": ({"wide": "Cast<to = 1>(difference)", "square": "Pow(wide, two)"}, 9),
    "a cast before the product": ({"wide": "Cast<to = 1>(difference)", "square": "Mul(wide, wide)"}, 9),
    "epsilon first": ({"added": "Add(epsilon, variance)"}, 8),
    "epsilon as a copy": ({"small": "Identity(epsilon)", "added": "Add(small, variance)"}, 8),
    "a cast before the scale": ({"narrow": "Cast<to = 1>(normal)", "scaled": "Mul(scale, narrow)"}, 9),
}
"""Forms of other exporters, each with the number of its nodes."""


@pytest.mark.parametrize("name", FORMS)
def test_a_norm_is_found_in_every_form(name: str) -> None:
    steps, nodes = FORMS[name]
    (found,) = layer_norms(spelled_out(**steps))
    assert found.given is not None and found.scale is not None
    assert (found.given.name, found.scale.name, len(found.nodes)) == ("x", "scale", nodes)
    assert found.epsilon == pytest.approx(EPSILON, rel=1e-6)
    assert found.nodes[-1].outputs[0].name == "scaled"


def test_a_norm_without_a_scale_is_found() -> None:
    (found,) = layer_norms(spelled_out(scaled="Neg(normal)"))
    assert (found.scale, found.nodes[-1].outputs[0].name) == (None, "normal")


OTHERS = {
    "of another value's mean": ("mean", 0, "bias"),
    "of a product that is no square": ("square", 1, "x"),
    "with an epsilon that is no constant": ("added", 1, "bias"),
    "without the difference": ("normal", 0, "x"),
    "of the quotient of the root": ("normal", 1, "x"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_only_resembles_a_norm_is_not_one(name: str) -> None:
    node, place, other = OTHERS[name]
    model = spelled_out()
    values = {value.name: value for value in model.graph.inputs}
    found = next(one for one in model.graph if one.outputs[0].name == node)
    found.replace_input_with(place, values[other])
    assert layer_norms(model) == []


def test_a_cube_is_no_square() -> None:
    assert layer_norms(spelled_out(square="Pow(difference, three)")) == []
