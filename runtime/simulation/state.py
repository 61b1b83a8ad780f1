"""What the simulated NPU is at a moment: how it computes, what it holds, and what it has done."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from vconv.runtime.simulation.arithmetic import FLAGS, PROFILES, Arithmetic
from vconv.runtime.simulation.relabelling import Memory

NPU = "npu"
LABEL = "simulated Ascend NPU"
"""What the device calls itself."""
TOTAL_BYTES = 64 << 30
"""Memory of the boards that the profiles are of: 64 GB (Huawei's data sheets of 910B)."""


class DeviceState:
    """The one state of a process's simulated device.

    Args:
        arithmetic: how it computes.
    """

    def __init__(self, arithmetic: Arithmetic) -> None:
        self.memory = Memory(TOTAL_BYTES)
        self.executed: Counter[str] = Counter()
        self.changed: Counter[str] = Counter()
        self.arithmetic = arithmetic
        self.allow_hf32 = {"conv": True, "matmul": False}
        self.configure(arithmetic)

    def configure(self, arithmetic: Arithmetic) -> None:
        """Compute in another way from now on, with torch.npu's settings to match, and count anew.

        A device without HF32 keeps the settings, and they do nothing.
        """
        self.arithmetic = arithmetic
        self.gelu_decided = False
        for flag, field in FLAGS.items():
            if getattr(arithmetic, field) != "fp16":
                self.allow_hf32[flag] = getattr(arithmetic, field) == "hf32"
        self.recount()

    def recount(self) -> None:
        """Count operators from nothing."""
        self.executed.clear()
        self.changed.clear()

    def set_hf32(self, flag: str, allowed: bool) -> None:
        """Set ``allow_hf32`` of ``conv`` or ``matmul``."""
        self.allow_hf32[flag] = allowed
        if getattr(self.arithmetic, FLAGS[flag]) != "fp16":
            self.arithmetic = replace(self.arithmetic, **{FLAGS[flag]: "hf32" if allowed else "fp32"})

    def use_compatible_impl(self, wanted: bool) -> None:
        """Let ``F.gelu`` honour its mode, or not; without effect after the first GELU, as documented."""
        if not self.gelu_decided:
            gelu = "erf" if wanted else PROFILES["910b"].gelu
            self.arithmetic = replace(self.arithmetic, gelu=gelu)

    def note(self, name: str, cause: str) -> None:
        """Count one operator, and what changed it; empty for nothing."""
        self.executed[name] += 1
        self.gelu_decided |= name == "gelu"
        if cause:
            self.changed[cause] += 1
