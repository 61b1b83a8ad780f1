from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import made_reports
import pytest

from vconv.runtime.devices.base import Settings
from vconv.runtime.devices.table import find_device
from vconv.runtime.timing.clocks import Measurement
from vconv.runtime.timing.machine_load import UNTIMED, Load, load_between
from vconv.runtime.timing.statistics import LEAST_SAMPLES
from vconv.types import Status
from vconv.validators.latency.ranking import loadable, rank, winner, winners
from vconv.validators.report.document import LeftOut, Ranking, RankRow, Winner
from vconv.validators.report.rows import LatencyRow, VariantName, VariantRow

QUIET = Load(0.02, 0.0, False, "other processes took 0.02 of 2 cores")
BUSY = Load(0.97, 0.0, True, "other processes took 0.97 of 2 cores")


def timing(milliseconds: float, batch: int = 1, runs: int = 100, seed: int = 0) -> LatencyRow:
    """Make a measurement about a time, with a hundredth of it as noise."""
    draw = random.Random(f"{milliseconds} {seed}")
    seconds = (1e-3 * milliseconds * (1 + draw.gauss(0, 0.01)) for _ in range(runs))
    return LatencyRow.model_validate(Measurement(batch, tuple(seconds)).summary())


def variant(name: str, *milliseconds: float, status: Status = Status.PASSED, **values: Any) -> VariantRow:
    """Make a report's row: timed at batch 1, then 8, as far as there are times."""
    latency = [timing(one, batch) for one, batch in zip(milliseconds, (1, 8), strict=False)]
    return made_reports.variant(name, *latency, status=status, **values)


def with_latency(row: VariantRow, *latency: LatencyRow) -> VariantRow:
    return row.model_copy(update={"latency": latency})


def order(rows: Iterable[VariantRow]) -> list[tuple[Any, ...]]:
    """Return rank, name and ties of each row of a ranking."""
    return [
        (row.rank, row.variant, [other.variant for other in row.tied_with])
        for row in rank(list(rows), QUIET).rows
    ]


def test_variants_that_are_told_apart_are_ranked_by_their_medians() -> None:
    rows = [variant("slow", 30.0), variant("fast", 10.0), variant("middle", 11.0)]
    assert order(rows) == [(1, "fast", []), (2, "middle", []), (3, "slow", [])]


def test_a_row_says_what_it_is_and_how_sure_its_median_is() -> None:
    (row,) = rank([variant("only", 10.0)], QUIET).rows
    found = timing(10.0)
    assert row == RankRow(
        device="cpu",
        batch=1,
        rank=1,
        artifact="a",
        variant="only",
        engine="torch",
        p50_ms=found.p50_ms,
        interval=found.p50_ms_interval,
        tied_with=(),
    )


def test_variants_that_are_not_told_apart_share_a_rank_and_the_next_one_counts_them() -> None:
    rows = [variant("a", 10.0), variant("b", 10.05), variant("c", 10.1), variant("d", 13.0)]
    assert order(rows) == [(1, "a", ["b", "c"]), (1, "b", ["a", "c"]), (1, "c", ["a", "b"]), (4, "d", [])]


def test_a_chain_of_likenesses_does_not_make_the_first_and_the_last_alike() -> None:
    # Each is 1.5 % from the next, which does not matter; the third is 3 % from the first, which does.
    rows = [variant("a", 10.0), variant("b", 10.15), variant("c", 10.3)]
    assert order(rows) == [(1, "a", ["b"]), (1, "b", ["a"]), (3, "c", [])]


def test_one_variant_in_two_engines_is_two() -> None:
    rows = [variant("onnx", 10.0), variant("onnx", 10.05, engine="openvino")]
    first, second = rank(rows, QUIET).rows
    assert first.tied_with == (VariantName(artifact="a", variant="onnx", engine="openvino"),)
    assert second.tied_with == (VariantName(artifact="a", variant="onnx", engine="torch"),)


def test_what_was_not_judged_is_a_baseline_and_never_wins() -> None:
    rows = [variant("original", 5.0, status=Status.SKIPPED), variant("patched", 10.0)]
    assert order(rows) == [(1, "patched", []), (None, "original", [])]
    assert winner(rows, rank(rows, QUIET), ["cpu"])[0].variant == "patched"  # type: ignore[union-attr]


