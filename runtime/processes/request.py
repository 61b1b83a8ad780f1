"""A request to open a variant in another process, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from vconv.runtime.engines.torch_kinds import PATCHED


@dataclass(frozen=True)
class OpenRequest:
    """The variant that a child process opens.

    Args:
        artifact: the artifact's folder.
        variant: the variant's name in the manifest; empty for the original.
        engine: the engine that runs it; empty for the engine in the manifest.
        precision: the name of the precision to run a torch variant in.
        device: the name of the device to run on.
        original: the folder that the stock library loads as the original model; empty for a variant of the
            artifact.
        head: the original's head, as in :class:`vconv.convert.network.Network`.
        captured: whether a torch variant is captured and replayed.
        kind: the kind of torch variant, one that is loaded from the artifact's weights.
        hf32: which of an NPU's units may compute in HF32; None for the NPU's default.
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
