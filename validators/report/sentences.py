"""What a ranking or a row says, in lines of plain text. Nothing heavy is imported: the terminal uses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vconv.validators.report.comparison import Comparison
    from vconv.validators.report.dataset_document import DatasetReport
    from vconv.validators.report.document import Ranking, RankRow, ReferenceRow, Winner
    from vconv.validators.report.rows import VariantName, VariantRow
from vconv.runtime.engines.table import Runs, engines_of, is_usual

REFERENCES = {
    "live": "run here on the original's weights",
    "golden": "recorded at export; the original's weights are not here",
    "file": "recorded with `vconv reference`",
    "none": "none: nothing was compared",
}
"""By what a report says of its reference's source, the same for a reader."""


class NamedVariant(Protocol):
    """What has a variant and an engine."""

    @property
    def variant(self) -> str:
        """Its name."""

    @property
    def engine(self) -> str:
        """What runs it."""


class PlacedVariant(NamedVariant, Protocol):
    """What also has a device."""

    @property
    def device(self) -> str:
        """The device's name."""

    @property
    def simulated(self) -> bool:
        """Whether the device is an imitation."""


def reference(found: ReferenceRow) -> str:
    """Say where a report's reference is from; of one from a file, which machine computed it, and how."""
    recorded = found.recorded
    if not recorded:
        return REFERENCES.get(found.source, found.source)
    how = f"{recorded.device_model}, {recorded.arithmetic}"
    return f"{REFERENCES['file']} ({how}; {recorded.file}, sha256 {recorded.sha256[:12]})"


def short_name(row: PlacedVariant) -> str:
    """Name a variant, with its engine and device where they are not the usual ones, and *simulated*."""
    engine = "" if is_usual(row.engine) else f" {row.engine}"
    device = "" if row.device == "cpu" else f" {row.device}"
    return f"{row.variant}{engine}{device}{' (simulated)' if row.simulated else ''}"


def named(row: NamedVariant) -> str:
    """Name a variant with its engine."""
    return f"{row.variant} ({row.engine})"


def named_apart(row: VariantName, several: bool) -> str:
    """Name a variant with its engine, and with its artifact where there are several."""
    return named(row) + f" of {row.artifact}" * several


def executed(row: NamedVariant) -> str:
    """Name what a simulated device counts: calls of operators, or the nodes of a graph."""
    return "operator calls" if row.engine in engines_of(Runs.MODELS) else "nodes"


def images(dataset: DatasetReport) -> str:
    """Say how many images of a folder were judged, and how many were not."""
    said = [f"{dataset.images:,} images"]
    said += [f"{len(dataset.skipped):,} skipped"] * bool(dataset.skipped)
    said += [f"other files, ignored: {dataset.other_files:,}"] * bool(dataset.other_files)
    return ", ".join(said)


def fallbacks(row: VariantRow) -> str:
    """Say which nodes of a variant an accelerator left to the CPU; nothing where none are known."""
    return left_to_cpu(row, row.device, row.fallbacks)


def left_to_cpu(variant: NamedVariant, device: str, counts: Mapping[str, int] | None) -> str:
    """Say which nodes of a variant a device left to the CPU, given how many by operator; else nothing."""
    listed = ", ".join(f"{count} {operator}" for operator, count in (counts or {}).items())
    total = sum((counts or {}).values())
    nodes = f"{total} nodes of it run" if total > 1 else "a node of it runs"
    return f"{named(variant)}: {nodes} on the CPU, not on {device}: {listed}" if listed else ""


def fastest(ranking: Ranking) -> list[str]:
    """Say for each device which variant is fastest at the least batch that is ranked, or why none is."""
    if ranking.refused:
        return [f"ranking refused: {ranking.refused}"]
    several = _several(ranking)
    least: dict[str, RankRow] = {}
    for row in ranking.rows:
        least.setdefault(row.device, row)
    return [
        f"fastest on {device} at batch {row.batch}: {named_apart(row, several)}, {_time(row)}"
        + _tied(row, several)
        for device, row in least.items()
    ]


def winner(document: Comparison) -> str:
    """Say which variant of a comparison won, or why none did."""
    found, several = document.winner, _several(document.ranking)
    if found is None:
        return f"no winner: {document.winner_reason}"
    return f"winner: {named_apart(found, several)}" + _tied(found, several)


def ranks(ranking: Ranking) -> list[str]:
    """Spell a ranking out, one line a variant, and one for each device and batch that is missing."""
    if ranking.refused:
        return fastest(ranking)
    several = _several(ranking)
    rows = [
        f"rank {row.rank or '-'} on {row.device} at batch {row.batch}: "
        f"{named_apart(row, several)}, {_time(row)}" + _tied(row, several)
        for row in ranking.rows
    ]
    missing = [f"no ranking on {one.device} at batch {one.batch}: {one.reason}" for one in ranking.left_out]
    return rows + missing


def _several(ranking: Ranking) -> bool:
    return len({row.artifact for row in ranking.rows}) > 1


def _time(row: RankRow) -> str:
    interval = " ({:.4g} to {:.4g})".format(*row.interval) if row.interval else ""
    return f"{row.p50_ms:.4g} ms" + interval


def _tied(row: RankRow | Winner, several: bool) -> str:
    others = ", ".join(named_apart(other, several) for other in row.tied_with)
    return f"; not told apart: {others}" if others else ""
