"""NVIDIA GPUs, through torch's CUDA build."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch

from vconv.precisions import FP32
from vconv.runtime.devices.base import Device, MemoryMeter, Settings
from vconv.runtime.devices.precisions import names_without

_BF16_CAPABILITY = (8, 0)
"""The least compute capability of a GPU that supports bfloat16: that of Ampere."""


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Turn TF32 off, which torch uses for convolutions by default. The settings are restored on exit.

    torch has had these settings since 2.9 (https://pytorch.org/docs/stable/notes/cuda.html). The older
    ``allow_tf32`` raises if the newer ones disagree with it, so only the newer ones are set.
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


def count() -> int:
    """Return how many GPUs torch can use here."""
    return torch.cuda.device_count()


def make(index: int, settings: Settings) -> Device:
    """Describe a GPU of this machine."""
    bf16 = torch.cuda.get_device_capability(index) >= _BF16_CAPABILITY
    precisions = names_without(() if bf16 else ("bfloat16",))
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
        arithmetic=FP32,
        precisions=precisions,
        usual=precisions,
        exact=without_tf32,
        synchronize=lambda: torch.cuda.synchronize(index),
        free_bytes=lambda: int(torch.cuda.mem_get_info(index)[0]),
        growth=functools.partial(meter.growth, index),
    )


def absent() -> str:
    """Say what was found instead of a GPU."""
    built = torch.version.cuda
    return f"torch {torch.__version__} " + (f"for CUDA {built}, but no GPU" if built else "without CUDA")


def fix() -> str:
    """Say what to do if there is no GPU."""
    return "use --device cpu, or a machine with a GPU and the CUDA build of torch"
