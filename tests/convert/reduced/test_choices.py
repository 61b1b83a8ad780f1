"""The choices that plans are made of, on graphs that are made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from weighted_graphs import graph_of, node

from vconv.convert.files.safetensors_file import read_header
from vconv.convert.reduced import choices
from vconv.convert.reduced.islands import around
from vconv.convert.reduced.plan import Plan, Quantised, Range
from vconv.types import WEIGHTS_FILE

CHANCE = np.random.default_rng(3)
W, V, B = (CHANCE.standard_normal(shape).astype(np.float32) for shape in ((4, 4), (4, 6), (4,)))
TURN = {"perm": [1, 0]}
BLOCK = [
    node("MatMul", "x w", "product"),
    node("Add", "product b", "sum"),
    node("LayerNormalization", "sum b", "norm"),
    node("Reshape", "norm rows", "moved"),
    node("MatMul", "moved v", "scores"),
    node("Softmax", "scores", "y"),
]
ROWS = {"rows": np.array([-1, 4])}
SAFE, GREAT = 32752.0, 32753.0
"""The greatest magnitude that half of float16's range holds, and the next one."""


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("product", {"PRODUCT", "SUM"}),
        ("sum", {"SUM", "NORM"}),
        ("moved", {"SCORES"}),
        ("y", {"Y"}),
    ],
)
def test_nodes_that_give_or_take_a_great_value_may_overflow(
    name: str, nodes: set[str], tmp_path: Path
) -> None:
    model = graph_of(tmp_path, BLOCK, {"w": W, "v": V, "b": B}, constants=ROWS)
    usual = dict.fromkeys(("product", "sum", "norm", "moved", "scores", "y"), SAFE)
    assert choices.overflowing(model, usual, {"w": SAFE, "v": 1.0, "b": 1.0}) == set()
    assert choices.overflowing(model, {**usual, name: GREAT}, {}) == nodes
    assert choices.overflowing(model, {**usual, name: float("nan")}, {}) == nodes


def test_a_node_with_a_great_weight_may_overflow_even_behind_moves(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", "w", "wt", **TURN),
        node("MatMul", "x wt", "low"),
        node("MatMul", "low v", "y"),
    ]
    model = graph_of(tmp_path, nodes, {"w": W, "v": V})
    assert choices.overflowing(model, {}, {"w": GREAT, "v": 1.0}) == {"LOW"}
    assert choices.overflowing(model, {}, {"w": 1.0, "v": float("inf")}) == {"Y"}


def test_norms_softmaxes_and_the_sums_that_are_normalised_are_named(tmp_path: Path) -> None:
    model = graph_of(tmp_path, BLOCK, {"w": W, "v": V, "b": B}, constants=ROWS)
    assert around(model) == {"SUM", "NORM", "Y"}
    assert choices.others(model) == {"SUM", "NORM", "Y"}
    assert choices.products(model) == {"PRODUCT", "SCORES"}


@pytest.mark.parametrize("stored", ["F32", "F16", "BF16"])
def test_the_magnitude_of_a_weight_is_that_of_its_greatest_element(stored: str, tmp_path: Path) -> None:
    weights = {"w": np.float32([[1, -3.5], [2, 0]]), "zero": np.zeros(3, np.float32)}
    graph_of(tmp_path, [node("Relu", "x", "y")], weights, stored=stored)
    assert choices.magnitudes(read_header(tmp_path / WEIGHTS_FILE)) == {"w": 3.5, "zero": 0.0}


def names(groups: list[list[choices.WeightProduct]]) -> list[list[str]]:
    return [[one.weight for one in group] for group in groups]


def test_products_of_one_value_are_one_group(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "a"), node("MatMul", "a v", "y"), node("MatMul", "x b", "z")]
    model = graph_of(tmp_path, nodes, {"w": W, "v": V, "b": W + 1}, "y z")
    assert names(choices.quantisable(model)) == [["w", "b"], ["v"]]


READERS = {
    "another operator": [node("MatMul", "x w", "a"), node("Add", "a w", "z")],
    "a moved row": [
        node("MatMul", "x w", "a"),
        node("Gather", "w first", "row"),
        node("Add", "a row", "z"),
    ],
    "a product on the left": [node("MatMul", "x w", "a"), node("MatMul", "w square", "z")],
}


