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
    """How a device is asked to compute. Each kind of device supports some of these settings, or none.

    Args:
        hf32: which of ``conv`` and ``matmul`` an NPU may compute in HF32; None for the default of torch_npu.
        profile: which NPU is simulated; empty for the default.
        fusions: whether a simulated NPU runs the published fusion passes of its compiler on graphs: ``on``
            or ``off``; empty for the default, off.
    """

    hf32: tuple[str, ...] | None = None
    profile: str = ""
    fusions: str = ""

    @classmethod
    def of(
        cls, hf32: Iterable[str] | None, profile: str | None = None, fusions: str | None = None
    ) -> Settings:
        """Make settings from a caller's arguments. None leaves a setting to the device."""
        return cls(None if hf32 is None else tuple(hf32), profile or "", fusions or "")

    @property
    def given(self) -> list[str]:
        """The names of the settings that were given."""
        given = {"hf32": self.hf32 is not None, "profile": self.profile, "fusions": self.fusions}
        return [name for name, value in given.items() if value]

    def only(self, names: Collection[str]) -> Settings:
        """Return a copy that keeps only the settings with these names."""
        return Settings(**{name: getattr(self, name) for name in self.given if name in names})


DEFAULT_SETTINGS = Settings()


@dataclass(frozen=True)
class Device:
    """A place to run on.

    Args:
        name: its name in reports: ``cpu``, ``cuda:0``.
        kind: ``cpu``, ``cuda``, ``npu`` or ``npu-sim``.
        index: its number among the devices of its kind.
        model: the maker's name for it.
        arithmetic: what float32 is computed in according to the settings: ``fp32``, or a reduced form of it.
            What an engine really computes in is measured: see :mod:`vconv.runtime.engines.arithmetic`.
        precisions: the precisions in which torch variants can run on it.
        usual: the precisions that are run by default.
        exact: while this context is open, float32 is computed as :attr:`arithmetic` says.
        synchronize: waits until everything that was launched on the device has finished.
        free_bytes: returns how much memory is free.
        growth: runs a function and returns by how many bytes it raised the peak of the device's memory.
        settings: the settings that were asked for.
        options: the settings that are in force, as reports show them.
        simulates: the arithmetic that a simulated device imitates; None for a real device.
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
        """Whether it imitates another device. Every figure from it is marked as simulated."""
        return self.simulates is not None

    @property
    def torch_name(self) -> str:
        """The name that torch has for it."""
        return self.name


@dataclass(frozen=True)
class MemoryMeter:
    """Functions of torch that measure an accelerator's memory, in bytes. Each takes the device's index.

    Args:
        reset_peak: starts a new measurement of the peak.
        allocated: how much torch's allocator holds.
        peak: the most that it held since the last reset.
        free_and_total: free and total memory of the whole device.
        synchronize: returns when everything that was launched has finished.
    """

    reset_peak: Callable[[int], object]
    allocated: Callable[[int], int]
    peak: Callable[[int], int]
    free_and_total: Callable[[int], tuple[int, int]]
    synchronize: Callable[[int], object]

    def growth(self, index: int, run: Callable[[], object]) -> int:
        """Measure a run's memory: what torch's allocator or the whole device grew by, whichever is more."""
        self.reset_peak(index)
        before, free = int(self.allocated(index)), int(self.free_and_total(index)[0])
        run()
        self.synchronize(index)
        left = int(self.free_and_total(index)[0])
        return max(int(self.peak(index)) - before, free - left, 0)
