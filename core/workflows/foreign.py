"""Graphs that vconv did not export, judged by the protocol of artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from vconv.artifact.records import TensorRecord
from vconv.convert.architectures.base import Capability
from vconv.errors import VconvError
from vconv.hashes import sha256_of
from vconv.precisions import FP32, limits_of, type_of
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.adapted import AdaptedSession, takes_whole_numbers
from vconv.runtime.engines.base import FileSession, in_batches, unavailable
from vconv.runtime.engines.table import engines_for, find_engine, usual_engine
from vconv.runtime.inputs.preprocessing import normalisation
from vconv.runtime.processes.request import OpenRequest
from vconv.runtime.simulation.adapted import SimulatedAdaptedSession
from vconv.runtime.simulation.session import SimulatedGraphSession
from vconv.types import Array, Arrays, Check, Status
from vconv.validators.accuracy.golden import Reference
from vconv.validators.bisect.hypotheses import Explanation
from vconv.validators.foreign.contract import Contract, found_out
from vconv.validators.foreign.graph_file import GraphFile, external_file, find_graphs, open_file, weights_of
from vconv.validators.foreign.images import declared_layout, declared_size
from vconv.validators.foreign.images import ways as ways_to_take
from vconv.validators.foreign.rules import check_rules
from vconv.validators.foreign.statement import read_statement
from vconv.validators.foreign.views import JudgedOutput, taken_for_another
from vconv.validators.foreign.views import judged as judged_outputs
from vconv.validators.foreign.weights import Found, check_weights
from vconv.validators.foreign.weights import find as find_weights
from vconv.validators.report.document import GraphRow, ReadOutputRow
from vconv.validators.validation import Candidate
from vconv.workflows.against import Against, Judge


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
            rounded=self.judge.whole,
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
    size = declared_size(image, stated.layout or declared_layout(image))
    judge = against.at(size, whole=takes_whole_numbers(image.dtype))
    ways = ways_to_take(image, *normalisation(judge.source.folder), stated)
    against.say(f"{name}: what it takes, and what its outputs are")
    with _opened(file, find_device("cpu"), usual_engine(), FP32, judge, _batch(image)) as session:
        run = partial(_run, session, _batch(image))
        pixel_values = judge.reference.pixel_values
        found = found_out(image, ways, run, pixel_values, judge.readings, stated)
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
        VconvError: a graph cannot be judged; of a folder, if none of it can.
    """
    found = {path: find_graphs(path) for path in paths}
    names = names_of([file for files in found.values() for file in files])
    graphs: list[ForeignGraph] = []
    left_out: list[Check] = []
    for files in found.values():
        refusals: list[VconvError] = []
        for file in files:
            try:
                graphs.append(understood(file, names[file], against, is_for_npu(devices)))
            except VconvError as error:
                refusals.append(error)
                told = f"{error.what}: {error.got}"
                left_out.append(Check(f"{file.name}: contract", Status.SKIPPED, told))
        if len(refusals) == len(files):
            raise refusals[0]
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
        engines: the engines: see :func:`vconv.runtime.engines.table.engines_for`.
        label: what stands for it in reports; its path by default.
    """
    return [
        Candidate(
            artifact=label or str(graph.file.path),
            variant=graph.name,
            engine=engine,
            precision=limits_of(graph.file.precision),
            device=device,
            reference=graph.reference,
            open=partial(_adapted, graph, device, engine),
            subject=OpenRequest(str(graph.file.path), graph.name, engine, graph.file.precision, device.name),
            explained=graph.explained,
        )
        for device in devices
        for engine in engines_for(type_of(graph.file.precision), device.kind, engines)
    ]


def names_of(paths: Sequence[Path]) -> dict[Path, str]:
    """Return a name for each graph: that of its file; with its folder, where two are the same."""
    stems = [path.stem for path in paths]
    return {
        path: path.stem if stems.count(path.stem) == 1 else f"{path.parent.name}/{path.stem}"
        for path in paths
    }
