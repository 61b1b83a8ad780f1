"""What a card rests on: the newest report of each device, and which rows of it are that device's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from vconv.artifact.results import SavedReport
from vconv.types import Check, Status
from vconv.validators.report.saving import whole

Row = Mapping[str, Any]


@dataclass(frozen=True)
class DeviceEvidence:
    """What one report says of one device.

    Args:
        device: its name in reports.
        report: the report.
    """

    device: str
    report: SavedReport

    @property
    def document(self) -> Mapping[str, Any]:
        """The report itself."""
        return self.report.document

    @property
    def rows(self) -> Sequence[Row]:
        """The variants that were run on the device."""
        return [row for row in self.document["variants"] if row["device"] == self.device]

    @property
    def asked(self) -> bool:
        """Whether the report is of a validation on the device, not of one that timed it beside another."""
        return self.device in self.document["devices"]

    @property
    def status(self) -> Status:
        """How the validation ended there: by the device's own variants, and the checks, which are of all."""
        checks = ({**check, "status": Status(check["status"])} for check in self.document["checks"])
        return whole(self.rows, (Check(**check) for check in checks))

    @property
    def simulated(self) -> bool:
        """Whether the device is an imitation."""
        return any(row["simulated"] for row in self.rows)

    @property
    def timed(self) -> bool:
        """Whether anything was timed on it."""
        return any(row["latency"] for row in self.rows)

    @property
    def model(self) -> str:
        """What the device is called by its maker; its own name where the report does not say."""
        return str(self.document["devices"].get(self.device, self.device))

    @property
    def settings(self) -> Mapping[str, Any]:
        """How the device was set to compute, or computes where it is an imitation."""
        return dict(self.document["device_settings"].get(self.device, {}))

    @property
    def moment(self) -> str:
        """When the report was made, as ``2026-11-21 18:40 UTC``."""
        found = datetime.strptime(self.document["time"], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        return found.strftime("%Y-%m-%d %H:%M UTC")

    @property
    def limits(self) -> Mapping[tuple[str, str], Mapping[str, float]]:
        """By precision and arithmetic: the bounds that variants were held to."""
        rows = self.document["limits"]["rows"]
        return {(row["precision"], row["arithmetic"]): row["bounds"] for row in rows}


def newest(reports: Iterable[SavedReport]) -> list[DeviceEvidence]:
    """Choose for each device the newest validation that was asked to run on it, or else that ran on it.

    On an accelerator, the CPU is timed beside it, to tell the speed-up: such rows count where no validation
    was asked for on the CPU.

    Args:
        reports: the oldest first; those that are no validation are passed over.

    Returns:
        One a device: the CPU first, accelerators next, simulated ones last.
    """
    asked: dict[str, DeviceEvidence] = {}
    beside: dict[str, DeviceEvidence] = {}
    for report in reports:
        if "variants" not in report.document:
            continue
        for device in _devices(report.document):
            found = DeviceEvidence(device, report)
            (asked if found.asked else beside)[device] = found
    chosen = {**beside, **asked}
    return sorted(chosen.values(), key=lambda one: (one.simulated, one.device != "cpu", one.device))


def _devices(document: Mapping[str, Any]) -> Iterator[str]:
    yield from dict.fromkeys([*document["devices"], *(row["device"] for row in document["variants"])])
