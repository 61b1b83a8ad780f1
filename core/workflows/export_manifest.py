"""The manifest of an export, built from the results of the conversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vconv._version import VERSION
from vconv.artifact.contracts import Interface
from vconv.artifact.manifest import ORIGINAL_FOLDER, Manifest
from vconv.artifact.records import (
    AuthorsRecord,
    ComplexityRecord,
    ContractRecord,
    FileRecord,
    GoldenRecord,
    GraphRecord,
    OfflineRecord,
    OriginalRecord,
    PatchRecord,
    PositionsRecord,
    SizedGoldenRecord,
    SourceRecord,
    SystemRecord,
    TensorRecord,
    VariantRecord,
)
from vconv.catalog.systems import System
from vconv.convert.architectures.outputs import meanings, output_names
from vconv.convert.architectures.sizes import unasked_size
from vconv.convert.ascend.aipp import Mode
from vconv.convert.ascend.atc import CompileOrder
from vconv.convert.ascend.offline_model import CompiledGraph
from vconv.convert.conversion import Conversion
from vconv.convert.graphs import tracing
from vconv.convert.libraries import complexity
from vconv.convert.network import Network
from vconv.convert.patches import rope_periods
from vconv.convert.sources.base import Source
from vconv.convert.sources.positions import librarys_resampling
from vconv.convert.weights import ledger
from vconv.hashes import sha256_of
from vconv.types import FROM_IMAGES, GRAPHS, INPUT, VARIANTS, WEIGHTS_FILE, reduced_name
from vconv.validators.accuracy.golden import GOLDEN_FILE, Reference, sized_file
from vconv.validators.checks.graphs import declared
from vconv.validators.checks.inspected_graph import InspectedGraph
from vconv.workflows.reduced import Reduced

FLOAT32 = "float32"
"""The type of every input and output of a torch model."""


@dataclass(frozen=True)
class Exported:
    """What an export has made, all but the manifest.

    Args:
        folder: the folder with all files but the manifest.
        system: the artifact's system, as the catalog has it.
        source: the source weights.
        conversion: the converted checkpoint.
        size: (height, width) of the images.
        graphs: the graphs of the artifact.
        reference: the recorded reference; None if none was recorded.
        images: what each recorded image is.
        order: how the offline model is compiled; None without an offline model.
        authors: the weights for the authors' code; None without them.
        compiled: the graph of ONNX that the offline model is compiled from; None if it is not compiled from
            one.
        reduced: the reduced precisions of the artifact.
    """

    folder: Path
    system: System
    source: Source
    conversion: Conversion
    size: tuple[int, int]
    graphs: Sequence[InspectedGraph]
    reference: Reference | None
    images: tuple[str, ...]
    order: CompileOrder | None
    authors: AuthorsRecord | None
    compiled: CompiledGraph | None
    reduced: tuple[Reduced, ...] = ()


def assemble(done: Exported, without_weights: bool, aipp: Mode | None = None) -> Manifest:
    """Build the manifest of a finished artifact.

    Args:
        done: what the export has made.
        without_weights: whether the weights file will be left out.
        aipp: the mode of the configuration of AIPP; None if there is none.
    """
    system, source, conversion = done.system, done.source, done.conversion
    net, any_size = conversion.network, bool(source.size and source.size.dynamic)
    inspected = {graph.path.relative_to(done.folder).as_posix(): graph for graph in done.graphs}
    applied = tuple(patch.name for patch in conversion.patches)
    variants = [
        VariantRecord(
            variant=variant.name,
            engine=variant.engine,
            path=variant.path,
            weights=WEIGHTS_FILE,
            precision=variant.precision,
            patches=applied,
            contract=_contract(inspected.get(variant.path), net, done.size, any_size),
            graph=_graph(inspected[variant.path], conversion.passes[variant.path])
            if variant.path in inspected
            else None,
        )
        for variant in (*VARIANTS, *([FROM_IMAGES] if FROM_IMAGES.path in inspected else []))
    ]
    variants += [
        _reduced(done, one, graph, applied)
        for one in done.reduced
        for graph in inspected.values()
        if graph.name in one.passes
    ]
    if done.order:
        variants.append(_offline(done.order, done.compiled, done.size, conversion, inspected))
    patches = tuple(
        PatchRecord(
            name=decision.patch.name,
            reason=decision.patch.reason,
            corrective=decision.patch.corrective,
            applied=decision.applied,
            sites=decision.sites,
            carried_by_config=decision.carried,
            carriers=decision.patch.carriers(net) if decision.applied else (),
            proof=decision.proof,
        )
        for decision in conversion.decisions
    )
    corrected = rope_periods.PATCH in conversion.patches
    return Manifest(
        vconv=VERSION,
        system=SystemRecord(
            name=system.name,
            hub_id=system.hub_id,
            library=system.library,
            family=net.layout.family,
            head=net.head,
            pooling=net.pooling,
        ),
        original=OriginalRecord(
            configurations={name: f"{ORIGINAL_FOLDER}/{name}" for name in source.library.files},
            licence=system.licence,
            gated=system.gated,
        ),
        source=SourceRecord(
            label=source.origin.label,
            kind=source.origin.kind,
            identity=source.origin.identity,
            revision=source.origin.revision,
            synthetic=source.origin.synthetic,
            recipe=source.origin.recipe,
            files=dict(source.files),
            configuration_sha256=source.configuration_sha256,
            pool=source.pool,
            periods=source.periods,
            positions=source.positions,
            size=source.size.fixed if source.size else None,
            dynamic_size=any_size,
            resampling_asked=unasked_size(source.network) not in (None, done.size),
            outputs=source.outputs,
            from_catalog=source.from_catalog,
            prefixes=source.prefixes,
            licence=source.licence,
            layout=source.regrouped.home if source.regrouped else None,
            losses=source.losses,
            state_dict=source.state_dict,
        ),
        size=done.size,
        ledger=ledger.summary(conversion.lines),
        patches=patches,
        rope_periods=tuple(rope_periods.of(net).tolist()) if corrected else None,
        variants=tuple(variants),
        golden=_recorded(done.reference, done.images) if done.reference else None,
        files=hashed(done),
        without_weights=without_weights,
        complexity=ComplexityRecord(**asdict(complexity.measure(source.folder, source.network, done.size))),
        authors=done.authors,
        meanings=meanings(net),
        positions=_positions(source, done.size),
        aipp=aipp,
    )


def hashed(done: Exported) -> dict[str, FileRecord]:
    """Return the hash and the size of every file that an export has made, by path."""
    weights = done.folder / WEIGHTS_FILE
    return {
        path.relative_to(done.folder).as_posix(): FileRecord(
            sha256=done.conversion.sha256 if path == weights else sha256_of(path),
            nbytes=path.stat().st_size,
        )
        for path in sorted(done.folder.rglob("*"))
        if path.is_file()
    }


def _positions(source: Source, size: tuple[int, int]) -> PositionsRecord | None:
    how = source.resampled.how if source.resampled else librarys_resampling(source.network, size)
    return PositionsRecord.model_validate(how.as_record) if how else None


def _contract(
    graph: InspectedGraph | None,
    network: Network,
    size: tuple[int, int],
    any_size: bool,
    batch: int | None = None,
) -> ContractRecord:
    """Return a variant's input and outputs: as a graph declares them, or from the network without a graph."""
    interface = graph.interface if graph else Interface(network, size, batch, any_size)
    if graph is None:
        taken = TensorRecord(name=INPUT, dtype=FLOAT32, shape=interface.taken)
        given = {
            name: TensorRecord(name=name, dtype=FLOAT32, shape=shape)
            for name, shape in interface.given.items()
        }
        axes = interface.axes(None)
    else:
        (taken,) = (declared(value) for value in graph.model.graph.inputs)
        outputs = [declared(value) for value in graph.model.graph.outputs]
        given = dict(zip(output_names(network), outputs, strict=True))
        axes = interface.axes(tracing.GREATEST_BATCH)
    return ContractRecord(
        input=taken,
        layout=interface.layout,
        preprocessing=interface.from_images,
        outputs=given,
        axes=axes,
    )