@pytest.mark.parametrize("reader", READERS)
def test_a_weight_that_something_else_reads_too_is_not_quantised(reader: str, tmp_path: Path) -> None:
    nodes = [*READERS[reader], node("MatMul", "x v", "y")]
    constants = {"first": np.array([0]), "square": W}
    model = graph_of(tmp_path, nodes, {"w": W, "v": V}, "y z", constants, shape=(4, 4))
    assert names(choices.quantisable(model)) == [["v"]]


def test_a_weight_by_which_two_values_are_multiplied_is_not_quantised(tmp_path: Path) -> None:
    """Each of them would need its own range, and a plan has one for each weight."""
    nodes = [node("MatMul", "x w", "a"), node("MatMul", "a w", "b"), node("MatMul", "b v", "y")]
    model = graph_of(tmp_path, nodes, {"w": W, "v": V})
    assert names(choices.quantisable(model)) == [["v"]]


def test_ranges_are_those_of_the_smoothed_channels(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "y"), node("Transpose", "v", "vt", **TURN), node("MatMul", "x vt", "z")]
    model = graph_of(tmp_path, nodes, {"w": W, "v": np.ascontiguousarray(V.T)}, "y z")
    channels = np.float32([[-1, 0.5, -40, 0], [2, 3, 10, 0]])
    plan = choices.quantised(
        choices.quantisable(model), read_header(tmp_path / WEIGHTS_FILE), {"x": channels}
    )
    reach = np.array([2, 3, 40, 1e-5])
    rows = np.maximum(np.abs(W).max(axis=1), np.abs(V).max(axis=1))
    factors = reach**0.8 / rows**0.2
    assert set(plan.quantised) == {"w", "v"} and plan.precision == "int8"
    for how in plan.quantised.values():
        assert how.activation is not None and how.smoothing is not None
        np.testing.assert_allclose(how.smoothing, factors, rtol=1e-6)
        assert how.activation.least == pytest.approx((channels[0] / factors).min(), rel=1e-6)
        assert how.activation.greatest == pytest.approx((channels[1] / factors).max(), rel=1e-6)


@pytest.mark.parametrize(("sign", "ends"), [(1, (0.0, None)), (-1, (None, 0.0))])
def test_a_range_of_values_of_one_sign_goes_to_zero(
    sign: int, ends: tuple[float | None, float | None], tmp_path: Path
) -> None:
    model = graph_of(tmp_path, [node("MatMul", "x w", "y")], {"w": W})
    channels = np.sort(sign * np.float32([[1, 2, 3, 4], [5, 6, 7, 8]]), axis=0)
    plan = choices.quantised(
        choices.quantisable(model), read_header(tmp_path / WEIGHTS_FILE), {"x": channels}
    )
    span = plan.quantised["w"].activation
    assert span is not None
    found = (span.least, span.greatest)
    assert [one for one, end in zip(found, ends, strict=True) if end == 0.0] == [0.0]
    assert span.least < span.greatest


def test_an_input_of_zeros_and_a_weight_of_zeros_give_a_finite_plan(tmp_path: Path) -> None:
    model = graph_of(tmp_path, [node("MatMul", "x w", "y")], {"w": 0 * W})
    channels = np.zeros((2, 4), np.float32)
    plan = choices.quantised(
        choices.quantisable(model), read_header(tmp_path / WEIGHTS_FILE), {"x": channels}
    )
    how = plan.quantised["w"]
    assert how.activation == Range(0.0, 0.0) and how.smoothing is not None
    assert np.isfinite(how.smoothing).all() and (how.smoothing > 0).all()


def test_products_are_left_out_of_a_plan_by_their_weights(tmp_path: Path) -> None:
    model = graph_of(tmp_path, [node("MatMul", "x w", "a"), node("MatMul", "a v", "y")], {"w": W, "v": V})
    plan = choices.quantised_by_run(choices.quantisable(model))
    assert plan == Plan("int8-dynamic", quantised={"w": Quantised(None), "v": Quantised(None)})
    assert choices.without(plan, {"w"}) == Plan("int8-dynamic", quantised={"v": Quantised(None)})
    assert choices.mixed(["A", "B", "A"]) == Plan("mixed", frozenset("AB"))
