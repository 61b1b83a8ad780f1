"""Devices: where a variant runs, and how to wait for it. A new kind of device is one row of the table."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from vconv.errors import AbsentDeviceError, InputError, UnknownNameError
from vconv.runtime.devices import npu
from vconv.runtime.devices.base import DEFAULT_SETTINGS, REDUCED, Device, DeviceKind, MemoryMeter, Settings
from vconv.runtime.devices.memory import free_memory, growth_of
from vconv.runtime.simulation.device import lack

ALL = "all"
"""Every device that this machine has."""


def _nothing() -> None:
    """Do nothing: on a CPU, torch and ONNX Runtime come back when the work is done."""


_BF16_CAPABILITY = (8, 0)
"""Least compute capability of a GPU that computes in bfloat16: Ampere's."""


def _cpu(index: int, settings: Settings) -> Device:
    return Device(
        name="cpu",
        kind="cpu",
        index=0,
        model=_cpu_model(),
        providers=("CPUExecutionProvider",),
        arithmetic="fp32",
        precisions=("fp32", *REDUCED),
        usual=("fp32",),
        exact=contextlib.nullcontext,
        synchronize=_nothing,
        free_bytes=free_memory,
        growth=growth_of,
    )


def _cpu_model() -> str:
    file = Path("/proc/cpuinfo")
    text = file.read_text() if file.is_file() else ""
    found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else "unknown"


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Make CUDA compute float32 in full: torch's convolutions are in TF32 by default. Restored on exit.

    These are the settings that torch has had since 2.9 (https://pytorch.org/docs/stable/notes/cuda.html). The
    older ``allow_tf32`` raises where the newer ones disagree with it, so only these are touched.
    """
    cuda: Any = torch.backends.cuda
    cudnn: Any = torch.backends.cudnn
    places = (cuda.matmul, cudnn.conv, cudnn.rnn)
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = "ieee"
    try:
        yield
    finally:
        for place, setting in zip(places, before, strict=True):
            place.fp32_precision = setting


def _cuda(index: int, settings: Settings) -> Device:
    bf16 = torch.cuda.get_device_capability(index) >= _BF16_CAPABILITY
    reduced = tuple(name for name in REDUCED if bf16 or "bf16" not in name)
    cuda = torch.cuda
    meter = MemoryMeter(
        cuda.reset_peak_memory_stats,
        cuda.memory_allocated,
        cuda.max_memory_allocated,
        cuda.mem_get_info,
        cuda.synchronize,
    )
    return Device(
        name=f"cuda:{index}",
        kind="cuda",
        index=index,
        model=torch.cuda.get_device_name(index),
        providers=(("CUDAExecutionProvider", {"device_id": index, "use_tf32": 0}),),
        arithmetic="fp32",
        precisions=("fp32", *reduced),
        usual=("fp32", *reduced),
        exact=without_tf32,
        synchronize=lambda: torch.cuda.synchronize(index),
        free_bytes=lambda: int(torch.cuda.mem_get_info(index)[0]),
        growth=functools.partial(meter.growth, index),
    )


def _cuda_absent() -> str:
    built = torch.version.cuda
    return f"torch {torch.__version__} " + (f"for CUDA {built}, but no GPU" if built else "without CUDA")


KINDS: Mapping[str, DeviceKind] = {
    kind.name: kind
    for kind in (
        DeviceKind("cpu", lambda: 1, _cpu, lambda: "a CPU", "leave the index out: there is one cpu"),
        DeviceKind(
            "cuda",
            torch.cuda.device_count,
            _cuda,
            _cuda_absent,
            "use --device cpu, or a machine with a GPU and the CUDA build of torch",
        ),
        DeviceKind(
            "npu",
            npu.npu_count,
            npu.npu_device,
            npu.npu_absent,
            npu.npu_fix,
            takes=("hf32",),
        ),
        DeviceKind(
            npu.SIMULATED,
            lambda: 0 if lack() else 1,
            npu.simulated_device,
            lack,
            "use torch 2.10 or later",
            takes=("hf32", "profile"),
            simulated=True,
        ),
    )
}
"""Every kind of device, by name."""


def find_device(name: str, settings: Settings = DEFAULT_SETTINGS) -> Device:
    """Look a device up by its name: ``cpu``, ``cuda``, ``cuda:1``, ``npu:0``, ``npu-sim``.

    Args:
        name: its name; without an index, the first of its kind.
        settings: how it is to compute.

    Raises:
        UnknownNameError: there is no such kind.
        AbsentDeviceError: this machine has no such device.
        InputError: it has no such setting.
    """
    match = re.fullmatch(r"([a-z-]+)(?::(\d{1,3}))?", name)
    if match is None or match[1] not in KINDS:
        raise UnknownNameError("device", name, KINDS, fix="choose one of the devices listed")
    kind, index = KINDS[match[1]], int(match[2] or 0)
    count = kind.count()
    if index >= count:
        raise AbsentDeviceError(
            f"there is no {kind.name}:{index}" if count else f"there is no {kind.name}",
            got=f"{count} of them" if count else kind.absent(),
            expected=f"{kind.name}:0 to {kind.name}:{count - 1}" if count > 1 else f"a {kind.name}",
            fix=kind.fix if isinstance(kind.fix, str) else kind.fix(),
        )
    _require_taken(settings, [kind], name, name)
    return kind.make(index, settings)


def _require_taken(settings: Settings, kinds: Iterable[DeviceKind], name: str, subject: str) -> None:
    """Refuse a setting that none of some kinds has.

    Args:
        settings: what is asked for.
        kinds: those that could have it.
        name: the device, as it was named.
        subject: what the setting says nothing about.
    """
    taken = {setting for kind in kinds for setting in kind.takes}
    for setting in settings.given:
        if setting not in taken:
            raise InputError(
                f"--{setting} says nothing about {subject}",
                got=f"--device {name}",
                expected=" or ".join(kind.name for kind in KINDS.values() if setting in kind.takes),
                fix=f"leave --{setting} out, or name that device",
            )


def find_devices(name: str, settings: Settings = DEFAULT_SETTINGS) -> list[Device]:
    """Look devices up: every one of this machine for ``all``, else the one that is named.

    Of ``all``, each is set as far as it has the settings; simulated ones are not among them.

    Raises:
        UnknownNameError: see :func:`find_device`.
        InputError: see :func:`find_device`.
    """
    if name.partition(":")[0] not in (*KINDS, ALL):
        choices = (*KINDS, ALL)
        raise UnknownNameError("device", name, choices, fix="choose one of the devices listed")
    if name != ALL:
        return [find_device(name, settings)]
    kinds = [(kind, kind.count()) for kind in KINDS.values() if not kind.simulated]
    here = [kind for kind, count in kinds if count]
    _require_taken(settings, here, name, "any device of this machine")
    return [kind.make(index, settings.only(kind.takes)) for kind, count in kinds for index in range(count)]
