"""Replacements for the modules ``torch.npu`` and ``torch_npu`` while the NPU is simulated.

Names and meanings are from torch_npu 2.9 to 2.13. The modules have only the names that a validator needs. Any
other name raises AttributeError, as a misspelt name does in the real module.
"""

from __future__ import annotations

import importlib.machinery
import time
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from vconv.runtime.simulation.state import LABEL, DeviceState

VERSION = "0.0.0+simulated"
SOC_VERSIONS = {False: 224, True: 202}
"""Whether products take float16 operands -> the number of 310P3 or, if not, of 910B4 (torch_npu's
NpuVariables.h)."""


class Event:
    """A moment on the device. The simulated device does all work at once.

    Args:
        enable_timing: whether the event can be used for timing.
        blocking: accepted as in torch_npu, without effect.
        interprocess: accepted as in torch_npu, without effect.
    """

    def __init__(
        self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> None:
        self._timed, self._seconds = enable_timing, 0.0

    def record(self, stream: object = None) -> None:
        """Record the current time."""
        self._seconds = time.perf_counter()

    def elapsed_time(self, end: Event) -> float:
        """Return the milliseconds from this event to the event ``end``."""
        if not (self._timed and end._timed):
            raise RuntimeError("both events must be made with enable_timing=True")
        return 1e3 * (end._seconds - self._seconds)

    def synchronize(self) -> None:
        """Return at once: the event is already over."""

    def query(self) -> bool:
        """Return whether the event is over, which is always true."""
        return True


class Stream:
    """A queue of work, which is always empty on the simulated device."""

    def __init__(self, device: object = None, priority: int = 0) -> None:
        self.device = device

    def synchronize(self) -> None:
        """Return at once: the queue is empty."""

    def wait_stream(self, stream: Stream) -> None:
        """Return at once: the queue of ``stream`` is empty."""

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


class Setting:
    """The settings ``torch.npu.conv`` or ``torch.npu.matmul``.

    Args:
        state: the device's state.
        name: ``conv`` or ``matmul``.
    """

    __slots__ = ("_name", "_state")

    def __init__(self, state: DeviceState, name: str) -> None:
        self._state, self._name = state, name

    @property
    def allow_hf32(self) -> bool:
        """Whether float32 may be computed in HF32."""
        return self._state.allow_hf32[self._name]

    @allow_hf32.setter
    def allow_hf32(self, allowed: bool) -> None:
        if not isinstance(allowed, bool):
            raise TypeError("allow_hf32 must be a bool")
        self._state.set_hf32(self._name, allowed)


def npu_module(state: DeviceState) -> ModuleType:
    """Make the module ``torch.npu`` of the simulated device."""
    memory = state.memory
    module: Any = ModuleType("torch.npu", LABEL)
    module.SIMULATED = state
    module.is_available = module.is_initialized = lambda: True
    module.device_count = lambda: 1
    module.current_device = lambda: 0
    module.set_device = lambda device: None
    module._is_in_bad_fork = lambda: False
    module.manual_seed = module.manual_seed_all = lambda seed: None
    module.get_rng_state = lambda device="npu": torch.get_rng_state()
    module.set_rng_state = lambda new, device="npu": torch.set_rng_state(new)
    module.get_amp_supported_dtype = lambda: [torch.float16, torch.bfloat16]
    module.synchronize = lambda device=None: None
    module.empty_cache = lambda: None
    module.get_device_name = lambda device=None: LABEL
    module.get_soc_version = lambda: SOC_VERSIONS[state.arithmetic.float32_is == "fp16"]
    module.get_device_properties = lambda device=None: SimpleNamespace(
        name=LABEL, total_memory=memory.total_bytes
    )
    module.memory_allocated = module.memory_reserved = lambda device=None: memory.alive_bytes()
    module.max_memory_allocated = module.max_memory_reserved = lambda device=None: memory.peak_bytes()
    module.reset_peak_memory_stats = lambda device=None: memory.reset_peak()
    module.mem_get_info = lambda device=None: (
        memory.total_bytes - memory.alive_bytes(),
        memory.total_bytes,
    )
    module.Event, module.Stream = Event, Stream
    module.current_stream = module.default_stream = lambda device=None: Stream(device)
    module.stream = lambda stream: stream
    module.device = Stream
    module.conv, module.matmul = Setting(state, "conv"), Setting(state, "matmul")
    module.use_compatible_impl = state.use_compatible_impl
    module.are_compatible_impl_enabled = lambda: state.arithmetic.gelu == "erf"
    return module  # type: ignore[no-any-return]


def torch_npu_module(npu: ModuleType) -> ModuleType:
    """Make the module ``torch_npu`` of the simulated device.

    transformers imports fused operators from this module by name. They exist here, but refuse to run.
    """
    module: Any = ModuleType("torch_npu", LABEL)
    module.__spec__ = importlib.machinery.ModuleSpec("torch_npu", None)
    module.__path__, module.__version__ = [], VERSION
    module.npu, module.npu_gelu = npu, torch.ops.npu.npu_gelu
    module.__getattr__ = _unmodelled
    return module  # type: ignore[no-any-return]


def _unmodelled(name: str) -> Any:
    if not name.startswith("npu_"):
        raise AttributeError(name)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"torch_npu.{name} is not modelled by the {LABEL}")

    return refuse
