"""Opening an artifact's variants: from a manifest's record to a session."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from vconv.artifact.manifest import Manifest, VariantRecord
from vconv.convert.files.safetensors_file import read_header
from vconv.convert.layouts.base import Network
from vconv.convert.layouts.table import network
from vconv.convert.libraries import models
from vconv.convert.patches import table
from vconv.convert.patches.base import Patch
from vconv.errors import ArtifactError, UnknownNameError
from vconv.precisions import FP32, PRECISIONS, Precision
from vconv.runtime.devices import npu_gelu
from vconv.runtime.devices.base import Device
from vconv.runtime.engines.base import Session, unavailable
from vconv.runtime.engines.capture import CapturedSession
from vconv.runtime.engines.table import ENGINES, Runs
from vconv.runtime.engines.torch_kinds import PATCHED, TORCH_KINDS
from vconv.runtime.engines.torch_model import TorchSession
from vconv.runtime.inputs.preprocessing import read_config
from vconv.runtime.processes.request import OpenRequest
from vconv.runtime.simulation.session import Simulated, SimulatedGraphSession, SimulatedTorchSession
from vconv.types import WEIGHTS_FILE

DEFAULT_VARIANT = "onnx-fp32"
_SESSIONS: Mapping[bool, type[TorchSession]] = {False: TorchSession, True: CapturedSession}
"""By whether it is captured, what runs a torch variant."""


def require_weights(folder: Path) -> None:
    """Make sure that an artifact has its weights file.

    Raises:
        ArtifactError: it was passed on without.
    """
    if not (folder / WEIGHTS_FILE).is_file():
        raise ArtifactError(
            f"{folder} has no weights",
            got=f"no {WEIGHTS_FILE}",
            expected="the weights that it was made with",
            fix=f"complete it with `vconv fill {shlex.quote(str(folder))} --weights WHERE`",
        )


def patched_network(folder: Path) -> Network:
    """Return what an artifact's own configuration and weights describe.

    Raises:
        ArtifactError: it has no weights, or its configuration is none.
        WeightsError: the weights are not sound.
    """
    require_weights(folder)
    return network(read_config(folder), read_header(folder / WEIGHTS_FILE))


def find_variant(manifest: Manifest, name: str) -> VariantRecord:
    """Look a variant up in a manifest.

    Raises:
        UnknownNameError: the artifact has no such variant.
    """
    records = {record.variant: record for record in manifest.variants}
    if name not in records:
        raise UnknownNameError("variant", name, records, fix="choose one that the artifact has")
    return records[name]


def open_variant(
    folder: Path,
    manifest: Manifest,
    record: VariantRecord,
    device: Device,
    engine: str = "",
    precision: Precision = PRECISIONS[FP32],
    patches: Mapping[str, Patch] | None = None,
    captured: bool = False,
    kind: str = PATCHED,
) -> Session:
    """Load a variant.

    Args:
        folder: the artifact.
        manifest: its manifest.
        record: which variant.
        device: where to run it.
        engine: another engine for a file than the record's own.
        precision: what to run a torch variant in.
        patches: what stands in place of the table of patches, by name.
        captured: whether to capture a torch variant and replay it.
        kind: which kind of torch variant, of those in the artifact.

    Raises:
        ArtifactError: it has no weights.
        UnavailableError: the engine is not installed for this device.
    """
    require_weights(folder)
    if device.simulated:
        if patches is not None or captured:
            raise ValueError("a simulated device runs the genuine patches, and captures nothing")
        return _simulated(folder, manifest, record, device, precision, kind)
    chosen = ENGINES[engine or record.engine]
    if chosen.runs is not Runs.MODELS:
        path = folder / record.file
        return chosen.open(path, device, folder, manifest.size, record.batch, record.precision)
    net, pick = patched_network(folder), TORCH_KINDS[kind].patches
    if pick is None:
        raise ValueError(f"{kind} is not made of an artifact's weights")
    names = pick([patch.name for patch in manifest.patches if patch.applied])
    put_on = [patch for name, patch in (patches or table.PATCHES).items() if name in names]
    put_on, gelu = npu_gelu.on_device(put_on, device)
    model, session = models.load(folder, net), _SESSIONS[captured]
    return session(model, net, device, put_on, folder, manifest.size, precision, gelu)


def _simulated(
    folder: Path, manifest: Manifest, record: VariantRecord, device: Device, precision: Precision, kind: str
) -> Simulated:
    """Load a variant on the simulated NPU."""
    runs = ENGINES[record.engine].runs
    if runs is Runs.MODELS:
        subject = OpenRequest(
            str(folder), record.variant, record.engine, precision.name, device.name, kind=kind
        )
        return SimulatedTorchSession(subject, device, folder, manifest.size)
    if runs is not Runs.GRAPHS:
        raise unavailable(record.engine, "a simulated NPU", device)
    if record.precision not in device.precisions:
        raise unavailable(
            record.engine, f"a simulated NPU, which runs {', '.join(device.precisions)}", device
        )
    path = folder / record.file
    return SimulatedGraphSession(path, device, folder, manifest.size, record.batch, record.precision)


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
    return _SESSIONS[captured](models.load(folder, net), net, device, (), folder, size, precision)
