from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from vconv import subjects
from vconv.errors import EngineError
from vconv.manifest import Manifest
from vconv.runtime.devices import DEVICES
from vconv.runtime.engines import GRAPH_ENGINES
from vconv.runtime.sessions import Session
from vconv.runtime.timing import Plan
from vconv.types import Array, Status, silent
from vconv.validators import golden as golden_room
from vconv.validators import validation
from vconv.validators.golden import Golden
from vconv.validators.validation import Candidate, worst_failures

CPU = DEVICES["cpu"]
PLAN = Plan(batches=(1, 4), warmups=1, runs=2)
LOG: list[str] = []
"""What stand-ins did, in order; emptied before each test."""


@pytest.fixture(autouse=True)
def _empty_log() -> None:
    LOG.clear()


def truth(pixel_values: Array) -> dict[str, Array]:
    return {
        "cls": 2 * pixel_values[:, :, 0, 0],
        "patches": pixel_values.reshape(len(pixel_values), 3, -1) + 1,
    }


def golden(count: int = 3) -> Golden:
    images = np.random.default_rng(3).standard_normal((count, 3, 4, 4), dtype=np.float32)
    return Golden("original", images, truth(images), {"cls": 1e-7, "patches": 1e-7}, {})


def refusal(stage: str) -> EngineError:
    return EngineError(f"it refuses to {stage}", got="a", expected="b", fix="c")


class StandIn(Session):
    """A session that logs what is done with it and fails where it is told to."""

    engine = "stand-in"

    def __init__(
        self,
        name: str = "it",
        batch: int | None = None,
        fails_at: str = "",
        error: BaseException | None = None,
        model: Callable[[Array], dict[str, Array]] = truth,
    ) -> None:
        super().__init__(Path("nowhere"), (4, 4), batch)
        self.name, self.model = name, model
        self.fails_at, self.error = fails_at, error or refusal(fails_at)
        self.binds = 0
        self._do("open")
        self._closing.callback(LOG.append, f"{name} close")

    def _do(self, stage: str) -> None:
        LOG.append(f"{self.name} {stage}")
        if self.fails_at == stage:
            raise self.error

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        self.binds += 1
        self._do("bind" if self.binds == 1 else "bind again")
        assert self.batch in (None, len(pixel_values))
        return lambda: self._do("first" if self.binds == 1 else f"timed {len(pixel_values)}")

    def run(self, pixel_values: Array) -> dict[str, Array]:
        self._do("judge")
        assert self.batch in (None, len(pixel_values))
        return self.model(pixel_values)


def candidate(name: str = "it", unjudged: str = "", **settings: Any) -> Candidate:
    return Candidate(name, "stand-in", "fp32", lambda: StandIn(name, **settings), unjudged)


def run(
    candidates: Sequence[Candidate],
    plan: Plan | None = None,
    level: str = "strict",
    against: Golden | None = None,
) -> list[dict[str, Any]]:
    return validation.run(candidates, against or golden(), CPU, level, plan, silent)


def test_a_variant_that_is_right_passes() -> None:
    (row,) = run([candidate()])
    assert row["status"] is Status.PASSED
    assert row["simulated"] is False
    assert (row["variant"], row["engine"], row["device"], row["precision"]) == (
        "it",
        "stand-in",
        "cpu",
        "fp32",
    )
    assert {output["vector_relative_error"] for output in row["outputs"].values()} == {0.0}
    assert row["latency"] == []


STAGES = ["open", "bind", "first", "judge", "bind again", "timed 4"]


@pytest.mark.parametrize("stage", STAGES)
def test_an_engine_that_refuses_fails_its_variant_and_not_the_others(stage: str) -> None:
    rows = run([candidate("a"), candidate("b", fails_at=stage), candidate("c")], PLAN)
    assert [row["status"] for row in rows] == [Status.PASSED, Status.FAILED, Status.PASSED]
    assert f"it refuses to {stage}" in rows[1]["reason"]
    assert [timing["batch"] for row in (rows[0], rows[2]) for timing in row["latency"]] == [1, 4, 1, 4]


@pytest.mark.parametrize("stage", STAGES)
def test_a_bug_is_not_taken_for_a_failed_variant(stage: str) -> None:
    with pytest.raises(ZeroDivisionError):
        run([candidate("a"), candidate("b", fails_at=stage, error=ZeroDivisionError())], PLAN)


