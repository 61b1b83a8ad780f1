"""What a card rests on: the newest report of each device, and which rows of it are that device's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from vconv.artifact import results
from vconv.artifact.results import SavedReport
from vconv.errors import ArtifactError
from vconv.types import Status
from vconv.validators.report.document import Report, Setting
from vconv.validators.report.model import SCHEMA_VERSION
from vconv.validators.report.rows import VariantRow
from vconv.validators.report.saving import whole
from vconv.validators.report.upgrade import UnreadableReportError, read_report

KIND = "validate"
"""Of reports that a card rests on."""


@dataclass(frozen=True)
class DeviceEvidence:
    """What one report says of one device.

    Args:
        device: its name in reports.
        file: the report's path in the artifact.
        document: the report.
    """

    device: str
    file: str
    document: Report

    @property
    def rows(self) -> Sequence[VariantRow]:
        """The variants that were run on the device."""
        return [row for row in self.document.variants if row.device == self.device]

    @property
    def asked(self) -> bool:
        """Whether the report is of a validation on the device, not of one that timed it beside another."""
        return self.device in self.document.devices

    @property
    def status(self) -> Status:
        """How the validation ended there: by the device's own variants, and the checks, which are of all."""
        return whole(self.rows, self.document.checks)

    @property
    def simulated(self) -> bool:
        """Whether the device is an imitation."""
        return any(row.simulated for row in self.rows)

    @property
    def timed(self) -> bool:
        """Whether anything was timed on it."""
        return any(row.latency for row in self.rows)

    @property
    def model(self) -> str:
        """What the device is called by its maker; its own name where the report does not say."""
        return self.document.devices.get(self.device, self.device)

    @property
    def settings(self) -> Mapping[str, Setting]:
        """How the device was set to compute, or computes where it is an imitation."""
        return self.document.device_settings.get(self.device, {})

    @property
    def moment(self) -> str:
        """When the report was made, as ``2026-11-21 18:40 UTC``."""
        found = datetime.strptime(self.document.time, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        return found.strftime("%Y-%m-%d %H:%M UTC")


def newest(reports: Iterable[SavedReport]) -> list[DeviceEvidence]:
    """Choose for each device the newest validation that was asked to run on it, or else that ran on it.

    On an accelerator, the CPU is timed beside it, to tell the speed-up: such rows count where no validation
    was asked for on the CPU.

    Args:
        reports: the oldest first; those that are no validation are passed over.

    Returns:
        One a device: the CPU first, accelerators next, simulated ones last.

    Raises:
        ArtifactError: one is of a schema that this version does not read.
    """
    asked: dict[str, DeviceEvidence] = {}
    beside: dict[str, DeviceEvidence] = {}
    for saved in reports:
        named = results.NAMED.fullmatch(saved.file)
        if named is None or named.group(2) != KIND:
            continue
        report = _report(saved)
        for device in _devices(report):
            found = DeviceEvidence(device, saved.file, report)
            (asked if found.asked else beside)[device] = found
    chosen = {**beside, **asked}
    return sorted(chosen.values(), key=lambda one: (one.simulated, one.device != "cpu", one.device))


def _report(saved: SavedReport) -> Report:
    try:
        report = read_report(saved.document, KIND)
    except UnreadableReportError as error:
        raise ArtifactError(
            f"cannot read {saved.file}",
            got=str(error),
            expected=f"a report of schema version {SCHEMA_VERSION}, or of vconv 0.1.0",
            fix=f"validate again, and take the report out of {results.RESULTS_FILE}",
        ) from error
    assert isinstance(report, Report)
    return report


def _devices(report: Report) -> Iterator[str]:
    yield from dict.fromkeys([*report.devices, *(row.device for row in report.variants)])
