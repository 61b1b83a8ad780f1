"""Graphs that vconv did not export, judged by the protocol of artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from vconv.artifact.records import TensorRecord
from vconv.convert.architectures.base import Capability
from vconv.convert.architectures.outputs import output_names
from vconv.convert.libraries import models
from vconv.errors import InputError, VconvError
from vconv.hashes import sha256_of
from vconv.precisions import FP32, PRECISIONS
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.adapted import AdaptedSession
from vconv.runtime.engines.base import FileSession, in_batches, unavailable
from vconv.runtime.engines.table import find_engine, usual_engine
from vconv.runtime.engines.torch_model import TorchSession
from vconv.runtime.inputs.preprocessing import normalisation
from vconv.runtime.processes.request import OpenRequest
from vconv.runtime.simulation.adapted import SimulatedAdaptedSession
from vconv.runtime.simulation.session import SimulatedGraphSession
from vconv.runtime.stages.adapted import AdaptedStages
from vconv.runtime.stages.graph import GraphStages
from vconv.runtime.stages.torch_model import TorchStages
from vconv.types import Array, Arrays, Check, Say, Status, silent
from vconv.validators.accuracy import golden
from vconv.validators.accuracy.golden import Reference
from vconv.validators.bisect.hypotheses import Explanation, conclude, diagnosis
from vconv.validators.bisect.localisation import Departure, localise
from vconv.validators.faults import classes
from vconv.validators.foreign import contract as contracts
from vconv.validators.foreign.contract import Contract
from vconv.validators.foreign.graph_file import GraphFile, external_file, find_graphs, open_file, weights_of
from vconv.validators.foreign.rules import check_rules
from vconv.validators.foreign.statement import read_statement
from vconv.validators.foreign.views import JudgedOutput, taken_for_another
from vconv.validators.foreign.views import judged as judged_outputs
from vconv.validators.foreign.weights import Found, check_weights
from vconv.validators.foreign.weights import find as find_weights
from vconv.validators.report.document import DiagnosisRow, GraphRow, ReadOutputRow
from vconv.validators.report.rows import VariantRow
from vconv.validators.validation import Candidate
from vconv.workflows.against import Against, Judge
from vconv.workflows.bisected_variant import IMAGES, bound_of


@dataclass(frozen=True)
class ForeignGraph:
    """A graph of another exporter, with what is known of it.

    Args:
        name: its name in reports.
        file: its file.
        contract: what it takes and gives.
        judge: what it is judged by.
        weights: where the original's weights are in it.
        checks: what was found without running it.
    """

    name: str
    file: GraphFile
    contract: Contract
    judge: Judge
    weights: Found
    checks: tuple[Check, ...]

    @property
    def judged(self) -> tuple[JudgedOutput, ...]:
        """The outputs that are judged."""
        network = self.judge.network
        registers = None if network.lack(Capability.TOKEN_GRID) else network.registers
        return judged_outputs(self.contract, self.judge.readings, registers)

    @property
    def reference(self) -> Reference:
        """The reference, with the outputs that are judged."""
        known = self.judge.readings
        outputs = {one.name: known[one.reading].value for one in self.judged}
        return replace(self.judge.reference, outputs=outputs)

    @property
    def explained(self) -> tuple[Explanation, ...]:
        """Which output is something that is easily taken for the network's, and its class of fault."""
        known = self.judge.readings
        return tuple(
            Explanation(known[one.reading].fault, f"{one.output} is the {known[one.reading].meaning}")
            for one in taken_for_another(self.contract, known)
        )

    def row(self) -> GraphRow:
        """Return its row in a report."""
        model, made = self.file.model, self.contract
        opset = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
        return GraphRow(
            path=str(self.file.path),
            sha256=sha256_of(self.file.path),
            nbytes=nbytes_of(self.file),
            producer=f"{model.producer_name} {model.producer_version}".strip(),
            opset=opset,
            precision=self.file.precision,
            input=made.input,
            layout=made.given.layout,
            dtype=made.given.dtype,
            levels=made.given.levels,
            size=made.size,
            batch=made.batch,
            outputs=tuple(ReadOutputRow.model_validate(one) for one in made.outputs),
            unread=dict(made.unread),
            stated=made.stated,
        )


