from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from vconv.convert.graphs.passes.resize_as_matmul import antialiased_matrix, cubic_matrix, resize_as_matmul

Distance = Callable[[Any, Any], float]

SIZES = [(5, 4), (37, 16), (37, 18), (16, 37), (4, 5), (14, 14), (7, 1), (2, 7), (1, 6), (3, 64)]
"""Lengths before and after; the published change from 518 to 224 pixels is 37 to 16 patches."""
CUBIC = {
    "mode": "cubic",
    "coordinate_transformation_mode": "half_pixel",
    "cubic_coeff_a": -0.75,
    "nearest_mode": "floor",
}
"""The attributes that the exporter writes for torch's bicubic interpolation."""


def resize_graph(
    before: tuple[Any, ...], after: tuple[Any, ...], count: int = 1, **attributes: Any
) -> ir.Graph:
    """Resize ``x`` to ``y0``, ``y1``, ...; each is doubled, so that a value after it is used."""
    kind = ir.TensorType(ir.DataType.FLOAT)
    given = ir.Value(name="x", shape=ir.Shape(before), type=kind)
    sizes = ir.Value(
        name="sizes", shape=ir.Shape([len(after)]), type=ir.TensorType(ir.DataType.INT64),
        const_value=ir.tensor(np.array([2 if isinstance(side, str) else side for side in after])),
    )  # fmt: skip
    nodes, outputs = [], []
    for number in range(count):
        resized = ir.Value(name=f"r{number}", shape=ir.Shape(after), type=kind)
        doubled = ir.Value(name=f"y{number}", shape=ir.Shape(after), type=kind)
        nodes.append(
            ir.Node("", "Resize", [given, None, None, sizes], ir.convenience.convert_attributes(attributes),
                    outputs=[resized])
        )  # fmt: skip
        nodes.append(ir.Node("", "Add", [resized, resized], outputs=[doubled]))
        outputs.append(doubled)
    return ir.Graph([given], outputs, nodes=nodes, initializers=[sizes], opset_imports={"": 18}, name="g")


def run(graph: ir.Graph, images: Any, path: Path) -> list[Any]:
    ir.save(ir.Model(graph, ir_version=8), path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": images}))


def images_of(*shape: int) -> Any:
    return np.random.default_rng(5).standard_normal(shape, dtype=np.float32)


def by_torch(images: Any, size: tuple[int, int]) -> Any:
    return torch.nn.functional.interpolate(
        torch.from_numpy(images), size=size, mode="bicubic", align_corners=False
    )


@pytest.mark.parametrize(("size", "resized"), SIZES)
def test_a_matrix_resamples_a_row_as_torch_does(size: int, resized: int, distance: Distance) -> None:
    """Each column is torch's result for an image with one pixel set, in float64."""
    lit = torch.eye(size, dtype=torch.float64)[:, None, None, :]
    stretched = torch.nn.functional.interpolate(lit, size=(1, resized), mode="bicubic", align_corners=False)
    matrix = cubic_matrix(size, resized)
    assert (matrix.dtype, matrix.shape) == (np.float32, (resized, size))
    assert distance(matrix, stretched[:, 0, 0].T) < 1e-7


@pytest.mark.parametrize(("rows", "columns"), [((5, 4), (5, 4)), ((37, 16), (37, 16)), ((16, 37), (37, 9)),
                                               ((3, 11), (9, 2))])  # fmt: skip
def test_two_matrices_resample_an_image_as_torch_does(
    rows: tuple[int, int], columns: tuple[int, int], distance: Distance
) -> None:
    images = np.random.default_rng(5).standard_normal((2, 3, rows[0], columns[0]))
    found = cubic_matrix(*rows).astype(np.float64) @ images @ cubic_matrix(*columns).T.astype(np.float64)
    assert distance(found, by_torch(images, (rows[1], columns[1]))) < 1e-7


@pytest.mark.parametrize(("size", "resized"), SIZES)
def test_an_antialiased_matrix_resamples_a_row_as_torch_does(
    size: int, resized: int, distance: Distance
) -> None:
    lit = torch.eye(size, dtype=torch.float64)[:, None, None, :]
    stretched = torch.nn.functional.interpolate(
        lit, size=(1, resized), mode="bicubic", align_corners=False, antialias=True
    )
    matrix = antialiased_matrix(size, resized)
    assert (matrix.dtype, matrix.shape) == (np.float32, (resized, size))
    assert distance(matrix, stretched[:, 0, 0].T) < 1e-7


@pytest.mark.parametrize(
    "written",
    [
        {"cubic_coeff_a": -0.5, "exclude_outside": 1},
        {"cubic_coeff_a": -0.75, "coordinate_transformation_mode": "pytorch_half_pixel"},
    ],
)
def test_an_antialiased_resize_is_torchs_whatever_the_exporter_wrote(
    written: dict[str, Any], tmp_path: Path, distance: Distance
) -> None:
    images = images_of(1, 6, 5, 7)
    graph = resize_graph((1, 6, 5, 7), (1, 6, 4, 9), **{**CUBIC, "antialias": 1, **written})
    assert resize_as_matmul(graph) == 1
    (found,) = run(graph, images, tmp_path / "graph.onnx")
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(images), size=(4, 9), mode="bicubic", align_corners=False, antialias=True
    )
    assert distance(found, 2 * expected) < 1e-6


