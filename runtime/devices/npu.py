"""The Ascend NPU through torch_npu, and the simulated one."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from vconv.errors import InputError, UnknownNameError
from vconv.runtime.devices.base import REDUCED, Device, MemoryMeter, Settings
from vconv.runtime.devices.memory import free_memory, growth_of
from vconv.runtime.doctor import diagnosis
from vconv.runtime.simulation.arithmetic import (
    DEFAULT_PROFILE,
    FLAGS,
    PROFILES,
    Arithmetic,
    describe,
    with_hf32,
)

SIMULATED = "npu-sim"
DEFAULT_HF32 = ("conv",)
"""What computes in HF32 unless it is told otherwise: torch_npu's defaults, set in so many words."""
_HF32_SOCS = (range(220, 240), range(250, 1000))
"""torch_npu's numbers (NpuVariables.h) of the chips that have HF32: 910B from 220 on, 910_93 (A3) and later
from 250 on. Those between and below, 310B, 310P and 910A, give their cube unit float16 operands."""
_ENGINES = {"onnxruntime": "hf32", "acl": "fp32"}
"""CANN compiles convolutions into HF32 where nothing tells it not to, as ONNX Runtime's provider cannot;
vconv's offline models are compiled with a setting that does."""
_CANN_OPTIONS = {"precision_mode": "must_keep_origin_dtype", "dump_om_model": 0}
"""For ONNX Runtime, whose defaults are force_fp16, and a file in the current folder for every graph. Source:
https://onnxruntime.ai/docs/execution-providers/community-maintained/CANN-ExecutionProvider.html."""


def _allowed(settings: Settings, device: str, cube: str) -> frozenset[str]:
    """Return what may compute in HF32 on a device, of ``conv`` and ``matmul``.

    Raises:
        UnknownNameError: something else is named.
        InputError: its cube unit has no HF32.
    """
    for name in settings.hf32 or ():
        if name not in FLAGS:
            fix = "name conv, matmul, or both; or none alone"
            raise UnknownNameError("name for --hf32", name, FLAGS, fix=fix)
    if settings.hf32 is not None and cube == "fp16":
        raise InputError(
            f"{device} has no HF32",
            got=f"--hf32 {','.join(settings.hf32) or 'none'}",
            expected="a chip from 910B on; on this one products take float16 operands",
            fix="leave --hf32 out",
        )
    return frozenset(DEFAULT_HF32 if settings.hf32 is None else settings.hf32)


@contextlib.contextmanager
def hf32_of(allowed: frozenset[str]) -> Iterator[None]:
    """Let an NPU compute just these in HF32, of ``conv`` and ``matmul``. Restored on exit."""
    npu: Any = torch.npu  # type: ignore[attr-defined]
    before = npu.conv.allow_hf32, npu.matmul.allow_hf32
    npu.conv.allow_hf32, npu.matmul.allow_hf32 = "conv" in allowed, "matmul" in allowed
    try:
        yield
    finally:
        npu.conv.allow_hf32, npu.matmul.allow_hf32 = before


def npu_device(index: int, settings: Settings) -> Device:
    """Describe an NPU of this machine.

    Raises:
        InputError: HF32 is asked for, and it has none.
    """
    npu: Any = torch.npu  # type: ignore[attr-defined]
    cube = "fp32" if any(npu.get_soc_version() in socs for socs in _HF32_SOCS) else "fp16"
    allowed = _allowed(settings, f"npu:{index}", cube)
    meter = MemoryMeter(
        npu.reset_peak_memory_stats,
        npu.memory_allocated,
        npu.max_memory_allocated,
        npu.mem_get_info,
        npu.synchronize,
    )
    options: Mapping[str, Any] = {f"torch.npu.{flag}.allow_hf32": flag in allowed for flag in FLAGS}
    return Device(
        name=f"npu:{index}",
        kind="npu",
        index=index,
        model=npu.get_device_name(index),
        providers=(("CANNExecutionProvider", {"device_id": index, **_CANN_OPTIONS}),),
        arithmetic=cube if cube == "fp16" else "hf32" if allowed else "fp32",
        precisions=("fp32", *REDUCED),
        usual=("fp32", *REDUCED),
        exact=functools.partial(hf32_of, allowed) if cube == "fp32" else contextlib.nullcontext,
        synchronize=lambda: npu.synchronize(index),
        free_bytes=lambda: int(npu.mem_get_info(index)[0]),
        growth=functools.partial(meter.growth, index),
        settings=settings,
        options=options if cube == "fp32" else {"cube operands": "fp16"},
        engines=_ENGINES if cube == "fp32" else {},
    )


def npu_count() -> int:
    """Return how many NPUs torch can use here; torch_npu is imported if a child could import it."""
    if not hasattr(torch, "npu") and diagnosis.npu_problem() is None:
        diagnosis.load_torch_npu()
    npu: Any = getattr(torch, "npu", None)
    return int(npu.device_count()) if npu is not None and npu.is_available() else 0


def npu_absent() -> str:
    """Say what was found instead of an NPU."""
    trouble = diagnosis.npu_problem()
    return f"{trouble.name}: {trouble.found}" if trouble else "torch_npu, but no NPU that it can use"


def npu_fix() -> str:
    """Say what to do where there is no NPU."""
    trouble = diagnosis.npu_problem()
    return (
        f"use --device {SIMULATED} or cpu, or {trouble.mend if trouble else 'see what `npu-smi info` says'}"
    )


def simulated_device(index: int, settings: Settings) -> Device:
    """Describe the simulated NPU: its variants run in processes of their own, its graphs on the CPU.

    Raises:
        UnknownNameError: there is no such profile.
        InputError: HF32 is asked for, and the profile has none.
    """
    profile = settings.profile or DEFAULT_PROFILE
    if profile not in PROFILES:
        raise UnknownNameError("profile", profile, PROFILES, fix="name one of those, or leave --profile out")
    arithmetic = PROFILES[profile]
    allowed = _allowed(settings, f"the simulated {profile}", arithmetic.float32_is)
    if settings.hf32 is not None:
        arithmetic = with_hf32(profile, allowed)
    return Device(
        name=SIMULATED,
        kind=SIMULATED,
        index=0,
        model=f"simulated Ascend NPU, profile {profile}: {_in_words(arithmetic)}",
        providers=("CPUExecutionProvider",),
        arithmetic=arithmetic.float32_is,
        precisions=("fp32",),
        usual=("fp32",),
        exact=contextlib.nullcontext,
        synchronize=lambda: None,
        free_bytes=free_memory,
        growth=growth_of,
        settings=settings,
        options={"profile": profile, **describe(arithmetic)},
        simulates=arithmetic,
    )


def _in_words(arithmetic: Arithmetic) -> str:
    """Say how a device computes: ``GELU tanh, convolution hf32, matmul fp32``."""
    words = (f"{'GELU' if name == 'gelu' else name} {how}" for name, how in describe(arithmetic).items())
    return ", ".join(words)
