"""The simulated Ascend NPU. Torch variants run in a separate process each, graphs on the CPU."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from vconv.errors import UnknownNameError
from vconv.precisions import FP32
from vconv.runtime.devices.base import Device, Settings
from vconv.runtime.devices.memory import free_memory, growth_of
from vconv.runtime.devices.npu import allowed_hf32
from vconv.runtime.simulation.arithmetic import (
    DEFAULT_PROFILE,
    OFF,
    ON_OR_OFF,
    PROFILES,
    Arithmetic,
    describe,
    with_hf32,
)
from vconv.runtime.simulation.device import lack

SIMULATED = "npu-sim"


def count() -> int:
    """Return 1 where the NPU can be simulated, else 0."""
    return 0 if lack() else 1


def absent() -> str:
    """Say why the NPU cannot be simulated here."""
    return lack()


def fix() -> str:
    """Say what to do if the NPU cannot be simulated."""
    return "use torch 2.10 or later"


def make(index: int, settings: Settings) -> Device:
    """Describe the simulated NPU: torch variants run in a separate process each, graphs on the CPU.

    Raises:
        UnknownNameError: there is no such profile, or the fusions are neither on nor off.
        InputError: HF32 is asked for, but the profile does not have it.
    """
    profile = settings.profile or DEFAULT_PROFILE
    if profile not in PROFILES:
        raise UnknownNameError("profile", profile, PROFILES, fix="name one of those, or leave --profile out")
    arithmetic = PROFILES[profile]
    allowed = allowed_hf32(settings, f"the simulated {profile}", arithmetic.float32_is)
    if settings.hf32 is not None:
        arithmetic = with_hf32(profile, allowed)
    fusions = settings.fusions or OFF
    if fusions not in ON_OR_OFF:
        raise UnknownNameError("--fusions", fusions, ON_OR_OFF, fix="give one of those")
    arithmetic = replace(arithmetic, fusions=fusions)
    return Device(
        name=SIMULATED,
        kind=SIMULATED,
        index=0,
        model=f"simulated Ascend NPU, profile {profile}: {_in_words(arithmetic)}",
        arithmetic=arithmetic.float32_is,
        precisions=(FP32,),
        usual=(FP32,),
        exact=contextlib.nullcontext,
        synchronize=lambda: None,
        free_bytes=free_memory,
        growth=growth_of,
        settings=settings,
        options={"profile": profile, **describe(arithmetic), "overflow": arithmetic.overflow},
        simulates=arithmetic,
    )


def _in_words(arithmetic: Arithmetic) -> str:
    """Describe an arithmetic in words: ``GELU tanh, convolution hf32, matmul fp32``."""
    words = [f"{'GELU' if name == 'gelu' else name} {how}" for name, how in describe(arithmetic).items()]
    return ", ".join([*words, *["overflow saturates"] * arithmetic.saturates])
