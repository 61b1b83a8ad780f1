"""Which of an artifact's variants is fastest, as far as its reports tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vconv.artifact.manifest import digest
from vconv.runtime.devices.base import Device
from vconv.types import Status
from vconv.validators.report import history
from vconv.validators.report.history import ReportEntry

_KINDS = ("validate", "compare")
"""Of reports that rank variants."""
_JUDGED = (Status.PASSED, Status.FAILED)


@dataclass(frozen=True)
class RankedVariant:
    """A variant that was ranked.

    Args:
        variant: its name.
        engine: what ran it.
        rank: its rank; variants that were not told apart share one.
    """

    variant: str
    engine: str
    rank: int


def ranked(folder: Path, place: Device) -> list[RankedVariant]:
    """List an artifact's variants in the order of the newest ranking on a kind of device, the fastest first.

    It is that of the least batch that was ranked. What counts is a report that is what was entered in the
    index, of this very export, that was asked to run on this kind of device, set to compute as it is now. A
    variant whose newest verdict among those is failed is left out; where none is left, the ranking before
    counts.

    Args:
        folder: the artifact.
        place: the device.

    Returns:
        Those that are ranked there, in its order; empty where nothing was ranked.

    Raises:
        ArtifactError: the index is damaged, or cannot be read.
    """
    verdicts: dict[tuple[str, str], str] = {}
    identity = digest(folder)
    for entry in history.entries(folder):
        if entry.simulated or entry.kind not in _KINDS or entry.manifest != identity:
            continue
        document, _ = history.read(folder, entry)
        try:
            order = _order(entry, document, place, verdicts)
        except history.SHAPE:
            continue
        if order:
            return order
    return []


def _order(
    entry: ReportEntry, document: Mapping[str, Any], place: Device, verdicts: dict[tuple[str, str], str]
) -> list[RankedVariant]:
    """Read the order in one report, the next older one; note its verdicts where no newer report has one."""
    settings = document["device_settings"]
    alike = [name for name in settings if name.partition(":")[0] == place.kind]
    alike = [name for name in alike if settings[name] == dict(place.options)]
    for row in history.own(entry, history.variants(document)):
        if row["device"] in alike and row["status"] in _JUDGED:
            verdicts.setdefault((row["variant"], row["engine"]), row["status"])
    rows = [row for row in history.own(entry, document["ranking"]["rows"]) if row["rank"] is not None]
    device = place.name if place.name in alike else next(iter(alike), None)
    rows = [row for row in rows if row["device"] == device]
    least = min((row["batch"] for row in rows), default=None)
    found = [
        RankedVariant(row["variant"], row["engine"], row["rank"]) for row in rows if row["batch"] == least
    ]
    return [one for one in found if verdicts[one.variant, one.engine] == Status.PASSED]
