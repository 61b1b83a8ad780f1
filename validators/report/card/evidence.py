"""The evidence for a card: the newest report for each device, and its rows for that device."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from vconv.artifact.results import TIME
from vconv.runtime.timing.clocks import LEAST_FOR
from vconv.types import Status
from vconv.validators.latency.speed_up import TimingKey, listed_in, timing_key
from vconv.validators.report import history
from vconv.validators.report.document import Report, Setting
from vconv.validators.report.rows import LatencyRow, VariantRow
from vconv.validators.report.saving import whole

KIND = "validate"
"""The kind of report that a card uses."""


@dataclass(frozen=True)
class SavedReport:
    """One saved validation.

    Args:
        file: the report's path in the artifact.
        document: the report.
    """

    file: str
    document: Report


@dataclass(frozen=True)
class DeviceEvidence:
    """The results of one report for one device.

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
        """Whether the validation was requested on this device, and not only timed it beside another."""
        return self.device in self.document.devices

    @property
    def status(self) -> Status:
        """The status of the validation, from this device's variants and from the checks, which are shared."""
        return whole(self.rows, self.document.checks)

    @property
    def simulated(self) -> bool:
        """Whether the device is simulated."""
        return any(row.device_simulated for row in self.rows)

    @property
    def timed(self) -> bool:
        """Whether any variant was timed on the device."""
        return any(row.latency for row in self.rows)

    @property
    def model(self) -> str:
        """The maker's name of the device; its name in reports if the report has no other."""
        return self.document.devices.get(self.device, self.device)

    @property
    def settings(self) -> Mapping[str, Setting]:
        """The settings by which the device computes; of a simulated device, its arithmetic."""
        return self.document.device_settings.get(self.device, {})

    @property
    def moment(self) -> str:
        """The time of the report, in the form ``2026-11-21 18:40 UTC``."""
        found = datetime.strptime(self.document.time, TIME).replace(tzinfo=UTC)
        return found.strftime("%Y-%m-%d %H:%M UTC")


def saved_reports(folder: Path) -> tuple[list[SavedReport], list[str]]:
    """Read the validations of an artifact, the oldest first.

    Returns:
        The reports; and a sentence for each that is left out because it, or its entry, is damaged.

    Raises:
        ArtifactError: the index as a whole is damaged, or cannot be read.
    """
    entries, left_out = history.entries(folder)
    found = []
    for entry in reversed(entries):
        if entry.kind == KIND:
            report, trouble = history.read(folder, entry)
            if isinstance(report, Report):
                found.append(SavedReport(entry.file, report))
            else:
                left_out.append(f"{entry.file} is left out: {trouble}")
    return found, left_out


def newest(reports: Iterable[SavedReport]) -> list[DeviceEvidence]:
    """Choose for each device the newest validation that was requested on it, or else that ran on it too.

    A validation on an accelerator also times the CPU, to compute the speed-up. These rows are used only if no
    validation was requested on the CPU.

    Args:
        reports: the validations, the oldest first.

    Returns:
        One entry per device: the CPU first, then accelerators, then simulated devices.
    """
    asked: dict[str, DeviceEvidence] = {}
    beside: dict[str, DeviceEvidence] = {}
    for saved in reports:
        document = _supported(saved.document)
        for device in _devices(document):
            found = DeviceEvidence(device, saved.file, document)
            (asked if found.asked else beside)[device] = found
    chosen = {**beside, **asked}
    return sorted(chosen.values(), key=lambda one: (one.simulated, one.device != "cpu", one.device))


def _supported(report: Report) -> Report:
    """Leave out what earlier versions wrote although the samples do not carry it: percentiles, speed-ups."""
    listed = listed_in(report.ranking)
    rows = (
        row.model_copy(update={"latency": tuple(_carried(row, one, listed) for one in row.latency)})
        for row in report.variants
    )
    return report.model_copy(update={"variants": tuple(rows)})


def _carried(row: VariantRow, timing: LatencyRow, listed: Container[TimingKey]) -> LatencyRow:
    few = {f"p{percentile}_ms": None for percentile, least in LEAST_FOR.items() if timing.runs < least}
    unranked = {} if timing_key(row, timing) in listed else {"speed_up_over_cpu": None}
    return timing.model_copy(update={**few, **unranked})


def _devices(report: Report) -> Iterator[str]:
    yield from dict.fromkeys([*report.devices, *(row.device for row in report.variants)])
