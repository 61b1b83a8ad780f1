"""CPU memory under the name of another device, and how much of it there is.

A tensor "on the NPU" is an ordinary torch.Tensor whose storage is CPU memory that is labelled npu:0. The
label is changed by handing the memory over through DLPack (https://dmlc.github.io/dlpack/latest/c_api.html)
with the capsule's device rewritten on the way, so that no byte moves and there is no subclass of tensors.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing import reductions

_CPU, _EXTENSION = 1, 12
"""DLPack's codes of devices: kDLCPU, and kDLExtDev, which torch takes for PrivateUse1."""


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("index", ctypes.c_int32))


class _Managed(ctypes.Structure):
    """The head of a DLManagedTensor: where its data are, and on what device."""

    _fields_ = (("data", ctypes.c_void_p), ("device", _Device))


def _pointer(capsule: object) -> int:
    function = ctypes.pythonapi.PyCapsule_GetPointer
    function.restype, function.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return int(function(capsule, b"dltensor"))


def _relabelled(tensor: Tensor, kind: int) -> Tensor:
    capsule = torch._C._to_dlpack(tensor)
    device = _Managed.from_address(_pointer(capsule)).device
    device.type, device.index = kind, 0
    return torch._C._from_dlpack(capsule)


def as_cpu(tensor: Tensor) -> Tensor:
    """Return the same memory as a tensor on the CPU."""
    return _relabelled(tensor, _CPU)


class Memory:
    """Gives CPU memory the device's name, and knows how much of it is alive.

    Args:
        total_bytes: how much the device has.
    """

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self._blocks: dict[int, tuple[Any, int]] = {}
        self._alive, self._peak = 0, 0

    def as_npu(self, tensor: Tensor) -> Tensor:
        """Return the same memory as a tensor on the device."""
        found = _relabelled(tensor.detach() if tensor.requires_grad else tensor, _EXTENSION)
        storage = found.untyped_storage()
        if storage.nbytes():
            watched: Any = reductions.StorageWeakRef
            self._blocks[storage._cdata] = (watched(storage), storage.nbytes())
            self._alive += storage.nbytes()
            # What was let go is only looked for where it would matter: at what seems to be a new peak.
            if self._alive > self._peak:
                self._peak = max(self._peak, self.alive_bytes())
        return found

    def alive_bytes(self) -> int:
        """Return how much is in use."""
        self._blocks = {key: block for key, block in self._blocks.items() if not block[0].expired()}
        self._alive = sum(nbytes for _, nbytes in self._blocks.values())
        return self._alive

    def peak_bytes(self) -> int:
        """Return the most that was in use since the last reset."""
        return self._peak

    def reset_peak(self) -> None:
        """Start a new measurement of the peak."""
        self._peak = self.alive_bytes()
