"""Labels CPU memory as another device's memory, and counts how much of this memory is in use.

A tensor "on the NPU" is an ordinary torch.Tensor whose storage is CPU memory with the label npu:0. To change
the label, the memory is passed through DLPack (https://dmlc.github.io/dlpack/latest/c_api.html), and the
device in the DLPack capsule is overwritten. So no byte is copied, and no subclass of Tensor is needed.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing import reductions

_CPU, _EXTENSION = 1, 12
"""DLPack's device codes: kDLCPU, and kDLExtDev, which torch maps to PrivateUse1."""


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("index", ctypes.c_int32))


class _Managed(ctypes.Structure):
    """The first fields of a DLManagedTensor: the address of its data, and its device."""

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
    """Labels CPU memory as the device's memory, and counts how many bytes of it are in use.

    Args:
        total_bytes: the memory of the device.
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
            # Look for freed memory only at an apparent new peak: elsewhere it does not matter.
            if self._alive > self._peak:
                self._peak = max(self._peak, self.alive_bytes())
        return found

    def alive_bytes(self) -> int:
        """Return how many bytes are in use."""
        self._blocks = {key: block for key, block in self._blocks.items() if not block[0].expired()}
        self._alive = sum(nbytes for _, nbytes in self._blocks.values())
        return self._alive

    def peak_bytes(self) -> int:
        """Return the greatest number of bytes in use since the last reset."""
        return self._peak

    def reset_peak(self) -> None:
        """Start a new measurement of the peak."""
        self._peak = self.alive_bytes()
