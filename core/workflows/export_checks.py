"""Whether an export is kept: its graphs are read again and checked, and every variant is run and judged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from vconv.artifact.artifact import Artifact
from vconv.artifact.reduction_records import ReductionRecord
from vconv.convert.network import Network
from vconv.errors import ExportCheckError, InputError
from vconv.precisions import FP16, PRECISIONS
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.torch_kinds import PATCHED
from vconv.types import FROM_IMAGES, GRAPHS, WEIGHTS_FILE, Check, Say, Status
from vconv.validators import validation
from vconv.validators.accuracy.golden import Reference
from vconv.validators.accuracy.limits import open_limits
from vconv.validators.checks.inspected_graph import InspectedGraph, open_graph
from vconv.validators.checks.reduced import check_reduced
from vconv.validators.report.rows import VariantRow
from vconv.workflows import candidates
from vconv.workflows.image_graph import check_image_graphs
from vconv.workflows.reduced import Reduced


def opened_graphs(
    folder: Path,
    network: Network,
    size: tuple[int, int],
    batch: int,
    any_size: bool,
    from_images: bool,
    reduced: Sequence[Reduced],
) -> list[InspectedGraph]:
    """Read the graphs of an export again, as they lie on the disk.

    Args:
        folder: the folder of the export.
        network: the network that they compute.
        size: (height, width) of the images.
        batch: the batch of the graph for an NPU.
        any_size: whether the dynamic graph takes images of any size.
        from_images: whether there is a graph that takes images.
        reduced: the reduced precisions that were written. Each of their graphs is checked with the network,
            the size and the batch of the same graph in float32.
    """
    graphs = [
        open_graph(
            folder,
            graph.path,
            WEIGHTS_FILE,
            network,
            size,
            fixed,
            any_size=any_size and not fixed and not graph.from_images,
            from_images=graph.from_images,
        )
        for graph in (*GRAPHS, *([FROM_IMAGES] if from_images else []))
        for fixed in (batch if graph.for_npu else None,)
    ]
    plain = {graph.name: graph for graph in graphs}
    return graphs + [
        open_graph(folder, path, weights, like.network, like.size, like.batch, any_size=like.any_size)
        for one in reduced
        for path in one.passes
        for weights, like in ((f"{one.plan.precision}/{WEIGHTS_FILE}", plain[Path(path).name]),)
    ]


def check_plans(artifact: Artifact, graphs: Sequence[InspectedGraph]) -> list[Check]:
    """Compare the graphs in reduced precision with the weights in float32 and with their plans."""
    by_path = {graph.name: graph for graph in graphs}
    return [
        check
        for record in artifact.manifest.variants
        if record.reduction
        for check in check_reduced(artifact, record, by_path[record.path])
    ]


def judged(artifact: Artifact, reference: Reference, say: Say) -> tuple[list[VariantRow], list[Check]]:
    """Run every variant of an export on the CPU, and judge it by the strict limits.

    A fused variant is made when it is loaded: a validation judges it.

    Returns:
        The results of the runs, and of the checks of the graph that takes images.
    """
    limits = open_limits("strict")
    to_run = candidates.candidates(artifact, find_device("cpu"), reference, offline=False, kinds=(PATCHED,))
    rows = list(validation.run(to_run, limits, None, say).rows)
    return rows, check_image_graphs(artifact, reference, limits)


def refuse_failures(artifact: Artifact, rows: Sequence[VariantRow], checks: Iterable[Check]) -> None:
    """Refuse an export of which a variant or a check failed.

    Args:
        artifact: the artifact.
        rows: the judged variants.
        checks: the checks.

    Raises:
        InputError: only variants in reduced precision failed.
        ExportCheckError: anything else failed.
    """
    reduced = {record.variant: record.reduction for record in artifact.manifest.variants if record.reduction}
    found = _without_skipped(rows)
    failures = validation.worst_failures(row for row in found if row.variant not in reduced)
    failures += [f"{check.name}: {check.detail}" for check in checks if check.status is Status.FAILED]
    lost = {row.variant: row for row in found if row.variant in reduced and not row.passed}
    lossy = validation.worst_failures(lost.values())
    if lossy and not failures:
        raise InputError(
            "these weights lose too much in reduced precision",
            got="; ".join(lossy),
            expected="every variant within strict limits on the recorded images",
            fix="; ".join(
                dict.fromkeys(_advice(row.precision, reduced[variant]) for variant, row in lost.items())
            ),
        )
    if failures:
        raise ExportCheckError(
            "the export does not agree with its reference",
            got="; ".join([*failures, *lossy]),
            expected="every variant within strict limits and every check passed",
            fix="report this: nothing was kept",
        )


def _without_skipped(rows: Sequence[VariantRow]) -> list[VariantRow]:
    """Leave out what one engine skips, if another one judged the same variant.

    ONNX Runtime computes a graph in float16 in float32 on a CPU; the simulation of rounding judges it.
    """
    found = {row.variant for row in rows if row.status is not Status.SKIPPED}
    return [row for row in rows if row.status is not Status.SKIPPED or row.variant not in found]


def _advice(precision: str, reduction: ReductionRecord) -> str:
    """Say what to do about a reduced precision that loses too much."""
    asked = PRECISIONS[precision].asked
    if reduction.losses is None:
        instead = " or use auto in its place" * (precision == FP16)
        return f"leave {asked} out{instead}"
    lost = reduction.losses
    allowed = reduction.max_drop or max(lost.cosine, lost.neighbours or 0, lost.top1 or 0)
    stricter = f"--max-drop {allowed / 2:.1g} or " if allowed else ""
    return f"for {asked}, try {stricter}more --calibration photographs, or leave it out"
