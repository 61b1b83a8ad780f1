from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest

from vconv.convert.graphs.passes.name_axes import name_axes

PATCH = 16


def value(name: str, *dims: int | str | None) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(dims), type=ir.TensorType(ir.DataType.FLOAT))


def named(given: tuple[Any, ...], *made: tuple[Any, ...], inner: tuple[Any, ...] = ()) -> list[list[Any]]:
    """Return the dimensions of the input, of an inner value, and of the outputs, after the pass."""
    values = [
        value("x", *given),
        value("inner", *inner),
        *(value(f"y{n}", *dims) for n, dims in enumerate(made)),
    ]
    nodes = [ir.Node("", "A", values[:1], outputs=[one]) for one in values[1:]]
    graph = ir.Graph(values[:1], values[2:], nodes=nodes, opset_imports={"": 18})
    assert name_axes(graph, PATCH)
    shapes = [tuple(one.shape or ()) for one in values]
    return [[dim if isinstance(dim, int) else dim.value for dim in shape] for shape in shapes]


def test_every_axis_that_follows_from_the_size_has_a_name() -> None:
    found = named(
        ("s99", 3, "16*s39", "16*s94"),
        ("s99", 96),
        ("s99", "s39*s94", 96),
        ("s99", "s39*s94 + 5", 96),
        ("s99", 96, "s39", "s94"),
        ("s99", "(16*s39)//16*((16*s94)//16)", 4),
        inner=("s99", "s94*s39 + 5", "CeilToInt(FloatTrueDiv(ToFloat(s39) - 0.5, 1.0))", "s39*s94 + 1"),
    )
    assert found == [
        ["batch", 3, "height", "width"],
        ["batch", "tokens", None, None],
        ["batch", 96],
        ["batch", "patches", 96],
        ["batch", "tokens", 96],
        ["batch", 96, "rows", "columns"],
        ["batch", "patches", 4],
    ]


@pytest.mark.parametrize("dim", ["s39 + s94", "2*s39*s94", "s39*s94 - 1", "s39*s94*s99"])
def test_an_output_with_an_axis_of_no_name_is_an_error(dim: str) -> None:
    with pytest.raises(ValueError, match="the output y0 has the shape .*, of which no name is known"):
        named(("s99", 3, "16*s39", "16*s94"), ("s99", dim, 96))


def test_outputs_of_different_numbers_of_tokens_are_an_error() -> None:
    with pytest.raises(ValueError, match="different numbers of tokens"):
        named(("s99", 3, "16*s39", "16*s94"), ("s99", "s39*s94 + 1", 96), ("s99", "s39*s94 + 5", 96))


@pytest.mark.parametrize(
    "given", [("s99", 3, 64, "16*s94"), ("s99", 3, "16*s39", 64), (2, 3, "16*s39", "16*s94"), ("s99", 3)]
)
def test_an_input_that_the_trace_fixed_is_an_error(given: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="tracing fixed its batch or its size"):
        named(given, ("s99", 96))
