"""Validation, for every system."""

from __future__ import annotations

import functools
import hashlib
import html
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers

import vconv
from vconv.artifact import manifest
from vconv.catalog.systems import System
from vconv.convert.sources.base import Source
from vconv.convert.sources.table import Request, open_source
from vconv.disk import SCRATCH
from vconv.errors import InputError, WeightsError
from vconv.runtime.devices.table import find_device
from vconv.runtime.processes.measurer import PeakMeasurer
from vconv.runtime.processes.peak_memory import Peak
from vconv.runtime.processes.request import OpenRequest
from vconv.runtime.timing import machine_load
from vconv.runtime.timing.clocks import TimingPlan
from vconv.runtime.timing.machine_load import CounterReading
from vconv.runtime.timing.statistics import LEAST_SAMPLES
from vconv.validators.latency import winners
from vconv.validators.report.document import InputsRow, ValidationResult
from vconv.workflows import run_plan

LIMIT = 1e-5


@pytest.fixture(scope="module")
def reports(export_in_full: Callable[[str], Path]) -> Callable[[str], ValidationResult]:
    """Validate the artifact of a system once a session; return its report."""
    return functools.cache(
        lambda name: vconv.validate(
            export_in_full(name), quick=True, budget=2.0, engines=("onnxruntime", "openvino")
        )
    )


@pytest.fixture
def validated(reports: Callable[[str], ValidationResult], system: System) -> ValidationResult:
    return reports(system.name)


def test_a_validation_passes_and_says_that_its_reference_was_live(
    validated: ValidationResult, system: System
) -> None:
    assert (validated.status, validated.passed, validated.artifact) == ("passed", True, system.name)
    assert validated.reference.source == "live"
    assert (validated.weights, validated.synthetic) == ("synthetic:0", True)
    assert {check.status for check in validated.checks} == {"passed"}


def test_every_variant_is_judged_in_every_engine_and_the_original_only_measured(
    validated: ValidationResult, system: System
) -> None:
    names = [(variant.variant, variant.engine) for variant in validated.variants]
    assert len(names) == len(set(names)) == 7
    assert names[0] == ("original-torch-fp32", "torch")
    assert validated.variants[0].reason
    for variant in validated.variants:
        original = variant.variant == "original-torch-fp32"
        assert variant.status == ("skipped" if original else "passed"), variant
        for output in variant.outputs.values():
            assert 1e-8 < output.floor < 5e-6
            assert original or output.vector_relative_error <= output.limit == LIMIT
            if "dinov3" in system.name:
                assert 1e-4 < output.to_stock_original < 1e-1


def test_every_variant_is_timed_and_a_static_graph_at_its_own_batch(validated: ValidationResult) -> None:
    for variant in validated.variants:
        batches = [timing.batch for timing in variant.latency]
        assert batches == ([2] if "npu" in variant.variant else [1])
        assert all(timing.runs >= 1 and timing.p99_ms is None for timing in variant.latency)
        assert all(len(timing.samples_ms) == timing.runs for timing in variant.latency)
        assert all(timing.warnings[0].startswith("too few samples") for timing in variant.latency)
        assert variant.timing_refused is None


def test_too_few_runs_have_no_ranking_and_what_others_did_is_told(validated: ValidationResult) -> None:
    ranking, machine = validated.ranking, validated.machine
    assert ranking.refused and ranking.rows == ()
    assert set(machine.as_json()) == {"others_cores", "steal_cores", "busy", "reason"}
    assert machine.reason in Path(validated.log).read_text()


def test_torch_variants_tell_what_they_launch_and_the_spelled_out_gelu_four_more_a_block(
    validated: ValidationResult, artifact: Path
) -> None:
    found = {variant.variant: variant.launches for variant in validated.variants}
    original, patched = found.pop("original-torch-fp32"), found.pop("patched-torch-fp32")
    assert found.pop("fused-torch-fp32").total < original.total
    assert set(found.values()) == {None}
    assert {original.how, patched.how} == {"operators"}
    assert [sum(each.operators.values()) for each in (original, patched)] == [
        original.total,
        patched.total,
    ]
    blocks = original.operators["gelu"]
    assert patched.operators["erf"] == blocks
    assert patched.total == original.total + 4 * blocks
    line = f"launches: for one image {patched.total} operators; operators: "
    assert line in Path(validated.log).read_text()


def test_at_a_glance_memory_is_that_of_this_process(validated: ValidationResult) -> None:
    for variant in validated.variants:
        assert variant.peak_memory_is == "in process"
        assert variant.peak_rss_bytes > variant.peak_rss_growth_bytes >= 0