def test_what_failed_is_left_out() -> None:
    assert order([variant("wrong", 5.0, status=Status.FAILED), variant("right", 10.0)]) == [(1, "right", [])]


def test_each_device_and_batch_has_a_ranking_of_its_own() -> None:
    rows = [variant("a", 10.0, 90.0), variant("b", 12.0, 70.0), variant("c", 1.0, device="cuda:0")]
    found = [(row.device, row.batch, row.rank, row.variant) for row in rank(rows, QUIET).rows]
    assert found == [
        ("cpu", 1, 1, "a"),
        ("cpu", 1, 2, "b"),
        ("cpu", 8, 1, "b"),
        ("cpu", 8, 2, "a"),
        ("cuda:0", 1, 1, "c"),
    ]


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (BUSY, "the machine was busy: other processes took 0.97 of 2 cores"),
        (load_between(None, None), "whether the machine was busy is not known: /proc/stat does not tell"),
    ],
)
def test_a_machine_that_is_not_known_to_be_quiet_has_no_ranking(machine: Load, reason: str) -> None:
    rows = [variant("a", 10.0), variant("b", 20.0)]
    found = rank(rows, machine)
    assert found.refused is not None and found.refused.startswith(reason)
    assert found == Ranking(refused=found.refused, rows=(), left_out=())
    assert winner(rows, found, ["cpu"]) == (None, found.refused)


@pytest.mark.parametrize(("runs", "ranked"), [(LEAST_SAMPLES - 1, False), (LEAST_SAMPLES, True)])
def test_too_few_samples_of_one_variant_leave_its_batch_out(runs: int, ranked: bool) -> None:
    second = with_latency(variant("b"), timing(20.0), timing(90.0, 8, runs))
    rows = [variant("a", 10.0, 80.0), second]
    found = rank(rows, QUIET)
    assert found.refused is None
    assert {row.batch for row in found.rows} == ({1, 8} if ranked else {1})
    reason = f"too few samples: {runs} of b, {LEAST_SAMPLES} are the least"
    assert found.left_out == (() if ranked else (LeftOut(device="cpu", batch=8, reason=reason),))


def test_a_baseline_may_have_few_samples() -> None:
    original = with_latency(variant("original", status=Status.SKIPPED), timing(30.0, 1, 5))
    baseline = rank([original, variant("a", 10.0)], QUIET).rows[1]
    assert (baseline.variant, baseline.rank, baseline.interval) == ("original", None, None)


def test_where_everything_is_left_out_the_ranking_is_refused() -> None:
    row = variant("a")
    found = rank([with_latency(row, timing(10.0, 1, 10), timing(20.0, 8, 10))], QUIET)
    assert found.refused == f"too few samples: 10 of a, {LEAST_SAMPLES} are the least"
    assert len(found.left_out) == 2


def test_a_device_that_comes_back_early_leaves_its_own_ranking_out() -> None:
    early = variant("early", device="npu:0", timing_refused="came back early")
    rows = [variant("a", 10.0), variant("b", 20.0, device="npu:0"), early]
    found = rank(rows, QUIET)
    assert [row.variant for row in found.rows] == ["a"]
    assert found.left_out == (LeftOut(device="npu:0", batch=1, reason="early on npu:0 came back early"),)
    assert winner(rows, found, ["npu:0"]) == (None, "early on npu:0 came back early")
    assert rank([early], QUIET).refused == "early on npu:0 came back early"


@pytest.mark.parametrize("rows", [[], [variant("a")], [variant("a", 1.0, status=Status.SKIPPED)]])
def test_nothing_to_rank_is_refused_with_the_reason(rows: list[VariantRow]) -> None:
    found = rank(rows, UNTIMED)
    assert found.refused == "no variant that passed was timed"


def test_what_is_simulated_is_not_ranked_and_the_reason_is_that() -> None:
    found = rank([variant("a", simulated=True), variant("b", simulated=True)], UNTIMED)
    assert found.refused == "the latency of a simulated device says nothing about the real one"


