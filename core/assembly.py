"""Putting an artifact's record together: the manifest, from what a conversion made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vconv._version import VERSION
from vconv.catalog import System
from vconv.convert import ledger, models, sources
from vconv.convert.conversion import Conversion
from vconv.convert.patches import rope_periods
from vconv.convert.sources import Source
from vconv.manifest import (
    FileRecord,
    GoldenRecord,
    Manifest,
    PatchRecord,
    SourceRecord,
    SystemRecord,
    VariantRecord,
)
from vconv.types import WEIGHTS_FILE
from vconv.validators.golden import GOLDEN_FILE, Golden
from vconv.validators.graphs import Subject


def assemble(
    system: System,
    source: Source,
    conversion: Conversion,
    size: tuple[int, int],
    graphs: Sequence[Subject],
    reference: Golden | None,
    images: tuple[str, ...],
    folder: Path,
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
        folder: where its files are, all but the manifest.
    """
    net = conversion.network
    torch_variant = VariantRecord(
        variant="patched-torch-fp32", engine="torch", file=WEIGHTS_FILE, precision="fp32",
        batch=None, opset=None, ir_version=None, operators={},
    )  # fmt: skip
    graph_variants = (
        VariantRecord(
            variant="onnx-fp32-npu" if graph.batch else "onnx-fp32",
            engine="onnxruntime",
            file=graph.path.name,
            precision="fp32",
            batch=graph.batch,
            opset=graph.model.opset_imports[""],
            ir_version=graph.model.ir_version,
            operators=graph.operators,
        )
        for graph in graphs
    )
    patches = tuple(
        PatchRecord(
            name=decision.patch.name,
            reason=decision.patch.reason,
            corrective=decision.patch.corrective,
            applied=decision.applied,
            sites=decision.sites,
            carried_by_config=decision.carried,
            carriers=decision.patch.carriers if decision.applied else (),
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
        ),
        source=SourceRecord(
            label=source.label,
            synthetic=source.synthetic,
            sha256=source.sha256,
            configuration_sha256=source.configuration_sha256,
            published=source.published,
            licence="none: synthetic weights" if source.synthetic else system.licence,
        ),
        size=size,
        outputs={name: ("batch", *shape[1:]) for name, shape in models.output_shapes(net, 1, size).items()},
        ledger=ledger.summary(conversion.lines),
        patches=patches,
        rope_periods=tuple(rope_periods.of(net).tolist()) if corrected else None,
        variants=(torch_variant, *graph_variants),
        golden=_recorded(reference, images) if reference else None,
        files={
            str(path.relative_to(folder)): FileRecord(
                sha256=conversion.sha256
                if path.name == WEIGHTS_FILE and path.parent == folder
                else sources.sha256_of(path),
                nbytes=path.stat().st_size,
            )
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    )


def _recorded(reference: Golden, images: tuple[str, ...]) -> GoldenRecord:
    return GoldenRecord(
        file=GOLDEN_FILE,
        images=images,
        reference=reference.name,
        floor=dict(reference.floor),
        to_stock_original=dict(reference.to_stock_original),
    )
