"""`vconv validate GRAPH --against WHERE`: judge graphs that vconv did not export."""

from __future__ import annotations

import platform
from functools import partial
from pathlib import Path

from vconv.artifact.staging import scratch_folder
from vconv.runtime.timing.clocks import TimingPlan
from vconv.types import Status
from vconv.validators import validation
from vconv.validators.accuracy.limits import Limits
from vconv.validators.foreign.graph_file import find_graphs
from vconv.validators.latency import ranking
from vconv.validators.latency.speed_up import with_speed_ups
from vconv.validators.report import log as textlog
from vconv.validators.report import saving
from vconv.validators.report.document import (
    CheckRow,
    InputsRow,
    MachineLoad,
    ReferenceRow,
    Report,
    TimingRow,
    ValidationResult,
)
from vconv.validators.report.page import page
from vconv.validators.validation import Looks
from vconv.workflows import candidates, foreign, page_data, sample_images
from vconv.workflows.against import AskedReference, inputs_of, open_against
from vconv.workflows.foreign_causes import explain_failures
from vconv.workflows.run_plan import RunPlan

DEFAULT_REPORTS = "reports"


def validate_graphs(
    path: Path,
    asked: AskedReference,
    trial: RunPlan,
    limits: Limits,
    plan: TimingPlan,
    reports: str | Path | None,
    log: textlog.Log,
) -> ValidationResult:
    """Judge the graphs of a path, and time them beside the original.

    Args:
        path: a graph, or a folder in the form of a hub's repositories.
        asked: what they are judged by.
        trial: the devices and engines.
        limits: the limits.
        plan: how much to time.
        reports: a folder for the report; by default ``reports`` in the current folder.
        log: receives progress lines, and draws the report.

    Returns:
        The report, which is also saved.

    Raises:
        VconvError: an error that the user can fix.
    """
    find_graphs(path)  # refused before anything runs
    place = DEFAULT_REPORTS if reports is None else reports
    saving.probe(elsewhere=place)
    with scratch_folder(log.say) as scratch:
        against = open_against(asked, scratch, log.say)
        understood = foreign.understood_all([path], against, trial.devices)
        graphs = understood.graphs
        judge = against.at(None)
        gallery = page_data.gallery_of(judge.source.folder, judge.network, judge.reference, judge.images)
        listed = [
            candidate
            for device in trial.devices
            if not device.simulated
            for candidate in candidates.originals(
                str(path), judge.source, judge.source.image_size, device, judge.own
            )
        ]
        listed += [
            candidate
            for graph in graphs
            for candidate in foreign.candidates(graph, trial.devices, trial.engines)
        ]
        run = validation.run(listed, limits, plan, log.say, looks=Looks(patch_maps=gallery.look))
        found = explain_failures(graphs, run.rows, log.say)
        preprocessing = sample_images.preprocessing_ms(judge.source.folder)
        described = inputs_of(against)
    checks = [*understood.left_out, *(check for graph in graphs for check in graph.checks)]
    ranked = ranking.rank(run.rows, run.machine)
    rows, baseline = with_speed_ups(run.rows, ranked)
    status = saving.whole([row for row in rows if row.engine != "torch"], checks)
    report = Report(
        time=saving.now(),
        host=platform.node(),
        artifact=str(path),
        weights=against.weights,
        synthetic=against.synthetic,
        status=status,
        passed=status is Status.PASSED,
        limits=saving.limits_applied(limits, rows),
        reference=ReferenceRow(name=judge.reference.name, source="live", precision="fp32", device="cpu"),
        inputs=InputsRow.model_validate(described),
        manifest=None,
        graphs=tuple(graph.row() for graph in graphs),
        preprocessing_ms_per_image=preprocessing,
        **trial.described(),
        timing=TimingRow.model_validate(plan),
        checks=tuple(CheckRow.model_validate(check) for check in checks),
        diagnosis=tuple(found),
        speed_up_baseline=baseline,
        machine=MachineLoad.model_validate(run.machine),
        ranking=ranked,
        winners=ranking.winners(ranked, [place.name for place in trial.devices]),
        variants=rows,
        published=(),
        dataset=None,
    )
    pictures = {".html": partial(page.render, report, gallery=gallery)}
    saved = saving.save(Path(place), report, "validate", log.render(report), pictures, place)
    return ValidationResult(
        **dict(report),
        report=str(saved),
        log=str(saved.with_suffix(".log")),
        page=str(saved.with_suffix(".html")),
        card=None,
    )
