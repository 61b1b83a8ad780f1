"""`vconv compare NAME --exporters all`: one model through every exporter, each graph judged and timed."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vconv.artifact.staging import scratch_folder
from vconv.convert.exporters import optimum
from vconv.convert.exporters.table import EXPORTERS
from vconv.errors import InputError, UnknownNameError, VconvError
from vconv.runtime.processes import child
from vconv.runtime.simulation.process import Bug
from vconv.runtime.timing.clocks import TimingPlan
from vconv.types import Say, Status, weights_named
from vconv.validators import validation
from vconv.validators.accuracy.limits import Limits
from vconv.validators.foreign.rules import harmful_fusions, unlisted_operators
from vconv.validators.report import log as textlog
from vconv.validators.report import saving
from vconv.validators.report.comparison import Comparison, ExportRow
from vconv.workflows import candidates, foreign
from vconv.workflows.against import AskedReference, open_against
from vconv.workflows.compared import Compared, report_of, statuses_of
from vconv.workflows.exporter_child import VCONV
from vconv.workflows.foreign import ForeignGraph, nbytes_of
from vconv.workflows.foreign_causes import explain_failures
from vconv.workflows.run_plan import RunPlan

ALL = "all"
_MODULE = "vconv.workflows.exporter_child"


@dataclass(frozen=True)
class _Exported:
    """What an exporter gave.

    Args:
        exporter: its name.
        graph: the graph; None if it gave none.
        reason: why it gave none.
        seconds: the time of its process.
        peak_rss_bytes: the greatest memory of its process, or of one that it started; 0 if it did not say.
    """

    exporter: str
    graph: Path | None
    reason: str
    seconds: float
    peak_rss_bytes: int


def chosen(names: Sequence[str]) -> dict[str, Path | None]:
    """Return the exporters that are asked for, with the virtual environment of each that needs one.

    Args:
        names: ``all``, or names of exporters; ``optimum=FOLDER`` names the environment of optimum.

    Raises:
        UnknownNameError: there is no such exporter.
        InputError: an exporter that needs a virtual environment is named without it, or the reverse.
    """
    known = (VCONV, *EXPORTERS)
    found: dict[str, Path | None] = {}
    for name in names:
        exporter, given, folder = name.partition("=")
        if name == ALL:
            found |= {one: None for one in known if one == VCONV or not EXPORTERS[one].separate}
            continue
        if exporter not in known:
            raise UnknownNameError("exporter", exporter, (ALL, *known), fix="name one of those")
        separate = exporter != VCONV and EXPORTERS[exporter].separate
        if separate != bool(given):
            raise InputError(
                f"--exporters {exporter} is not complete" if separate else f"{exporter} needs no folder",
                got=name,
                expected=f"{exporter}=FOLDER, a virtual environment with it" if separate else exporter,
                fix="name the folder" if separate else "leave the folder out",
            )
        if separate and not optimum.program(Path(folder)).is_file():
            raise InputError(
                f"--exporters {exporter} names no virtual environment with it",
                got=folder,
                expected=f"a folder with {optimum.PROGRAM}",
                fix=optimum.HOW,
            )
        found[exporter] = Path(folder) if given else None
    return found


def _run(
    exporter: str,
    environment: Path | None,
    folder: Path,
    library: str,
    periods: str | None,
    place: Path,
    say: Say,
) -> _Exported:
    """Run an exporter in a process for this alone."""
    row = EXPORTERS.get(exporter)
    if row and library not in row.libraries:
        return _Exported(exporter, None, f"it takes no models of {library}", 0.0, 0)
    if row and (lack := row.lack()):
        return _Exported(exporter, None, lack, 0.0, 0)
    say(f"exporting with {exporter}")
    target, scratch = place / exporter, place / f"{exporter}.scratch"
    target.mkdir()
    scratch.mkdir()
    request = place / f"{exporter}.json"
    given = {"folder": folder, "exporter": exporter, "target": target, "scratch": scratch}
    given |= {"environment": environment, "periods": periods}
    request.write_text(json.dumps(given, default=str))
    start = time.perf_counter()
    with (place / f"{exporter}.log").open("w+") as log:
        process = subprocess.Popen(
            (*child.command(_MODULE), str(request)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(child.environment()),
        )
        try:
            process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        seconds = time.perf_counter() - start
        answer = request.with_suffix(".result")
        if not answer.exists():
            log.seek(0)
            if exporter == VCONV and process.returncode > 0:
                raise Bug(f"in the process of vconv's own export:\n{log.read()}")
            return _Exported(exporter, None, child.ended(process.returncode, log.read()), seconds, 0)
    found = json.loads(answer.read_text())
    graph = Path(found["graph"]) if "graph" in found else None
    return _Exported(exporter, graph, found.get("reason", ""), seconds, found["peak_rss_bytes"])


def _row(exported: _Exported, graph: ForeignGraph | None, reason: str) -> ExportRow:
    """Return the row of an exporter."""
    file = graph.file if graph else None
    return ExportRow(
        exporter=exported.exporter,
        exported=exported.graph is not None,
        reason=reason or exported.reason,
        seconds=round(exported.seconds, 2),
        peak_rss_bytes=exported.peak_rss_bytes,
        nbytes=nbytes_of(file) if file else None,
        nodes=len(file.model.graph.node) if file else None,
        opset=graph.row().opset if graph else None,
        npu_lacks=tuple(unlisted_operators(file.model)) if file else (),
        fusions=harmful_fusions(file.model) if file else {},
    )


def compare_exporters(
    asked: AskedReference,
    exporters: Mapping[str, Path | None],
    trial: RunPlan,
    limits: Limits,
    plan: TimingPlan,
    reports: str | Path,
    log: textlog.Log,
) -> Comparison:
    """Export one model with several exporters, and judge and time every graph beside the original.

    Args:
        asked: the model.
        exporters: the exporters, each with its virtual environment if it needs one.
        trial: the devices and engines.
        limits: the limits.
        plan: how much to time.
        reports: a folder for the report.
        log: receives progress lines, and draws the report.
    """
    saving.probe(elsewhere=reports)
    name = str(asked.where)
    with scratch_folder(log.say) as scratch:
        against = open_against(asked, scratch, log.say)
        judge = against.at(None)
        place = scratch / "exports"
        place.mkdir()
        npu = foreign.is_for_npu(trial.devices)
        made: list[ExportRow] = []
        graphs: list[ForeignGraph] = []
        for exporter, environment in exporters.items():
            library = judge.network.library
            exported = _run(
                exporter, environment, judge.source.folder, library, asked.periods, place, log.say
            )
            graph, reason = None, ""
            if exported.graph:
                try:
                    graph = foreign.understood(exported.graph, exporter, against, npu)
                    graphs.append(graph)
                except VconvError as error:
                    reason = str(error)
            made.append(_row(exported, graph, reason))
        label = weights_named(against.weights, against.synthetic)
        timed = [
            candidate
            for device in trial.devices
            if not device.simulated
            for candidate in candidates.originals(
                name, judge.source, judge.source.image_size, device, judge.own
            )
        ]
        compared = [Compared(name, label, judge.reference.source, (), timed, judged=False)]
        compared += [
            Compared.graph(
                *(graph, graph.name, label),
                foreign.candidates(graph, trial.devices, trial.engines, label=graph.name),
            )
            for graph in graphs
        ]
        listed = [candidate for one in compared for candidate in one.candidates]
        run = validation.run(listed, limits, plan, log.say)
        faults = explain_failures(graphs, run.rows, log.say)
        # The files are deleted, so that a graph is known by its exporter.
        described = tuple(graph.row().model_copy(update={"path": graph.name}) for graph in graphs)
    statuses = statuses_of(compared, run.rows)
    result = report_of(
        *(compared, run, trial, limits, statuses, _whole(statuses, exporters)),
        graphs=described,
        exports=tuple(made),
        diagnosis=tuple(faults),
    )
    saving.save(Path(reports), result, "compare", log.render_comparison(result), elsewhere=reports)
    return result


def _whole(statuses: Mapping[str, Status], exporters: Mapping[str, Path | None]) -> Status:
    """Judge the comparison: by vconv's own graph, if it is asked for; else it passes if any graph does."""
    found = [*statuses.values()]
    if VCONV in exporters:
        return statuses.get(VCONV, Status.FAILED)
    if Status.PASSED in found:
        return Status.PASSED
    return Status.FAILED if not found or Status.FAILED in found else Status.INCOMPLETE
