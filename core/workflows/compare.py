"""`vconv compare`: judge and time artifacts side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from vconv.arguments import checked_arguments
from vconv.artifact.artifact import Artifact
from vconv.artifact.staging import scratch_folder
from vconv.convert.sources.table import DEFAULT_HUB
from vconv.errors import InputError
from vconv.precisions import AUTO
from vconv.runtime.devices.base import Settings
from vconv.runtime.inputs.images import require_seed
from vconv.surroundings import own_surroundings
from vconv.types import Say, Status, silent, weights_named
from vconv.validators import validation
from vconv.validators.accuracy.limits import open_limits
from vconv.validators.foreign.graph_file import is_foreign
from vconv.validators.report import log as textlog
from vconv.validators.report import saving
from vconv.validators.report.comparison import Comparison
from vconv.validators.report.document import CheckRow
from vconv.workflows import foreign, originals
from vconv.workflows.against import AskedReference, open_against
from vconv.workflows.checks import check_artifact
from vconv.workflows.compare_exporters import chosen, compare_exporters
from vconv.workflows.compared import Compared, report_of, statuses_of
from vconv.workflows.foreign import Understood
from vconv.workflows.run_plan import RunPlan, timing_plan
from vconv.workflows.validate_graphs import DEFAULT_REPORTS


@checked_arguments
@own_surroundings()
def compare(
    paths: Sequence[str | Path],
    weights: str | Path | Sequence[str | Path] | None = None,
    *,
    against: str | Path | None = None,
    exporters: str | Sequence[str] = (),
    periods: str | None = None,
    device: str = "cpu",
    hf32: Sequence[str] | None = None,
    profile: str | None = None,
    fusions: str | None = None,
    within: str | Path = "strict",
    engines: Sequence[str] | None = None,
    precision: Sequence[str] = (AUTO,),
    capture: bool = False,
    quick: bool = False,
    full: bool = False,
    budget: float | None = None,
    seed: int = 0,
    hub: str = DEFAULT_HUB,
    offline: bool = False,
    reports: str | Path | None = None,
    say: Say = silent,
) -> Comparison:
    """Judge and time the variants of several artifacts, and graphs of other exporters, in one run.

    Args:
        paths: the artifacts, and graphs or folders of graphs.
        weights: where the originals' weights are: one source for every artifact, in the order of ``paths``;
            or a single one, for every artifact whose manifest does not say where its original is. By
            default, where the manifests say. With graphs alone, or exporters, those of the one original.
        against: what graphs of other exporters are judged by: see :func:`vconv.validate`; by default the
            first artifact.
        exporters: with the name of one system as ``paths``: the exporters that are compared, ``all`` or names
            of :data:`vconv.convert.exporters.table.EXPORTERS` and ``vconv``; ``optimum=FOLDER`` names a
            virtual environment with optimum-cli.
        periods: with ``exporters`` or graphs, the RoPE periods of a DINOv3 as the reference.
        device: see :func:`vconv.validate`, and likewise the other arguments.
        hf32: see :func:`vconv.validate`.
        profile: see :func:`vconv.validate`.
        fusions: see :func:`vconv.validate`.
        within: see :func:`vconv.validate`.
        engines: see :func:`vconv.validate`.
        precision: see :func:`vconv.validate`.
        capture: see :func:`vconv.validate`.
        quick: see :func:`vconv.validate`.
        full: see :func:`vconv.validate`.
        budget: see :func:`vconv.validate`.
        seed: see :func:`vconv.validate`.
        hub: see :func:`vconv.validate`.
        offline: see :func:`vconv.validate`.
        reports: a folder for the report and what belongs to it; by default ``reports/`` of the artifact. With
            it, which must be outside, nothing is written into the artifact.
        say: receives progress lines.

    Returns:
        The report: ``rows``, one per variant and batch; the ``checks`` that did not pass; ``status``,
        ``passed``, ``machine``, ``ranking``; and ``winner``, the fastest variant that passed. If ``winner``
        is None, ``winner_reason`` gives the reason.

    Raises:
        VconvError: an error that the user can fix.
    """
    log = textlog.Log(say)
    plan = timing_plan(quick, full, budget)
    trial = RunPlan.on(device, Settings.of(hf32, profile, fusions), engines, precision, capture, log.say)
    limits = open_limits(within)
    require_seed(seed)
    if exporters:
        if against is not None:
            raise InputError(
                "--against is not used with --exporters",
                got="both",
                expected="one of them: the exporters' graphs are judged by the model that they export",
                fix="leave --against out",
            )
        wanted = chosen([exporters] if isinstance(exporters, str) else exporters)
        asked = AskedReference(_only(paths), _only_weights(weights), hub, offline, periods, (), seed)
        place = DEFAULT_REPORTS if reports is None else reports
        return compare_exporters(asked, wanted, trial, limits, plan, place, log)
    named_paths = [Path(path) for path in paths]
    _refuse_repeated(named_paths)
    folders = [path for path in named_paths if not is_foreign(path)]
    others = [path for path in named_paths if is_foreign(path)]
    for name, value in {"--against": against, "--periods": periods}.items():
        if value is not None and not others:
            raise InputError(
                f"{name} is for graphs of other exporters",
                got="artifacts alone",
                expected="a graph among the paths",
                fix=f"leave {name} out: an artifact says what its original is",
            )
    artifacts = [Artifact.open(folder) for folder in folders]
    given = _sources(artifacts, [weights] if isinstance(weights, str | Path) else list(weights or ()))
    for artifact in artifacts:
        limits.require_use(str(artifact), artifact.manifest.outputs)
        artifact.require_weights()
    if not folders and reports is None:
        reports = DEFAULT_REPORTS
    saving.probe(*folders, elsewhere=reports)
    with contextlib.ExitStack() as scratches:
        compared: list[Compared] = []
        for artifact, source in zip(artifacts, given, strict=True):
            log.say(f"examining {artifact}")
            scratch = scratches.enter_context(scratch_folder(log.say))
            original = partial(originals.live_source, artifact, source, hub, offline, scratch, log.say)
            refer = partial(originals.reference, artifact, photographs=(), seed=seed, say=log.say)
            found = check_artifact(artifact, original, refer, limits, log.say)
            compared.append(Compared.artifact(found, source, trial.candidates(found)))
        understood = Understood((), ())
        if others:
            scratch = scratches.enter_context(scratch_folder(log.say))
            asked = AskedReference(
                *_judge_of(folders, given, weights, against), hub, offline, periods, (), seed
            )
            judge = open_against(asked, scratch, log.say)
            understood = foreign.understood_all(others, judge, trial.devices)
            weights_label = weights_named(judge.weights, judge.synthetic)
            compared += [
                Compared.graph(
                    *(one, str(one.file.path), weights_label),
                    foreign.candidates(one, trial.devices, trial.engines),
                )
                for one in understood.graphs
            ]
        listed = [candidate for one in compared for candidate in one.candidates]
        run = validation.run(listed, limits, plan, log.say)
    statuses = statuses_of(compared, run.rows)
    bad = (Status.FAILED, Status.INCOMPLETE)
    status = next((one for one in bad if one in statuses.values()), Status.PASSED)
    result = report_of(
        *(compared, run, trial, limits, statuses, status),
        graphs=tuple(graph.row() for graph in understood.graphs),
        left_out=tuple(CheckRow.model_validate(check) for check in understood.left_out),
    )
    for folder in folders if reports is None else [*folders, Path(reports)][:1]:
        saving.save(folder, result, "compare", log.render_comparison(result), elsewhere=reports)
    return result


def _only(paths: Sequence[str | Path]) -> str | Path:
    """Return the only name, of which exporters are compared.

    Raises:
        InputError: there are several.
    """
    if len(paths) != 1:
        raise InputError(
            "--exporters compares one model",
            got=f"{len(paths)} names",
            expected="the name of one system, or one folder with a checkpoint",
            fix="name one",
        )
    return paths[0]


def _only_weights(weights: str | Path | Sequence[str | Path] | None) -> str | Path | None:
    given = [weights] if weights is None or isinstance(weights, str | Path) else [*weights]
    if len(given) > 1:
        raise InputError(
            "--exporters compares one model",
            got=f"{len(given)} sources of weights",
            expected="one",
            fix="give --weights once",
        )
    return given[0] if given else None


def _judge_of(
    folders: Sequence[Path],
    given: Sequence[str | Path | None],
    weights: str | Path | Sequence[str | Path] | None,
    against: str | Path | None,
) -> tuple[str | Path, str | Path | None]:
    """Return what graphs of other exporters are judged by, and where its weights are.

    Raises:
        InputError: nothing is named, and there is no artifact.
    """
    if against is not None:
        where = Path(against).resolve()
        known = [one for folder, one in zip(folders, given, strict=True) if folder.resolve() == where]
        # Weights beside artifacts are theirs; beside graphs alone, they are those of --against.
        return against, known[0] if known else None if folders else _only_weights(weights)
    if not folders:
        raise InputError(
            "it is not known what these graphs are judged by",
            got="no artifact and no --against",
            expected="an artifact, a folder with a checkpoint, or the name of a system",
            fix="add --against, or name an artifact of the same network first",
        )
    return folders[0], given[0]


def _sources(artifacts: Sequence[Artifact], weights: Sequence[str | Path]) -> list[str | Path | None]:
    """Return the given source of each artifact's original; None if its manifest is to say."""
    if not artifacts and len(weights) > 1:
        raise InputError(
            "graphs are judged by one original",
            got=f"{len(weights)} sources of weights",
            expected="one, the weights of what --against names",
            fix="give --weights once",
        )
    if not weights:
        return [None] * len(artifacts)
    if len(weights) == len(artifacts):
        return list(weights)
    if len(weights) > 1:
        raise InputError(
            "--weights does not fit the artifacts",
            got=f"{len(weights)} sources for {len(artifacts)} artifacts",
            expected="one for each, in the same order, or one for all that came from a folder or file",
            fix="repeat --weights once for each artifact",
        )
    origins = [artifact.manifest.source for artifact in artifacts]
    return [None if origin.synthetic or origin.revision else weights[0] for origin in origins]


def _refuse_repeated(folders: Sequence[Path]) -> None:
    places = [folder.resolve() for folder in folders]
    twice = [str(folder) for folder, place in zip(folders, places, strict=True) if places.count(place) > 1]
    if twice or not folders:
        raise InputError(
            "cannot compare these",
            got=f"{' and '.join(twice)}, which is one artifact" if twice else "no artifact",
            expected="one artifact or more, or graphs, each once",
            fix="name each path once",
        )