def nbytes_of(file: GraphFile) -> int:
    """Return the size of a graph with the files of its weights."""
    places = {external_file(tensor) for tensor in weights_of(file.model)} - {""}
    return sum(path.stat().st_size for path in (file.path, *(file.path.parent / name for name in places)))


def understood(path: Path, name: str, against: Against, npu: bool) -> ForeignGraph:
    """Read a graph, find out its contract, and check it without judging its outputs.

    Args:
        path: the graph.
        name: its name in reports.
        against: what it is judged by.
        npu: whether it is meant for an NPU.

    Raises:
        ArtifactError: the file is not an ONNX graph.
        InputError: it takes other than images, the network takes no images of its size, or it cannot be told
            what its outputs are.
    """
    file, stated = open_file(path), read_statement(path)
    image = file.image_input
    size = contracts.declared_size(image, stated.layout or contracts.declared_layout(image))
    judge = against.at(size)
    ways = contracts.ways(image, *normalisation(judge.source.folder), stated)
    against.say(f"{name}: what it takes, and what its outputs are")
    with _opened(file, find_device("cpu"), usual_engine(), FP32, judge, _batch(image)) as session:
        run = partial(_run, session, _batch(image))
        pixel_values = judge.reference.pixel_values
        found = contracts.found_out(image, ways, run, pixel_values, judge.readings, stated)
    weights = find_weights(file, judge.network, judge.originals)
    judged = check_weights(file, weights, judge.network, judge.originals)
    checks = (*check_rules(file, judge.network, npu), judged)
    return ForeignGraph(name, file, found, judge, weights, checks)


@dataclass(frozen=True)
class Understood:
    """The graphs of some paths.

    Args:
        graphs: those that can be judged.
        left_out: for each other graph of a folder, why it cannot be judged.
    """

    graphs: tuple[ForeignGraph, ...]
    left_out: tuple[Check, ...]


def understood_all(paths: Sequence[Path], against: Against, devices: Sequence[Device]) -> Understood:
    """Read the graphs of paths, each a graph or a folder of graphs: see :func:`understood`.

    Raises:
        VconvError: a graph cannot be judged; of a folder, only if none can.
    """
    files = {file: path for path in paths for file in find_graphs(path)}
    names, npu = names_of([*files]), is_for_npu(devices)
    graphs: list[ForeignGraph] = []
    left_out: list[Check] = []
    refusal: VconvError | None = None
    for file, path in files.items():
        try:
            graphs.append(understood(file, names[file], against, npu))
        except VconvError as error:
            if not path.is_dir():
                raise
            refusal = error
            left_out.append(Check(f"{file.name}: contract", Status.SKIPPED, f"{error.what}: {error.got}"))
    if refusal and not graphs:
        raise refusal
    return Understood(tuple(graphs), tuple(left_out))


def is_for_npu(devices: Sequence[Device]) -> bool:
    """Return whether graphs are meant for an NPU, real or simulated."""
    return any(device.kind in ("npu", "npu-sim") for device in devices)


def _batch(image: TensorRecord) -> int | None:
    first = image.shape[0]
    return first if isinstance(first, int) else None


def _run(session: FileSession, batch: int | None, images: Array) -> Arrays:
    return in_batches(session.run, images, batch or len(images))


def _opened(
    file: GraphFile, device: Device, engine: str, precision: str, judge: Judge, batch: int | None
) -> FileSession:
    source = judge.source
    return find_engine(engine).open(file.path, device, source.folder, source.image_size, batch, precision)


def _adapted(graph: ForeignGraph, device: Device, engine: str) -> AdaptedSession:
    made, precision = graph.contract, graph.file.precision
    views = {one.name: one.view for one in graph.judged}
    if not device.simulated:
        inner = _opened(graph.file, device, engine, precision, graph.judge, made.batch)
        return AdaptedSession(inner, made.given, views)
    if engine != usual_engine() or precision not in device.precisions:
        runs = f"{usual_engine()} and {', '.join(device.precisions)}"
        raise unavailable(engine, f"a simulated NPU, which runs graphs in {runs} alone", device)
    source = graph.judge.source
    simulated = SimulatedGraphSession(
        graph.file.path, device, source.folder, source.image_size, made.batch, precision
    )
    return SimulatedAdaptedSession(simulated, made.given, views)


