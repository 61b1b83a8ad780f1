from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from vconv.convert.files.safetensors_file import TensorEntry, read_header
from vconv.convert.weights.pieces import Piece, assemble, run_of, taken_back


@pytest.fixture(params=[np.float32, np.float16])
def entry(request: pytest.FixtureRequest, tmp_path: Path) -> TensorEntry:
    array = np.arange(12, dtype=request.param).reshape(4, 3)
    safetensors.numpy.save_file({"x": array}, tmp_path / "file")
    return read_header(tmp_path / "file")["x"]


def values(entry: TensorEntry) -> list[float]:
    dtype = {"F32": "<f4", "F16": "<f2"}[entry.dtype]
    return [float(value) for value in np.frombuffer(b"".join(entry.chunks()), dtype)]


def test_a_run_is_consecutive_elements_of_any_type(entry: TensorEntry) -> None:
    assert values(run_of(entry, 3, 5)) == [3, 4, 5, 6, 7]
    assert values(run_of(entry, 0, 12)) == values(entry)


def test_every_piece_goes_to_its_place(entry: TensorEntry) -> None:
    pieces = (Piece("a", (2, 3), 0, 6), Piece("b", (6,), 0, 6))
    found = assemble([(entry, "", pieces)])
    assert {name: assembly.shape for name, assembly in found.items()} == {"a": (2, 3), "b": (6,)}
    assert [values(run) for run in found["b"].in_order()] == [[6, 7, 8, 9, 10, 11]]


def test_a_tensor_that_is_not_split_keeps_its_entry(entry: TensorEntry) -> None:
    assert [*assemble([(entry, "a", ())])["a"].in_order()] == [entry]


@pytest.mark.parametrize(
    ("start", "count", "fragment"),
    [(0, 11, "elements from 11"), (1, 12, "elements 0 to 1"), (0, 12, "")],
)
def test_a_gap_is_an_error(entry: TensorEntry, start: int, count: int, fragment: str) -> None:
    (assembly,) = assemble([(entry, "", (Piece("a", (12,), start, count),))]).values()
    if not fragment:
        assert len([*assembly.in_order()]) == 1
        return
    with pytest.raises(ValueError, match=fragment):
        list(assembly.in_order())


def test_two_tensors_in_one_place_are_an_error(entry: TensorEntry) -> None:
    with pytest.raises(ValueError, match="two source tensors go to a at 0"):
        assemble([(entry, "a", ()), (entry, "a", ())])


def test_a_tensor_is_taken_back_from_where_its_pieces_are(entry: TensorEntry) -> None:
    pieces = (Piece("x", (4, 3), 6, 6), Piece("x", (4, 3), 0, 6))
    found = taken_back((12,), "", pieces, {"x": entry})
    assert [value for run in found for value in values(run)] == [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]
    assert taken_back((4, 3), "x", (), {"x": entry}) == [entry]


@pytest.mark.parametrize("pieces", [(), (Piece("x", (3, 4), 0, 12),)])
def test_a_tensor_of_another_shape_is_not_accepted(entry: TensorEntry, pieces: tuple[Piece, ...]) -> None:
    assert taken_back((3, 4), "x", pieces, {"x": entry}) == []
    assert taken_back((4, 3), "y", pieces, {"x": entry}) == []
