"""The Ascend NPU, through torch_npu."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from vconv.errors import InputError, UnknownNameError
from vconv.runtime.devices.base import Device, MemoryMeter, Settings
from vconv.runtime.devices.precisions import names_without
from vconv.runtime.doctor import diagnosis
from vconv.runtime.simulation.arithmetic import FLAGS

DEFAULT_HF32 = ("conv",)
"""What computes in HF32 by default. These are torch_npu's defaults; vconv sets them explicitly."""
_HF32_SOCS = (range(220, 240), range(250, 1000))
"""torch_npu's numbers (NpuVariables.h) of the chips with HF32: 910B from 220 on, 910_93 (A3) and later from
250 on. The cube units of all others (310B, 310P and 910A) take float16 operands."""


def allowed_hf32(settings: Settings, device: str, cube: str) -> frozenset[str]:
    """Return which of ``conv`` and ``matmul`` may compute in HF32 on a device.

    Raises:
        UnknownNameError: another name is given.
        InputError: the device's cube unit has no HF32.
    """
    for name in settings.hf32 or ():
        if name not in FLAGS:
            fix = "name conv, matmul, or both; or none alone"
            raise UnknownNameError("name for --hf32", name, FLAGS, fix=fix)
    if settings.hf32 is not None and cube == "fp16":
        raise InputError(
            f"{device} has no HF32",
            got=f"--hf32 {','.join(settings.hf32) or 'none'}",
            expected="a 910B or a later chip; products on this one take float16 operands",
            fix="leave --hf32 out",
        )
    return frozenset(DEFAULT_HF32 if settings.hf32 is None else settings.hf32)


@contextlib.contextmanager
def hf32_of(allowed: frozenset[str]) -> Iterator[None]:
    """Allow HF32 on an NPU for exactly these of ``conv`` and ``matmul``. Restored on exit."""
    npu: Any = torch.npu  # type: ignore[attr-defined]
    before = npu.conv.allow_hf32, npu.matmul.allow_hf32
    npu.conv.allow_hf32, npu.matmul.allow_hf32 = "conv" in allowed, "matmul" in allowed
    try:
        yield
    finally:
        npu.conv.allow_hf32, npu.matmul.allow_hf32 = before


def make(index: int, settings: Settings) -> Device:
    """Describe an NPU of this machine.

    Raises:
        InputError: HF32 is asked for, but the NPU does not have it.
    """
    npu: Any = torch.npu  # type: ignore[attr-defined]
    cube = "fp32" if any(npu.get_soc_version() in socs for socs in _HF32_SOCS) else "fp16"
    allowed = allowed_hf32(settings, f"npu:{index}", cube)
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
        arithmetic=cube if cube == "fp16" else "hf32" if allowed else "fp32",
        precisions=names_without(),
        usual=names_without(),
        exact=functools.partial(hf32_of, allowed) if cube == "fp32" else contextlib.nullcontext,
        synchronize=lambda: npu.synchronize(index),
        free_bytes=lambda: int(npu.mem_get_info(index)[0]),
        growth=functools.partial(meter.growth, index),
        settings=settings,
        options=options if cube == "fp32" else {"cube operands": "fp16"},
    )


def count() -> int:
    """Return how many NPUs torch can use here. torch_npu is imported if a child process could import it."""
    if not hasattr(torch, "npu") and diagnosis.npu_problem() is None:
        diagnosis.load_torch_npu()
    npu: Any = getattr(torch, "npu", None)
    return int(npu.device_count()) if npu is not None and npu.is_available() else 0


def absent() -> str:
    """Say what was found instead of an NPU."""
    trouble = diagnosis.npu_problem()
    return f"{trouble.name}: {trouble.found}" if trouble else "torch_npu, but no NPU that it can use"


def fix() -> str:
    """Say what to do if there is no NPU."""
    trouble = diagnosis.npu_problem()
    return f"use --device npu-sim or cpu, or {trouble.fix if trouble else 'see what `npu-smi info` says'}"
