"""The file beside a graph that states its contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from vconv.errors import InputError
from vconv.validators.foreign.statement import Statement, read_statement


def test_without_a_file_nothing_is_stated(tmp_path: Path) -> None:
    assert read_statement(tmp_path / "model.onnx") == Statement()
    assert not read_statement(tmp_path / "model.onnx").given


def test_what_a_file_states_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.vconv.toml"
    path.write_text('[input]\nlayout = "NHWC"\nlevels = "0 to 1"\n[outputs]\ncls = "y"\n')
    assert read_statement(tmp_path / "model.onnx") == Statement(str(path), "NHWC", "0 to 1", {"cls": "y"})


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("layout = ", "Invalid value"),
        ("[network]\n", r"got \[network\]"),
        ("[input]\nsize = 'x'\n", r"got size in \[input\]"),
        ("[input]\nlayout = 'CHWN'\n", "got layout = 'CHWN'"),
        ("[input]\nlevels = 'raw'\n", "got levels = 'raw'"),
        ("[outputs]\ncls = 3\n", r"got \[outputs\] with"),
        ("input = 3\n", r"got \[input\] with 3"),
        ("ignore = 'x'\n", "got ignore = 'x'"),
        ("#" * 2**15, "more than 16 KiB"),
    ],
    ids=range(9),
)
def test_anything_else_is_refused_in_one_line(tmp_path: Path, text: str, got: str) -> None:
    (tmp_path / "model.vconv.toml").write_text(text)
    with pytest.raises(InputError, match=got):
        read_statement(tmp_path / "model.onnx")
