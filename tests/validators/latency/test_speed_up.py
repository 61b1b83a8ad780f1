from __future__ import annotations

import copy
from typing import Any

import pytest

from vconv.validators.latency.speed_up import KEY, add_speed_ups


def row(variant: str, device: str = "cpu", **medians: float) -> dict[str, Any]:
    """Make a row of a report; medians are milliseconds a batch, by ``b1``, ``b8``."""
    latency = [{"batch": int(batch[1:]), "p50_ms": median} for batch, median in medians.items()]
    return {"variant": variant, "device": device, "latency": latency}


def speed_ups(one: dict[str, Any]) -> dict[int, float | None]:
    return {timing["batch"]: timing[KEY] for timing in one["latency"]}


def test_the_ratio_is_that_of_the_milliseconds_a_batch() -> None:
    rows = [row("original-torch-fp32", b1=60.0), row("onnx-fp32", b1=40.0), row("slow", b1=240.0)]
    assert add_speed_ups(rows) == "original-torch-fp32 on cpu"
    assert [speed_ups(one)[1] for one in rows] == pytest.approx([1.0, 1.5, 0.25])


def test_a_batch_is_compared_with_the_same_batch_alone() -> None:
    rows = [
        row("original-torch-fp32", b1=60.0, b8=400.0),
        row("patched-torch-bf16", "npu:0", b1=6.0, b8=10.0, b16=20.0),
    ]
    add_speed_ups(rows)
    assert speed_ups(rows[1]) == {1: pytest.approx(10.0), 8: pytest.approx(40.0), 16: None}


def test_a_static_graph_of_another_batch_has_no_ratio() -> None:
    rows = [row("original-torch-fp32", b1=60.0), row("onnx-fp32-npu", b2=70.0)]
    add_speed_ups(rows)
    assert speed_ups(rows[1]) == {2: None}


@pytest.mark.parametrize("order", [1, -1])
def test_the_original_comes_before_the_patched(order: int) -> None:
    rows = [row("patched-torch-fp32", b1=50.0), row("original-torch-fp32", b1=60.0), row("x", b1=10.0)][
        ::order
    ]
    assert add_speed_ups(rows) == "original-torch-fp32 on cpu"
    assert speed_ups(next(one for one in rows if one["variant"] == "x")) == {1: pytest.approx(6.0)}


OTHERS: dict[str, list[dict[str, Any]]] = {
    "there is none": [],
    "it was not timed": [row("original-torch-fp32")],
    "it was on an accelerator": [row("original-torch-fp32", "cuda:0", b1=5.0)],
    "it was in another precision": [row("original-torch-bf16", b1=5.0)],
}
"""What there is of the original, where it cannot be what others are compared with."""


@pytest.mark.parametrize("why", OTHERS)
def test_without_the_original_the_patched_one_is_what_is_compared_with(why: str) -> None:
    last = row("x", "cuda:0", b1=10.0)
    rows = [*copy.deepcopy(OTHERS[why]), row("patched-torch-fp32", b1=50.0), last]
    assert add_speed_ups(rows) == "patched-torch-fp32 on cpu"
    assert speed_ups(last) == {1: pytest.approx(5.0)}


@pytest.mark.parametrize("why", OTHERS)
def test_without_either_there_is_no_ratio(why: str) -> None:
    rows = [*copy.deepcopy(OTHERS[why]), row("patched-torch-fp32", "npu:0", b1=5.0), row("x", b1=1.0)]
    assert add_speed_ups(rows) == ""
    assert [set(speed_ups(one).values()) for one in rows if one["latency"]] == [{None}] * len(
        [one for one in rows if one["latency"]]
    )


def test_no_rows_are_no_error() -> None:
    assert add_speed_ups([]) == ""
