"""Opening an artifact's variants: from a manifest's record to a session."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from vconv.artifact.artifact import Artifact
from vconv.artifact.records import VariantRecord
from vconv.convert.ascend.routes import ROUTES
from vconv.convert.libraries import fused_blocks, models, widening
from vconv.convert.network import Network
from vconv.convert.patches import table
from vconv.convert.patches.base import Patch
from vconv.errors import UnavailableError
from vconv.precisions import FP32, PRECISIONS, Precision
from vconv.runtime.devices import npu_gelu
from vconv.runtime.devices.base import Device
from vconv.runtime.engines.base import Session, unavailable
from vconv.runtime.engines.capture import CapturedSession
from vconv.runtime.engines.from_images import FromImagesSession
from vconv.runtime.engines.runnable import require_bounds
from vconv.runtime.engines.table import Runs, find_engine, runs
from vconv.runtime.engines.torch_kinds import PATCHED, TORCH_KINDS
from vconv.runtime.engines.torch_model import TorchSession
from vconv.runtime.processes.request import OpenRequest
from vconv.runtime.simulation.session import Simulated, SimulatedGraphSession, SimulatedTorchSession

DEFAULT_VARIANT = "onnx-fp32"
CAPTURED_APART = "what is captured is not compiled too"
"""Why an engine other than the usual one runs no captured variant."""


def open_variant(
    artifact: Artifact,
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
        artifact: the artifact.
        record: the variant's record in the manifest.
        device: the device to run on.
        engine: an engine to use in place of the record's engine, of the same kind.
        precision: the precision to run a torch variant in.
        patches: patches by name, used in place of the table of patches.
        captured: whether to capture a torch variant and replay it.
        kind: the kind of torch variant, one that is loaded from the artifact's weights.

    Raises:
        ArtifactError: the artifact has no weights.
        EngineError: a graph breaks a bound: see :mod:`vconv.runtime.engines.runnable`.
        UnavailableError: the engine is not installed for this device.
    """
    artifact.require_weights()
    if runs(engine or record.engine) is Runs.GRAPHS:
        require_bounds(artifact.path(record), record, find_engine(engine or record.engine).domains)
    session = _opened(artifact, record, device, engine, precision, patches, captured, kind)
    session.sides = record.contract.sides
    return session


def _opened(
    artifact: Artifact,
    record: VariantRecord,
    device: Device,
    engine: str,
    precision: Precision,
    patches: Mapping[str, Patch] | None,
    captured: bool,
    kind: str,
) -> Session:
    folder, size = artifact.folder, artifact.manifest.size
    chosen = find_engine(engine or record.engine)
    if device.simulated:
        if not (chosen.usual or chosen.runs is Runs.OFFLINE):
            raise unavailable(chosen.name, chosen.lack(device), device)
        if patches is not None or captured:
            raise ValueError("a simulated device runs the genuine patches, and captures nothing")
        if record.contract.preprocessing:
            raise unavailable(record.engine, "a simulated NPU, which runs no preprocessing", device)
        return _simulated(artifact, record, device, precision, kind)
    if chosen.runs is not Runs.MODELS:
        unnamed = record.offline is not None and not ROUTES[record.offline.route].named
        opened = chosen.open(
            *(artifact.path(record), device, folder, size, record.batch, record.precision),
            outputs=tuple(record.contract.outputs) if unnamed else (),
        )
        return FromImagesSession(opened) if record.contract.preprocessing else opened
    net, pick = artifact.network, TORCH_KINDS[kind].patches
    if pick is None:
        raise ValueError(f"{kind} is not made of an artifact's weights")
    names = pick(record.patches)
    put_on = [patch for name, patch in (patches or table.PATCHES).items() if name in names]
    put_on, gelu = npu_gelu.on_device(put_on, device)
    if lack := CAPTURED_APART if captured and not chosen.usual else chosen.lack(device):
        raise unavailable(chosen.name, lack, device)
    session: type[TorchSession] = CapturedSession if captured else chosen.session
    fused = TORCH_KINDS[kind].fused
    if fused and (lack := fused_blocks.lack(net)):
        raise _not_fused(lack)
    model = models.load(folder, net)
    if fused:
        gelu = _fuse(model, net, device)
    return session(model, net, device, put_on, folder, size, precision, gelu)


def _fuse(model: nn.Module, network: Network, device: Device) -> str:
    """Replace a model's blocks by fused ones; return how they compute the exact GELU on a device."""
    if widening.is_narrow(model):
        models.discard(model)
        raise _not_fused("its weights are widened to float32 while they are used, to save memory")
    gelu = npu_gelu.in_one_kernel(device)
    fused_blocks.fuse(model, network, gelu.run)
    return gelu.name


def _not_fused(lack: str) -> UnavailableError:
    return UnavailableError(
        "the blocks of this network are not fused",
        got=lack,
        expected="blocks of one width with the exact GELU, or with a gate, in float32",
        fix="run another variant",
    )


def _simulated(
    artifact: Artifact, record: VariantRecord, device: Device, precision: Precision, kind: str
) -> Simulated:
    """Load a variant on the simulated NPU."""
    folder, size, engine = artifact.folder, artifact.manifest.size, record.engine
    if runs(engine) is Runs.MODELS:
        subject = OpenRequest(str(folder), record.variant, engine, precision.name, device.name, kind=kind)
        return SimulatedTorchSession(subject, device, folder, size)
    if runs(engine) is not Runs.GRAPHS:
        raise unavailable(engine, "a simulated NPU", device)
    if record.precision not in device.precisions:
        raise unavailable(engine, f"a simulated NPU, which runs {', '.join(device.precisions)}", device)
    path = artifact.path(record)
    return SimulatedGraphSession(path, device, folder, size, record.batch, record.precision)


def open_original(
    folder: Path,
    net: Network,
    size: tuple[int, int],
    device: Device,
    precision: Precision,
    captured: bool = False,
) -> TorchSession:
    """Load the original model as its library builds it, without patches.

    Args:
        folder: a folder that the stock library loads.
        net: the description of the network in this folder.
        size: (height, width) of the images that the model takes.
        device: the device to run on.
        precision: the precision to run the model in.
        captured: whether to capture the forward pass and replay it.
    """
    session = CapturedSession if captured else TorchSession
    return session(models.load(folder, net), net, device, (), folder, size, precision)
