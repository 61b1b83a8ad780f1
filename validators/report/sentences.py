"""Rankings and rows as lines of plain text, also for the terminal: no heavy library is imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vconv.validators.report.comparison import Comparison
    from vconv.validators.report.dataset_document import DatasetReport
    from vconv.validators.report.document import GraphRow, Ranking, RankRow, ReferenceRow, Report, Winner
    from vconv.validators.report.rows import VariantName, VariantRow
from vconv.runtime.engines.forms import FORMS
from vconv.runtime.engines.table import Runs, engines_of, is_usual, simulates
from vconv.types import FROM_IMAGES, Status

REFERENCES = {
    "live": "run here on the original's weights",
    "golden": "recorded at export; the original's weights are not here",
    "file": "recorded with `vconv reference`",
    "none": "none: nothing was compared",
}
"""By source of a reference, as a report records it: a description for the reader."""

PERCENTILES = (
    "p90 and the box are given from 10 runs on, p99 from 100: with fewer runs, none is expected beyond the "
    "percentile, and it would be the slowest run alone"
)
"""Why a percentile is missing: see :data:`vconv.runtime.timing.clocks.LEAST_FOR`."""

_IMAGES_JUDGED = tuple(f"{FROM_IMAGES.path}: {what}" for what in ("preprocessing", "network"))
"""The checks of a graph that takes images without which it is not judged."""

NO_REFERENCE = "nothing was recorded, and the original is not here: give --weights WHERE"
"""Why a validation has no variant."""
IS_REFERENCE = "not judged: it is the reference"
"""How the reason of the original begins where variants are compared with it as it is."""


class NamedVariant(Protocol):
    """An object with a variant and an engine."""

    @property
    def variant(self) -> str:
        """The name of the variant."""

    @property
    def engine(self) -> str:
        """The engine that runs the variant."""


class CheckedPart(Protocol):
    """The result of a check."""

    @property
    def name(self) -> str:
        """The name of the check."""

    @property
    def detail(self) -> str:
        """What was found."""

    @property
    def status(self) -> Status:
        """Its status."""


class PlacedVariant(NamedVariant, Protocol):
    """An object with a variant, an engine and a device."""

    @property
    def device(self) -> str:
        """The device's name."""

    @property
    def simulated(self) -> bool:
        """Whether the device is simulated."""


def reference(found: ReferenceRow) -> str:
    """Describe the source of a report's reference; if it is a file, also the device and its arithmetic."""
    recorded = found.recorded
    if not recorded:
        return REFERENCES.get(found.source, found.source)
    how = f"{recorded.device_model}, {recorded.arithmetic}"
    return f"{REFERENCES['file']} ({how}; {recorded.file}, sha256 {recorded.sha256[:12]})"


def short_name(row: PlacedVariant) -> str:
    """Name a variant, with its engine and device if they are not the usual ones, and *simulated* if so.

    The engine ``simulated-rounding`` says so by its name.
    """
    engine = "" if is_usual(row.engine) else f" {row.engine}"
    device = "" if row.device == "cpu" else f" {row.device}"
    simulated = " (simulated)" if row.simulated and not simulates(row.engine) else ""
    return f"{row.variant}{engine}{device}{simulated}"


def from_images(checks: Iterable[CheckedPart]) -> str:
    """Say how the graph that takes images was judged, apart from the others; empty without one."""
    found = {check.name: check for check in checks if check.name.startswith(f"{FROM_IMAGES.path}: ")}
    if not found:
        return ""
    counts = Counter(check.status for check in found.values())
    run, passed = len(found) - counts[Status.SKIPPED], counts[Status.PASSED]
    skipped = f"; {counts[Status.SKIPPED]} skipped" if counts[Status.SKIPPED] else ""
    unjudged = [found[name] for name in _IMAGES_JUDGED if name in found]
    unjudged = [check for check in unjudged if check.status is Status.SKIPPED]
    if counts[Status.FAILED]:
        result = f"failed, by {counts[Status.FAILED]} of {run} checks{skipped}"
    elif unjudged:
        result = f"not judged: {unjudged[0].detail}; its other checks that were made, {passed}, passed"
    else:
        result = f"passed, by {run} checks{skipped}"
    return f"{FROM_IMAGES.name}: {result}; it is not timed"


