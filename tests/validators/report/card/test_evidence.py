from __future__ import annotations

import made_reports

from vconv.validators.report.card.evidence import SavedReport, newest


def file(name: str) -> str:
    return f"reports/20261121T18402{name}-validate.json"


def report(name: str, asked: str, *ran: str, simulated: bool = False) -> SavedReport:
    rows = [made_reports.variant(device=device, simulated=simulated) for device in ran]
    made = made_reports.report(*rows, devices={asked: "a model"}, time="20261121T184025")
    return SavedReport(file(name), made)


def test_the_newest_report_of_each_device_is_chosen() -> None:
    found = newest([report("1", "cpu", "cpu"), report("2", "npu:0", "npu:0"), report("3", "cpu", "cpu")])
    assert [(one.device, one.file) for one in found] == [("cpu", file("3")), ("npu:0", file("2"))]


def test_a_device_that_ran_beside_another_counts_only_where_it_was_never_asked_for() -> None:
    beside = report("2", "npu:0", "npu:0", "cpu")
    (cpu, _) = newest([beside])
    assert (cpu.device, cpu.file) == ("cpu", file("2"))
    (cpu, _) = newest([report("1", "cpu", "cpu"), beside])
    assert (cpu.device, cpu.file) == ("cpu", file("1"))


def test_simulated_devices_come_last_and_say_so() -> None:
    found = newest([report("4", "npu-sim", "npu-sim", simulated=True), report("5", "cuda:0", "cuda:0")])
    assert [(one.device, one.simulated) for one in found] == [("cuda:0", False), ("npu-sim", True)]


def test_a_device_on_which_nothing_could_be_run_is_told_all_the_same() -> None:
    (only,) = newest([report("1", "npu:0")])
    assert (only.device, only.rows, only.timed) == ("npu:0", [], False)


def test_figures_of_earlier_versions_that_the_samples_do_not_carry_are_left_out() -> None:
    few = made_reports.timing(1, 2.0, runs=4, p90_ms=3.0, p99_ms=4.0, speed_up_over_cpu=3.95)
    enough = made_reports.timing(8, 2.0, runs=99, p90_ms=3.0, p99_ms=4.0, speed_up_over_cpu=3.95)
    row = made_reports.variant("onnx-fp32", few, enough)
    busy = {"refused": "the machine was busy", "rows": [], "left_out": []}
    made = made_reports.report(row, ranking=busy, speed_up_baseline="original-torch-fp32 on cpu")
    (only,) = newest([SavedReport(file("1"), made)])
    shown = [(one.p90_ms, one.p99_ms, one.speed_up_over_cpu) for one in only.rows[0].latency]
    assert shown == [(None, None, None), (3.0, None, None)]


def test_the_moment_is_the_reports() -> None:
    assert newest([report("1", "cpu", "cpu")])[0].moment == "2026-11-21 18:40 UTC"
