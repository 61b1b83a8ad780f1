from __future__ import annotations

import contextlib
import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from engines_here import ENGINES_HERE

from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import Manifest
from vconv.errors import EngineError, MemoryShortError, UnavailableError
from vconv.precisions import torch_precisions
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.arithmetic import arithmetic_of
from vconv.runtime.engines.base import Placed, Session
from vconv.runtime.engines.table import find_engine, simulates
from vconv.runtime.processes.measurer import PeakMeasurer
from vconv.runtime.processes.peak_memory import Peak
from vconv.runtime.processes.request import OpenRequest
from vconv.runtime.simulation.arithmetic import PROFILES
from vconv.runtime.timing import synchronisation
from vconv.runtime.timing.clocks import TimingPlan
from vconv.runtime.timing.launches import KERNELS, Launches
from vconv.runtime.timing.machine_load import UNTIMED, Load
from vconv.types import INPUT, Array, Status, silent
from vconv.validators import validation
from vconv.validators.accuracy import golden as golden_room
from vconv.validators.accuracy.golden import Reference
from vconv.validators.accuracy.limits import STRICT, Limit, Limits, open_limits
from vconv.validators.report import saving
from vconv.validators.report.rows import LaunchesRow, LimitRow, SkippedBatch, VariantRow
from vconv.validators.validation import Candidate, worst_failures
from vconv.workflows import candidates as listing

CPU = find_device("cpu")
PLAN = TimingPlan(batches=(1, 4), warmups=1, runs=2)
LOG: list[str] = []
"""What stand-ins did, in order; emptied before each test."""


@pytest.fixture(autouse=True)
def _empty_log() -> None:
    LOG.clear()


Answer = Callable[[str, Device, str], str]


def as_declared(engine: str, device: Device, precision: str) -> str:
    """Answer for a stand-in: it computes float32 as its device's settings say, and the rest as named."""
    if engine != "stand-in":
        return arithmetic_of(engine, device, precision)
    return device.arithmetic if precision == "fp32" else precision