@pytest.mark.parametrize(("size", "resized"), SIZES)
@pytest.mark.parametrize("a", [-0.5, -0.75, -1.0])
def test_a_constant_row_stays_constant(size: int, resized: int, a: float) -> None:
    np.testing.assert_allclose(cubic_matrix(size, resized, a).sum(axis=1), 1, rtol=0, atol=1e-6)


def test_resampling_to_the_same_length_changes_nothing() -> None:
    np.testing.assert_array_equal(cubic_matrix(9, 9), np.eye(9, dtype=np.float32))


@pytest.mark.parametrize(
    ("before", "after"),
    [((37, 37), (16, 16)), ((5, 5), (4, 4)), ((5, 7), (9, 3)), ((16, 16), (37, 37)), ((4, 6), (4, 9))],
)
@pytest.mark.parametrize("a", [-0.75, -0.5])
def test_the_pass_changes_no_value(
    before: tuple[int, int], after: tuple[int, int], a: float, tmp_path: Path, distance: Distance
) -> None:
    images = images_of(1, 6, *before)
    graphs = [
        resize_graph((1, 6, *before), (1, 6, *after), **{**CUBIC, "cubic_coeff_a": a}) for _ in range(2)
    ]
    assert resize_as_matmul(graphs[1]) == 1
    (expected,), (found,) = (run(graph, images, tmp_path / f"{id(graph)}.onnx") for graph in graphs)
    assert found.shape == expected.shape == (1, 6, *after)
    assert distance(found, expected) < 1e-6
    assert (distance(found, 2 * by_torch(images, after)) < 1e-6) is (a == -0.75)
    assert [node.op_type for node in graphs[1]] == ["MatMul", "MatMul", "Add"]


def test_the_library_default_of_the_coefficient_is_onnxs(tmp_path: Path, distance: Distance) -> None:
    images, graphs = images_of(1, 2, 5, 5), []
    for _ in range(2):
        graphs.append(resize_graph((1, 2, 5, 5), (1, 2, 4, 3), mode="cubic"))
    assert resize_as_matmul(graphs[1]) == 1
    (expected,), (found,) = (run(graph, images, tmp_path / f"{id(graph)}.onnx") for graph in graphs)
    assert distance(found, expected) < 1e-6


def test_names_shapes_and_types_stay_and_two_small_matrices_are_added() -> None:
    graph = resize_graph((1, 6, 5, 7), (1, 6, 4, 3), **CUBIC)
    resize_as_matmul(graph)
    high, both, _ = graph
    assert (high.outputs[0].name, both.outputs[0].name) == ("resample_0_high", "r0")
    assert both.outputs[0].shape == ir.Shape((1, 6, 4, 3))
    assert both.outputs[0].dtype == ir.DataType.FLOAT
    matrices = {
        name: tuple(value.shape or ()) for name, value in graph.initializers.items() if name != "sizes"
    }
    assert matrices == {"resample_0_rows": (4, 5), "resample_0_columns": (7, 3)}


def test_several_are_all_replaced_under_different_names(tmp_path: Path, distance: Distance) -> None:
    images, graph = images_of(1, 2, 5, 5), resize_graph((1, 2, 5, 5), (1, 2, 3, 8), count=3, **CUBIC)
    assert resize_as_matmul(graph) == 3
    assert "Resize" not in {node.op_type for node in graph}
    assert len(graph.initializers) == 1 + 3 * 2
    for found in run(graph, images, tmp_path / "graph.onnx"):
        assert distance(found, 2 * by_torch(images, (3, 8))) < 1e-6