def incomplete(status: Status, rows: Iterable[VariantRow]) -> str:
    """Say why a validation is incomplete: see :func:`vconv.validators.report.saving.whole`; empty otherwise.

    Args:
        status: the status of the validation.
        rows: its variants.
    """
    if status is not Status.INCOMPLETE:
        return ""
    unjudged = [row for row in rows if not row.reason.startswith(IS_REFERENCE)]
    short = [row for row in unjudged if row.status is Status.INCOMPLETE]
    reasons: dict[str, list[str]] = {}
    for row in short or unjudged:
        reasons.setdefault(row.reason, []).append(short_name(row))
    told = "; ".join(f"{reason} ({', '.join(names)})" for reason, names in reasons.items())
    what = "not every variant could be judged" if short else "no variant was judged"
    return f"incomplete, because {what}: {told or NO_REFERENCE}"


def named(row: NamedVariant) -> str:
    """Name a variant with its engine."""
    return f"{row.variant} ({row.engine})"


def named_apart(row: VariantName, several: bool) -> str:
    """Name a variant with its engine, and with its artifact if there are several artifacts."""
    return named(row) + f" of {row.artifact}" * several


def standing(row: VariantRow) -> str:
    """Return a variant's status in a word; that of one that was measured but not judged says what it is."""
    return word(row.status, row.reason, bool(row.outputs or row.latency))


def word(status: Status, reason: str, measured: bool) -> str:
    """Return a status in a word: see :func:`standing`."""
    if status is not Status.SKIPPED or not measured:
        return status
    return "reference" if reason.startswith(IS_REFERENCE) else "not judged"


def computed(precision: str, arithmetic: str) -> str:
    """Return a precision, and the arithmetic that computes it if that is another."""
    return precision if precision == arithmetic else f"{precision} computed in {arithmetic}"


def executed(row: NamedVariant) -> str:
    """Return the unit in which a simulated device counts: operator calls, or the nodes of a graph."""
    return "operator calls" if row.engine in engines_of(Runs.MODELS) else "nodes"


def images(dataset: DatasetReport) -> str:
    """Return the numbers of judged images, skipped images and other files of a folder, in words."""
    said = [f"{dataset.images:,} images"]
    said += [f"{dataset.skipped_count:,} skipped"] * bool(dataset.skipped_count)
    said += [f"files of other suffixes, left out: {dataset.other_files:,}"] * bool(dataset.other_files)
    return ", ".join(said)


def fallbacks(row: VariantRow) -> str:
    """Describe the nodes of a variant that an accelerator left to the CPU; empty if none are known."""
    return left_to_cpu(row, row.device, row.fallbacks)


def left_to_cpu(variant: NamedVariant, device: str, counts: Mapping[str, int] | None) -> str:
    """Describe the nodes that a device left to the CPU, from their number by operator; empty if none."""
    listed = ", ".join(f"{count} {operator}" for operator, count in (counts or {}).items())
    total = sum((counts or {}).values())
    nodes = f"{total} nodes of it run" if total > 1 else "a node of it runs"
    return f"{named(variant)}: {nodes} on the CPU, not on {device}: {listed}" if listed else ""


def fastest(ranking: Ranking) -> list[str]:
    """Return the fastest variant of each device at the least ranked batch, or why there is no ranking."""
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
    """Return which variant won a comparison, and how to load it, or why none did."""
    found, several = document.winner, _several(document.ranking)
    if found is None:
        return f"no winner: {document.winner_reason}"
    return f"winner: {named_apart(found, several)}" + _tied(found, several) + _loaded(found)


def winners(document: Report) -> list[str]:
    """Return the fastest variant of each device, and how to load it; empty without a ranking."""
    several = _several(document.ranking)
    return [
        f"winner on {found.device} at batch {found.batch}: {named_apart(found, several)}"
        + _tied(found, several)
        + _loaded(found)
        for found in document.winners
    ]


def _loaded(found: Winner) -> str:
    return f"; to load it: {found.load}" if found.load else ""


def ranks(ranking: Ranking) -> list[str]:
    """Return a ranking as lines: one per variant, and one per device and batch without a ranking."""
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


def contract(graph: GraphRow) -> list[str]:
    """Say what a graph of another exporter takes, and what its outputs are, one sentence each."""
    size = "x".join(map(str, graph.size)) if graph.size else "any size"
    batch = f"batches of {graph.batch}" if graph.batch else "any batch"
    how = ", as a file beside it states" if graph.stated else ""
    rounded = "; its reference ran on images with rounded grey levels" if graph.rounded else ""
    lines = [
        f"{graph.precision}, opset {graph.opset}, by {graph.producer or 'an exporter that it does not name'}",
        f"takes {graph.input}: {graph.layout} {graph.dtype}, {graph.levels}, {size}, {batch}{how}{rounded}",
    ]
    for one in graph.outputs:
        form = f" as {FORMS[one.form].meaning}" if one.form else ""
        lines.append(f"gives {one.output}: {one.reading}{form} ({one.how})")
    lines += [f"gives {name}: not judged, {why}" for name, why in graph.unread.items()]
    return lines
