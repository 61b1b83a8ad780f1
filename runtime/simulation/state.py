"""The state of the simulated NPU: its arithmetic, its memory, and its counts of operators."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from vconv.runtime.simulation.arithmetic import FLAGS, PROFILES, Arithmetic
from vconv.runtime.simulation.relabelling import Memory

NPU = "npu"
LABEL = "simulated Ascend NPU"
"""The name that the device reports."""
TOTAL_BYTES = 64 << 30
"""Memory of the simulated board: 64 GiB, for the 64 GB in Huawei's data sheets of the 910B."""


class DeviceState:
    """The state of a process's only simulated device.

    Args:
        arithmetic: how the device computes.
    """

    def __init__(self, arithmetic: Arithmetic) -> None:
        self.memory = Memory(TOTAL_BYTES)
        self.executed: Counter[str] = Counter()
        self.changed: Counter[str] = Counter()
        self.arithmetic = arithmetic
        self.allow_hf32 = {"conv": True, "matmul": False}
        self.configure(arithmetic)

    def configure(self, arithmetic: Arithmetic) -> None:
        """Change the arithmetic, set torch.npu's settings to match, and restart the counts.

        A device without HF32 keeps its settings, which have no effect.
        """
        self.arithmetic = arithmetic
        self.gelu_decided = False
        for flag, field in FLAGS.items():
            if getattr(arithmetic, field) != "fp16":
                self.allow_hf32[flag] = getattr(arithmetic, field) == "hf32"
        self.recount()

    def recount(self) -> None:
        """Restart the counts of operators from zero."""
        self.executed.clear()
        self.changed.clear()

    def set_hf32(self, flag: str, allowed: bool) -> None:
        """Set ``allow_hf32`` of ``torch.npu.conv`` or ``torch.npu.matmul``."""
        self.allow_hf32[flag] = allowed
        if getattr(self.arithmetic, FLAGS[flag]) != "fp16":
            self.arithmetic = replace(self.arithmetic, **{FLAGS[flag]: "hf32" if allowed else "fp32"})

    def use_compatible_impl(self, wanted: bool) -> None:
        """Set whether ``F.gelu`` honours ``approximate``; no effect after the first GELU, as documented."""
        if not self.gelu_decided:
            gelu = "erf" if wanted else PROFILES["910b"].gelu
            self.arithmetic = replace(self.arithmetic, gelu=gelu)

    def note(self, name: str, cause: str) -> None:
        """Count one operator, and the cause that changed it; an empty cause if nothing did."""
        self.executed[name] += 1
        self.gelu_decided |= name == "gelu"
        if cause:
            self.changed[cause] += 1