def test_a_resize_that_is_the_graphs_output_keeps_its_name(tmp_path: Path, distance: Distance) -> None:
    graph = resize_graph((1, 2, 5, 5), (1, 2, 4, 4), **CUBIC)
    resize, add = graph
    graph.outputs[0] = resize.outputs[0]
    graph.remove(add, safe=True)
    assert resize_as_matmul(graph) == 1
    assert [value.name for value in graph.outputs] == ["r0"]
    images = images_of(1, 2, 5, 5)
    (found,) = run(graph, images, tmp_path / "graph.onnx")
    assert distance(found, by_torch(images, (4, 4))) < 1e-6


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "linear", "antialias": 1},
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        {"mode": "nearest"},
        {"coordinate_transformation_mode": "align_corners"},
        {"coordinate_transformation_mode": "asymmetric"},
        {"exclude_outside": 1},
    ],
)
def test_another_resize_is_left_as_it_is(change: dict[str, Any], tmp_path: Path) -> None:
    images = images_of(1, 2, 5, 5)
    graphs = [resize_graph((1, 2, 5, 5), (1, 2, 4, 3), **{**CUBIC, **change}) for _ in range(2)]
    nodes = list(graphs[1])
    assert resize_as_matmul(graphs[1]) == 0
    assert list(graphs[1]) == nodes
    assert set(graphs[1].initializers) == {"sizes"}
    (expected,), (found,) = (run(graph, images, tmp_path / f"{id(graph)}.onnx") for graph in graphs)
    np.testing.assert_array_equal(found, expected)


def test_torchs_own_half_pixels_are_the_same_but_for_a_side_of_one(
    tmp_path: Path, distance: Distance
) -> None:
    own = {**CUBIC, "coordinate_transformation_mode": "pytorch_half_pixel"}
    images, graphs = (
        images_of(1, 2, 5, 5),
        [resize_graph((1, 2, 5, 5), (1, 2, 4, 3), **own) for _ in range(2)],
    )
    assert resize_as_matmul(graphs[1]) == 1
    (expected,), (found,) = (run(graph, images, tmp_path / f"{id(graph)}.onnx") for graph in graphs)
    assert distance(found, expected) < 1e-6
    assert resize_as_matmul(resize_graph((1, 2, 5, 5), (1, 2, 1, 3), **own)) == 0


@pytest.mark.parametrize(
    ("before", "after"), [((5, 5), (4, 3)), ((3, 7), (9, 7)), ((1, 6), (4, 2)), ((27, 27), (31, 23))]
)
def test_a_linear_resize_of_a_table_becomes_products_that_give_what_torch_gives(
    before: tuple[int, int], after: tuple[int, int], tmp_path: Path, distance: Distance
) -> None:
    images = images_of(1, 2, *before)
    linear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    graph = resize_graph((1, 2, *before), (1, 2, *after), **linear)
    assert resize_as_matmul(graph) == 1
    (found,) = run(graph, images, tmp_path / "graph.onnx")
    exact = torch.from_numpy(images).double()
    expected = torch.nn.functional.interpolate(exact, size=after, mode="bilinear")
    assert distance(found, 2 * expected) < 1e-6


def test_a_linear_resize_of_features_is_left_as_it_is() -> None:
    linear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    for batch in (2, "batch"):
        assert resize_as_matmul(resize_graph((batch, 2, 5, 5), (batch, 2, 4, 3), **linear)) == 0


def test_a_resize_without_attributes_is_not_cubic() -> None:
    assert resize_as_matmul(resize_graph((1, 2, 5, 5), (1, 2, 4, 3))) == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1, 2, 5, "w"), (1, 2, 4, 3)),
        ((1, 2, 5, 5), (1, 4, 4, 3)),
        ((2, 5, 5), (2, 4, 3)),
        ((5, 5), (4, 3)),
    ],
)
def test_a_resize_of_unknown_or_other_dimensions_is_left_as_it_is(
    before: tuple[Any, ...], after: tuple[Any, ...]
) -> None:
    graph = resize_graph(before, after, **CUBIC)
    assert resize_as_matmul(graph) == 0
    assert [node.op_type for node in graph] == ["Resize", "Add"]


def test_the_batch_may_be_any(tmp_path: Path, distance: Distance) -> None:
    images, graph = images_of(3, 2, 5, 5), resize_graph(("batch", 2, 5, 5), ("batch", 2, 4, 3), **CUBIC)
    assert resize_as_matmul(graph) == 1
    (found,) = run(graph, images, tmp_path / "graph.onnx")
    assert distance(found, 2 * by_torch(images, (4, 3))) < 1e-6


def test_a_resize_without_shapes_is_left_as_it_is() -> None:
    graph = resize_graph((1, 2, 5, 5), (1, 2, 4, 3), **CUBIC)
    graph[0].outputs[0].shape = None
    assert resize_as_matmul(graph) == 0


def test_a_graph_without_one_is_left_as_it_is() -> None:
    graph = resize_graph((1, 2, 5, 5), (1, 2, 4, 3), count=0)
    assert resize_as_matmul(graph) == 0
