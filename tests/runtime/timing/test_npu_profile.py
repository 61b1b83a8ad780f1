"""The cost of every operator on an NPU, from the tables of a profiler that behaves as the documents say."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vconv.errors import EngineError
from vconv.runtime.timing import npu_profile
from vconv.runtime.timing.npu_profile import OperatorCost, costs, folder_name, record, summary

STANDINS = Path(__file__).parents[2] / "standins"


@pytest.fixture
def profiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(STANDINS))
    module = importlib.import_module("npu_profiler")
    torch_npu = ModuleType("torch_npu")
    torch_npu.profiler = module  # type: ignore[attr-defined]
    monkeypatch.setattr(npu_profile, "import_torch_npu", lambda: torch_npu)
    yield module
    del sys.modules["npu_profiler"]


def test_kernels_are_added_up_by_operator_core_types_and_hf32(profiler: Any, tmp_path: Path) -> None:
    calls = []

    def forward() -> None:
        profiler.profile.ran += 1
        calls.append("run")

    found = record(forward, lambda: calls.append("wait"), tmp_path / "patched_torch_fp32")
    assert found == [
        OperatorCost("MatMulV2", "AI_CORE", "FLOAT;FLOAT", "NO", 2.0, 50.0, 0.5),
        OperatorCost("Conv2D", "AI_CORE", "FLOAT;FLOAT;FLOAT", "YES", 1.0, 40.0, 0.4),
        OperatorCost("GeluV2", "AI_VECTOR_CORE", "FLOAT", "NO", 1.0, 10.0, 0.1),
    ]
    assert calls == ["run"] * 2 + ["wait"] + ["run"] * 3 + ["wait"]
    assert found[1].told == "Conv2D (AI_CORE, FLOAT;FLOAT;FLOAT, HF32 YES): 1 kernels, 40 us, 40.0 %"
    assert [*(tmp_path / "patched_torch_fp32").rglob("trace_view.json")]


def test_columns_that_a_version_lacks_are_left_out() -> None:
    (found,) = costs([{"Type": "Erf", "Duration(us)": "3"}], Path("kernel_details.csv"))
    assert found == OperatorCost("Erf", "", "", "", 1 / 3, 1.0, 1.0)
    assert found.told == "Erf: 0.333333 kernels, 1 us, 100.0 %"


def test_another_table_is_an_error() -> None:
    with pytest.raises(EngineError) as caught:
        costs([{"OP Type": "Erf", "Total Time(us)": "3"}], Path("kernel_details.csv"))
    assert "got kernel_details.csv with the columns OP Type, Total Time(us)" in str(caught.value)


@pytest.mark.parametrize("cell", ["N/A", "1,234.5", "nan", "-1", "12.5 us"])
def test_a_duration_that_is_no_number_is_an_error(cell: str) -> None:
    with pytest.raises(EngineError) as caught:
        costs([{"Type": "Erf", "Duration(us)": cell}], Path("kernel_details.csv"))
    assert f"got kernel_details.csv with {cell!r} in the column Duration(us)" in str(caught.value)


@pytest.mark.parametrize("cell", ["12.5\t", " 12.50", "1.25e1"], ids=repr)
def test_a_duration_may_have_blanks_and_an_exponent(cell: str) -> None:
    (found,) = costs([{"Type": "Erf", "Duration(us)": cell}], Path("kernel_details.csv"))
    assert found.microseconds == pytest.approx(12.5 / 3)


def test_no_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no kernel_details\.csv"):
        summary(tmp_path)


def test_the_folder_of_a_variant_has_only_what_the_profiler_takes() -> None:
    assert folder_name("npu:1", "patched-torch-fp32") == "npu_1_patched_torch_fp32"
