"""`vconv validate`: judge and time every variant of an artifact."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from vconv.arguments import checked_arguments
from vconv.artifact.artifact import Artifact
from vconv.artifact.staging import scratch_folder
from vconv.convert.sources.table import DEFAULT_HUB
from vconv.errors import InputError
from vconv.precisions import AUTO
from vconv.runtime.devices.base import Settings
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.torch_kinds import PATCHED_FP32
from vconv.runtime.inputs.image_folder import find_images
from vconv.runtime.inputs.images import open_images, require_seed
from vconv.runtime.processes.measurer import PeakMeasurer
from vconv.runtime.processes.request import OpenRequest
from vconv.runtime.timing.clocks import TimingPlan
from vconv.surroundings import own_surroundings
from vconv.types import MANIFEST_FILE, Say, Status, silent
from vconv.validators import validation
from vconv.validators.accuracy.limits import Limits, open_limits
from vconv.validators.accuracy.reference_file import ReferenceFile
from vconv.validators.foreign.graph_file import is_foreign
from vconv.validators.latency import ranking
from vconv.validators.latency.speed_up import with_speed_ups
from vconv.validators.report import journal, saving
from vconv.validators.report import log as textlog
from vconv.validators.report.document import (
    CheckRow,
    DiagnosisRow,
    InputsRow,
    MachineLoad,
    ManifestIdentity,
    PublishedRow,
    RecordedReference,
    ReferenceRow,
    Report,
    TimingRow,
    ValidationResult,
)
from vconv.validators.report.page import page
from vconv.validators.validation import Looks, RunResult
from vconv.workflows import card, originals, page_data, sample_images
from vconv.workflows.against import AskedReference
from vconv.workflows.bisect import explain_failures
from vconv.workflows.checks import CheckedArtifact, check_artifact
from vconv.workflows.dataset import Agreed, agree, require_original
from vconv.workflows.npu_profile import profiler
from vconv.workflows.reference import read_reference
from vconv.workflows.run_plan import RunPlan, timing_plan
from vconv.workflows.validate_graphs import validate_graphs


@checked_arguments
@own_surroundings()
def validate(
    path: str | Path,
    weights: str | Path | None = None,
    *,
    against: str | Path | None = None,
    device: str = "cpu",
    hf32: Sequence[str] | None = None,
    profile: str | None = None,
    fusions: str | None = None,
    profile_npu: str | Path | None = None,
    within: str | Path = "strict",
    images: Sequence[str | Path] = (),
    dataset: str | Path | None = None,
    reference: str | Path | None = None,
    engines: Sequence[str] | None = None,
    precision: Sequence[str] = (AUTO,),
    capture: bool = False,
    quick: bool = False,
    full: bool = False,
    budget: float | None = None,
    seed: int = 0,
    hub: str = DEFAULT_HUB,
    offline: bool = False,
    periods: str | None = None,
    reports: str | Path | None = None,
    say: Say = silent,
) -> ValidationResult:
    """Judge every variant of an artifact by the original, and time it.

    The original runs live if its weights are available: given, synthetic and drawn again, or on the hub
    of origin. Otherwise the recorded outputs replace the live original, and the report says so.

    Args:
        path: the artifact.
        weights: where the original's weights are; by default where the manifest says.
        against: for graphs of other exporters, what they are judged by: an artifact, a folder with a
            checkpoint, or the name of a system. ``path`` is then a graph or a folder of graphs.
        device: the device that runs variants: ``cpu``, ``cuda[:N]``, ``npu[:N]``, ``npu-sim``, or ``all``.
        hf32: the operations that an NPU may compute in HF32, ``conv`` and ``matmul``; by default ``conv``, as
            in torch_npu.
        profile: the NPU to simulate: ``910b``, the default, or ``310p``.
        fusions: whether a simulated NPU runs the published fusion passes of CANN on graphs: ``on``, or
            ``off``, the default.
        profile_npu: an empty folder for profiles of the torch variants on an NPU, by torch_npu's profiler.
        within: the limits: ``strict``, ``card``, or a TOML file that replaces some of the strict limits.
        images: photographs to judge on; the recorded inputs by default.
        dataset: a folder with any number of images, on which every variant is judged as well, image by
            image. After a kill, the next run resumes and does not repeat finished images.
        reference: a file that :func:`vconv.reference` wrote on another machine. Variants are compared with
            its outputs on its images.
        engines: the engines that run graphs and torch variants, or ``all``; those of ``all`` that
            cannot run here are listed as skipped. By default ONNX Runtime and torch, also beside an engine
            that runs none of the graphs, or none of the torch variants.
        precision: the precisions in which torch variants are run; by default the device's usual ones.
        capture: whether to also run torch variants captured as one graph and replayed, on CUDA and NPUs.
        quick: whether to time ten runs only.
        full: whether to time batches 1, 2, 4, 8 and 16 without a budget.
        budget: seconds that a variant may take at one batch; 60 by default.
        seed: the seed of made-up images, which are used if there are no recorded inputs.
        hub: the hub of a repository that ``weights`` names.
        offline: whether to look for repositories only in the hub's cache.
        periods: with ``against``, the RoPE periods of a DINOv3 as the reference: ``authors``, the default, or
            ``library``, as exporters of its library have them.
        reports: a folder for the report and what belongs to it; by default ``reports/`` of the artifact. With
            it, which must be outside, nothing is written into the artifact.
        say: receives progress lines.

    Returns:
        The report, with ``status`` and ``passed``. It is also saved under ``reports/``, with a plain-text
        log and an HTML ``page``. Subscripts, such as ``report["passed"]``, are deprecated.

    Raises:
        VconvError: an error that the user can fix.
    """
    log = textlog.Log(say)
    plan = timing_plan(quick, full, budget)
    trial = RunPlan.on(device, Settings.of(hf32, profile, fusions), engines, precision, capture, log.say)
    profiled = profiler(profile_npu, trial.devices, log.say)
    limits = open_limits(within)
    require_seed(seed)
    photographs = open_images(images, log.say) if images else []
    image_folder = find_images(dataset, log.say) if dataset is not None else None
    if against is not None or is_foreign(Path(path)):
        refused = {"--dataset": dataset, "--reference": reference, "--profile-npu": profile_npu}
        where = _judged_by(path, against, refused)
        asked = AskedReference(where, weights, hub, offline, periods, photographs, seed)
        return validate_graphs(Path(path), asked, trial, limits, plan, reports, log)
    if periods is not None:
        raise InputError(
            "--periods is used with --against alone",
            got=f"{path}, which says what its periods are",
            expected="a graph of another exporter",
            fix="leave --periods out",
        )
    artifact = Artifact.open(path)
    folder = artifact.folder
    recorded = read_reference(reference, artifact.manifest, {"--images": images, "--dataset": dataset})
    limits.require_use(str(folder), artifact.manifest.outputs)
    artifact.require_weights()
    if image_folder and reports is not None:
        raise InputError(
            "--reports is not used with --dataset",
            got="both",
            expected="one of them: what is done of a folder of images is kept in the artifact",
            fix="leave one of them out",
        )
    saving.probe(folder, elsewhere=reports)
    with contextlib.ExitStack() as kept:
        if image_folder:
            kept.enter_context(journal.alone(folder))
        measurer = None if quick else kept.enter_context(PeakMeasurer())
        scratch = kept.enter_context(scratch_folder(log.say))
        original = partial(originals.live_source, artifact, weights, hub, offline, scratch, log.say)
        refer = partial(
            originals.reference,
            artifact,
            photographs=photographs,
            seed=seed,
            say=log.say,
            elsewhere=recorded,
        )

        def prepare() -> None:
            if measurer and not all(place.simulated for place in trial.devices):
                measurer.prepare(OpenRequest(str(folder), PATCHED_FP32, "torch", "fp32", "cpu"))

        found = check_artifact(artifact, original, refer, limits, log.say, prepare)
        if image_folder:
            require_original(found.source)
        gallery, depths = page_data.gallery(found), page_data.depths(found, quick, trial.devices, log.say)
        candidates = trial.candidates(found)
        looks = Looks(depth=depths.look, patch_maps=gallery.look, profile=profiled.look if profiled else None)
        run = validation.run(candidates, limits, plan, log.say, measurer, looks)
        rows = run.rows
        diagnosis = explain_failures(found, rows, log.say, [*trial.devices, find_device("cpu")])
        agreed = agree(found, candidates, rows, image_folder, log.say) if image_folder else None
    run = replace(run, rows=agreed.rows if agreed else rows)
    report = _report(found, weights, trial, run, limits, plan, recorded, diagnosis, agreed)
    pictures = {".html": partial(page.render, report, gallery=gallery)}
    saved = saving.save(folder, report, "validate", log.render(report), pictures, reports)
    if agreed:
        journal.discard(agreed.work)
    return ValidationResult(
        **dict(report),
        report=str(saved),
        log=str(saved.with_suffix(".log")),
        page=str(saved.with_suffix(".html")),
        card=card.refresh(artifact, say) if reports is None else None,
    )


def _judged_by(path: str | Path, against: str | Path | None, unsupported: Mapping[str, object]) -> str | Path:
    """Return what graphs of other exporters are judged by.

    Raises:
        InputError: nothing is named, the path is an artifact, or an option is for artifacts alone.
    """
    if against is None:
        raise InputError(
            f"{path} is a graph of another exporter, and says nothing of its original",
            got="no --against",
            expected="an artifact, a folder with a checkpoint, or the name of a system, to judge it by",
            fix=f"add --against, such as `vconv validate {path} --against dinov2-small`; "
            f"an artifact has a {MANIFEST_FILE}: export it again if that is lost",
        )
    if (Path(path) / MANIFEST_FILE).exists():
        raise InputError(
            "--against is for graphs of other exporters",
            got=f"{path}, an artifact",
            expected="a graph, or a folder of graphs",
            fix="leave --against out: an artifact says what its original is",
        )
    for name, value in unsupported.items():
        if value is not None:
            raise InputError(
                f"{name} is not used with --against",
                got="both",
                expected="one of them",
                fix=f"leave {name} out",
            )
    return against


def _report(
    found: CheckedArtifact,
    weights: str | Path | None,
    trial: RunPlan,
    run: RunResult,
    limits: Limits,
    plan: TimingPlan,
    recorded: ReferenceFile | None,
    diagnosis: Sequence[DiagnosisRow],
    agreed: Agreed | None,
) -> Report:
    """Build the report of a validation from its results."""
    made = found.artifact.manifest
    ranked = ranking.rank(run.rows, run.machine)
    rows, baseline = with_speed_ups(run.rows, ranked)
    status = saving.whole(rows, found.checks)
    published = originals.published(found.artifact, trial.devices) if rows else []
    reference = ReferenceRow(
        name=found.reference.name if found.reference else None,
        source=found.reference_is,
        precision="fp32",
        device=found.reference.device if found.reference else "cpu",
        recorded=RecordedReference.model_validate(recorded.describe()) if recorded else None,
    )
    return Report(
        time=saving.now(),
        host=platform.node(),
        artifact=made.system.name,
        weights=originals.weights_used(found.artifact, weights),
        synthetic=made.source.synthetic,
        status=status,
        passed=status is Status.PASSED,
        limits=saving.limits_applied(limits, rows),
        reference=reference,
        inputs=InputsRow.model_validate(found.inputs),
        manifest=ManifestIdentity.model_validate(page_data.identity(found.artifact)),
        preprocessing_ms_per_image=sample_images.preprocessing_ms(found.artifact.folder),
        **trial.described(),
        timing=TimingRow.model_validate(plan),
        checks=tuple(CheckRow.model_validate(check) for check in found.checks),
        diagnosis=tuple(diagnosis),
        speed_up_baseline=baseline,
        machine=MachineLoad.model_validate(run.machine),
        ranking=ranked,
        winners=tuple(
            ranking.loadable(one, trial.devices)
            for one in ranking.winners(ranked, [place.name for place in trial.devices])
        ),
        variants=rows,
        published=tuple(PublishedRow.model_validate(row) for row in published),
        dataset=agreed.document if agreed else None,
    )
