"""A variant in plain data: what another process needs to open it."""

from __future__ import annotations

from dataclasses import dataclass

from vconv.runtime.engines.torch_kinds import PATCHED


@dataclass(frozen=True)
class OpenRequest:
    """What a child opens.

    Args:
        artifact: the artifact's folder.
        variant: the record in its manifest; empty for the original.
        engine: what runs a graph; empty for the record's own.
        precision: name of what a torch variant is run in.
        device: name of where to run it.
        original: the folder that the stock library loads as the original; empty for the artifact's own.
        head: the original's, as :class:`vconv.convert.network.Network` has it.
        captured: whether a torch variant is captured and replayed.
        kind: which kind of torch variant, of those in the artifact.
        hf32: which of an NPU's units may compute in HF32; None for its own default.
    """

    artifact: str
    variant: str
    engine: str
    precision: str
    device: str
    original: str = ""
    head: str = ""
    captured: bool = False
    kind: str = PATCHED
    hf32: tuple[str, ...] | None = None