def test_the_winner_is_the_first_at_the_least_batch_that_all_share() -> None:
    static = with_latency(variant("static"), timing(50.0, 8))
    rows = [variant("a", 10.0, 90.0), variant("b", 12.0, 70.0), static]
    found = rank(rows, QUIET)
    assert winner(rows, found, ["cpu"])[0].variant == "static"  # type: ignore[union-attr]
    assert winner(rows[:2], rank(rows[:2], QUIET), ["cpu"]) == (
        Winner(artifact="a", variant="a", engine="torch", tied_with=(), device="cpu", batch=1),
        None,
    )


def test_a_winner_names_those_that_share_its_rank() -> None:
    rows = [variant("a", 10.0), variant("b", 10.05)]
    found, reason = winner(rows, rank(rows, QUIET), ["cpu"])
    assert found is not None and reason is None
    assert found.tied_with == (VariantName(artifact="a", variant="b", engine="torch"),)


def test_without_a_batch_that_all_share_there_is_no_winner() -> None:
    rows = [variant("dynamic", 10.0), with_latency(variant("static"), timing(50.0, 8))]
    found, reason = winner(rows, rank(rows, QUIET), ["cpu"])
    assert found is None
    assert reason == "no batch at which all variants that passed on cpu were timed"


def test_a_device_on_which_nothing_passed_has_no_winner() -> None:
    rows = [variant("a", 10.0), variant("b", 5.0, device="cuda:0", status=Status.FAILED)]
    assert winner(rows, rank(rows, QUIET), ["cuda:0"])[0] is None


def test_several_devices_have_no_common_winner() -> None:
    rows = [variant("a", 10.0), variant("a", 1.0, device="cuda:0")]
    found, reason = winner(rows, rank(rows, QUIET), ["cpu", "cuda:0"])
    assert found is None and reason is not None
    assert reason.startswith("several devices were requested: cpu, cuda:0")


def test_a_batch_that_was_left_out_has_no_winner_and_says_why() -> None:
    first = with_latency(variant("a"), timing(10.0, 1, 5), timing(80.0, 8))
    rows = [first, variant("b", 20.0, 90.0)]
    found, reason = winner(rows, rank(rows, QUIET), ["cpu"])
    assert (found, reason) == (None, f"too few samples: 5 of a, {LEAST_SAMPLES} are the least")


def test_a_ranking_can_be_made_again_from_a_saved_report() -> None:
    rows = [
        variant("a", 10.0),
        variant("b", 10.05),
        variant("c", 20.0),
        variant("d", 5.0, status=Status.FAILED),
    ]
    read = [VariantRow.model_validate_json(json.dumps(row.as_json())) for row in rows]
    assert rank(read, QUIET) == rank(rows, QUIET)


def test_each_requested_device_has_its_own_winner_and_a_baseline_wins_nothing() -> None:
    rows = [
        *(variant("a", 12.0, 70.0), variant("b", 10.0, 90.0)),
        *(variant("a", 3.0, device="npu:0"), variant("o", 1.0, device="npu:0", status=Status.SKIPPED)),
        variant("c", 5.0, device="cuda:0"),
    ]
    found = winners(rank(rows, QUIET), ["cpu", "npu:0"])
    assert [(one.device, one.batch, one.variant, one.load) for one in found] == [
        ("cpu", 1, "b", None),
        ("npu:0", 1, "a", None),
    ]
    assert winners(rank(rows, replace(QUIET, busy=True, reason="it was busy")), ["cpu"]) == ()


@pytest.mark.parametrize(
    ("hf32", "line"),
    [
        (None, 'vconv.load("a \\"b\\"", device="npu:0", variant="v", engine="torch")'),
        (("conv",), 'vconv.load("a \\"b\\"", device="npu:0", variant="v", engine="torch", hf32=["conv"])'),
    ],
    ids=["usual settings", "hf32"],
)
def test_the_line_that_loads_a_winner_repeats_what_was_set(hf32: tuple[str, ...] | None, line: str) -> None:
    place = replace(find_device("cpu"), name="npu:0", settings=Settings(hf32))
    won = Winner(artifact='a "b"', variant="v", engine="torch", tied_with=(), device="npu:0", batch=1)
    assert loadable(won, [find_device("cpu"), place]).load == line
