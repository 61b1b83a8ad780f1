from __future__ import annotations

from typing import Any

from vconv.artifact.results import SavedReport
from vconv.validators.report.card.evidence import newest


def report(name: str, asked: str, *ran: str, simulated: bool = False) -> SavedReport:
    rows: list[dict[str, Any]] = [{"device": device, "simulated": simulated} for device in ran]
    return SavedReport(name, {"devices": {asked: "a model"}, "variants": rows, "time": "20261121T184025"})


def test_the_newest_report_of_each_device_is_chosen() -> None:
    found = newest([report("a", "cpu", "cpu"), report("b", "npu:0", "npu:0"), report("c", "cpu", "cpu")])
    assert [(one.device, one.report.file) for one in found] == [("cpu", "c"), ("npu:0", "b")]


def test_a_device_that_ran_beside_another_counts_only_where_it_was_never_asked_for() -> None:
    beside = report("b", "npu:0", "npu:0", "cpu")
    (cpu, _) = newest([beside])
    assert (cpu.device, cpu.report.file) == ("cpu", "b")
    (cpu, _) = newest([report("a", "cpu", "cpu"), beside])
    assert (cpu.device, cpu.report.file) == ("cpu", "a")


def test_simulated_devices_come_last_and_say_so() -> None:
    found = newest([report("s", "npu-sim", "npu-sim", simulated=True), report("g", "cuda:0", "cuda:0")])
    assert [(one.device, one.simulated) for one in found] == [("cuda:0", False), ("npu-sim", True)]


def test_a_device_on_which_nothing_could_be_run_is_told_all_the_same() -> None:
    (only,) = newest([report("a", "npu:0")])
    assert (only.device, only.rows, only.timed) == ("npu:0", [], False)


def test_a_comparison_is_no_validation() -> None:
    assert newest([SavedReport("a", {"rows": []})]) == []


def test_the_moment_is_the_reports() -> None:
    assert newest([report("a", "cpu", "cpu")])[0].moment == "2026-11-21 18:40 UTC"
