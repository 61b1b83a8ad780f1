"""A page claims an NPU only if a validation passed on a real one."""

from __future__ import annotations

import made_reports
import pytest
from made_reports import output, timing, variant

from vconv.types import Status
from vconv.validators.report.card.evidence import SavedReport, newest
from vconv.validators.report.document import Report
from vconv.validators.report.publishing.npu import npu_evidence

OUTPUTS = {"cls": output()}


def on(device: str, **values: object) -> Report:
    row = variant("onnx-fp32", timing(), device=device, **{"outputs": OUTPUTS, **values})
    return made_reports.report(row)


FAILED = {"outputs": {"cls": output(status=Status.FAILED, reasons=["far"])}, "status": Status.FAILED}

CASES = {
    "nothing": ([], False, False),
    "the CPU": ([on("cpu")], False, False),
    "a GPU": ([on("cuda:0")], False, False),
    "a simulated NPU": ([on("npu-sim", simulated=True)], False, False),
    "an NPU that is called simulated": ([on("npu:0", simulated=True)], False, False),
    "an NPU": ([on("npu:0")], True, True),
    "an NPU without a number": ([on("npu")], True, True),
    "an NPU on which nothing ran": (
        [made_reports.report(variant(device="npu:0", status=Status.SKIPPED))],
        False,
        False,
    ),
    "an NPU that failed": ([on("npu:0", **FAILED)], True, False),
    "one of two NPUs failed": ([on("npu:0"), on("npu:1", **FAILED)], True, False),
    "an NPU that failed, and passed later": ([on("npu:0", **FAILED), on("npu:0")], True, True),
    "an NPU that passed, and failed later": ([on("npu:0"), on("npu:0", **FAILED)], True, False),
}


@pytest.mark.parametrize(("reports", "measured", "passed"), CASES.values(), ids=CASES)
def test_only_a_real_npu_counts(reports: list[Report], measured: bool, passed: bool) -> None:
    saved = [SavedReport(f"reports/{place}.json", report) for place, report in enumerate(reports)]
    found = npu_evidence(newest(saved))
    assert (found.measured, found.passed) == (measured, passed)
    assert bool(found.reason) is not passed