@pytest.mark.parametrize("error", [refusal("go on"), ZeroDivisionError(), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("stage", STAGES[1:])
def test_sessions_are_closed_whatever_happens(stage: str, error: BaseException) -> None:
    with contextlib.suppress(EngineError, ZeroDivisionError, KeyboardInterrupt):
        run([candidate("a"), candidate("b", fails_at=stage, error=error), candidate("c")], PLAN)
    for name in "abc":
        assert LOG.count(f"{name} open") == LOG.count(f"{name} close")


def test_without_timing_a_session_is_closed_before_the_next_is_opened() -> None:
    run([candidate("a"), candidate("b")])
    assert LOG.index("a close") < LOG.index("b open")
    assert LOG.count("a close") == LOG.count("b close") == 1


def test_with_timing_sessions_stay_open_to_take_turns_and_are_closed_after() -> None:
    run([candidate("a"), candidate("b")], PLAN)
    last = max(place for place, event in enumerate(LOG) if "timed" in event)
    assert sorted(LOG[last + 1 :]) == ["a close", "b close"]
    turns = [event for event in LOG if event.endswith("timed 4")]
    assert turns[-4:] == ["a timed 4", "b timed 4"] * 2


def test_a_variant_is_judged_before_anything_is_timed() -> None:
    run([candidate("a"), candidate("b")], PLAN)
    timed = min(place for place, event in enumerate(LOG) if "timed" in event)
    assert not any("judge" in event for event in LOG[timed:])


def test_an_unjudged_variant_is_measured_timed_and_skipped() -> None:
    def wrong(images: Array) -> dict[str, Array]:
        return {name: 2 * value for name, value in truth(images).items()}

    (row,) = run([candidate(unjudged="it is the reference", model=wrong)], PLAN)
    assert row["status"] is Status.SKIPPED
    assert row["reason"] == "it is the reference"
    assert len(row["latency"]) == 2
    for output in row["outputs"].values():
        assert output["status"] is Status.SKIPPED
        assert output["limit"] is None
        assert output["vector_relative_error"] == pytest.approx(1.0)
        assert "reasons" not in output


@pytest.mark.parametrize(
    ("batch", "count", "judged"), [(None, 3, [1, 3]), (None, 1, [1]), (2, 3, [2]), (1, 3, [1]), (8, 3, [8])]
)
def test_a_variant_is_judged_at_its_own_batch_or_at_one_and_all(
    batch: int | None, count: int, judged: list[int]
) -> None:
    (row,) = run([candidate(batch=batch)], against=golden(count))
    assert row["batches"] == judged
    assert row["status"] is Status.PASSED


@pytest.mark.parametrize("bad", [1, 3])
def test_a_variant_that_is_wrong_at_one_batch_only_fails(bad: int) -> None:
    def model(images: Array) -> dict[str, Array]:
        factor = np.float32(1.001 if len(images) == bad else 1)
        return {name: factor * value for name, value in truth(images).items()}

    (row,) = run([candidate(model=model)])
    assert row["status"] is Status.FAILED


@pytest.mark.parametrize(("level", "status"), [("strict", "failed"), ("card", "passed")])
def test_the_level_decides(level: str, status: str) -> None:
    def model(images: Array) -> dict[str, Array]:
        return {name: np.float32(1.005) * value for name, value in truth(images).items()}

    (row,) = run([candidate(model=model)], level=level)
    assert row["status"] == status


def test_an_output_that_is_not_a_number_fails_and_says_so() -> None:
    def model(images: Array) -> dict[str, Array]:
        return {name: value * np.float32(math.nan) for name, value in truth(images).items()}

    rows = run([candidate("a"), candidate("b", model=model)])
    assert [row["status"] for row in rows] == [Status.PASSED, Status.FAILED]
    assert worst_failures(rows) == ["b (cls: the variant has 9 NaN or Inf of 9 elements)"]


def test_a_failure_without_outputs_is_told_by_its_reason() -> None:
    rows = run([candidate(fails_at="open")])
    assert worst_failures(rows) == [f"it ({refusal('open')})"]


def test_a_dynamic_variant_is_timed_at_the_plans_batches_and_a_static_one_at_its_own() -> None:
    rows = run([candidate("dynamic"), candidate("static", batch=2), candidate("four", batch=4)], PLAN)
    batches = {row["variant"]: [timing["batch"] for timing in row["latency"]] for row in rows}
    assert batches == {"dynamic": [1, 4], "static": [2], "four": [4]}
    assert all(timing["runs"] == 2 for row in rows for timing in row["latency"])


def test_costs_are_told_apart_and_memory_is_none_where_it_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(validation, "reset_peak_memory", lambda: False)
    (row,) = run([candidate()])
    assert row["load_ms"] >= 0 and row["first_ms"] >= 0
    assert row["peak_rss_growth_bytes"] is None


def test_rows_are_json() -> None:
    rows = run([candidate("a"), candidate("b", fails_at="open"), candidate("c", unjudged="no")], PLAN)
    assert json.loads(json.dumps(rows))[1]["status"] == "failed"


def test_the_device_is_waited_for_in_every_sample() -> None:
    device = replace(CPU, synchronize=lambda: LOG.append("wait"))
    validation.run([candidate()], golden(), device, "strict", PLAN, silent)
    for place, event in enumerate(LOG):
        if event in ("it first", "it timed 1", "it timed 4"):
            assert LOG[place - 1] == LOG[place + 1] == "wait"


@pytest.mark.parametrize("engine", GRAPH_ENGINES)
def test_a_real_graph_with_one_gelu_spelled_wrong_fails_and_the_others_pass(
    engine: str, copied: Path, made: Manifest
) -> None:
    model = ir.load(copied / "model.onnx")
    next(node for node in model.graph if node.op_type == "Erf").op_type = "Tanh"
    ir.save(model, copied / "model.onnx")
    assert made.golden
    recorded = Golden("original", *golden_room.load(copied / made.golden.file), {}, {})
    rows = run(subjects.candidates(copied, made, CPU, [engine]), against=recorded)
    statuses = {row["variant"]: row["status"].value for row in rows}
    assert statuses == {"patched-torch-fp32": "passed", "onnx-fp32": "failed", "onnx-fp32-npu": "passed"}