def _graph(graph: InspectedGraph, passes: tuple[str, ...]) -> GraphRecord:
    return GraphRecord(
        opset=graph.model.opset_imports[""],
        ir_version=graph.model.ir_version,
        operators=graph.operators,
        passes=passes,
    )


def _offline(
    order: CompileOrder,
    compiled: CompiledGraph | None,
    size: tuple[int, int],
    conversion: Conversion,
    graphs: Mapping[str, InspectedGraph],
) -> VariantRecord:
    static = next(graph for graph in graphs.values() if graph.batch and graph.name == graph.path.name)
    source = graphs[order.source]
    return VariantRecord(
        variant=order.variant,
        engine="acl",
        path=order.file,
        weights=None,
        precision=order.precision.limits,
        patches=tuple(patch.name for patch in conversion.patches),
        contract=_contract(None, source.network, size, any_size=True, batch=static.batch)
        if order.gears_size
        else _contract(source, source.network, size, any_size=False),
        graph=GraphRecord(
            opset=compiled.opset,
            ir_version=compiled.ir_version,
            operators=dict(compiled.operators),
            passes=(*conversion.passes[order.source], *compiled.passes),
        )
        if compiled
        else None,
        offline=OfflineRecord(
            route=order.route.name,
            soc=order.soc,
            precision_mode=order.precision.name,
            gears=order.gears,
            gears_size=order.gears_size,
            command=order.command(size, static.batch or 1),
        ),
    )


def _reduced(done: Exported, one: Reduced, graph: InspectedGraph, patches: tuple[str, ...]) -> VariantRecord:
    plan = one.plan
    plain = next(variant for variant in GRAPHS if variant.path == graph.path.name)
    net, any_size = done.conversion.network, graph.any_size
    return VariantRecord(
        variant=reduced_name(plain, plan.precision),
        engine=plain.engine,
        path=graph.name,
        weights=f"{plan.precision}/{WEIGHTS_FILE}",
        precision=plan.precision,
        patches=patches,
        contract=_contract(graph, net, done.size, any_size),
        graph=_graph(graph, (*done.conversion.passes[graph.path.name], *one.passes[graph.name])),
        reduction=one.record(),
    )


def _recorded(reference: Reference, images: tuple[str, ...]) -> GoldenRecord:
    return GoldenRecord(
        path=GOLDEN_FILE,
        images=images,
        reference=reference.name,
        floor=dict(reference.floor),
        to_stock_original=dict(reference.to_stock_original),
        elsewhere=tuple(
            SizedGoldenRecord(path=sized_file(one.size), size=one.size) for one in reference.elsewhere
        ),
    )
