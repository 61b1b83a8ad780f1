"""`vconv.load`: open a variant for use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from vconv.arguments import checked_arguments
from vconv.artifact.artifact import Artifact
from vconv.errors import InputError, UnavailableError, UnknownNameError
from vconv.precisions import PRECISIONS, torch_precisions
from vconv.runtime.devices.base import Device, Settings
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines import capture
from vconv.runtime.engines.base import Session, unavailable
from vconv.runtime.engines.table import ENGINES, Runs, engines_of, runs, usual_engine
from vconv.runtime.engines.torch_kinds import PATCHED_FP32, TORCH_KINDS, TorchName
from vconv.runtime.engines.variants import DEFAULT_VARIANT, open_variant
from vconv.surroundings import own_surroundings
from vconv.validators.latency import winners
from vconv.validators.latency.winners import RankedVariant


@checked_arguments
@own_surroundings()
def load(
    path: str | Path,
    device: str = "cpu",
    variant: str | None = None,
    *,
    engine: str | None = None,
    hf32: Sequence[str] | None = None,
    profile: str | None = None,
    fusions: str | None = None,
) -> Session:
    """Open a variant of an artifact, ready to run.

    Without a variant and an engine, this function opens the recorded winner: the best variant that can run
    here, by the newest ranking on this kind of device (see :mod:`vconv.validators.latency.winners`). Among
    variants of equal rank, ``onnx-fp32`` comes first, then a variant that takes any batch. A captured variant
    must be named, because it keeps memory for every batch size. If no ranked variant can run, this function
    opens ``onnx-fp32``.

    Args:
        path: the artifact.
        device: the device that runs the variant.
        variant: the variant's name: a name in the manifest, or ``patched-torch-`` or ``fused-torch-`` with a
            precision of the device, with or without ``-captured``.
        engine: the engine that runs it: a name in :data:`vconv.runtime.engines.table.ENGINES`, such as
            ``openvino`` for a graph, or ``torch-compiled`` for a torch variant, which is then compiled at the
            first call with each number of images. The defaults are ``onnxruntime`` and ``torch``.
        hf32: the operations that an NPU may compute in HF32, ``conv`` and ``matmul``; by default ``conv``, as
            in torch_npu.
        profile: the NPU to simulate: ``910b``, the default, or ``310p``.
        fusions: whether a simulated NPU runs the published fusion passes of CANN on graphs: ``on``, or
            ``off``, the default.

    Returns:
        A session: call it with float32 (B, 3, H, W), or with a list of images; it returns named arrays. Its
        ``variant`` and ``engine`` name what was opened. A winner may compute in less than float32.

    Raises:
        VconvError: the artifact, the device, the variant or the engine is not available.
    """
    artifact = Artifact.open(path)
    place = find_device(device, Settings.of(hf32, profile, fusions))
    if variant is None and engine is None:
        for winner in _winners(artifact, place):
            with contextlib.suppress(UnavailableError):
                return _open(artifact, place, winner.variant, winner.engine)
    return _open(artifact, place, DEFAULT_VARIANT if variant is None else variant, engine)


def _winners(artifact: Artifact, place: Device) -> Iterator[RankedVariant]:
    """Yield the ranked variants that could run on this device, the best first."""
    batches = {record.variant: record.batch for record in artifact.manifest.variants}
    default = (DEFAULT_VARIANT, usual_engine())

    def preference(one: RankedVariant) -> tuple[int, bool, bool]:
        return one.rank, (one.variant, one.engine) != default, batches.get(one.variant) is not None

    for one in sorted(winners.ranked(artifact.folder, place), key=preference):
        torch = TorchName.read(one.variant)
        if torch:
            known = one.engine in engines_of(Runs.MODELS)
            fits = known and _is_in_artifact(torch) and torch.precision in place.precisions
        else:
            fits = one.variant in batches and one.engine in ENGINES
        if fits and not (torch and torch.captured):
            yield one


def _is_in_artifact(torch: TorchName) -> bool:
    return TORCH_KINDS[torch.kind].patches is not None


def _open(artifact: Artifact, place: Device, name: str, engine: str | None) -> Session:
    torch = TorchName.read(name)
    session = _torch(artifact, place, torch, engine) if torch else _graph(artifact, place, name, engine)
    session.variant = name
    return session


def _torch(artifact: Artifact, place: Device, torch: TorchName, engine: str | None) -> Session:
    if not _is_in_artifact(torch):
        names = [record.variant for record in artifact.manifest.variants]
        raise UnknownNameError("variant", str(torch), names, fix="choose one: the original is not in it")
    if torch.precision not in torch_precisions():
        names = [str(replace(torch, precision=name)) for name in place.precisions]
        raise UnknownNameError("variant", str(torch), names, fix="choose one of those, or a graph")
    lack = capture.lack(place) if torch.captured else ""
    if torch.precision not in place.precisions:
        lack = f"{place.name}, which runs {', '.join(place.precisions)}"
    record, captured = artifact.variant(PATCHED_FP32), torch.captured
    if engine is not None and engine not in engines_of(Runs.MODELS):
        lack = f"engine {engine}"
    if lack:
        raise InputError(
            f"cannot open {torch}",
            got=lack,
            expected="torch, on a device that runs it",
            fix="name another variant",
        )
    precision = PRECISIONS[torch.precision]
    return open_variant(artifact, record, place, engine or "", precision, captured=captured, kind=torch.kind)


def _graph(artifact: Artifact, place: Device, name: str, engine: str | None) -> Session:
    record = artifact.variant(name)
    engines = engines_of(runs(record.engine))
    if engine is not None and engine not in engines:
        raise UnknownNameError(
            f"engine for {name}", engine, engines, fix="choose one of those, or name a torch variant"
        )
    lack = ENGINES[engine].lack(place) if engine else ""
    if engine and lack:
        raise unavailable(engine, lack, place)
    return open_variant(artifact, record, place, engine or "")
