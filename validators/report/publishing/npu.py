"""What the reports of an artifact say of real NPUs. A page claims an NPU only if a report of one is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vconv.types import Status
from vconv.validators.report.card.evidence import DeviceEvidence

NPU = "npu"
"""The kind of real NPUs, by its name in reports. The simulated one is another kind."""


@dataclass(frozen=True)
class NpuEvidence:
    """The newest report of each real NPU.

    Args:
        reports: the evidence, by NPU; empty if nothing was measured on one.
    """

    reports: tuple[DeviceEvidence, ...]

    @property
    def measured(self) -> bool:
        """Whether a variant was run on a real NPU."""
        return bool(self.reports)

    @property
    def passed(self) -> bool:
        """Whether a variant passed on a real NPU, and none failed on the newest validation of any."""
        return self.measured and all(one.status is Status.PASSED for one in self.reports)

    @property
    def reason(self) -> str:
        """Why a page may not say that the model runs on an NPU; empty if it may."""
        if not self.measured:
            return "the artifact has no report of a real NPU: `vconv validate PATH --device npu` writes one"
        failed = [f"{one.file} ({one.device}: {one.status})" for one in self.reports]
        return "" if self.passed else f"the newest validation on an NPU did not pass: {', '.join(failed)}"


def npu_evidence(evidence: Sequence[DeviceEvidence]) -> NpuEvidence:
    """Choose the evidence of real NPUs on which a variant was run."""
    found = (one for one in evidence if one.device.partition(":")[0] == NPU and not one.simulated)
    return NpuEvidence(tuple(one for one in found if any(row.outputs or row.latency for row in one.rows)))
