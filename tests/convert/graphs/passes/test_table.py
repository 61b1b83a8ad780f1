from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from vconv.convert.graphs.passes import table
from vconv.convert.graphs.passes.base import Pass, PassContext, PassError, run_passes
from vconv.convert.graphs.passes.table import (
    COMPILED_RANK3,
    DYNAMIC,
    DYNAMIC_SIZE,
    FROM_IMAGES,
    NARROWED,
    PASSES,
    QUANTISED,
    STATIC,
    STATIC_RANK3,
    TRACED,
    TRACED_AT_ANY_SIZE,
    named,
)

FOLDER = Path(table.__file__).parent
SHARED = {"__init__", "base", "table", "resampling", "older_forms"}


def test_every_pass_is_one_file_and_one_row() -> None:
    files = {path.stem for path in FOLDER.glob("*.py")} - SHARED
    assert {name.replace("-", "_") for name in PASSES} == files
    assert {name: one.name for name, one in PASSES.items()} == {name: name for name in PASSES}


def test_every_file_lists_its_cases_and_has_its_tests() -> None:
    for name in PASSES:
        stem = name.replace("-", "_")
        assert "\nCase 1: " in (FOLDER / f"{stem}.py").read_text()
        assert (Path(__file__).parent / f"test_{stem}.py").is_file()


def test_every_pass_is_in_a_pipeline_and_pipelines_name_passes() -> None:
    traced = {*TRACED, *TRACED_AT_ANY_SIZE}
    made = {*DYNAMIC, *DYNAMIC_SIZE, *STATIC_RANK3, *FROM_IMAGES, *COMPILED_RANK3}
    assert {*traced, *made, *NARROWED, *QUANTISED} == set(PASSES)
    assert [one.name for one in named(TRACED)] == list(TRACED)


def _toy(model: ir.Model, context: PassContext) -> bool:
    for node in model.graph:
        node.name = f"toy_{node.name}"
    return len(model.graph) > 0


def test_a_new_pass_needs_one_row_and_is_run_if_a_pipeline_names_it(
    small_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "PASSES", {**PASSES, "toy": Pass("toy", _toy)})
    model = ir.load(small_artifact / "model.onnx")
    results = run_passes(model, named(("toy", "strip-metadata")), PassContext())
    assert [(result.name, result.modified) for result in results] == [
        ("toy", True),
        ("strip-metadata", False),
    ]
    assert {(node.name or "")[:4] for node in model.graph} == {"toy_"}


def test_a_batch_cannot_be_fixed_twice(small_artifact: Path) -> None:
    static = ir.load(small_artifact / "model.npu.onnx")
    with pytest.raises(PassError, match="the pass fix-batch requires 'the batch is symbolic', but"):
        run_passes(static, named(STATIC), PassContext(batch=2))
