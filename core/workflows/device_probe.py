"""Probe a device: compare how it computes with what its settings say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from vconv.errors import AbsentDeviceError
from vconv.runtime.devices.base import Device, Settings
from vconv.runtime.devices.probe import UNKNOWN, ProbeReading, probe
from vconv.runtime.devices.table import find_device
from vconv.runtime.doctor.diagnosis import Finding, State
from vconv.runtime.simulation.session import Child
from vconv.types import Say


def probe_device(
    name: str, hf32: Sequence[str] | None, profile: str | None, seed: int, say: Say
) -> tuple[list[Finding], dict[str, Any] | None]:
    """Run GELU, convolution and matrix products on a device, to find out how it computes them.

    Args:
        name: the name of the device.
        hf32: the operations that an NPU may compute in HF32 during the probe; None for the default.
        profile: the NPU to simulate; None for the default.
        seed: the seed of the operands.
        say: receives progress lines.

    Returns:
        One finding per reading, and the readings as a report has them; if the device is absent, one finding
        that says so, and None.

    Raises:
        InputError: the device does not have the requested settings.
        UnknownNameError: there is no such kind of device, or no such setting.
    """
    try:
        place = find_device(name, Settings.of(hf32, profile))
    except AbsentDeviceError as error:
        return [Finding(f"probe of {name}", State.PROBLEM, f"{error.what}: {error.got}", error.fix)], None
    say(f"probing {place.name}")
    readings = _readings(place, seed)
    document = {
        "device": place.name,
        "model": place.model,
        "simulated": place.simulated,
        "readings": {name: {**asdict(one), "as_claimed": one.as_claimed} for name, one in readings.items()},
    }
    return list(_findings(place, readings)), document


def _readings(place: Device, seed: int) -> Mapping[str, ProbeReading]:
    if place.simulates is None:
        with place.exact():
            return probe(place, seed)
    child = Child(place.simulates)
    try:
        found: Mapping[str, ProbeReading] = child.call("probe", seed)
        return found
    finally:
        child.close()


def _findings(place: Device, readings: Mapping[str, ProbeReading]) -> Iterator[Finding]:
    """Yield a finding for each reading: the active form, and whether it agrees with the device's settings."""
    simulated = " (simulated)" if place.simulated else ""
    for name, reading in readings.items():
        title, found = f"{name} on {place.name}", f"{reading.active}{simulated}"
        if reading.active == UNKNOWN:
            nearest = min(reading.errors, key=reading.errors.__getitem__)
            found = f"of no known form{simulated}: nearest to {nearest}, {reading.errors[nearest]:.1e} away"
            fix = "do not trust this device's figures before this is explained: report it"
            yield Finding(title, State.PROBLEM, found, fix)
        elif not reading.as_claimed and place.arithmetic == "fp16":
            yield Finding(title, State.NOTE, f"{found}: all that this chip's products take, whatever is set")
        elif not reading.as_claimed:
            yield Finding(title, State.NOTE, f"{found}, though its setting says {reading.claimed}")
        elif reading.active == "tanh":
            fix = "patched variants and exported graphs compute erf all the same"
            yield Finding(title, State.NOTE, f"{found}: F.gelu drops its mode; {fix}")
        else:
            yield Finding(title, State.OK, found + (", as its setting says" if reading.claimed else ""))
