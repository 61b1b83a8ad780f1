"""The evidence for a card: the newest report for each device, and its rows for that device."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from vconv.artifact import results
from vconv.artifact.results import SavedReport
from vconv.errors import ArtifactError
from vconv.runtime.timing.clocks import LEAST_FOR
from vconv.types import Status
from vconv.validators.latency.speed_up import TimingKey, listed_in, timing_key
from vconv.validators.report.document import Report, Setting
from vconv.validators.report.model import SCHEMA_VERSION
from vconv.validators.report.rows import LatencyRow, VariantRow
from vconv.validators.report.saving import whole
from vconv.validators.report.upgrade import UnreadableReportError, read_report

KIND = "validate"
"""The kind of report that a card uses."""


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
        return any(row.simulated for row in self.rows)

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
        found = datetime.strptime(self.document.time, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        return found.strftime("%Y-%m-%d %H:%M UTC")


def newest(reports: Iterable[SavedReport]) -> list[DeviceEvidence]:
    """Choose for each device the newest validation that was requested on it, or else that ran on it too.

    A validation on an accelerator also times the CPU, to compute the speed-up. These rows are used only if no
    validation was requested on the CPU.

    Args:
        reports: the reports, the oldest first; reports of other kinds are ignored.

    Returns:
        One entry per device: the CPU first, then accelerators, then simulated devices.

    Raises:
        ArtifactError: this version cannot read one of the reports.
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
    listed = listed_in(report.ranking)
    rows = (
        row.model_copy(update={"latency": tuple(_supported(row, one, listed) for one in row.latency)})
        for row in report.variants
    )
    return report.model_copy(update={"variants": tuple(rows)})


def _supported(row: VariantRow, timing: LatencyRow, listed: Container[TimingKey]) -> LatencyRow:
    """Leave out what earlier versions wrote although the samples do not carry it: percentiles, speed-ups."""
    few = {f"p{percentile}_ms": None for percentile, least in LEAST_FOR.items() if timing.runs < least}
    unranked = {} if timing_key(row, timing) in listed else {"speed_up_over_cpu": None}
    return timing.model_copy(update={**few, **unranked})


def _devices(report: Report) -> Iterator[str]:
    yield from dict.fromkeys([*report.devices, *(row.device for row in report.variants)])
