"""Opening an artifact's variants: from a manifest's record to a session."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import VariantRecord
from vconv.convert.libraries import models
from vconv.convert.network import Network
from vconv.convert.patches import table
from vconv.convert.patches.base import Patch
from vconv.runtime.devices import npu_gelu
from vconv.runtime.devices.base import Device
from vconv.runtime.engines.capture import CapturedSession
from vconv.runtime.engines.offline import OfflineSession
from vconv.runtime.engines.precisions import PRECISIONS, Precision
from vconv.runtime.engines.session import Session, TorchSession
from vconv.runtime.engines.table import GRAPH_ENGINES, OnnxRuntimeSession, OpenVinoSession, unavailable
from vconv.runtime.processes.request import OpenRequest
from vconv.runtime.simulation.session import Simulated, SimulatedGraphSession, SimulatedTorchSession

DEFAULT_VARIANT = "onnx-fp32"
PATCHED = "patched-torch-fp32"
_TORCH = re.compile(r"(original|patched)-torch-(.+?)(-captured)?")
_KINDS: Mapping[bool, type[TorchSession]] = {False: TorchSession, True: CapturedSession}
"""By whether it is captured, what runs a torch variant."""
ENGINES: Mapping[str, type[OnnxRuntimeSession] | type[OpenVinoSession] | type[OfflineSession]] = {
    **GRAPH_ENGINES,
    OfflineSession.engine: OfflineSession,
}
"""What runs a file that is not torch's: any of the first a graph, the last an offline model."""


@dataclass(frozen=True)
class TorchName:
    """What the name of a torch variant says: ``patched-torch-autocast-bf16-captured``.

    Args:
        kind: ``original`` or ``patched``.
        precision: the name of what it runs in.
        captured: whether it is captured and replayed.
    """

    kind: str
    precision: str
    captured: bool = False

    def __str__(self) -> str:
        return f"{self.kind}-torch-{self.precision}{'-captured' * self.captured}"

    @classmethod
    def read(cls, name: str) -> TorchName | None:
        """Read a variant's name; None if it is none of torch's."""
        found = _TORCH.fullmatch(name)
        return cls(found[1], found[2], bool(found[3])) if found else None


def open_variant(
    artifact: Artifact,
    record: VariantRecord,
    device: Device,
    engine: str = "",
    precision: Precision = PRECISIONS["fp32"],
    patches: Mapping[str, Patch] | None = None,
    captured: bool = False,
) -> Session:
    """Load a variant.

    Args:
        artifact: the artifact.
        record: which variant.
        device: where to run it.
        engine: another engine for a graph than the record's own.
        precision: what to run a torch variant in.
        patches: what stands in place of the table of patches, by name.
        captured: whether to capture a torch variant and replay it.

    Raises:
        ArtifactError: it has no weights.
        UnavailableError: the engine is not installed for this device.
    """
    artifact.require_weights()
    folder, size = artifact.folder, artifact.manifest.size
    if device.simulated:
        if patches is not None or captured:
            raise ValueError("a simulated device runs the genuine patches, and captures nothing")
        return _simulated(artifact, record, device, precision)
    if record.engine == "torch":
        net = artifact.network
        chosen = [patch for name, patch in (patches or table.PATCHES).items() if name in record.patches]
        chosen, gelu = npu_gelu.on_device(chosen, device)
        model, kind = models.load(folder, net), _KINDS[captured]
        return kind(model, net, device, chosen, folder, size, precision, gelu)
    session = ENGINES[engine or record.engine]
    return session(artifact.path(record), device, folder, size, record.batch)


def _simulated(artifact: Artifact, record: VariantRecord, device: Device, precision: Precision) -> Simulated:
    """Load a variant on the simulated NPU."""
    folder, size = artifact.folder, artifact.manifest.size
    if record.engine == "torch":
        subject = OpenRequest(str(folder), record.variant, "torch", precision.name, device.name)
        return SimulatedTorchSession(subject, device, folder, size)
    if record.engine not in GRAPH_ENGINES:
        raise unavailable(record.engine, "a simulated NPU", device)
    return SimulatedGraphSession(artifact.path(record), device, folder, size, record.batch)


def open_original(
    folder: Path,
    net: Network,
    size: tuple[int, int],
    device: Device,
    precision: Precision,
    captured: bool = False,
) -> TorchSession:
    """Load the original as its library builds it; nothing is patched.

    Args:
        folder: a folder that the stock library loads.
        net: what it holds.
        size: (height, width) that it takes.
        device: where to run it.
        precision: what to run it in.
        captured: whether to capture it and replay it.
    """
    return _KINDS[captured](models.load(folder, net), net, device, (), folder, size, precision)
