"""`vconv doctor`: report which software is installed on this machine, and whether it works.

This module imports no large library, so that it can report a broken one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from vconv.arguments import checked_arguments
from vconv.errors import InputError
from vconv.runtime.doctor import diagnosis
from vconv.runtime.doctor.diagnosis import Finding, State
from vconv.runtime.engines.table import ENGINES
from vconv.surroundings import own_surroundings
from vconv.types import Say, silent


def _needed() -> list[str]:
    """Return the names of the libraries that a probe needs."""
    return ["onnx", *(engine.package for engine in ENGINES.values() if engine.needed)]


@checked_arguments
@own_surroundings()
def doctor(
    probed: bool = False,
    *,
    device: str | None = None,
    hf32: Sequence[str] | None = None,
    profile: str | None = None,
    seed: int = 0,
    say: Say = silent,
) -> dict[str, Any]:
    """Report which software is installed, whether it works, and how a device computes.

    Args:
        probed: whether to run GELU, convolution and matrix products on a device.
        device: the device to probe: ``npu[:N]``, the default, ``npu-sim``, ``cuda[:N]`` or ``cpu``.
        hf32: the operations that an NPU may compute in HF32 during the probe; by default as in a validation.
        profile: the NPU to simulate.
        seed: the seed of the operands.
        say: receives progress lines.

    Returns:
        ``findings``, each with ``name``, ``state`` (ok, note or problem), ``found`` and ``fix``; the
        deprecated key ``mend`` repeats ``fix``. ``passed``: whether no finding is a problem. ``probe``: None,
        or the ``device``, its ``model``, whether it is ``simulated``, and its ``readings``.

    Raises:
        InputError: a probe option is given without ``probed``, or the device does not have the requested
            settings.
        UnknownNameError: there is no such kind of device, or no such setting.
    """
    given = {"device": device, "hf32": hf32 is not None, "profile": profile}
    named = [name for name, value in given.items() if value]
    if named and not probed:
        raise InputError(
            f"--{named[0]} is only for --probe",
            got=f"--{named[0]} without --probe",
            expected="both, or neither",
            fix="add --probe",
        )
    say("importing every library, each in a separate process")
    findings = list(diagnosis.examine().findings)
    needed = _needed()
    broken = [one.name for one in findings if one.name in needed and one.state is State.PROBLEM]
    readings = None
    if probed and broken:
        findings.append(Finding("probe", State.PROBLEM, f"not run without {broken[0]}", f"fix {broken[0]}"))
    elif probed:
        from vconv.workflows import device_probe

        more, readings = device_probe.probe_device(device or "npu", hf32, profile, seed, say)
        findings += more
    return {
        "passed": all(finding.state is not State.PROBLEM for finding in findings),
        "findings": [_row(finding) for finding in findings],
        "probe": readings,
    }


def _row(finding: Finding) -> dict[str, Any]:
    """Return a finding in the form for JSON. Version 0.1.0 used the key ``mend`` for ``fix``."""
    return {**asdict(finding), "mend": finding.fix}