def candidates(
    graph: ForeignGraph, devices: Sequence[Device], engines: Sequence[str] | None, label: str = ""
) -> list[Candidate]:
    """List a graph on every device in every engine.

    Args:
        graph: the graph.
        devices: the devices.
        engines: the engines; None for the usual one.
        label: what stands for it in reports; its path by default.
    """
    return [
        Candidate(
            artifact=label or str(graph.file.path),
            variant=graph.name,
            engine=engine,
            precision=graph.file.precision,
            device=device,
            reference=graph.reference,
            open=partial(_adapted, graph, device, engine),
            subject=OpenRequest(str(graph.file.path), graph.name, engine, graph.file.precision, device.name),
            explained=graph.explained,
        )
        for device in devices
        for engine in engines or (usual_engine(),)
    ]


def names_of(paths: Sequence[Path]) -> dict[Path, str]:
    """Return a name for each graph: that of its file; with its folder, where two are the same."""
    stems = [path.stem for path in paths]
    return {
        path: path.stem if stems.count(path.stem) == 1 else f"{path.parent.name}/{path.stem}"
        for path in paths
    }


def explain_failures(
    graphs: Sequence[ForeignGraph], rows: Sequence[VariantRow], say: Say
) -> list[DiagnosisRow]:
    """Name the causes of failures; look for one stage by stage, where no check and no hypothesis names it.

    Args:
        graphs: the graphs.
        rows: the results of their runs.
        say: receives progress lines.
    """
    found = conclude([check for graph in graphs for check in graph.checks], rows)
    for graph in graphs:
        failed = [
            row for row in rows if row.variant == graph.name and row.status is Status.FAILED and row.limit
        ]
        told = any(check.status is Status.FAILED for check in graph.checks)
        if failed and not told and not failed[0].diagnosis and not failed[0].simulated:
            found += _located(graph, failed[0], say)
    return found


def _located(graph: ForeignGraph, failed: VariantRow, say: Say) -> list[DiagnosisRow]:
    """Compare a graph with its reference stage by stage; return the cause of its failure, if it is found."""
    assert failed.limit is not None
    say(f"nothing seen explains {graph.name}: looking where it departs")
    try:
        departure = _departure(graph, failed, bound_of(failed.limit, "its limits"), say)
    except VconvError as error:
        say(f"where it departs cannot be told: {error}")
        return []
    sentence = departure.sentence(graph.name)
    say(sentence)
    fault = departure.fault
    if fault == "weights" and departure.culprit is not None:
        # The operator where it departs reads a weight, whose role says more.
        weights = departure.matches[departure.culprit].weights
        fault = classes.of_tensor(graph.judge.network, weights[0])
    return [diagnosis(fault, graph.name, sentence)] if fault else []


def _departure(graph: ForeignGraph, failed: VariantRow, bound: float, say: Say) -> Departure:
    judge, cpu = graph.judge, find_device("cpu")
    views, source = {one.name: one.view for one in graph.judged}, judge.source
    own = tuple(name for name in output_names(judge.network) if name in views)
    if not own:
        raise InputError(
            f"{graph.name} cannot be compared stage by stage",
            got=f"outputs {', '.join(views)}",
            expected="an output of the network itself",
            fix="export the tokens, or another output of the network, as well",
        )
    network = replace(source, outputs=own).network
    inner = GraphStages(
        *(graph.file.path, network, cpu, failed.engine, graph.file.precision),
        names=graph.weights.keys,
        images=graph.contract.input,
    )
    stages = AdaptedStages(inner, graph.contract.given, {name: views[name] for name in own})
    model = models.load(source.folder, network)
    golden.correct(model, source)
    exact = PRECISIONS[FP32]
    with TorchSession(model, network, cpu, (), source.folder, source.image_size, exact) as session:
        images = judge.reference.pixel_values
        count = graph.contract.batch or min(IMAGES, len(images))
        batch = np.ascontiguousarray(np.resize(images, (count, *images.shape[1:])))
        first = (failed.precision, failed.arithmetic) == ("fp32", "fp32")
        return localise(TorchStages(session, plain=True), stages, batch, bound, first, silent)