@pytest.fixture(autouse=True)
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], None]:
    """The function that makes engines answer otherwise than :func:`as_declared` what they compute in."""

    def use(answer: Answer) -> None:
        monkeypatch.setattr(validation, "arithmetic_of", answer)

    use(as_declared)
    known = "onnxruntime"  # a stand-in is timed as this engine is
    monkeypatch.setattr(
        validation, "find_engine", lambda name: find_engine({"stand-in": known}.get(name, name))
    )
    return use


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves by a second whenever it is looked at, so that no run depends on this machine."""
    monkeypatch.setattr(time, "perf_counter", itertools.count(0.0, 1.0).__next__)


def truth(pixel_values: Array) -> dict[str, Array]:
    return {
        "cls": 2 * pixel_values[:, :, 0, 0],
        "patches": pixel_values.reshape(len(pixel_values), 3, -1) + 1,
    }


def golden(count: int = 3) -> Reference:
    images = np.random.default_rng(3).standard_normal((count, 3, 4, 4), dtype=np.float32)
    return Reference("original", images, truth(images), {"cls": 1e-7, "patches": 1e-7}, {})


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
        launched: Launches | None = None,
        fallbacks: dict[str, int] | None = None,
    ) -> None:
        super().__init__(Path("nowhere"), (4, 4), batch)
        self.fallbacks = fallbacks
        self.name, self.model, self.launched = name, model, launched
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

    def fetch(self, raw: Any) -> dict[str, Array]:
        return {}

    def launches(self, pixel_values: Array) -> Launches | None:
        self._do("count")
        assert len(pixel_values) == 1
        return self.launched

    def run(self, pixel_values: Array) -> dict[str, Array]:
        self._do("judge")
        assert self.batch in (None, len(pixel_values))
        self.placed = {"cls": Placed("bfloat16", "cuda:1"), "patches": Placed("float16", "npu:0")}
        return self.model(pixel_values)


def candidate(
    name: str = "it",
    unjudged: str = "",
    against: Reference | None = None,
    device: Device = CPU,
    precision: str = "fp32",
    **settings: Any,
) -> Candidate:
    def opened() -> StandIn:
        return StandIn(name, **settings)

    reference = against or golden()
    subject = OpenRequest("a-system", name, "stand-in", precision, device.name)
    return Candidate("a-system", name, "stand-in", precision, device, reference, opened, subject, unjudged)


def run(
    candidates: Sequence[Candidate], plan: TimingPlan | None = None, level: str = "strict"
) -> tuple[VariantRow, ...]:
    return validation.run(candidates, open_limits(level), plan, silent).rows


def test_a_variant_that_is_right_passes() -> None:
    (row,) = run([candidate()])
    assert row.status is Status.PASSED
    assert row.simulated is False
    keys = ("artifact", "variant", "engine", "device", "precision")
    assert [getattr(row, key) for key in keys] == ["a-system", "it", "stand-in", "cpu", "fp32"]
    assert {output.vector_relative_error for output in row.outputs.values()} == {0.0}
    assert row.latency == ()


def test_nodes_that_fell_back_to_the_cpu_stand_in_the_row_and_are_warned_of_once() -> None:
    said: list[str] = []
    counts = {"Expand": 2, "Shape": 1}
    listed = [candidate("a", fallbacks=counts), candidate("b"), candidate("c", fails_at="open")]
    rows = validation.run(listed, open_limits("strict"), None, said.append).rows
    assert [row.fallbacks for row in rows] == [counts, None, None]
    warnings = [line for line in said if "warning" in line]
    assert warnings == ["warning: a (stand-in): 3 nodes of it run on the CPU, not on cpu: 2 Expand, 1 Shape"]
    assert rows[0].status is Status.PASSED


STAGES = ["open", "bind", "first", "judge", "count", "bind again", "timed 4"]


@pytest.mark.parametrize("stage", STAGES)
def test_an_engine_that_refuses_fails_its_variant_and_not_the_others(stage: str) -> None:
    rows = run([candidate("a"), candidate("b", fails_at=stage), candidate("c")], PLAN)
    assert [row.status for row in rows] == [Status.PASSED, Status.FAILED, Status.PASSED]
    assert f"it refuses to {stage}" in rows[1].reason
    assert [timing.batch for row in (rows[0], rows[2]) for timing in row.latency] == [1, 4, 1, 4]


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
    assert sorted(turns[-4:-2]) == sorted(turns[-2:]) == ["a timed 4", "b timed 4"]


def test_a_variant_is_judged_before_anything_is_timed() -> None:
    run([candidate("a"), candidate("b")], PLAN)
    timed = min(place for place, event in enumerate(LOG) if "timed" in event)
    assert not any("judge" in event for event in LOG[timed:])


def test_what_one_image_launches_is_in_the_row_where_the_engine_shows_it() -> None:
    found = Launches({"addmm": 3, "gelu": 1}, 5, KERNELS)
    rows = run([candidate("a", launched=found), candidate("b"), candidate("c", fails_at="open")])
    expected = LaunchesRow(operators={"addmm": 3, "gelu": 1}, total=5, how="kernels")
    assert [row.launches for row in rows] == [expected, None, None]


def test_an_unjudged_variant_is_measured_timed_and_skipped() -> None:
    def wrong(images: Array) -> dict[str, Array]:
        return {name: 2 * value for name, value in truth(images).items()}

    (row,) = run([candidate(unjudged="it is the reference", model=wrong)], PLAN)
    assert row.status is Status.SKIPPED
    assert row.reason == "it is the reference"
    assert len(row.latency) == 2
    for output in row.outputs.values():
        assert output.status is Status.SKIPPED
        assert output.limit is None
        assert output.vector_relative_error == pytest.approx(1.0)
        assert output.reasons == ()


@pytest.mark.parametrize(
    ("batch", "count", "judged"), [(None, 3, [1, 3]), (None, 1, [1]), (2, 3, [2]), (1, 3, [1]), (8, 3, [8])]
)
def test_a_variant_is_judged_at_its_own_batch_or_at_one_and_all(
    batch: int | None, count: int, judged: list[int]
) -> None:
    (row,) = run([candidate(batch=batch, against=golden(count))])
    assert row.batches == tuple(judged)
    assert row.status is Status.PASSED


@pytest.mark.parametrize("bad", [1, 3])
def test_a_variant_that_is_wrong_at_one_batch_only_fails(bad: int) -> None:
    def model(images: Array) -> dict[str, Array]:
        factor = np.float32(1.001 if len(images) == bad else 1)
        return {name: factor * value for name, value in truth(images).items()}

    (row,) = run([candidate(model=model)])
    assert row.status is Status.FAILED


@pytest.mark.parametrize(("level", "status"), [("strict", "failed"), ("card", "passed")])
def test_the_level_decides(level: str, status: str) -> None:
    def model(images: Array) -> dict[str, Array]:
        return {name: np.float32(1.005) * value for name, value in truth(images).items()}

    (row,) = run([candidate(model=model)], level=level)
    assert row.status == status


def test_an_output_that_is_not_a_number_fails_and_says_so() -> None:
    def model(images: Array) -> dict[str, Array]:
        return {name: value * np.float32(math.nan) for name, value in truth(images).items()}

    rows = run([candidate("a"), candidate("b", model=model)])
    assert [row.status for row in rows] == [Status.PASSED, Status.FAILED]
    assert worst_failures(rows) == ["b (cls: the variant has 9 NaN or Inf of 9 elements)"]


def test_a_failure_without_outputs_is_told_by_its_reason() -> None:
    rows = run([candidate(fails_at="open")])
    assert worst_failures(rows) == [f"it ({refusal('open')})"]


def test_a_dynamic_variant_is_timed_at_the_plans_batches_and_a_static_one_at_its_own() -> None:
    rows = run([candidate("dynamic"), candidate("static", batch=2), candidate("four", batch=4)], PLAN)
    batches = {row.variant: [timing.batch for timing in row.latency] for row in rows}
    assert batches == {"dynamic": [1, 4], "static": [2], "four": [4]}
    assert all(timing.runs == 2 for row in rows for timing in row.latency)


def test_costs_are_told_apart_and_memory_is_none_where_it_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(validation, "reset_peak_memory", lambda: False)
    (row,) = run([candidate()])
    assert row.load_ms >= 0 and row.first_ms >= 0
    assert row.peak_rss_growth_bytes is None


def test_rows_are_json() -> None:
    rows = run([candidate("a"), candidate("b", fails_at="open"), candidate("c", unjudged="no")], PLAN)
    for row in rows:
        text = json.dumps(row.as_json(), allow_nan=False)
        assert VariantRow.model_validate_json(text) == row


def test_the_device_is_waited_for_in_every_sample() -> None:
    device = replace(CPU, synchronize=lambda: LOG.append("wait"), growth=lambda run: 0)
    run([candidate(device=device)], PLAN)
    waited = [place for place, event in enumerate(LOG) if event in ("it first", "it timed 1", "it timed 4")]
    assert len(waited) == 1 + 2 * (1 + 1 + 2)
    checked = [waited[1], waited[5]]
    for place in checked:
        assert LOG[place + 1] == "wait"
    for place in sorted({*waited} - {*checked}):
        assert LOG[place - 1] == LOG[place + 1] == "wait"


def test_loading_is_over_when_the_device_has_finished() -> None:
    run([candidate(device=replace(CPU, synchronize=lambda: LOG.append("wait")))])
    assert LOG[:2] == ["it open", "wait"]


@pytest.mark.parametrize("stage", STAGES[:4])
def test_a_variant_that_cannot_be_had_here_is_skipped_with_the_reason(stage: str) -> None:
    error = UnavailableError("the engine cannot run here", got="no package", expected="it", fix="get it")
    rows = run([candidate("a"), candidate("b", fails_at=stage, error=error), candidate("c")], PLAN)
    assert [row.status for row in rows] == [Status.PASSED, Status.SKIPPED, Status.PASSED]
    assert rows[1].reason == "the engine cannot run here: no package"
    assert worst_failures(rows) == ["b (the engine cannot run here: no package)"]


@pytest.mark.parametrize("stage", ["bind again", "timed 4"])
def test_too_little_memory_to_time_a_batch_is_in_the_row_and_fails_nothing(stage: str) -> None:
    error = MemoryShortError("cpu has too little memory", got="no room", expected="room", fix="less")
    rows = run([candidate("a", fails_at=stage, error=error), candidate("b")], PLAN)
    assert [row.status for row in rows] == [Status.PASSED, Status.PASSED]
    lost = 1 if stage == "bind again" else 4
    assert SkippedBatch(batch=lost, reason="no room") in rows[0].skipped_batches
    assert lost not in [timing.batch for timing in rows[0].latency]
    assert [timing.batch for timing in rows[1].latency] == [1, 4]
    assert rows[1].skipped_batches == ()


@pytest.mark.parametrize("stage", STAGES[:4])
def test_a_variant_that_there_is_too_little_memory_to_judge_is_incomplete_and_stops_an_export(
    stage: str,
) -> None:
    error = MemoryShortError("cpu has too little memory", got="no room", expected="room", fix="less")
    (row,) = run([candidate(fails_at=stage, error=error)], PLAN)
    assert row.status is saving.whole([row, *run([candidate("other")], PLAN)], []) is Status.INCOMPLETE
    assert row.reason == "cpu has too little memory: no room"
    (failure,) = worst_failures([row])
    assert "no room" in failure


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_not_judged_cannot_fail(stage: str) -> None:
    error = EngineError("torch cannot run this", got="no kernel", expected="one", fix="another")
    (row,) = run([candidate(fails_at=stage, error=error, unjudged="it is the reference")], PLAN)
    assert row.status is Status.SKIPPED
    assert "no kernel" in row.reason


def test_a_batch_that_is_expected_not_to_fit_is_in_the_row_with_the_reason() -> None:
    device = replace(CPU, free_bytes=lambda: 3 * 10**9, growth=lambda run: 10**9 if run() is None else 0)
    (row,) = run([candidate(device=device)], PLAN)
    assert row.status is Status.PASSED
    assert [timing.batch for timing in row.latency] == [1]
    assert row.skipped_batches == (SkippedBatch(batch=4, reason="needs about 4.00 GB, 3.00 GB are free"),)


def test_candidates_have_their_own_devices_and_references() -> None:
    other = replace(CPU, name="npu:1", simulates=PROFILES["910b"])
    images = 5 * golden(2).pixel_values
    against = Reference("other", images, truth(images), {"cls": 1e-3, "patches": 1e-3}, {"cls": 0.5})
    rows = run([candidate("a"), candidate("b", device=other, against=against)])
    assert [row.status for row in rows] == [Status.PASSED, Status.PASSED]
    assert [(row.device, row.simulated) for row in rows] == [("cpu", False), ("npu:1", True)]
    assert [row.batches for row in rows] == [(1, 3), (1, 2)]
    assert [row.outputs["cls"].floor for row in rows] == [1e-7, 1e-3]
    assert rows[0].outputs["cls"].to_stock_original is None
    assert rows[1].outputs["cls"].to_stock_original == 0.5


def test_one_variant_beside_another_ones_reference_fails() -> None:
    images = 5 * golden().pixel_values
    against = Reference("other", images, truth(golden().pixel_values), {}, {})
    rows = run([candidate("a"), candidate("b", against=against)])
    assert [row.status for row in rows] == [Status.PASSED, Status.FAILED]


@pytest.mark.parametrize("arithmetic", ["fp32", "hf32"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_limit_is_that_of_the_precision_and_the_devices_arithmetic(
    precision: str, arithmetic: str
) -> None:
    (row,) = run([candidate(precision=precision, device=replace(CPU, arithmetic=arithmetic))])
    wanted = STRICT[precision, arithmetic if precision == "fp32" else precision]
    limits = {output.limit for output in row.outputs.values()}
    assert limits == {wanted.bounds["vector_relative_error"]}
    assert STRICT[row.precision, row.arithmetic] is wanted


@pytest.mark.parametrize(("bound", "status"), [(1e-4, Status.FAILED), (1e-2, Status.PASSED)])
def test_a_row_carries_the_limit_that_decided_its_verdict(bound: float, status: Status) -> None:
    def model(images: Array) -> dict[str, Array]:
        return {name: np.float32(1.001) * value for name, value in truth(images).items()}

    limit = Limit({"vector_relative_error": bound}, "a test")
    limits = Limits("mine.toml", {**STRICT, ("fp32", "fp32"): limit})
    judged, unjudged = validation.run(
        [candidate("a", model=model), candidate("b", model=model, unjudged="no")], limits, None, silent
    ).rows
    assert (judged.status, judged.limit) == (status, LimitRow.of(("fp32", "fp32"), limit))
    assert {output.limit for output in judged.outputs.values()} == {bound}
    assert {output.status for output in judged.outputs.values()} == {status}
    assert (unjudged.status, unjudged.limit) == (Status.SKIPPED, None)
    assert saving.limits_applied(limits, (judged, unjudged)).rows == (judged.limit,)


@pytest.mark.parametrize(
    ("precision", "found", "reason"),
    [
        ("fp16", "fp32", "engine computes fp32"),
        ("fp16", "bf16", "engine computes bf16"),
        ("bf16", "fp32", "engine computes fp32"),
        ("fp32", "tf32", "engine computes tf32"),
        ("fp32", "unknown", "engine computes in an unknown arithmetic"),
    ],
)
def test_what_is_computed_in_a_way_without_limits_is_skipped_and_is_not_even_opened(
    answer: Callable[[Answer], None], precision: str, found: str, reason: str
) -> None:
    answer(lambda engine, device, precision: found)
    (row,) = run([candidate(precision=precision)])
    assert (row.status, row.reason, row.arithmetic) == (Status.SKIPPED, reason, found)
    assert (row.outputs, row.latency, LOG) == ({}, (), [])


def test_what_is_not_judged_is_measured_in_whatever_it_is_computed(
    answer: Callable[[Answer], None],
) -> None:
    answer(lambda engine, device, precision: "fp32")
    (row,) = run([candidate(precision="fp16", unjudged="the patched one is")])
    assert (row.status, row.reason) == (Status.SKIPPED, "the patched one is")
    assert row.outputs and row.arithmetic == "fp32"


@pytest.mark.parametrize(
    ("kind", "status"), [(UnavailableError, Status.SKIPPED), (EngineError, Status.FAILED)]
)
def test_an_engine_that_cannot_be_asked_is_a_row_like_one_that_cannot_be_opened(
    answer: Callable[[Answer], None], kind: type[EngineError], status: Status
) -> None:
    def refuse(engine: str, device: Device, precision: str) -> str:
        raise kind("it cannot be asked", got="a", expected="b", fix="c")

    answer(refuse)
    (row,) = run([candidate()])
    assert (row.status, row.arithmetic, LOG) == (status, "unknown", [])
    assert row.reason.startswith("it cannot be asked")


@pytest.fixture
def half(copied: Path, made: Manifest) -> tuple[Artifact, Reference]:
    """An artifact whose one variant is a small graph in float16, and what it must give."""
    chance = np.random.default_rng(5)
    images = chance.standard_normal((2, 3, *made.size), np.float32)
    weights = chance.standard_normal((images[0].size, 8)).astype(np.float16)
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [
                onnx.helper.make_node("Cast", [INPUT], ["half"], to=onnx.TensorProto.FLOAT16),
                onnx.helper.make_node("Flatten", ["half"], ["rows"]),
                onnx.helper.make_node("MatMul", ["rows", "weights"], ["product"]),
                onnx.helper.make_node("Cast", ["product"], ["cls"], to=onnx.TensorProto.FLOAT),
            ],
            "half",
            [onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, ["batch", *images.shape[1:]])],
            [onnx.helper.make_tensor_value_info("cls", onnx.TensorProto.FLOAT, ["batch", 8])],
            [onnx.numpy_helper.from_array(weights, "weights")],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=8,
    )
    onnx.save(model, copied / "half.onnx")
    graph = made.variants[1].graph
    assert graph is not None
    record = made.variants[1].model_copy(
        update={
            "variant": "onnx-fp16",
            "path": "half.onnx",
            "precision": "fp16",
            "graph": graph.model_copy(update={"operators": {"Cast": 2, "Flatten": 1, "MatMul": 1}}),
        }
    )
    expected = (images.reshape(2, -1).astype(np.float64) @ weights.astype(np.float64)).astype(np.float32)
    reference = Reference("original", images, {"cls": expected}, {"cls": 1e-7}, {})
    return Artifact(copied, made.model_copy(update={"variants": (record,)})), reference


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
@pytest.mark.parametrize("engine", ENGINES_HERE)
def test_a_float16_graph_passes_only_where_its_engine_computes_float16(
    engine: str, half: tuple[Artifact, Reference], answer: Callable[[Answer], None]
) -> None:
    artifact, reference = half
    (one,) = listing.candidates(artifact, CPU, reference, [engine])
    assert (one.variant, one.engine, one.precision) == ("onnx-fp16", engine, "fp16")
    (row,) = run([one])
    computes = arithmetic_of(engine, CPU, "fp16")
    assert row.arithmetic == computes
    if computes != "fp16":
        assert (row.status, row.reason) == (Status.SKIPPED, f"engine computes {computes}")
        assert (row.outputs, row.latency) == ({}, ())
    answer(lambda engine, device, precision: precision)  # what was believed of it before
    (row,) = run([one])
    assert row.status is Status.PASSED, row


def test_the_limits_that_were_used_are_those_of_what_was_judged() -> None:
    rows = run(
        [
            candidate("a", precision="bf16", unjudged="the reference corrects it"),
            candidate("b", precision="fp16", fails_at="judge"),
            candidate("c", device=replace(CPU, arithmetic="hf32")),
            candidate("d", precision="int8", fails_at="open", error=UnavailableError(
                "no int8", got="a", expected="b", fix="c"
            )),
        ]
    )  # fmt: skip
    applied = saving.limits_applied(open_limits("strict"), rows)
    assert [(row.precision, row.arithmetic) for row in applied.rows] == [("fp32", "hf32"), ("fp16", "fp16")]
    assert applied.rows == (rows[2].limit, rows[1].limit)


def test_what_came_out_is_shown_of_one_image_as_the_variant_gave_it() -> None:
    (row,) = run([candidate()])
    first = truth(golden().pixel_values[:1])
    for name, block in row.output_summary.items():
        assert block.shape == (1, *first[name].shape[1:])
        assert block.first == tuple(float(value) for value in first[name].reshape(-1)[:5])
        assert (block.min, block.max) == (float(first[name].min()), float(first[name].max()))
    assert (row.output_summary["cls"].dtype, row.output_summary["cls"].device) == ("bfloat16", "cuda:1")
    assert (row.output_summary["patches"].dtype, row.output_summary["patches"].device) == ("float16", "npu:0")


def test_what_could_not_be_judged_has_no_smoke() -> None:
    (row,) = run([candidate(fails_at="judge")])
    assert (row.output_summary, row.outputs, row.latency) == ({}, {}, ())


def test_progress_names_every_variant_with_its_engine_and_device() -> None:
    lines: list[str] = []
    device = replace(CPU, name="cuda:1")
    validation.run([candidate("a"), candidate("b", device=device)], open_limits("strict"), PLAN, lines.append)
    timing = [f"timing 2 variants in turn at batch {batch}, for about 6 s" for batch in PLAN.batches]
    assert lines == ["a (stand-in, cpu)", "b (stand-in, cuda:1)", *timing]


def test_memory_is_that_of_this_process_unless_it_is_measured_in_one_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(validation, "reset_peak_memory", lambda: True)
    monkeypatch.setattr(validation, "resident_memory", lambda: (700, 1000))
    (row,) = run([candidate()])
    keys = ("peak_memory_is", "peak_rss_bytes", "peak_rss_growth_bytes")
    assert [getattr(row, key) for key in keys] == ["in process", 1000, 300]

    asked: list[OpenRequest] = []

    class Measurer(PeakMeasurer):
        def measure(self, subject: OpenRequest) -> Peak:
            asked.append(subject)
            LOG.append("isolated")
            return Peak(peak_rss_bytes=50, before_bytes=20, device_bytes=7)

    LOG.clear()
    one = candidate()
    (row,) = validation.run([one], open_limits("strict"), None, silent, Measurer()).rows
    assert [getattr(row, key) for key in keys] == ["isolated", 50, 30]
    assert (row.peak_device_bytes, row.peak_memory_reason) == (7, "")
    assert asked == [one.subject]
    assert LOG[:2] == ["isolated", "it open"]


def test_what_measures_memory_is_ready_before_the_first_clock_and_gone_before_the_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Measurer(PeakMeasurer):
        def ready(self) -> None:
            LOG.append("ready")

        def measure(self, subject: OpenRequest) -> Peak:
            return Peak()

        def close(self) -> None:
            LOG.append("closed")

    monkeypatch.setattr(validation, "time_side_by_side", lambda *given: LOG.append("timed") or UNTIMED)  # type: ignore[func-returns-value]
    LOG.clear()
    validation.run([candidate()], open_limits("strict"), PLAN, silent, Measurer())
    assert [LOG[0], *LOG[LOG.index("closed") :][:2]] == ["ready", "closed", "timed"]


@pytest.mark.parametrize("stage", ["", "open", "judge"])
def test_memory_that_could_not_be_measured_says_why_and_changes_no_verdict(stage: str) -> None:
    class Measurer(PeakMeasurer):
        def measure(self, subject: OpenRequest) -> Peak:
            return Peak(reason="it was killed")

    found = validation.run([candidate(fails_at=stage)], open_limits("strict"), None, silent, Measurer())
    (row,) = found.rows
    assert row.status is (Status.FAILED if stage else Status.PASSED)
    assert (row.peak_memory_is, row.peak_memory_reason) == ("isolated", "it was killed")
    assert row.peak_rss_bytes is row.peak_rss_growth_bytes is None


def test_a_variant_that_comes_back_early_has_no_time_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synchronisation, "comes_back_early", lambda forward, fetch, synchronize: True)
    (row,) = run([candidate()], PLAN)
    assert row.status is Status.PASSED
    assert row.timing_refused == synchronisation.REASON
    assert (row.latency, row.load_ms, row.first_ms) == ((), None, None)


def test_what_the_machine_did_meanwhile_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load(1.5, 0.25, True, "others were at work")
    monkeypatch.setattr(validation, "time_side_by_side", lambda runners, plan, say: load)
    assert validation.run([candidate()], open_limits("strict"), PLAN, silent).machine == load
    assert validation.run([candidate()], open_limits("strict"), None, silent).machine == UNTIMED


def recorded(folder: Path, made: Manifest) -> Reference:
    assert made.golden
    return Reference("recorded", *golden_room.load(folder / made.golden.path), {}, {})


@pytest.mark.parametrize("engine", [name for name in ENGINES_HERE if not simulates(name)])
def test_a_real_graph_with_one_gelu_spelled_wrong_fails_and_the_others_pass(
    engine: str, copied: Path, made: Manifest
) -> None:
    model = ir.load(copied / "model.onnx")
    next(node for node in model.graph if node.op_type == "Erf").op_type = "Tanh"
    ir.save(model, copied / "model.onnx")
    rows = run(listing.candidates(Artifact(copied, made), CPU, recorded(copied, made), [engine]))
    statuses = {row.variant: row.status.value for row in rows}
    others = ("patched-torch-fp32", "fused-torch-fp32", "onnx-fp32-npu")
    assert statuses == {"onnx-fp32": "failed", **dict.fromkeys(others, "passed")}
    for row in rows:
        if row.variant == "onnx-fp32":
            assert "operators" in row.reason
        else:
            assert {block.dtype for block in row.output_summary.values()} == {"float32"}


LEAST = {"fp16": 1e-4, "bf16": 1e-3}
"""Distance from the reference that arithmetic in a type cannot stay under: about its rounding unit."""


def test_every_precision_on_the_cpu_lies_within_its_strict_limit_and_shows(
    small: Artifact, small_artifact: Path, made: Manifest
) -> None:
    reference = recorded(small_artifact, made)
    rows = run(listing.candidates(small, CPU, reference, (), list(torch_precisions().values())))
    kinds = [(kind, name) for kind in ("patched", "fused") for name in torch_precisions()]
    assert [row.variant for row in rows] == [f"{kind}-torch-{name}" for kind, name in kinds]
    for row, (_, name) in zip(rows, kinds, strict=True):
        precision = torch_precisions()[name]
        assert row.precision == precision.limits
        assert row.status is Status.PASSED, (row.variant, row.outputs)
        errors = [output.vector_relative_error for output in row.outputs.values()]
        assert precision.limits == "fp32" or min(errors) > LEAST[precision.limits]
        assert {output.limit for output in row.outputs.values()} == {
            STRICT[precision.limits, precision.limits].bounds["vector_relative_error"]
        }


def test_each_variant_is_named_before_it_is_judged_and_then_how_many_have_been(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vconv.progress.EVERY_SECONDS", 0)
    said: list[str] = []
    names = ("one", "two", "three")
    validation.run([candidate(name) for name in names], open_limits("strict"), None, said.append)
    assert [line.split(",")[0] for line in said] == [
        *("one (stand-in", "two (stand-in", "variants judged: 1 of 3"),
        *("three (stand-in", "variants judged: 2 of 3"),
    ]
