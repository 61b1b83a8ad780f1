"""What a device is. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vconv.runtime.simulation.arithmetic import Arithmetic


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


@dataclass(frozen=True)
class Device:
    """A place to run on.

    Args:
        name: as reports have it: ``cpu``, ``cuda:0``.
        kind: ``cpu``, ``cuda``, ``npu`` or ``npu-sim``.
        index: which of its kind.
        model: what the maker calls it.
        arithmetic: what its settings say that float32 is computed in: ``fp32``, or a reduced form of it. What
            an engine really does on it is asked of the engine: :mod:`vconv.runtime.engines.arithmetic`.
        precisions: what torch variants can run in on it.
        usual: those that are run unless others are asked for.
        exact: while this context is open, float32 is computed as :attr:`arithmetic` says.
        synchronize: returns when everything that was launched on it has finished.
        free_bytes: how much memory it has left.
        growth: runs something and returns by how many bytes that raised its memory's peak.
        settings: how it was asked to compute.
        options: what it was set to for that, as reports have it.
        simulates: how it computes, of a device that imitates another; None of a real one.
    """

    name: str
    kind: str
    index: int
    model: str
    arithmetic: str
    precisions: tuple[str, ...]
    usual: tuple[str, ...]
    exact: Callable[[], AbstractContextManager[None]]
    synchronize: Callable[[], None]
    free_bytes: Callable[[], int]
    growth: Callable[[Callable[[], object]], int]
    settings: Settings = DEFAULT_SETTINGS
    options: Mapping[str, Any] = field(default_factory=dict)
    simulates: Arithmetic | None = None

    @property
    def simulated(self) -> bool:
        """Whether it imitates another device; the word follows every figure from it."""
        return self.simulates is not None

    @property
    def torch_name(self) -> str:
        """What torch calls it."""
        return self.name


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
