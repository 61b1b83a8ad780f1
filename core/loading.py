"""The straight line that opens a variant for use: load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vconv import manifest
from vconv.errors import InputError, UnknownNameError
from vconv.manifest import Manifest
from vconv.runtime import capture
from vconv.runtime.device import Device, Settings
from vconv.runtime.devices import find_device
from vconv.runtime.engines import GRAPH_ENGINES
from vconv.runtime.precisions import PRECISIONS
from vconv.runtime.sessions import Session
from vconv.runtime.variants import DEFAULT_VARIANT, ENGINES, PATCHED, TorchName, find_variant, open_variant
from vconv.validators import history


def load(
    path: str | Path,
    device: str = "cpu",
    variant: str | None = None,
    *,
    engine: str | None = None,
    hf32: Sequence[str] | None = None,
    profile: str | None = None,
) -> Session:
    """Open a variant of an artifact, ready to run.

    Without a variant and an engine it is the recorded winner: the first of the newest ranking on that kind of
    device that this machine can run, as :func:`vconv.validators.history.ranked` tells it. Where nothing was
    ranked, and on a simulated device, of which no time means anything, it is ``onnx-fp32``.

    Args:
        path: the artifact.
        device: where to run it.
        variant: which one, by a name of a report: ``onnx-fp32``, ``patched-torch-bf16``.
        engine: what runs a graph, ``onnxruntime`` or ``openvino``; by default ONNX Runtime.
        hf32: what an NPU may compute in HF32, of ``conv`` and ``matmul``; by default ``conv``, as torch_npu.
        profile: which NPU is simulated: ``910b``, the default, or ``310p``.

    Returns:
        A session: call it with float32 (B, 3, H, W), or with a list of images, and get named arrays. Its
        ``variant`` and ``engine`` say what was opened.

    Raises:
        VconvError: the artifact, the device, the variant or the engine cannot be had.
    """
    folder = Path(path)
    made = manifest.load(folder)
    place = find_device(device, Settings.of(hf32, profile))
    if variant is None and engine is None:
        variant, engine = _usual(folder, made, place)
    name = variant or DEFAULT_VARIANT
    torch = TorchName.read(name)
    session = (
        _torch(folder, made, place, torch, engine) if torch else _graph(folder, made, place, name, engine)
    )
    session.variant = name
    return session


def _usual(folder: Path, made: Manifest, place: Device) -> tuple[str, str | None]:
    """Return the recorded winner and its engine, or the default variant."""
    winners = [] if place.simulated else history.ranked(folder, place.kind)
    named = ((str(one["variant"]), str(one["engine"])) for one in winners)
    return next((one for one in named if _runs(made, place, *one)), (DEFAULT_VARIANT, None))


def _runs(made: Manifest, place: Device, name: str, engine: str) -> bool:
    torch = TorchName.read(name)
    if torch:
        return torch.kind == "patched" and not _lack(place, torch)
    known = name in (record.variant for record in made.variants)
    return known and engine in ENGINES and not ENGINES[engine].lack(place)


def _lack(place: Device, torch: TorchName) -> str:
    if torch.precision not in place.precisions:
        return f"{place.name}, which runs {', '.join(place.precisions)}"
    return capture.lack(place) if torch.captured else ""


def _torch(folder: Path, made: Manifest, place: Device, torch: TorchName, engine: str | None) -> Session:
    if torch.kind != "patched":
        names = [record.variant for record in made.variants]
        raise UnknownNameError("variant", str(torch), names, fix="choose one: the original is not in it")
    lack = engine if engine not in (None, "torch") else _lack(place, torch)
    if lack:
        raise InputError(
            f"cannot open {torch}",
            got=lack,
            expected="torch, on a device that runs it",
            fix="name another variant",
        )
    precision = PRECISIONS[torch.precision]
    record = find_variant(made, PATCHED)
    return open_variant(folder, made, record, place, precision=precision, captured=torch.captured)


def _graph(folder: Path, made: Manifest, place: Device, name: str, engine: str | None) -> Session:
    record = find_variant(made, name)
    engines = GRAPH_ENGINES if record.engine in GRAPH_ENGINES else (record.engine,)
    if engine is not None and engine not in engines:
        raise UnknownNameError("engine", engine, engines, fix=f"name one that runs {name}")
    return open_variant(folder, made, record, place, engine or "")
