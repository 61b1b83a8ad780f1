from __future__ import annotations

import pytest
from made_reports import timing, variant

from vconv.runtime.timing.machine_load import Load
from vconv.types import Status
from vconv.validators.latency.ranking import rank
from vconv.validators.latency.speed_up import with_speed_ups as with_ratios
from vconv.validators.report.rows import VariantRow


def row(name: str, device: str = "cpu", **medians: float) -> VariantRow:
    """Make a row of a report; medians are milliseconds a batch, by ``b1``, ``b8``."""
    samples = {name: [median] * 30 for name, median in medians.items()}
    latency = [
        timing(int(batch[1:]), median, runs=30, samples_ms=samples[batch])
        for batch, median in medians.items()
    ]
    return variant(name, *latency, device=device)


QUIET = Load(0.0, 0.0, False, "nobody else was at work")
BUSY = Load(1.5, 0.0, True, "others used 1.5 cores")


def with_speed_ups(rows: list[VariantRow], machine: Load = QUIET) -> tuple[tuple[VariantRow, ...], str]:
    return with_ratios(rows, rank(rows, machine))


def speed_ups(one: VariantRow) -> dict[int, float | None]:
    return {timing.batch: timing.speed_up_over_cpu for timing in one.latency}


def test_the_ratio_is_that_of_the_milliseconds_a_batch() -> None:
    rows = [row("original-torch-fp32", b1=60.0), row("onnx-fp32", b1=40.0), row("slow", b1=240.0)]
    found, baseline = with_speed_ups(rows)
    assert baseline == "original-torch-fp32 on cpu"
    assert [one.variant for one in found] == ["original-torch-fp32", "onnx-fp32", "slow"]
    assert [speed_ups(one) for one in rows] == [{1: None}] * 3
    assert [speed_ups(one)[1] for one in found] == pytest.approx([1.0, 1.5, 0.25])


def test_a_batch_is_compared_with_the_same_batch_alone() -> None:
    rows = [
        row("original-torch-fp32", b1=60.0, b8=400.0),
        row("patched-torch-bf16", "npu:0", b1=6.0, b8=10.0, b16=20.0),
    ]
    (_, found), _ = with_speed_ups(rows)
    assert speed_ups(found) == {1: pytest.approx(10.0), 8: pytest.approx(40.0), 16: None}


def test_a_static_graph_of_another_batch_has_no_ratio() -> None:
    rows = [row("original-torch-fp32", b1=60.0), row("onnx-fp32-npu", b2=70.0)]
    (_, found), _ = with_speed_ups(rows)
    assert speed_ups(found) == {2: None}


@pytest.mark.parametrize("order", [1, -1])
def test_the_original_comes_before_the_patched(order: int) -> None:
    rows = [row("patched-torch-fp32", b1=50.0), row("original-torch-fp32", b1=60.0), row("x", b1=10.0)][
        ::order
    ]
    found, baseline = with_speed_ups(rows)
    assert baseline == "original-torch-fp32 on cpu"
    assert speed_ups(next(one for one in found if one.variant == "x")) == {1: pytest.approx(6.0)}


OTHERS: dict[str, list[VariantRow]] = {
    "there is none": [],
    "it was not timed": [row("original-torch-fp32")],
    "it was on an accelerator": [row("original-torch-fp32", "cuda:0", b1=5.0)],
    "it was in another precision": [row("original-torch-bf16", b1=5.0)],
}
"""What there is of the original, where it cannot be what others are compared with."""


@pytest.mark.parametrize("why", OTHERS)
def test_without_the_original_the_patched_one_is_what_is_compared_with(why: str) -> None:
    last = row("x", "cuda:0", b1=10.0)
    rows = [*OTHERS[why], row("patched-torch-fp32", b1=50.0), last]
    found, baseline = with_speed_ups(rows)
    assert baseline == "patched-torch-fp32 on cpu"
    assert speed_ups(found[-1]) == {1: pytest.approx(5.0)}


@pytest.mark.parametrize("why", OTHERS)
def test_without_either_there_is_no_ratio(why: str) -> None:
    rows = [*OTHERS[why], row("patched-torch-fp32", "npu:0", b1=5.0), row("x", b1=1.0)]
    found, baseline = with_speed_ups(rows)
    assert baseline == ""
    assert [set(speed_ups(one).values()) for one in found if one.latency] == [{None}] * len(
        [one for one in rows if one.latency]
    )


def test_a_compiled_variant_of_the_same_name_is_not_what_is_compared_with() -> None:
    compiled = row("patched-torch-fp32", b1=20.0).model_copy(update={"engine": "torch-compiled"})
    rows = [row("patched-torch-fp32", b1=60.0), compiled]
    for order in (rows, rows[::-1]):
        found = {one.engine: speed_ups(one)[1] for one in with_speed_ups(order)[0]}
        assert found == {"torch": pytest.approx(1.0), "torch-compiled": pytest.approx(3.0)}


def test_no_rows_are_no_error() -> None:
    assert with_speed_ups([]) == ((), "")


def test_nothing_has_a_ratio_if_the_machine_was_busy() -> None:
    rows = [row("original-torch-fp32", b1=756.0), row("onnx-fp32", b1=1.0)]
    found, baseline = with_speed_ups(rows, BUSY)
    assert baseline == ""
    assert [speed_ups(one) for one in found] == [{1: None}, {1: None}]


@pytest.mark.parametrize("few", ["original-torch-fp32", "onnx-fp32"])
def test_nothing_has_a_ratio_with_too_few_samples_on_either_side(few: str) -> None:
    rows = [row("original-torch-fp32", b1=60.0), row("onnx-fp32", b1=40.0)]
    rows = [
        one.model_copy(update={"latency": (timing(1, 50.0, runs=29),)}) if one.variant == few else one
        for one in rows
    ]
    (_, found), _ = with_speed_ups(rows)
    assert speed_ups(found) == {1: None}


def test_nothing_has_a_ratio_over_a_reference_of_too_few_samples() -> None:
    reference = row("original-torch-fp32").model_copy(
        update={"status": Status.SKIPPED, "latency": (timing(1, 60.0, runs=29, samples_ms=[60.0] * 29),)}
    )
    rows = [reference, row("onnx-fp32", b1=40.0), row("slow", b1=80.0)]
    assert {one.variant for one in rank(rows, QUIET).rows if one.rank} == {"onnx-fp32", "slow"}
    found, baseline = with_speed_ups(rows)
    assert baseline == ""
    assert [speed_ups(one) for one in found] == [{1: None}] * 3


def test_a_variant_that_failed_has_no_ratio() -> None:
    rows = [row("original-torch-fp32", b1=60.0), row("good", b1=40.0), row("bad", b1=1.0)]
    rows[2] = rows[2].model_copy(update={"status": Status.FAILED})
    found, _ = with_speed_ups(rows)
    assert [speed_ups(one)[1] for one in found] == [1.0, 1.5, None]
