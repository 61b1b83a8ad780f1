"""The fastest variants of an artifact, according to its reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vconv.artifact.manifest import digest
from vconv.runtime.devices.base import Device
from vconv.types import Status
from vconv.validators.report import history
from vconv.validators.report.comparison import Comparison
from vconv.validators.report.document import Report
from vconv.validators.report.history import ReportEntry

_KINDS = ("validate", "compare")
"""Kinds of reports that rank variants."""
_JUDGED = (Status.PASSED, Status.FAILED)


@dataclass(frozen=True)
class RankedVariant:
    """A variant that was ranked.

    Args:
        variant: its name.
        engine: the engine that ran it.
        rank: its rank; variants that could not be distinguished share one.
    """

    variant: str
    engine: str
    rank: int


def ranked(folder: Path, place: Device) -> list[RankedVariant]:
    """List an artifact's variants in the order of the newest ranking on a kind of device, fastest first.

    The ranking of the least batch is used. A report counts if it is unchanged since it was entered in the
    index, belongs to this export, was requested for this kind of device, and if the device's arithmetic
    settings were the same as now. A variant whose newest verdict in these reports is failed is left out. If
    no variant is left, the next older ranking is used.

    Args:
        folder: the artifact.
        place: the device.

    Returns:
        The ranked variants, in order; empty if nothing was ranked.

    Raises:
        ArtifactError: the index is damaged, or cannot be read.
    """
    verdicts: dict[tuple[str, str], Status] = {}
    identity = digest(folder)
    for entry in history.entries(folder)[0]:
        if entry.simulated or entry.kind not in _KINDS or entry.manifest != identity:
            continue
        report, _ = history.read(folder, entry)
        if isinstance(report, Report | Comparison) and (order := _order(entry, report, place, verdicts)):
            return order
    return []


def _order(
    entry: ReportEntry, report: Report | Comparison, place: Device, verdicts: dict[tuple[str, str], Status]
) -> list[RankedVariant]:
    """Return the order in one report; record its verdicts on variants that no newer report has judged."""
    settings = report.device_settings
    alike = [name for name in settings if name.partition(":")[0] == place.kind]
    alike = [name for name in alike if settings[name] == dict(place.options)]
    for row in history.own(entry, report.rows):
        if row.device in alike and row.status in _JUDGED:
            verdicts.setdefault((row.variant, row.engine), row.status)
    ranked = [row for row in history.own(entry, report.ranking.rows) if row.rank is not None]
    device = place.name if place.name in alike else next(iter(alike), None)
    ranked = [row for row in ranked if row.device == device]
    least = min((row.batch for row in ranked), default=None)
    found = [
        RankedVariant(row.variant, row.engine, row.rank) for row in ranked if row.batch == least and row.rank
    ]
    return [one for one in found if verdicts.get((one.variant, one.engine)) is Status.PASSED]
