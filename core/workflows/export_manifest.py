"""Putting an artifact's record together: the manifest, from what a conversion made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from vconv._version import VERSION
from vconv.artifact.manifest import (
    ComplexityRecord,
    FileRecord,
    GoldenRecord,
    Manifest,
    OfflineRecord,
    PatchRecord,
    SourceRecord,
    SystemRecord,
    VariantRecord,
)
from vconv.catalog.systems import System
from vconv.convert.architectures.outputs import output_shapes
from vconv.convert.ascend.atc import CompileOrder
from vconv.convert.conversion import Conversion
from vconv.convert.libraries import complexity
from vconv.convert.patches import rope_periods
from vconv.convert.sources.base import Source
from vconv.convert.weights import ledger
from vconv.hashes import sha256_of
from vconv.types import VARIANTS, WEIGHTS_FILE
from vconv.validators.accuracy.golden import GOLDEN_FILE, Reference
from vconv.validators.checks.graphs import InspectedGraph


def assemble(
    system: System,
    source: Source,
    conversion: Conversion,
    size: tuple[int, int],
    graphs: Sequence[InspectedGraph],
    reference: Reference | None,
    images: tuple[str, ...],
    without_weights: bool,
    folder: Path,
    order: CompileOrder | None = None,
) -> Manifest:
    """Describe a finished artifact.

    Args:
        system: its row of the catalog.
        source: the source weights.
        conversion: its checkpoint.
        size: (height, width) of its images.
        graphs: its graphs.
        reference: what was recorded; None if nothing was.
        images: what its images are.
        without_weights: whether its weights file will be left out.
        folder: where its files are, all but the manifest.
        order: what its offline model is compiled for; None if it has none.
    """
    net = conversion.network
    made = {graph.path.name: graph for graph in graphs}
    variants = [
        VariantRecord(
            variant=variant.name,
            engine=variant.engine,
            file=variant.file,
            precision=variant.precision,
            batch=graph.batch if graph else None,
            opset=graph.model.opset_imports[""] if graph else None,
            ir_version=graph.model.ir_version if graph else None,
            operators=graph.operators if graph else {},
        )
        for variant in VARIANTS
        for graph in (made.get(variant.file),)
    ]
    if order:
        variants.append(_offline(order, size, graphs))
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
            pooling=net.numbers.pooling,
        ),
        source=SourceRecord(
            label=source.origin.label,
            kind=source.origin.kind,
            identity=source.origin.identity,
            revision=source.origin.revision,
            synthetic=source.origin.synthetic,
            files=dict(source.files),
            configuration_sha256=source.configuration_sha256,
            pool=source.pool,
            periods=source.periods,
            published=source.published,
            licence=source.licence,
        ),
        size=size,
        outputs={name: ("batch", *shape[1:]) for name, shape in output_shapes(net, 1, size).items()},
        ledger=ledger.summary(conversion.lines),
        patches=patches,
        rope_periods=tuple(rope_periods.of(net).tolist()) if corrected else None,
        variants=tuple(variants),
        golden=_recorded(reference, images) if reference else None,
        files={
            str(path.relative_to(folder)): FileRecord(
                sha256=conversion.sha256
                if path.name == WEIGHTS_FILE and path.parent == folder
                else sha256_of(path),
                nbytes=path.stat().st_size,
            )
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
        without_weights=without_weights,
        complexity=ComplexityRecord(**asdict(complexity.measure(source.folder, source.network, size))),
    )


def _offline(order: CompileOrder, size: tuple[int, int], graphs: Sequence[InspectedGraph]) -> VariantRecord:
    static = next(graph for graph in graphs if graph.batch)
    source = next(graph for graph in graphs if graph.path.name == order.source)
    return VariantRecord(
        variant=order.precision.variant,
        engine="acl",
        file=order.file,
        precision=order.precision.limits,
        batch=source.batch,
        opset=source.model.opset_imports[""],
        ir_version=source.model.ir_version,
        operators=source.operators,
        offline=OfflineRecord(
            soc=order.soc,
            precision_mode=order.precision.name,
            gears=order.gears,
            command=order.command(size, static.batch or 1),
        ),
    )


def _recorded(reference: Reference, images: tuple[str, ...]) -> GoldenRecord:
    return GoldenRecord(
        file=GOLDEN_FILE,
        images=images,
        reference=reference.name,
        floor=dict(reference.floor),
        to_stock_original=dict(reference.to_stock_original),
    )
