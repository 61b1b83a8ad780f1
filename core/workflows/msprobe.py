"""`vconv msprobe`: write what Huawei's msprobe compares, and set its table beside ours."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from vconv._version import VERSION
from vconv.arguments import checked_arguments
from vconv.artifact.artifact import Artifact
from vconv.artifact.records import VariantRecord
from vconv.artifact.staging import Replaceable, staging
from vconv.disk import require_space
from vconv.documents import DocumentKind
from vconv.errors import InputError, UnknownNameError
from vconv.runtime.devices.base import Device, Settings
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.runnable import require_bounds
from vconv.runtime.engines.table import find_engine, usual_engine
from vconv.runtime.engines.variants import DEFAULT_VARIANT
from vconv.runtime.inputs.images import open_images, require_seed
from vconv.runtime.stages.pieces import value_sizes
from vconv.surroundings import own_surroundings
from vconv.types import GRAPHS, Array, Say, Status, silent
from vconv.validators.checks.integrity import verify_files
from vconv.validators.msprobe import beside as side
from vconv.validators.msprobe import mapping, readme, table
from vconv.validators.msprobe.dump import Subject, Target, write_golden, write_target
from vconv.validators.msprobe.readme import Facts
from vconv.validators.report import saving
from vconv.workflows import originals
from vconv.workflows.written_folder import refuse_inside, refuse_strangers

KINDS = ("cpu", "npu-sim")
"""Devices: on the CPU only the golden side is written; the simulated NPU adds the target side."""
NPU_GRAPH = next(graph.name for graph in GRAPHS if graph.for_npu)
COMPILED = "model.onnx"
"""The graph for ATC, beside an offline model that was not compiled at export."""
IMAGES = 2
"""How many images a graph for any batch gets."""
MARK_FILE = "msprobe.json"
INPUTS, GOLDEN, TARGET, OPERATORS, BESIDE = "input", "golden", "target", "operators.json", "beside.csv"
_WRITTEN = Replaceable(MARK_FILE, "files that vconv wrote for msprobe")
_MARK = DocumentKind('{"files": [...]}', 2**24, 200_000, "choose another --out")


@checked_arguments
@own_surroundings()
def msprobe(
    path: str | Path,
    *,
    out: str | Path,
    variant: str | None = None,
    device: str = "cpu",
    hf32: Sequence[str] | None = None,
    profile: str | None = None,
    fusions: str | None = None,
    images: Sequence[str | Path] = (),
    seed: int = 0,
    beside: str | Path | None = None,
    force: bool = False,
    say: Say = silent,
) -> dict[str, Any]:
    """Write what Huawei's msprobe compares, for the graph that CANN compiles.

    The golden side is what every node gives in ONNX Runtime on the CPU. The target side is what the simulated
    NPU computes: a prediction, which is marked as simulated. msprobe itself is not needed.

    Args:
        path: the artifact.
        out: the folder to write, outside of the artifact.
        variant: the graph; by default the one that CANN compiles: ``om/model.onnx`` if the artifact has it,
            else ``model.npu.onnx``.
        device: ``cpu`` for the golden side alone, ``npu-sim`` for both.
        hf32: which of ``conv`` and ``matmul`` the simulated NPU computes in HF32.
        profile: the NPU that is imitated.
        fusions: whether the simulated NPU runs the published fusion passes: ``on`` or ``off``.
        images: photographs to run; by default the recorded inputs.
        seed: the seed of made-up images, which are used if there are no recorded inputs.
        beside: a ``result_TIME.csv`` that msprobe wrote, to set beside our table.
        force: whether to replace a folder that this function wrote.
        say: receives progress lines.

    Returns:
        ``folder``, ``artifact``, ``weights``, ``synthetic``, ``variant``, ``graph``, ``images``, ``batch``,
        ``device``, ``simulated``, ``options``, ``nodes``, ``golden_files``, ``target_files``, ``renamed``,
        ``fused``, ``constants``, ``notes``, ``commands``; ``result``, the name of our table, and ``rows``,
        its figures without rounding; ``departs``, the operators that msprobe calls a precision error, and
        ``not_finite``, those with a NaN or Inf that the golden side does not have; and ``beside``, both
        tables side by side.

    Raises:
        VconvError: an error that the user can fix; the folder is unchanged.
    """
    place = _place(device, Settings.of(hf32, profile, fusions))
    theirs = None if beside is None else table.read(Path(beside))
    if theirs is not None and not place.simulated:
        raise InputError(
            "there are no figures to set beside those of msprobe",
            got=f"--device {place.name}, which writes the golden side alone",
            expected="--device npu-sim",
            fix="add --device npu-sim",
        )
    require_seed(seed)
    photographs = open_images(images, say) if images else []
    artifact, target = Artifact.open(path), Path(out).absolute()
    refuse_inside(target, artifact)
    if force:
        refuse_strangers(target, MARK_FILE, _MARK)
    record, graph = _graph(artifact, variant)
    files = verify_files(artifact, say)
    pixel_values, named = originals.inputs(artifact, photographs, seed)
    batch = record.batch or min(IMAGES, len(pixel_values))
    pixel_values = np.ascontiguousarray(np.resize(pixel_values, (batch, *pixel_values.shape[1:])))
    model = onnx.load(graph, load_external_data=False)
    (entry,) = (value.name for value in model.graph.input)
    subject = Subject(model, graph.parent, {entry: pixel_values}, round(time.time() * 1e6))
    made = artifact.manifest
    document: dict[str, Any] = {
        "folder": str(out),
        "artifact": made.system.name,
        "weights": made.source.label,
        "synthetic": made.source.synthetic,
        "variant": record.variant,
        "graph": graph.relative_to(artifact.folder).as_posix(),
        "images": list(named[:batch]),
        "batch": batch,
        "device": place.name,
        "simulated": place.simulated,
        "options": dict(place.options),
        "nodes": len(subject.nodes),
        "renamed": {name.node: name.file for name in subject.nodes if name.renamed},
        "notes": [f"{files.name}: {files.detail}"] if files.status is Status.FAILED else [],
    }
    with staging(target, force, _WRITTEN) as stage:
        folder = stage.artifact
        nbytes = sum(value_sizes(model).values())
        require_space(folder, nbytes * (2 if place.simulated else 1))
        _write_inputs(folder / INPUTS, pixel_values)
        (folder / GOLDEN).mkdir()
        say(f"{document['graph']}: {len(subject.nodes)} nodes on the CPU, {nbytes / 1e6:.0f} MB")
        golden = write_golden(subject, find_device("cpu"), folder / GOLDEN)
        document["golden_files"] = len(golden)
        found = None
        if place.simulated:
            say(f"the same nodes on {place.name}: a prediction, not a measurement")
            found = _write_target(subject, place, golden, folder, document)
        if theirs is not None and found is not None:
            pairs = side.beside(found.rows, theirs, subject.nodes)
            side.write(folder / BESIDE, pairs)
            document["beside"] = saving.finite([asdict(pair) for pair in pairs])
        models = [artifact.path(one).absolute() for one in made.variants if one.offline is not None]
        facts = Facts(graph.absolute(), target, models[0] if models else None, found is not None)
        document["commands"] = {name: list(words) for name, words in readme.commands(facts).items()}
        (folder / readme.FILE).write_text(readme.text(facts, document))
        _write_mark(folder, document)
    return document


def _place(device: str, settings: Settings) -> Device:
    place = find_device(device, settings)
    if place.kind not in KINDS:
        raise InputError(
            "vconv writes no dumps of a real device",
            got=f"--device {device}",
            expected=" or ".join(KINDS),
            fix="let msprobe dump a real NPU: README.txt of the folder has its commands",
        )
    return place


def _graph(artifact: Artifact, variant: str | None) -> tuple[VariantRecord, Path]:
    """Return the graph to run, and its record; of an offline model, the graph with weights for ATC.

    Raises:
        UnknownNameError: there is no such graph.
        ArtifactError: the artifact has no weights.
        EngineError: the graph breaks a bound.
    """
    graphs, chosen = {}, variant or NPU_GRAPH
    for record in artifact.manifest.variants:
        path = artifact.path(record)
        path = path if record.offline is None else path.with_name(COMPILED)
        if record.graph is not None and not record.contract.preprocessing and path.is_file():
            graphs[record.variant] = (record, path)
        if record.offline is not None and variant is None:
            # ATC does not keep its graph. With gears it compiled the graph for any batch.
            gears = record.offline.gears or record.offline.gears_size
            chosen = record.variant if path.is_file() else DEFAULT_VARIANT if gears else NPU_GRAPH
    if chosen not in graphs:
        raise UnknownNameError("graph", chosen, graphs, fix="choose one of those, or leave --variant out")
    record, path = graphs[chosen]
    if record.offline is None:
        artifact.require_weights()
    require_bounds(path, record, find_engine(usual_engine()).domains, count=False)
    return record, path


def _write_inputs(folder: Path, pixel_values: Array) -> None:
    """Write the images as `msprobe compare` takes them, once as bytes and once as an array."""
    folder.mkdir()
    pixel_values.tofile(folder / "input_0.bin")
    np.save(folder / "input_0.npy", pixel_values)


def _write_target(
    subject: Subject, place: Device, golden: dict[str, Path], folder: Path, document: dict[str, Any]
) -> Target:
    assert place.simulates is not None
    (folder / TARGET).mkdir()
    found = write_target(subject, place.simulates, place, golden, folder / TARGET)
    described = mapping.document(list(subject.given), found.operators)
    (folder / OPERATORS).write_text(json.dumps(described, indent=1) + "\n")
    name = f"result_{datetime.now().strftime('%Y%m%d%H%M%S')}.csv"
    table.write(folder / name, list(subject.given), found.rows)
    (folder / readme.SIMULATED_FILE).write_text(readme.simulated(place.model))
    document |= {
        "target_files": len(found.operators),
        "result": name,
        "rows": [row.document() for row in found.rows],
        "departs": [row.operator.name for row in found.rows if row.departs],
        "not_finite": [row.operator.name for row in found.rows if not row.figures.finite],
        "fused": {operator: list(nodes) for operator, nodes in found.fused.items()},
        "constants": list(found.constants),
    }
    return found


def _write_mark(folder: Path, document: dict[str, Any]) -> None:
    """Write the file by which the folder is known; it has the document without the rows of the tables."""
    files = sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file())
    kept = {name: value for name, value in document.items() if name not in ("rows", "beside")}
    text = json.dumps({"vconv": VERSION, "files": files, **kept}, indent=2, allow_nan=False)
    (folder / MARK_FILE).write_text(text + "\n")
