"""Sets up a simulated NPU in a process: once, permanently, and only if there is no real NPU."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from vconv.errors import UnavailableError
from vconv.runtime.simulation.arithmetic import Arithmetic
from vconv.runtime.simulation.kernels import Kernels
from vconv.runtime.simulation.modules import npu_module, torch_npu_module
from vconv.runtime.simulation.relabelling import Memory
from vconv.runtime.simulation.state import NPU, DeviceState

LEAST_TORCH = (2, 10)
"""The first torch in which Python can set up a device with a guard; without a guard, autograd aborts."""
_FREE = "privateuseone"
"""The name of torch's spare device while it is unused."""


def lack() -> str:
    """Return why the NPU cannot be simulated here; empty if it can."""
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < LEAST_TORCH:
        return f"torch {torch.__version__}; the simulated NPU needs {'.'.join(map(str, LEAST_TORCH))}"
    return ""


def simulate(arithmetic: Arithmetic) -> DeviceState:
    """Give this process a simulated NPU, irreversibly.

    Call this function before transformers is imported: transformers caches whether there is an NPU.

    Args:
        arithmetic: how the device computes.

    Returns:
        The device's state, which can change the device's arithmetic, and which counts operators.

    Raises:
        UnavailableError: torch is too old, or the process already uses torch's spare device, for example for
            a real NPU.
    """
    taken: str = torch._C._get_privateuse1_backend_name()
    refusal = lack() or (f"torch's spare device is taken: {taken}" if taken != _FREE else "")
    if refusal:
        raise UnavailableError(
            "the NPU cannot be simulated in this process",
            got=refusal,
            expected="torch 2.10 or later, and no torch_npu in the process",
            fix="upgrade torch, or use another device",
        )
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend as set_up

    state = DeviceState(arithmetic)
    module = npu_module(state)
    set_up(rename=NPU, backend_module=module)
    Kernels(state).register()
    # Otherwise nn.MultiheadAttention would use a fused kernel, which the simulated NPU refuses.
    torch.backends.mha.set_fastpath_enabled(False)
    _guard_storages(state.memory)
    sys.modules["torch_npu"] = torch_npu_module(module)
    sys.modules["torch_npu.npu"] = module
    return state


def _guard_storages(memory: Memory) -> None:
    """Keep torch from requesting raw memory: the device has no allocator, and the process would crash."""
    storage: Any = torch.UntypedStorage
    make = storage.__new__

    def guarded(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.device(kwargs.get("device") or "cpu").type == NPU:
            raise NotImplementedError("the simulated NPU has no raw storage: make a tensor instead")
        return make(cls, *args, **kwargs)

    def moved(own: Any, *args: Any, **kwargs: Any) -> Any:
        if own.device.type == NPU:
            return own
        copied: Tensor = torch.empty(0, dtype=torch.uint8).set_(own).clone()
        return memory.as_npu(copied).untyped_storage()

    storage.__new__ = guarded
    storage.npu = moved
    torch.serialization.register_package(
        15,
        lambda own: f"{NPU}:0" if own.device.type == NPU else None,
        lambda own, location: moved(own) if location.startswith(NPU) else None,
    )
