"""Devices: where a variant runs, and how to wait for it. A new kind of device is one row of the table."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vconv.errors import InputError, UnknownNameError
from vconv.runtime.memory import free_memory, growth_of

ALL = "all"
"""Every device that this machine has."""
Provider = str | tuple[str, dict[str, Any]]


def _nothing() -> None:
    """Do nothing: on a CPU, torch and ONNX Runtime come back when the work is done."""


@dataclass(frozen=True)
class Device:
    """A place to run on.

    Args:
        name: as reports have it: ``cpu``, ``cuda:0``.
        kind: ``cpu``, ``cuda`` or ``npu``.
        index: which of its kind.
        model: what the maker calls it.
        providers: ONNX Runtime execution providers, in order of preference.
        arithmetic: how it computes in float32: ``fp32``, or a reduced form of it.
        precisions: what torch variants can run in on it.
        usual: those that are run unless others are asked for.
        exact: while this context is open, float32 is computed as :attr:`arithmetic` says.
        synchronize: returns when everything that was launched on it has finished.
        free_bytes: how much memory it has left.
        growth: runs something and returns by how many bytes that raised its memory's peak.
        simulated: whether it imitates another device; the word follows every figure from it.
    """

    name: str
    kind: str
    index: int
    model: str
    providers: tuple[Provider, ...]
    arithmetic: str
    precisions: tuple[str, ...]
    usual: tuple[str, ...]
    exact: Callable[[], AbstractContextManager[None]]
    synchronize: Callable[[], None]
    free_bytes: Callable[[], int]
    growth: Callable[[Callable[[], object]], int]
    simulated: bool = False

    @property
    def torch_name(self) -> str:
        """What torch calls it."""
        return self.name

    @property
    def ort_name(self) -> str:
        """What ONNX Runtime calls its kind."""
        return "cann" if self.kind == "npu" else self.kind

    def provider_names(self) -> set[str]:
        """The names of its execution providers."""
        return {provider if isinstance(provider, str) else provider[0] for provider in self.providers}

    def arithmetic_of(self, precision: str) -> str:
        """Return how it computes in a precision: its own way in fp32, the precision's in any other."""
        return self.arithmetic if precision == "fp32" else precision


@dataclass(frozen=True)
class Kind:
    """A kind of device.

    Args:
        name: its name on the command line.
        count: how many of it this machine has.
        make: describes one, by index.
        absent: what was found instead where there is none.
        fix: what to do then.
    """

    name: str
    count: Callable[[], int]
    make: Callable[[int], Device]
    absent: Callable[[], str]
    fix: str


_BF16_CAPABILITY = (8, 0)
"""Least compute capability of a GPU that computes in bfloat16: Ampere's."""
_REDUCED = ("fp16", "bf16", "autocast-fp16", "autocast-bf16")


def _cpu(index: int) -> Device:
    return Device(
        name="cpu",
        kind="cpu",
        index=0,
        model=_cpu_model(),
        providers=("CPUExecutionProvider",),
        arithmetic="fp32",
        precisions=("fp32", *_REDUCED),
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


def _growth(module: Any, index: int, run: Callable[[], object]) -> int:
    """Measure what a run takes on an accelerator: of torch's allocator, or of the whole device if more."""
    module.reset_peak_memory_stats(index)
    before, free = int(module.memory_allocated(index)), int(module.mem_get_info(index)[0])
    run()
    module.synchronize(index)
    left = int(module.mem_get_info(index)[0])
    return max(int(module.max_memory_allocated(index)) - before, free - left, 0)


def _cuda(index: int) -> Device:
    bf16 = torch.cuda.get_device_capability(index) >= _BF16_CAPABILITY
    reduced = tuple(name for name in _REDUCED if bf16 or "bf16" not in name)
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
        growth=functools.partial(_growth, torch.cuda, index),
    )


@contextlib.contextmanager
def _without_hf32() -> Iterator[None]:
    """Make an NPU compute float32 in full: its convolutions are in HF32 by default. Restored on exit."""
    npu: Any = torch.npu  # type: ignore[attr-defined]
    before = npu.conv.allow_hf32, npu.matmul.allow_hf32
    npu.conv.allow_hf32 = npu.matmul.allow_hf32 = False
    try:
        yield
    finally:
        npu.conv.allow_hf32, npu.matmul.allow_hf32 = before


_CANN_OPTIONS = {"precision_mode": "must_keep_origin_dtype", "dump_om_model": 0}
"""For ONNX Runtime, whose defaults are force_fp16, and a file in the current folder for every graph. Source:
https://onnxruntime.ai/docs/execution-providers/community-maintained/CANN-ExecutionProvider.html."""


def _npu(index: int) -> Device:
    npu: Any = torch.npu  # type: ignore[attr-defined]
    return Device(
        name=f"npu:{index}",
        kind="npu",
        index=index,
        model=npu.get_device_name(index),
        providers=(("CANNExecutionProvider", {"device_id": index, **_CANN_OPTIONS}),),
        arithmetic="fp32",
        precisions=("fp32", *_REDUCED),
        usual=("fp32", *_REDUCED),
        exact=_without_hf32,
        synchronize=lambda: npu.synchronize(index),
        free_bytes=lambda: int(npu.mem_get_info(index)[0]),
        growth=functools.partial(_growth, npu, index),
    )


def _npu_count() -> int:
    npu: Any = getattr(torch, "npu", None)
    return int(npu.device_count()) if npu is not None and npu.is_available() else 0


def _npu_absent() -> str:
    if importlib.util.find_spec("torch_npu") is None:
        return "no torch_npu"
    return "torch_npu, but no NPU that it can use"


def _cuda_absent() -> str:
    built = torch.version.cuda
    return f"torch {torch.__version__} " + (f"for CUDA {built}, but no GPU" if built else "without CUDA")


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("cpu", lambda: 1, _cpu, lambda: "a CPU", "leave the index out: there is one cpu"),
        Kind(
            "cuda",
            torch.cuda.device_count,
            _cuda,
            _cuda_absent,
            "use --device cpu, or a machine with a GPU and the CUDA build of torch",
        ),
        Kind(
            "npu",
            _npu_count,
            _npu,
            _npu_absent,
            "use --device cpu, or install torch_npu for this version of torch, and CANN",
        ),
    )
}
"""Every kind of device, by name."""


def find_device(name: str) -> Device:
    """Look a device up by its name: ``cpu``, ``cuda``, ``cuda:1``, ``npu:0``.

    Raises:
        UnknownNameError: there is no such kind.
        InputError: this machine has no such device.
    """
    match = re.fullmatch(r"([a-z-]+)(?::(\d{1,3}))?", name)
    if match is None or match[1] not in KINDS:
        choices = [choice for choice in (*KINDS, ALL) if choice != name]
        raise UnknownNameError("device", name, choices, fix="choose one of the devices listed")
    kind, index = KINDS[match[1]], int(match[2] or 0)
    count = kind.count()
    if index >= count:
        raise InputError(
            f"there is no {kind.name}:{index}" if count else f"there is no {kind.name}",
            got=f"{count} of them" if count else kind.absent(),
            expected=f"{kind.name}:0 to {kind.name}:{count - 1}" if count > 1 else f"a {kind.name}",
            fix=kind.fix,
        )
    return kind.make(index)


def find_devices(name: str) -> list[Device]:
    """Look devices up: every one of this machine for ``all``, else the one that is named.

    Raises:
        UnknownNameError: see :func:`find_device`.
        InputError: see :func:`find_device`.
    """
    if name != ALL:
        return [find_device(name)]
    return [kind.make(index) for kind in KINDS.values() for index in range(kind.count())]
