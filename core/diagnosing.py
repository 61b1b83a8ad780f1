"""The straight line behind `vconv doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from vconv.errors import InputError
from vconv.runtime import doctor
from vconv.runtime.device import Device, Settings
from vconv.runtime.devices import find_device
from vconv.runtime.doctor import Finding, State
from vconv.runtime.probe import UNKNOWN, Reading, probe
from vconv.runtime.simulation.session import Child
from vconv.types import Say, silent


def diagnose(
    probed: bool = False,
    *,
    device: str | None = None,
    hf32: Sequence[str] | None = None,
    profile: str = "",
    seed: int = 0,
    say: Say = silent,
) -> dict[str, Any]:
    """Find out what is installed here, what of it works, and how a device computes.

    Args:
        probed: whether to run GELU, convolution and matrix products on a device.
        device: which: ``npu[:N]``, the default, ``npu-sim``, ``cuda[:N]`` or ``cpu``.
        hf32: what an NPU may compute in HF32 meanwhile; by default as in a validation.
        profile: which NPU is simulated.
        seed: of the operands.
        say: takes a line of progress.

    Returns:
        ``findings``, each with ``name``, ``state`` (ok, note or problem), ``found`` and ``mend``;
        ``passed``: whether none is a problem; and ``probe``: None, or the ``device``, its ``model``, whether
        it is ``simulated``, and its ``readings``.

    Raises:
        InputError: a device is to be probed that is not there, or named without being probed.
    """
    settings = Settings(None if hf32 is None else tuple(hf32), profile)
    if not probed and (device or settings.given):
        raise InputError(
            "there is nothing to do on a device",
            got=f"--{'device' if device else settings.given[0]} without --probe",
            expected="both, or neither",
            fix="add --probe",
        )
    place = find_device(device or "npu", settings) if probed else None
    say("importing every library, in processes of their own")
    findings = list(doctor.examine().findings)
    document: dict[str, Any] = {"probe": None}
    if place is not None:
        say(f"probing {place.name}")
        readings = _readings(place, seed)
        findings += _findings(place, readings)
        document["probe"] = {
            "device": place.name,
            "model": place.model,
            "simulated": place.simulated,
            "readings": {
                name: {**asdict(one), "as_claimed": one.as_claimed} for name, one in readings.items()
            },
        }
    return {
        "passed": all(finding.state is not State.PROBLEM for finding in findings),
        "findings": [asdict(finding) for finding in findings],
        **document,
    }


def _readings(place: Device, seed: int) -> Mapping[str, Reading]:
    if place.simulates is None:
        with place.exact():
            return probe(place, seed)
    child = Child(place.simulates)
    try:
        found: Mapping[str, Reading] = child.call("probe", seed)
        return found
    finally:
        child.close()


def _findings(place: Device, readings: Mapping[str, Reading]) -> Iterator[Finding]:
    """Say of each reading what is active, and whether the device's settings say so too."""
    simulated = " (simulated)" if place.simulated else ""
    for name, reading in readings.items():
        title, found = f"{name} on {place.name}", f"{reading.active}{simulated}"
        if reading.active == UNKNOWN:
            nearest = min(reading.errors, key=reading.errors.__getitem__)
            found = f"of no known form{simulated}: nearest to {nearest}, {reading.errors[nearest]:.1e} away"
            mend = "do not trust this device's figures before this is explained: report it"
            yield Finding(title, State.PROBLEM, found, mend)
        elif not reading.as_claimed:
            yield Finding(title, State.NOTE, f"{found}, though its setting says {reading.claimed}")
        elif reading.active == "tanh":
            mend = "patched variants and exported graphs compute erf all the same"
            yield Finding(title, State.NOTE, f"{found}: F.gelu drops its mode; {mend}")
        else:
            yield Finding(title, State.OK, found + (", as its setting says" if reading.claimed else ""))
