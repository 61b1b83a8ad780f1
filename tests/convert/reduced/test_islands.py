"""The nodes of a graph that stay in float32 in every narrow type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
from weighted_graphs import graph_of, node

from vconv.convert.reduced.islands import always_wide, wide_weights

W = np.ones((4, 4), np.float32)


def test_what_depends_on_images_may_be_narrow_and_what_does_not_stays_wide(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "w w", "zeros"),
        node("Exp", "w", "table"),
        node("Transpose", "table", "turned", perm=[1, 0]),
        node("Cos", "turned", "cosines"),
        node("MatMul", "x cosines", "product"),
        node("Add", "product zeros", "y"),
    ]
    model = graph_of(tmp_path, nodes, {"w": W})
    assert always_wide(model, ir.DataType.FLOAT16) == {"ZEROS", "TABLE", "COSINES"}


def test_a_weight_is_wide_if_any_reader_is_even_behind_moves_and_casts(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", "a", "at", perm=[1, 0]),
        node("Cast", "at", "same", to=1),
        node("MatMul", "x same", "kept"),
        node("MatMul", "x b", "low"),
        node("MatMul", "low c", "both"),
        node("MatMul", "both c", "last"),
        node("Add", "last kept", "y"),
    ]
    model = graph_of(tmp_path, nodes, {"a": W, "b": W + 1, "c": W + 2})
    assert wide_weights(model, ir.DataType.FLOAT16, {"KEPT", "LAST"}) == {"a", "c"}
    assert wide_weights(model, ir.DataType.FLOAT16, ()) == set()


def test_a_node_without_a_form_in_the_type_is_wide_for_that_type_alone(tmp_path: Path) -> None:
    nodes = [node("Conv", "x k", "patches"), node("Relu", "patches", "y")]
    shape = ("n", 3, 2, 2)
    model = graph_of(tmp_path, nodes, {"k": np.ones((4, 3, 1, 1), np.float32)}, shape=shape, opset=17)
    assert always_wide(model, ir.DataType.BFLOAT16) == {"PATCHES"}
    assert always_wide(model, ir.DataType.FLOAT16) == set()
    assert wide_weights(model, ir.DataType.BFLOAT16, ()) == {"k"}
