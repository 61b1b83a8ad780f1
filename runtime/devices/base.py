"""What a device is, and a kind of device."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from vconv.runtime.simulation.arithmetic import Arithmetic

Provider = str | tuple[str, dict[str, Any]]
REDUCED = ("fp16", "bf16", "autocast-fp16", "autocast-bf16")
"""Precisions under float32 that an accelerator's torch variants can run in."""


@dataclass(frozen=True)
class Settings:
    """How a device is asked to compute. A kind of device takes some of these, or none.

    Args:
        hf32: what an NPU may compute in HF32, of ``conv`` and ``matmul``; None for its own default.
        profile: which NPU is simulated; empty for the default.
    """

    hf32: tuple[str, ...] | None = None
    profile: str = ""

    @classmethod
    def of(cls, hf32: Iterable[str] | None, profile: str | None = None) -> Settings:
        """Take settings as callers give them; None for what they leave to the device."""
        return cls(None if hf32 is None else tuple(hf32), profile or "")

    @property
    def given(self) -> list[str]:
        """The names of those that were given."""
        return [name for name, given in (("hf32", self.hf32 is not None), ("profile", self.profile)) if given]

    def only(self, names: Collection[str]) -> Settings:
        """Return these, so far as they are among some names."""
        return Settings(**{name: getattr(self, name) for name in self.given if name in names})


DEFAULT_SETTINGS = Settings()
_ORT_NAMES = {"npu": "cann", "npu-sim": "cpu"}
"""By kind: what ONNX Runtime calls it, where that is another name."""


@dataclass(frozen=True)
class Device:
    """A place to run on.

    Args:
        name: as reports have it: ``cpu``, ``cuda:0``.
        kind: ``cpu``, ``cuda``, ``npu`` or ``npu-sim``.
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
        settings: how it was asked to compute.
        options: what it was set to for that, as reports have it.
        engines: by name, how other engines than torch compute on it in float32, where that is another way.
        simulates: how it computes, of a device that imitates another; None of a real one.
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
    settings: Settings = DEFAULT_SETTINGS
    options: Mapping[str, Any] = field(default_factory=dict)
    engines: Mapping[str, str] = field(default_factory=dict)
    simulates: Arithmetic | None = None

    @property
    def simulated(self) -> bool:
        """Whether it imitates another device; the word follows every figure from it."""
        return self.simulates is not None

    @property
    def torch_name(self) -> str:
        """What torch calls it."""
        return self.name

    @property
    def ort_name(self) -> str:
        """What ONNX Runtime calls its kind."""
        return _ORT_NAMES.get(self.kind, self.kind)

    def provider_names(self) -> set[str]:
        """The names of its execution providers."""
        return {provider if isinstance(provider, str) else provider[0] for provider in self.providers}

    def arithmetic_of(self, precision: str, engine: str = "torch") -> str:
        """Return how an engine computes on it in a precision: in fp32 its own way, else the precision's."""
        return self.engines.get(engine, self.arithmetic) if precision == "fp32" else precision


@dataclass(frozen=True)
class DeviceKind:
    """A kind of device.

    Args:
        name: its name on the command line.
        count: how many of it this machine has.
        make: describes one, by index and settings.
        absent: what was found instead where there is none.
        fix: what to do then; a function where that must be found out.
        takes: names of the settings that it has.
        simulated: whether it imitates another; it is not one of this machine's devices.
    """

    name: str
    count: Callable[[], int]
    make: Callable[[int, Settings], Device]
    absent: Callable[[], str]
    fix: str | Callable[[], str]
    takes: tuple[str, ...] = ()
    simulated: bool = False


@dataclass(frozen=True)
class MemoryMeter:
    """What torch tells of an accelerator's memory, in bytes; each takes the device's index.

    Args:
        reset_peak: starts a new measurement of the peak.
        allocated: what torch's allocator holds.
        peak: the most that it held since the last reset.
        free_and_total: of the whole device.
        synchronize: returns when everything that was launched has finished.
    """

    reset_peak: Callable[[int], object]
    allocated: Callable[[int], int]
    peak: Callable[[int], int]
    free_and_total: Callable[[int], tuple[int, int]]
    synchronize: Callable[[int], object]

    def growth(self, index: int, run: Callable[[], object]) -> int:
        """Measure what a run takes: of torch's allocator, or of the whole device if that is more."""
        self.reset_peak(index)
        before, free = int(self.allocated(index)), int(self.free_and_total(index)[0])
        run()
        self.synchronize(index)
        left = int(self.free_and_total(index)[0])
        return max(int(self.peak(index)) - before, free - left, 0)