def test_a_report_is_on_disk_as_it_was_returned_and_the_manifest_is_untouched(
    validated: ValidationResult, artifact: Path
) -> None:
    path = Path(validated.report)
    entries = {
        entry["file"]: entry for entry in json.loads((artifact / "results.json").read_text())["reports"]
    }
    assert entries[f"reports/{path.name}"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    stored = json.loads(path.read_text())
    returned = json.loads(json.dumps(validated.as_json(), allow_nan=False))
    for key in ("report", "log", "page", "card"):
        del returned[key]
    assert stored == returned
    assert path.with_suffix(".log") == Path(validated.log)
    log = path.with_suffix(".log").read_text()
    assert "(synthetic: not trained weights)" in log
    assert all(variant.variant in log for variant in validated.variants)
    manifest.load(artifact)


def test_photographs_pass_too_where_the_original_is_live(copied: Path, photographs: list[str]) -> None:
    report = vconv.validate(copied, images=photographs, quick=True)
    assert report.passed
    assert next(check for check in report.checks if check.name == "golden").status == "skipped"


def test_without_golden_and_without_the_original_a_validation_is_incomplete(
    small_name: str, small_system: System, tmp_path: Path
) -> None:
    (tmp_path / "weights").mkdir()
    folder = open_source(Request(small_system, "synthetic:5"), tmp_path / "weights").folder
    document = vconv.export(small_name, str(folder), tmp_path / "a", golden=False)
    assert document["variants"] == []
    assert not (tmp_path / "a" / "golden").exists()
    report = vconv.validate(tmp_path / "a", quick=True)
    assert (report.status, report.passed, report.variants) == ("incomplete", False, ())
    report = vconv.validate(tmp_path / "a", str(folder), quick=True)
    assert report.status == "passed"


@pytest.mark.parametrize("system", ["vit-base-patch16-224-in21k"], indirect=True)
def test_the_same_weights_under_the_names_in_memory_are_the_original(
    small_name: str, small_source: Source, tmp_path: Path
) -> None:
    model = transformers.AutoModel.from_pretrained(small_source.folder, dtype=torch.float32)
    folder = shutil.copytree(small_source.folder, tmp_path / "in-memory")
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    vconv.export(small_name, folder, tmp_path / "a")
    report = vconv.validate(tmp_path / "a", str(small_source.folder), quick=True, budget=1e-3)
    assert report.status == "passed"
    vconv.export(small_name, folder, tmp_path / "b", without_weights=True)
    vconv.fill(tmp_path / "b", str(small_source.folder))


def test_the_weights_of_another_seed_are_not_the_original(
    small_name: str, small_source: Source, tmp_path: Path
) -> None:
    vconv.export(small_name, "synthetic:5", tmp_path / "a")
    report = vconv.validate(tmp_path / "a", str(small_source.folder), quick=True)
    assert report.status == "failed"
    failed = [check.name for check in report.checks if check.status == "failed"]
    assert failed == ["tensors", "golden"]


SEEDED: dict[str, Callable[[Path], object]] = {
    "validate": lambda path: vconv.validate(path, seed=-1),
    "compare": lambda path: vconv.compare([path], seed=-1),
    "bisect": lambda path: vconv.bisect(path, seed=-1),
    "reference": lambda path: vconv.reference(path, out=path.parent / "reference", seed=-1),
}


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
@pytest.mark.parametrize("command", SEEDED)
def test_a_negative_seed_is_refused_also_where_images_were_recorded(
    command: str, small_artifact: Path, refused: Callable[..., Any]
) -> None:
    with refused(InputError, "the seed is out of range", "got -1"):
        SEEDED[command](small_artifact)


def test_a_changed_file_stops_a_validation(copied: Path) -> None:
    from vconv.errors import ArtifactError

    with (copied / "model.onnx").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff")
    with pytest.raises(ArtifactError, match=r"model\.onnx was changed"):
        vconv.validate(copied, quick=True)


def test_an_artifact_cannot_be_its_own_original(small_name: str, tmp_path: Path) -> None:
    vconv.export(small_name, "synthetic:5", tmp_path / "a")
    for given in (tmp_path / "a", tmp_path / "a" / "model.safetensors"):
        with pytest.raises(vconv.VconvError, match="is an artifact .*the original's"):
            vconv.validate(tmp_path / "a", str(given), quick=True)
        with pytest.raises(vconv.VconvError, match="is an artifact"):
            vconv.export(small_name, str(given), tmp_path / "b")


def test_the_same_tensors_under_another_epsilon_are_not_the_original(
    small_name: str, small_system: System, tmp_path: Path
) -> None:
    (tmp_path / "weights").mkdir()
    folder = open_source(Request(small_system, "synthetic:5"), tmp_path / "weights").folder
    vconv.export(small_name, str(folder), tmp_path / "a", golden=False)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    report = vconv.validate(tmp_path / "a", str(folder), quick=True)
    assert report.status == "failed"
    failed = {check.name for check in report.checks if check.status == "failed"}
    reads_the_key = small_system.library == "transformers"  # timm builds the same network and ignores it
    assert failed == ({"architecture", "source"} if reads_the_key else {"source"})


def test_an_artifact_that_lacks_a_variant_fails(small_name: str, tmp_path: Path) -> None:
    vconv.export(small_name, "synthetic:5", tmp_path / "a")
    made = manifest.load(tmp_path / "a")
    made.model_copy(update={"variants": made.variants[:1]}).save(tmp_path / "a")
    report = vconv.validate(tmp_path / "a", quick=True)
    assert report.status == "failed"
    failed = [check.detail for check in report.checks if check.status == "failed"]
    assert failed == ["onnx-fp32, onnx-fp32-npu missing"]


def test_a_damaged_index_of_reports_stops_a_validation_before_it_runs(
    small_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vconv.export(small_name, "synthetic:5", tmp_path / "a")
    (tmp_path / "a" / "results.json").write_text("{")
    monkeypatch.setattr("vconv.validators.validation.run", lambda *args: pytest.fail("it ran"))
    with pytest.raises(vconv.VconvError, match=r"cannot read \S*results\.json .*delete it"):
        vconv.validate(tmp_path / "a", quick=True)


def test_a_report_says_what_it_judged_on_and_what_preprocessing_costs(
    validated: ValidationResult,
) -> None:
    assert validated.inputs == InputsRow(source="recorded", images=("synthetic:0", "synthetic:1"))
    assert validated.preprocessing_ms_per_image > 0


def test_every_variant_shows_what_came_out_of_it(validated: ValidationResult, artifact: Path) -> None:
    declared = manifest.load(artifact).outputs
    for variant in validated.variants:
        assert set(variant.output_summary) == set(declared)
        for name, block in variant.output_summary.items():
            assert block.shape == (1, *declared[name][1:])
            assert (block.dtype.replace("float32", "float"), block.device) == ("float", "cpu")
            assert block.min < block.mean < block.max
            assert len(block.first) == 5


def test_speed_ups_are_over_the_original_on_the_cpu(validated: ValidationResult) -> None:
    listed = {(row.variant, row.batch) for row in validated.ranking.rows}
    assert validated.speed_up_baseline == "original-torch-fp32 on cpu" * bool(listed)
    base = validated.variants[0].latency[0]
    for variant in validated.variants:
        for timing in variant.latency:
            if timing.batch == base.batch and (variant.variant, timing.batch) in listed:
                assert timing.speed_up_over_cpu == pytest.approx(base.p50_ms / timing.p50_ms)
            else:
                assert timing.speed_up_over_cpu is None


def test_published_figures_are_those_of_the_same_kind_of_device(
    validated: ValidationResult, system: System
) -> None:
    expected = [row for row in system.published if row.kind == "cpu"]
    assert [row.source for row in validated.published] == [row.source for row in expected]
    assert [row.figures for row in validated.published] == [dict(row.figures) for row in expected]


def test_torch_variants_run_in_every_precision_that_is_asked_for(copied: Path) -> None:
    names = ("fp32", "fp16", "bf16", "autocast-fp16", "autocast-bf16")
    report = vconv.validate(copied, precision=names, quick=True, budget=1e-3)
    rows = {row.variant: row for row in report.variants}
    assert report.passed
    assert {
        f"{kind}-torch-{name}" for kind in ("original", "patched", "fused") for name in names
    } <= rows.keys()
    for name in names[1:]:
        row = rows[f"patched-torch-{name}"]
        assert row.status == "passed"
        errors = [output.vector_relative_error for output in row.outputs.values()]
        assert 1e-5 < max(errors) <= next(iter(row.outputs.values())).limit


def test_a_repository_that_cannot_be_had_leaves_the_recorded_outputs_and_says_so(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*arguments: Any, **options: Any) -> None:
        raise WeightsError("the hub cannot be reached", got="no network", expected="one", fix="wait")

    made = manifest.load(copied)
    origin = {"kind": "huggingface", "identity": "me/mine", "revision": "a" * 40, "synthetic": False}
    made.model_copy(update={"source": made.source.model_copy(update=origin)}).save(copied)
    monkeypatch.setattr("vconv.convert.hubs.table.download", download)
    report = vconv.validate(copied, quick=True, budget=1e-3)
    assert (report.status, report.reference.source) == ("passed", "golden")
    check = next(check for check in report.checks if check.name == "source")
    assert (check.status, check.detail) == ("skipped", "the hub cannot be reached, got no network")


def test_a_comparison_has_one_row_a_variant_engine_and_batch_over_all_artifacts(
    small_artifact: Path, tmp_path: Path
) -> None:
    copies = [tmp_path / name for name in ("a", "b")]
    for copy in copies:
        shutil.copytree(small_artifact, copy)
    document = vconv.compare(copies, engines=("onnxruntime", "openvino"), quick=True, budget=1e-3)
    assert (document.passed, document.winner, document.checks) == (True, None, ())
    assert document.winner_reason == document.ranking.refused
    assert all(len(row.samples_ms) == row.runs for row in document.rows)
    keys = [(row.variant, row.engine, row.batch) for row in document.rows]
    one = [
        ("original-torch-fp32", "torch", 1),
        ("patched-torch-fp32", "torch", 1),
        ("fused-torch-fp32", "torch", 1),
        ("onnx-fp32", "onnxruntime", 1),
        ("onnx-fp32", "openvino", 1),
        ("onnx-fp32-npu", "onnxruntime", 2),
        ("onnx-fp32-npu", "openvino", 2),
    ]
    assert keys == one * 2
    assert {row.artifact for row in document.rows} == set(map(str, copies))
    for row in document.rows:
        assert row.weights.endswith("(synthetic: not trained weights)")
        assert row.passed == (row.variant != "original-torch-fp32")
        assert row.p50_ms > 0
        assert row.device == "cpu"
    for copy in copies:
        (entry,) = json.loads((copy / "results.json").read_text())["reports"]
        assert entry["file"].endswith("-compare.json")


ONE = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
"""What does not depend on the system is tried with one."""


@ONE
def test_memory_is_measured_in_processes_of_their_own_unless_a_glance_is_asked_for(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[OpenRequest] = []

    def measured(measurer: PeakMeasurer, subject: OpenRequest) -> Peak:
        assert not subject.original or (Path(subject.original) / "config.json").is_file()
        asked.append(subject)
        return Peak(peak_rss_bytes=50, before_bytes=20)

    monkeypatch.setattr(PeakMeasurer, "measure", measured)
    monkeypatch.setattr(PeakMeasurer, "prepare", lambda measurer, subject: None)
    report = vconv.validate(copied, budget=1e-3)
    names = [(subject.variant, subject.engine, bool(subject.original)) for subject in asked]
    assert names == [
        ("", "torch", True),
        ("patched-torch-fp32", "torch", False),
        ("patched-torch-fp32", "torch", False),
        ("onnx-fp32", "onnxruntime", False),
        ("onnx-fp32-npu", "onnxruntime", False),
    ]
    assert {subject.artifact for subject in asked} == {str(copied)}
    for variant in report.variants:
        assert (variant.peak_memory_is, variant.peak_rss_growth_bytes) == ("isolated", 30)


@ONE
@pytest.mark.real_processes
def test_an_original_and_a_patched_variant_are_measured_by_real_children(copied: Path) -> None:
    report = vconv.validate(copied, budget=1e-3)
    for variant in report.variants:
        assert (variant.peak_memory_is, variant.peak_memory_reason) == ("isolated", "")
        assert variant.peak_rss_bytes > variant.peak_rss_growth_bytes > 0
        assert variant.peak_device_bytes is None


@pytest.fixture
def quiet_glance(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A glance that takes enough samples, on a machine whose counters say that nothing else runs."""
    monkeypatch.setattr(run_plan, "QUICK", TimingPlan(warmups=1, runs=LEAST_SAMPLES, budget_seconds=None))
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr(machine_load, "read_counters", lambda: CounterReading(next(clock), 0.0, 0.0, 0.0, 2))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@ONE
@pytest.mark.usefixtures("quiet_glance")
def test_a_quiet_machine_has_a_ranking_and_a_comparison_a_winner(
    small_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copies = [Path("a"), Path("b")]
    vconv.export(small_name, "synthetic:5", copies[0])
    shutil.copytree(*copies)
    report = vconv.validate(copies[0], quick=True)
    ranking = report.ranking
    assert (ranking.refused, ranking.left_out, report.machine.busy) == (None, (), False)
    passed = {"patched-torch-fp32", "fused-torch-fp32", "onnx-fp32", "onnx-fp32-npu"}
    assert {row.variant for row in ranking.rows if row.rank} == passed
    assert [row.variant for row in ranking.rows if not row.rank] == ["original-torch-fp32"]
    document = vconv.compare(copies, quick=True)
    winner, first = document.winner, document.ranking.rows[0]
    assert winner is not None
    for key in ("artifact", "variant", "engine", "tied_with", "device", "batch"):
        assert getattr(winner, key) == getattr(first, key)
    for report_of, won in ((copies[0], report.winners[0]), (Path(winner.artifact), winner)):
        assert won.load is not None
        with eval(won.load, {"vconv": vconv}) as session:
            assert (session.variant, session.engine) == (won.variant, won.engine)
        entries = json.loads((report_of / "results.json").read_text())["reports"]
        assert won.load in [one["load"] for entry in entries for one in entry.get("winners", ())]
    for ending in (report.log, report.page):
        assert str(report.winners[0].load) in html.unescape(Path(ending).read_text())
    assert document.winner_reason is None
    assert len([row for row in document.ranking.rows if row.rank]) == 8
    for copy in copies:
        first = [row for row in document.ranking.rows if row.artifact == str(copy) and row.rank]
        best = [(row.variant, row.engine) for row in first if row.rank == first[0].rank]
        with vconv.load(copy) as session:
            assert (session.variant, session.engine) in best
        assert [(one.variant, one.engine) for one in winners.ranked(copy, find_device("cpu"))] == [
            (row.variant, row.engine) for row in first
        ]


def test_a_comparison_of_nothing_or_of_one_artifact_with_itself_is_refused(copied: Path) -> None:
    with pytest.raises(InputError, match="got no artifact "):
        vconv.compare([])
    with pytest.raises(InputError, match="which is one artifact"):
        vconv.compare([copied, copied.parent / "." / copied.name])
    assert not (copied / "reports").exists()


def test_what_a_killed_validation_left_is_removed(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    left = tmp_path / "temporary" / f"{SCRATCH}of-a-killed-one"
    (left / "original").mkdir(parents=True)
    lines: list[str] = []
    vconv.validate(copied, quick=True, budget=1e-3, say=lines.append)
    assert lines[0] == f"removing {left}, which a killed command left"
    assert list(left.parent.iterdir()) == []


@pytest.mark.parametrize("system", ["dinov3-vits16", "vit_small_patch16_dinov3.lvd1689m"], indirect=True)
def test_a_fine_tune_with_its_librarys_periods_is_judged_against_those(
    small_name: str, tmp_path: Path
) -> None:
    vconv.export(small_name, "synthetic:5", tmp_path / "a", periods="library")
    made = manifest.load(tmp_path / "a")
    (patch,) = (patch for patch in made.patches if patch.name == "rope-periods")
    assert (patch.applied, patch.proof) == (False, "left out, as --periods library asks")
    assert (made.rope_periods, made.source.periods) == (None, "library")
    report = vconv.validate(tmp_path / "a", quick=True, budget=1e-3)
    assert (report.passed, report.reference.name) == (True, "original")
    rows = {row.variant: row for row in report.variants}
    original = rows["original-torch-fp32"].outputs
    assert max(row.vector_relative_error for row in original.values()) == 0.0
    forgotten = made.model_copy(update={"source": made.source.model_copy(update={"periods": None})})
    forgotten.save(tmp_path / "a")
    report = vconv.validate(tmp_path / "a", quick=True, budget=1e-3)
    assert report.status == "failed"
    failed = {row.variant for row in report.variants if row.status == "failed"}
    assert failed == {"patched-torch-fp32", "fused-torch-fp32", "onnx-fp32", "onnx-fp32-npu"}


def test_a_comparison_is_incomplete_where_one_artifact_was_not_compared(
    small_name: str, small_system: System, tmp_path: Path
) -> None:
    (tmp_path / "weights").mkdir()
    folder = open_source(Request(small_system, "synthetic:5"), tmp_path / "weights").folder
    vconv.export(small_name, "synthetic:5", tmp_path / "a")
    vconv.export(small_name, folder, tmp_path / "b", golden=False)
    document = vconv.compare([tmp_path / "a", tmp_path / "b"], quick=True, budget=1e-3)
    assert (document.status, document.passed) == ("incomplete", False)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert document.statuses == {a: "passed", b: "incomplete"}
    assert document.references == {a: "live", b: "none"}
    assert {check.artifact for check in document.checks} == {b}
