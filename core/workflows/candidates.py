"""List the variants that a validation can run: the variants of an artifact, and the original."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from vconv.artifact.artifact import Artifact
from vconv.artifact.records import VariantRecord
from vconv.convert.patches.base import Patch
from vconv.convert.sources.base import Source
from vconv.precisions import FP32, PRECISIONS, Precision, limits_of, type_of
from vconv.runtime.devices.base import Device
from vconv.runtime.engines.base import Session
from vconv.runtime.engines.table import Runs, chosen_engines, engines_for, graph_engines, is_usual, runs
from vconv.runtime.engines.torch_kinds import ORIGINAL, TorchName, kinds_in_artifact
from vconv.runtime.engines.variants import open_original, open_variant
from vconv.runtime.processes.request import OpenRequest
from vconv.runtime.simulation.session import SimulatedTorchSession
from vconv.validators.accuracy.golden import Reference
from vconv.validators.validation import Candidate


def candidates(
    artifact: Artifact,
    device: Device,
    reference: Reference,
    engines: Sequence[str] | None = None,
    precisions: Sequence[Precision] = (PRECISIONS[FP32],),
    patches: Mapping[str, Patch] | None = None,
    captures: Sequence[bool] = (False,),
    offline: bool = True,
    kinds: Collection[str] | None = None,
) -> list[Candidate]:
    """List an artifact's variants: torch by kind and precision, graphs by engine, an offline model once.

    Args:
        artifact: the artifact.
        device: the device that runs the variants.
        reference: the reference that the variants are compared with.
        engines: the engines that run graphs and torch models: see
            :func:`vconv.runtime.engines.table.chosen_engines`. Empty for no graphs.
        precisions: the precisions in which torch variants are run.
        patches: patches by name to use instead of the table of patches.
        captures: whether torch variants are captured and replayed; they are listed once for each value.
        offline: whether to list an offline model; only a real NPU runs an offline model.
        kinds: the kinds of torch variants to list; by default, all that are made of an artifact's weights.
    """

    def subject(record: VariantRecord, engine: str, precision: str, **more: Any) -> OpenRequest:
        hf32 = device.settings.hf32
        return OpenRequest(str(artifact), record.variant, engine, precision, device.name, hf32=hf32, **more)

    found = []
    for record in artifact.manifest.variants:
        if runs(record.engine) is Runs.MODELS:
            found += [
                Candidate(
                    str(artifact),
                    str(TorchName(kind.name, precision.name, captured)),
                    engine,
                    precision.limits,
                    device,
                    reference,
                    partial(
                        open_variant,
                        artifact,
                        record,
                        device,
                        engine,
                        precision=precision,
                        patches=patches,
                        captured=captured,
                        kind=kind.name,
                    ),
                    subject(record, engine, precision.name, captured=captured, kind=kind.name),
                    any_size=record.contract.sides is not None,
                )
                for kind in kinds_in_artifact()
                if kinds is None or kind.name in kinds
                for precision in precisions
                for engine in chosen_engines(engines, Runs.MODELS)
                for captured in (captures if is_usual(engine) else (False,))
            ]
        elif record.contract.preprocessing:
            continue  # it takes other inputs: see vconv.workflows.image_graph
        elif record.offline is None or (offline and not device.simulated):
            found += [
                Candidate(
                    str(artifact),
                    record.variant,
                    engine,
                    limits_of(record.precision),
                    device,
                    reference,
                    partial(open_variant, artifact, record, device, engine),
                    subject(record, engine, record.precision),
                    any_size=record.contract.sides is not None,
                )
                for engine in _engines(record, device, engines)
            ]
    return found


def _engines(record: VariantRecord, device: Device, engines: Sequence[str] | None) -> Sequence[str]:
    """Return the engines that run a file; an offline model has one."""
    if record.engine not in graph_engines():
        return (record.engine,)
    if engines is not None and not engines:
        return ()
    return engines_for(type_of(record.precision), device.kind, engines)


def originals(
    label: str,
    source: Source,
    size: tuple[int, int],
    device: Device,
    reference: Reference,
    precisions: Sequence[Precision] = (PRECISIONS[FP32],),
    captures: Sequence[bool] = (False,),
) -> list[Candidate]:
    """List the original as its library builds it. It is measured and timed like a variant, but not judged.

    Args:
        label: what it is compared with: an artifact, or a graph of another exporter.
        source: its weights.
        size: (height, width) of the images.
        device: the device that runs it.
        reference: the reference.
        precisions: the precisions in which it is run.
        captures: whether it is captured and replayed; it is listed once for each value.
    """
    reason = "not judged: the reference corrects it"
    if reference.name == "original":
        reason = "not judged: it is the reference"
        if reference.source == "file":
            reason = "not judged: it is the reference, on this machine"
    return [
        Candidate(
            label,
            str(TorchName(ORIGINAL, precision.name, captured)),
            "torch",
            precision.limits,
            device,
            reference,
            _opening_original(label, source, size, device, precision, captured),
            _original_subject(label, source, precision, device, captured),
            unjudged=reason if precision.name == FP32 else "not judged: the patched one is",
        )
        for precision in precisions
        for captured in captures
    ]


def _original_subject(
    label: str, source: Source, precision: Precision, device: Device, captured: bool
) -> OpenRequest:
    weights, head = str(source.folder), source.network.head
    return OpenRequest(
        *(label, "", "torch", precision.name, device.name, weights, head),
        hf32=device.settings.hf32,
        captured=captured,
    )


def _opening_original(
    label: str, source: Source, size: tuple[int, int], device: Device, precision: Precision, captured: bool
) -> Callable[[], Session]:
    if device.simulated:
        subject = _original_subject(label, source, precision, device, captured)
        return partial(SimulatedTorchSession, subject, device, source.folder, size)
    return partial(open_original, source.folder, source.network, size, device, precision, captured)
