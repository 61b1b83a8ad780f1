"""The straight lines that join the rooms: export, load, validate, describe."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vconv import catalog, manifest, subjects
from vconv.assembly import assemble
from vconv.convert import models, onnx_export
from vconv.convert.conversion import convert_weights, export_graphs, image_size
from vconv.convert.safetensors_file import read_header
from vconv.convert.sources.table import DEFAULT_HUB, Request, open_source
from vconv.errors import ExportCheckError, InputError
from vconv.examination import examine
from vconv.runtime.devices import find_device, find_devices
from vconv.runtime.images import open_images
from vconv.runtime.precisions import AUTO
from vconv.runtime.sessions import Session
from vconv.runtime.timing import DEFAULT, FULL, QUICK, Plan
from vconv.runtime.variants import DEFAULT_VARIANT, find_variant, open_variant
from vconv.staging import staging
from vconv.trials import Trial
from vconv.types import GRAPHS, WEIGHTS_FILE, Check, Say, Status, silent
from vconv.validators import golden as golden_room
from vconv.validators import report, textlog, validation
from vconv.validators.golden import GOLDEN_FILE, Reference
from vconv.validators.graphs import check_graph, open_graph
from vconv.validators.integrity import verify_tensors
from vconv.validators.speed import add_speed_ups

DEFAULT_OUT = "artifacts"
GREATEST_BATCH = 1024


def export(
    name: str,
    weights: str | None = None,
    out: str | Path | None = None,
    *,
    force: bool = False,
    batch: int = 1,
    opset: int = onnx_export.DEFAULT_OPSET,
    images: Sequence[str | Path] = (),
    golden: bool = True,
    seed: int = 0,
    hub: str = DEFAULT_HUB,
    pool: str | None = None,
    say: Say = silent,
) -> dict[str, Any]:
    """Make an artifact: a patched checkpoint, its graphs, and proof that they agree with the original.

    Args:
        name: a system's short name or hub id.
        weights: a file, a folder, ``synthetic[:SEED]``, or ``hub:REPOSITORY[@REVISION]``; by default the
            system's own repository.
        out: the artifact's own folder; ``artifacts/NAME`` by default.
        force: whether to replace an artifact that is there.
        batch: the batch of the static graph.
        opset: of the dynamic graph.
        images: photographs to record and check on; made-up images by default.
        golden: whether to run the reference, record it, and check every variant against it.
        seed: of the made-up images.
        hub: where repositories are looked for.
        pool: ``cls`` or ``avg``, in place of timm's own pooling.
        say: takes a line of progress.

    Returns:
        ``artifact``, ``weights``, ``seconds``, ``peak_rss_bytes``, ``patches``, ``ledger``, ``files``,
        ``variants`` and ``checks``.

    Raises:
        VconvError: something that the user can mend; nothing is left behind.
    """
    start = time.perf_counter()
    system = catalog.find(name)
    if not 1 <= batch <= GREATEST_BATCH:
        raise InputError(
            "--batch is out of range", got=batch, expected=f"1 to {GREATEST_BATCH}", fix="give a whole number"
        )
    if images and not golden:
        raise InputError(
            "--images has nothing to do",
            got="--golden none",
            expected="--golden record",
            fix="leave one of the two out",
        )
    if out is not None and not str(out):
        raise InputError("--out is empty", got="''", expected="a folder", fix="name one, or leave --out out")
    if not onnx_export.LEAST_OPSET <= opset <= onnx_export.GREATEST_OPSET:
        raise InputError(
            "the opset is not supported",
            got=opset,
            expected=f"{onnx_export.LEAST_OPSET} to {onnx_export.GREATEST_OPSET}",
            fix="leave --opset out",
        )
    photographs = open_images(images) if images else []
    target = Path(DEFAULT_OUT) / system.name if out is None else Path(out)
    with staging(target.absolute(), force) as stage:
        folder = stage.artifact
        source = open_source(Request(system, weights, hub, pool), stage.scratch, say)
        size = image_size(source)
        conversion = convert_weights(folder, source, say)
        reference: Reference | None = None
        names: tuple[str, ...] = ()
        if golden:
            pixel_values, names = subjects.sample(source.folder, photographs, seed, size)
            say("running the reference in fp32 and float64")
            reference = golden_room.run_reference(source, pixel_values)
            golden_room.save(folder / GOLDEN_FILE, reference)
        export_graphs(folder, conversion, size, batch, opset, say)
        outputs = models.output_names(conversion.network)
        graph_subjects = [
            open_graph(folder / graph.file, conversion.network, batch if graph.for_npu else None, outputs)
            for graph in GRAPHS
        ]
        checks = [
            verify_tensors(conversion.lines, source.entries, read_header(folder / WEIGHTS_FILE)),
            *(check for subject in graph_subjects for check in check_graph(subject)),
        ]
        made = assemble(system, source, conversion, size, graph_subjects, reference, names, pool, folder)
        rows: list[dict[str, Any]] = []
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if reference:
            to_run = subjects.candidates(folder, made, find_device("cpu"), reference)
            rows = validation.run(to_run, "strict", None, say)
        _refuse_failures(rows, checks)
        made.save(folder)
    return {
        "artifact": str(target),
        "weights": source.origin.label,
        "synthetic": source.origin.synthetic,
        "seconds": round(time.perf_counter() - start, 2),
        "peak_rss_bytes": max([peak, *(row.get("peak_rss_bytes") or 0 for row in rows)]),
        "patches": [patch.model_dump(mode="json") for patch in made.patches],
        "ledger": made.ledger,
        "files": {name: record.model_dump() for name, record in made.files.items()},
        "variants": report.finite(rows),
        "checks": [asdict(check) for check in checks],
    }


def _refuse_failures(rows: Sequence[dict[str, Any]], checks: Iterable[Check]) -> None:
    failures = validation.worst_failures(rows)
    failures += [f"{check.name}: {check.detail}" for check in checks if check.status is Status.FAILED]
    if failures:
        raise ExportCheckError(
            "the export does not agree with its reference",
            got="; ".join(failures),
            expected="every variant within strict limits and every check passed",
            fix="report this: nothing was kept",
        )


def load(path: str | Path, device: str = "cpu", variant: str | None = None) -> Session:
    """Open a variant of an artifact, ready to run.

    Args:
        path: the artifact.
        device: where to run it.
        variant: which one; ``onnx-fp32`` by default.

    Returns:
        A session: call it with float32 (B, 3, H, W), or with a list of images, and get named arrays.

    Raises:
        VconvError: the artifact, the device or the variant cannot be had.
    """
    folder = Path(path)
    made = manifest.load(folder)
    record = find_variant(made, variant or DEFAULT_VARIANT)
    return open_variant(folder, made, record, find_device(device))


def validate(
    path: str | Path,
    weights: str | None = None,
    *,
    device: str = "cpu",
    within: str = "strict",
    images: Sequence[str | Path] = (),
    engines: Sequence[str] = ("onnxruntime",),
    precision: Sequence[str] = (AUTO,),
    quick: bool = False,
    full: bool = False,
    budget: float | None = None,
    seed: int = 0,
    hub: str = DEFAULT_HUB,
    say: Say = silent,
) -> dict[str, Any]:
    """Judge every variant of an artifact against the original, and time it.

    The original is live where its weights can be had: given, synthetic and so drawn again, or on the hub
    that they came from. Otherwise the recorded outputs stand in for it, and the report says so.

    Args:
        path: the artifact.
        weights: where the original's weights are.
        device: where to run: ``cpu``, ``cuda[:N]``, ``npu[:N]``, or ``all``.
        within: name of the limits.
        images: photographs to judge on; the recorded inputs by default.
        engines: what to run the graphs with.
        precision: what to run torch variants in; what the device usually runs by default.
        quick: whether to time ten runs only.
        full: whether to time batches 1, 2, 4, 8 and 16 without a budget.
        budget: seconds that a variant may take at one batch; 60 by default.
        seed: of made-up images, where there are no recorded inputs.
        hub: where a repository that is given as the original's weights is looked for.
        say: takes a line of progress.

    Returns:
        The report, with ``status`` and ``passed``; it is also under ``reports/``, with a log in plain text.

    Raises:
        VconvError: something that the user can mend.
    """
    log = textlog.Log(say)
    plan = timing_plan(quick, full, budget)
    places = find_devices(device)
    trial = Trial(tuple(places), tuple(engines), tuple(precision), within)
    trial.check()
    photographs = open_images(images) if images else []
    folder = Path(path)
    made = manifest.load(folder)
    report.probe(folder)
    with tempfile.TemporaryDirectory(prefix="vconv-") as scratch:
        found = examine(folder, made, weights, hub, photographs, seed, Path(scratch), log.say)
        rows = validation.run(trial.candidates(found), within, plan, log.say) if found.reference else []
    baseline = add_speed_ups(rows)
    status = report.whole(rows, found.checks)
    result: dict[str, Any] = {
        "artifact": made.system.name,
        "weights": made.source.label,
        "synthetic": made.source.synthetic,
        "status": status,
        "passed": status is Status.PASSED,
        "within": within,
        "reference": {
            "name": found.reference.name if found.reference else None,
            "source": "live" if found.source else "golden" if found.reference else "none",
            "precision": "fp32",
            "device": "cpu",
        },
        "inputs": found.inputs,
        "preprocessing_ms_per_image": subjects.preprocessing_ms(folder),
        "devices": {place.name: place.model for place in places},
        "environment": report.environment(),
        "checks": [asdict(check) for check in found.checks],
        "speed_up_baseline": baseline,
        "variants": rows,
        "published": subjects.published(made, places),
    }
    result = report.finite(result)
    saved = report.save(folder, result, "validate", log.render(result))
    return {**result, "report": str(saved), "log": str(saved.with_suffix(".log"))}


def timing_plan(quick: bool = False, full: bool = False, budget: float | None = None) -> Plan:
    """Return how much to time: a glance, everything, or the default, within a budget in seconds.

    Raises:
        InputError: the budget is not positive, or both a glance and everything are asked for.
    """
    if quick and full:
        raise InputError(
            "--quick and --full exclude each other", got="both", expected="one", fix="leave one of them out"
        )
    chosen = QUICK if quick else FULL if full else DEFAULT
    if budget is None:
        return chosen
    if not budget > 0:
        raise InputError("--budget is out of range", got=budget, expected="more than 0", fix="give seconds")
    return replace(chosen, budget_seconds=budget)


def describe(path: str | Path) -> dict[str, Any]:
    """Return what an artifact says about itself, as its manifest has it.

    Raises:
        ArtifactError: there is no sound manifest.
    """
    return manifest.load(Path(path)).model_dump(mode="json")
