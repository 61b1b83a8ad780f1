"""The products of a graph, as made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from weighted_graphs import graph_of, node

from vconv.convert.reduced.products import multiply_adds, weight_products

SQUARE = np.ones((4, 4), np.float32)
QKV = np.ones((9, 4), np.float32)
TURN = {"perm": [1, 0]}
FORMS = {
    "as it is": ([node("MatMul", "x w", "y")], ("Y", "x", "w", "w", 0, 4, False)),
    "transposed": (
        [node("Transpose", "w", "wt", **TURN), node("MatMul", "x wt", "y")],
        ("Y", "x", "w", "w", 0, 4, True),
    ),
    "cast": (
        [node("Cast", "w", "wide", to=1), node("MatMul", "x wide", "y")],
        ("Y", "x", "w", "w", 0, 4, False),
    ),
    "cast and transposed": (
        [node("Cast", "w", "c", to=1), node("Transpose", "c", "wt", **TURN), node("MatMul", "x wt", "y")],
        ("Y", "x", "w", "w", 0, 4, True),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_product_with_a_weight_is_found(form: str, tmp_path: Path) -> None:
    nodes, expected = FORMS[form]
    (found,) = weight_products(graph_of(tmp_path, nodes, {"w": SQUARE}))
    given = found.given.name
    assert (found.node.name, given, found.weight, found.stored) == expected[:4]
    assert (found.start, found.rows, found.transposed) == expected[4:]


@pytest.mark.parametrize("stored", ["F32", "BF16"])
def test_rows_of_a_fused_weight_are_products_of_their_own(stored: str, tmp_path: Path) -> None:
    """The layout of timm: query, key and value are one weight."""
    source = [node("Cast", "qkv", "wide", to=1)] if stored != "F32" else []
    nodes = [
        *source,
        node("Split", f"{'wide' if source else 'qkv'} lengths", "q k v", axis=0),
        *(node("Transpose", one, f"{one}t", **TURN) for one in "qkv"),
        *(node("MatMul", f"x {one}t", one.upper()) for one in "qkv"),
        node("Concat", "Q K V", "y", axis=1),
    ]
    lengths = {"lengths": np.array([2, 3, 4])}
    found = weight_products(graph_of(tmp_path, nodes, {"qkv": QKV}, "y", lengths, stored=stored))
    assert [(one.weight, one.stored, one.start, one.rows, one.transposed) for one in found] == [
        ("q", "qkv", 0, 2, True),
        ("k", "qkv", 2, 3, True),
        ("v", "qkv", 5, 4, True),
    ]


OTHERS = {
    "two activations": [node("Transpose", "x", "xt", **TURN), node("MatMul", "x xt", "y")],
    "a constant inside the graph": [node("MatMul", "x c", "y")],
    "a weight on the left": [node("Transpose", "x", "xt", **TURN), node("MatMul", "w xt", "y")],
    "a weight that something computes": [node("Neg", "w", "n"), node("MatMul", "x n", "y")],
    "columns of a weight": [
        node("Split", "w two", "a b", axis=1),
        node("MatMul", "x a", "y"),
    ],
    "a weight that is not turned": [
        node("Transpose", "w", "same", perm=[0, 1]),
        node("MatMul", "x same", "y"),
    ],
    "a vector": [node("MatMul", "x v", "y")],
    "a sum": [node("Add", "x v", "y")],
}


@pytest.mark.parametrize("name", OTHERS)
def test_anything_else_is_no_product_with_a_weight(name: str, tmp_path: Path) -> None:
    constants = {"c": SQUARE, "two": np.array([2, 2])}
    model = graph_of(tmp_path, OTHERS[name], {"w": SQUARE, "v": SQUARE[0]}, "y", constants)
    assert weight_products(model) == []


def test_multiply_adds_are_counted_for_one_image(tmp_path: Path) -> None:
    kernels, transposed = np.ones((8, 3, 2, 2), np.float32), np.ones((8, 5, 2, 2), np.float32)
    nodes = [
        node("Conv", "x k", "patches", strides=[2, 2]),
        node("ConvTranspose", "patches t", "great", strides=[2, 2]),
        node("Reshape", "patches rows", "tokens"),
        node("MatMul", "tokens m", "made"),
        node("Transpose", "made", "turned", perm=[0, 2, 1]),
        node("MatMul", "made turned", "scores"),
        node("ReduceMean", "made", "mean", axes=[1], keepdims=0),
        node("Gemm", "mean g", "y"),
        node("Gemm", "mean mean", "z", transA=1),
    ]
    weights = {
        "k": kernels,
        "t": transposed,
        "m": np.ones((6, 7), np.float32),
        "g": np.ones((7, 11), np.float32),
    }
    rows = {"rows": np.array([1, -1, 6])}
    model = graph_of(tmp_path, nodes, weights, "great scores y z", rows, shape=(1, 3, 6, 4), opset=17)
    # 3 x 2 patches of 8 channels are 8 tokens of 6 channels
    assert multiply_adds(model) == {
        "PATCHES": 3 * 2 * 8 * 3 * 2 * 2,
        "GREAT": 3 * 2 * 8 * 5 * 2 * 2,
        "MADE": 8 * 7 * 6,
        "SCORES": 8 * 8 * 7,
        "Y": 7 * 11,
        "Z": 7 * 7 * 1,
    }


def test_a_symbol_in_a_shape_counts_as_one(tmp_path: Path) -> None:
    model = graph_of(tmp_path, [node("MatMul", "x w", "y")], {"w": SQUARE}, shape=("batch", 5, 4))
    assert multiply_adds(model) == {"Y": 5 * 4 * 4}


def test_a_product_of_an_unknown_shape_is_left_out(tmp_path: Path) -> None:
    model = graph_of(tmp_path, [node("MatMul", "x w", "y")], {"w": SQUARE})
    model.graph.outputs[0].shape = None
    assert multiply_adds(model) == {}
