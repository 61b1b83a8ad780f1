"""The section on speed ranks nothing that the ranking does not rank."""

from __future__ import annotations

from typing import Any

from made_reports import report, timing, variant

from vconv.validators.report.page.views.speed import speed

REFUSED = {"refused": "the machine was busy", "rows": [], "left_out": []}
FEW = {"runs": 4, "samples_ms": [1.0, 2.0, 3.0, 4.0]}
ROWS = (variant("slow", timing(1, 9.0, **FEW)), variant("onnx-fp32-npu", timing(1, 2.5, **FEW)))


def findings(laid: dict[str, Any]) -> list[str]:
    return [chart.finding for chart in (*laid["latency"], laid["throughput"])]


def test_without_a_ranking_no_variant_is_named_first() -> None:
    laid = speed(report(*ROWS, ranking=REFUSED))
    assert findings(laid) == [
        "Not ranked. Median from 2.50 ms to 9.00 ms.",
        "Not ranked. Batch 1 alone was timed.",
    ]


def test_with_a_ranking_the_first_is_named_with_what_it_cannot_be_told_apart_from() -> None:
    names = {"artifact": "a", "engine": "torch"}
    first = {
        "variant": "onnx-fp32-npu",
        "device": "cpu",
        "batch": 1,
        "rank": 1,
        "p50_ms": 2.5,
        "interval": None,
    }
    first |= {**names, "tied_with": [{**names, "variant": "slow"}]}
    baseline = {**first, "variant": "original", "rank": None, "p50_ms": 1.0, "tied_with": []}
    laid = speed(report(*ROWS, ranking={**REFUSED, "refused": None, "rows": [first, baseline]}))
    assert findings(laid) == [
        "Median from 2.50 ms (onnx-fp32-npu) to 9.00 ms (slow).",
        "Most: onnx-fp32-npu (torch) on cpu, 400 images a second at batch 1; not told apart: slow (torch). "
        "Batch 1 alone was timed.",
    ]


def test_few_samples_have_neither_a_box_nor_a_percentile() -> None:
    (drawn,) = speed(report(*ROWS, ranking=REFUSED))["latency"]
    assert "box" not in drawn.wide and "tail" not in drawn.wide
    assert [column.name for column in drawn.table.columns if column.name.startswith("p9")] == []
