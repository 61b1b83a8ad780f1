"""The run plan of a validation: which variants, on which devices, with which engines and precisions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vconv.convert.patches.base import Patch
from vconv.convert.sources.base import Source
from vconv.errors import InputError, UnknownNameError
from vconv.precisions import FP32, PRECISIONS, Precision
from vconv.runtime.devices.base import Device, Settings
from vconv.runtime.devices.precisions import find_precisions
from vconv.runtime.devices.table import ALL, find_device, find_devices
from vconv.runtime.doctor import diagnosis
from vconv.runtime.engines.base import remedy
from vconv.runtime.engines.capture import lack
from vconv.runtime.engines.table import Runs, engines_of, graph_engines
from vconv.runtime.timing.clocks import DEFAULT, FULL, QUICK, TimingPlan
from vconv.types import Say
from vconv.validators.report import saving
from vconv.validators.validation import Candidate
from vconv.workflows import candidates as listing
from vconv.workflows.checks import CheckedArtifact


def _named_devices(name: str, settings: Settings, say: Say) -> list[Device]:
    """Find devices by name. For ``all``, report them, and why an installed torch_npu provides no NPU."""
    found = find_devices(name, settings)
    if name == ALL:
        say(f"devices here: {', '.join(device.name for device in found)}")
    if name == ALL and all(device.kind != "npu" for device in found):
        left_out = diagnosis.npu_left_out()
        if left_out:
            say(left_out)
    return found


def timing_plan(quick: bool = False, full: bool = False, budget: float | None = None) -> TimingPlan:
    """Return how much to time: a quick run (`--quick`), a full run (`--full`) or the default, in a budget.

    Raises:
        InputError: the budget, in seconds, is not positive or not finite, or both ``quick`` and ``full`` are
            requested.
    """
    if quick and full:
        raise InputError(
            "--quick and --full exclude each other", got="both", expected="one", fix="leave one of them out"
        )
    chosen = QUICK if quick else FULL if full else DEFAULT
    if budget is None:
        return chosen
    if not 0 < budget < math.inf:
        raise InputError(
            "--budget is out of range",
            got=budget,
            expected="a number of seconds, more than 0",
            fix="give seconds; with --full there is no budget",
        )
    return replace(chosen, budget_seconds=budget)


@dataclass(frozen=True)
class RunPlan:
    """The devices, engines and precisions of a validation.

    Args:
        devices: the devices that run the variants.
        engines: the engines that run graphs and torch models, or ``all``; for what none is named, the
            usual one.
        precisions: the precisions in which torch variants are run; ``auto`` for each device's usual ones.
        patches: patches by name to use instead of the table of patches.
        capture: whether to also run torch variants captured and replayed, on devices that can capture.
    """

    devices: tuple[Device, ...]
    engines: Sequence[str] | None
    precisions: tuple[str, ...]
    patches: Mapping[str, Patch] | None = None
    capture: bool = False

    @classmethod
    def on(
        cls,
        device: str,
        settings: Settings,
        engines: Sequence[str] | None,
        precisions: Sequence[str],
        capture: bool,
        say: Say,
    ) -> RunPlan:
        """Make a plan for the named devices, and refuse a plan that cannot be run.

        Args:
            device: a name that :func:`vconv.runtime.devices.table.find_devices` takes.
            settings: the settings of the devices.
            engines: see :class:`RunPlan`.
            precisions: see :class:`RunPlan`.
            capture: see :class:`RunPlan`.
            say: receives progress lines.

        Raises:
            InputError: this machine has no such device, or see :meth:`check`.
            UnknownNameError: there is no such kind of device, or see :meth:`check`.
        """
        devices = _named_devices(device, settings, say)
        trial = cls(tuple(devices), engines, tuple(precisions), capture=capture)
        trial.check()
        return trial

    def described(self) -> dict[str, Any]:
        """Return the part of a report about the devices, their settings and the installed software."""
        return {
            "devices": {device.name: device.model for device in self.devices},
            "device_settings": {device.name: dict(device.options) for device in self.devices},
            "environment": saving.environment(self.devices),
        }

    def check(self) -> None:
        """Refuse a plan that cannot be run, before any variant runs.

        Raises:
            InputError: an engine or precision is not available on the devices, or no device can capture.
            UnknownNameError: there is no such engine or precision.
        """
        known = {**graph_engines(), **engines_of(Runs.MODELS)}
        for name in self.engines or ():
            if name == ALL:
                continue  # what an engine lacks is the reason why its variants are skipped
            if name not in known:
                raise UnknownNameError("engine", name, [*known, ALL], fix="name one of those")
            lacks = [known[name].lack(device) for device in self.devices]
            if all(lacks):
                raise InputError(
                    f"{name} cannot run here",
                    got=lacks[0],
                    expected=f"{name} for {self.devices[0].name}",
                    fix=remedy(name, self.devices[0]),
                )
        for device in self.devices:
            find_precisions(self.precisions, device)
        lacks = [lack(device) for device in self.devices]
        if self.capture and all(lacks):
            raise InputError(
                "--capture cannot be met here",
                got=lacks[0],
                expected="a device of kind cuda or npu",
                fix="leave --capture out, or name another --device",
            )

    def candidates(self, found: CheckedArtifact) -> list[Candidate]:
        """List the variants to run of one artifact; on accelerators also a CPU baseline for the speed-up."""
        if found.reference is None:
            return []
        listed: list[Candidate] = []
        for device in self.devices:
            precisions = find_precisions(self.precisions, device)
            captures = (False, True) if self.capture and not lack(device) else (False,)
            if found.source:
                listed += self._originals(found, found.source, device, precisions, captures)
            listed += listing.candidates(
                found.artifact,
                device,
                found.reference,
                self.engines or None,
                precisions,
                self.patches,
                captures,
            )
        timed = [device for device in self.devices if not device.simulated]
        if timed and all(device.kind != "cpu" for device in timed):
            listed += self._baseline(found)
        return listed

    def _baseline(self, found: CheckedArtifact) -> list[Candidate]:
        cpu, only = find_device("cpu"), [PRECISIONS[FP32]]
        assert found.reference is not None
        if found.source:
            return self._originals(found, found.source, cpu, only, (False,))
        return listing.candidates(found.artifact, cpu, found.reference, (), only, offline=False)

    def _originals(
        self,
        found: CheckedArtifact,
        source: Source,
        device: Device,
        precisions: Sequence[Precision],
        captures: Sequence[bool],
    ) -> list[Candidate]:
        assert found.reference is not None
        label, size = str(found.artifact), found.artifact.manifest.size
        return listing.originals(label, source, size, device, found.reference, precisions, captures)
