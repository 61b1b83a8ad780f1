"""The straight line that localises: where a variant departs from its reference."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from vconv import manifest, subjects
from vconv.convert import models
from vconv.convert.patches.base import Patch
from vconv.convert.patches.table import PATCHES
from vconv.convert.sources.base import Source
from vconv.convert.sources.table import DEFAULT_HUB
from vconv.errors import InputError, UnavailableError, UnknownNameError, VconvError
from vconv.examination import Examination
from vconv.manifest import Manifest, VariantRecord
from vconv.runtime.devices import Device, find_device
from vconv.runtime.engines import GRAPH_ENGINES
from vconv.runtime.graph_stages import GraphStages
from vconv.runtime.images import open_images
from vconv.runtime.precisions import PRECISIONS, Precision, find_precisions
from vconv.runtime.sessions import TorchSession
from vconv.runtime.stages import Stages
from vconv.runtime.torch_stages import TorchStages
from vconv.runtime.variants import (
    DEFAULT_VARIANT,
    find_variant,
    open_variant,
    patched_network,
    require_weights,
)
from vconv.staging import scratch_folder
from vconv.types import Array, Say, Status, silent
from vconv.validators import golden, report, textlog
from vconv.validators.classes import CLASSES
from vconv.validators.diagnosis import conclude
from vconv.validators.integrity import verify_files
from vconv.validators.limits import Limits, Pair, open_limits
from vconv.validators.localisation import localise
from vconv.validators.pictures import error_against_depth

PATCHED = "patched-torch-fp32"
METRIC = "vector_relative_error"
"""By which stages and operators are compared."""
_TORCH = re.compile(r"(original|patched)-torch-(.+)")
IMAGES = 2
"""Images that are looked at, in one batch."""
STAND_IN = "patched-torch-fp32 in its place: the original's weights are not here"


def bisect(
    path: str | Path,
    variant: str = DEFAULT_VARIANT,
    weights: str | None = None,
    *,
    device: str = "cpu",
    engine: str = "onnxruntime",
    within: str = "strict",
    images: Sequence[str | Path] = (),
    seed: int = 0,
    hub: str = DEFAULT_HUB,
    offline: bool = False,
    say: Say = silent,
) -> dict[str, Any]:
    """Find where a variant departs from its reference: in which block, and at which operator of it.

    Args:
        path: the artifact.
        variant: ``onnx-fp32``, ``onnx-fp32-npu``, ``patched-torch-PRECISION``, ``original-torch-PRECISION``.
        weights: where the original's weights are.
        device: where the variant is run; the reference is run on the CPU.
        engine: what runs a graph.
        within: ``strict``, ``card``, or a file of limits: what is said to depart.
        images: photographs to look at; the recorded inputs by default.
        seed: of made-up images, where there are no recorded inputs.
        hub: where a repository that is given as the original's weights is looked for.
        offline: whether to look for repositories in the hub's cache alone.
        say: takes a line of progress.

    Returns:
        ``sentence``, ``stages``, ``operators`` of the worst stage, ``culprit`` among them, ``passed``; it is
        also under ``reports/``, with a log in plain text and a ``picture`` of error against depth.

    Raises:
        VconvError: something that the user can mend.
    """
    log = textlog.Log(say)
    place = find_device(device)
    photographs = open_images(images) if images else []
    folder = Path(path)
    made = manifest.load(folder)
    chosen = _Chosen.find(made, variant, place, engine)
    limits = open_limits(within)
    bound = chosen.bound(limits, place)
    require_weights(folder)
    report.probe(folder)
    verify_files(folder, made)
    with scratch_folder(log.say) as scratch, ExitStack() as closing:
        asked = subjects.request(made, weights, hub, offline)
        source, missing = subjects.live_source(made, asked, bool(weights), scratch, log.say)
        if source is None and chosen.kind:
            raise InputError(
                f"{variant} cannot be held against its reference",
                got=missing,
                expected="the original's weights",
                fix="give --weights, or look at a graph, which is then held against the patched model",
            )
        pixel_values, inputs = _inputs(folder, made, photographs, seed)
        named, session = _reference(folder, made, source)
        reference = TorchStages(closing.enter_context(session), plain=not chosen.kind)
        stages = chosen.stages(folder, made, source, place, closing, PATCHES)
        say(f"{variant} on {place.name} against {named}, stage by stage")
        found = localise(reference, stages, chosen.batch(pixel_values), bound, chosen.exact(place), log.say)
    status = Status.FAILED if found.departs else Status.PASSED
    title = f"{made.system.name}: {variant} against {named}"
    result: dict[str, Any] = {
        "artifact": made.system.name,
        "weights": made.source.label,
        "synthetic": made.source.synthetic,
        "variant": variant,
        "engine": chosen.engine,
        "device": place.name,
        "simulated": place.simulated,
        "status": status,
        "passed": status is Status.PASSED,
        "limits": limits.describe([chosen.pair(place)]),
        "bound": bound,
        "reference": {
            "name": named,
            "source": "live" if source else "none",
            "precision": "fp32",
            "device": "cpu",
        },
        "inputs": inputs,
        "sentence": found.sentence(variant),
        "worst_stage": found.stages[found.worst].stage,
        "stages": [asdict(row) for row in found.stages],
        "operators": [asdict(match) for match in found.matches],
        "culprit": None if found.culprit is None else asdict(found.matches[found.culprit]),
        "environment": report.environment(),
    }
    result = report.finite(result)
    pictures = {".svg": error_against_depth(found, title)}
    saved = report.save(folder, result, "bisect", log.render_bisection(result), pictures)
    beside = {key: str(saved.with_suffix(ending)) for key, ending in (("log", ".log"), ("picture", ".svg"))}
    return {**result, "report": str(saved), **beside}


def explained(
    found: Examination,
    rows: Sequence[Mapping[str, Any]],
    limits: Limits,
    say: Say,
    patches: Mapping[str, Patch] = PATCHES,
) -> list[dict[str, str]]:
    """Say what failures come of; where no check and no hypothesis does, by where the first one departs.

    Args:
        found: what was found in an artifact.
        rows: its variants, as they were judged.
        limits: what they were held to.
        say: takes progress.
        patches: those that the patched variants had, by name.

    Returns:
        See :func:`vconv.validators.diagnosis.conclude`.
    """
    known = conclude(found.checks, rows)
    failed = next((row for row in rows if row["status"] is Status.FAILED), None)
    if known or failed is None or found.source is None or found.reference is None:
        return known
    say(f"nothing seen explains {failed['variant']}: looking where it departs")
    place = find_device(failed["device"])
    try:
        chosen = _Chosen.find(found.made, failed["variant"], place, failed["engine"])
        with ExitStack() as closing:
            reference = TorchStages(
                closing.enter_context(_reference(found.folder, found.made, found.source)[1]),
                plain=not chosen.kind,
            )
            stages = chosen.stages(found.folder, found.made, found.source, place, closing, patches)
            images = chosen.batch(found.reference.pixel_values)
            departure = localise(
                reference, stages, images, chosen.bound(limits, place), chosen.exact(place), silent
            )
    except VconvError as error:
        say(f"where it departs cannot be told: {error}")
        return []
    if not departure.departs:
        return []
    fault, sentence = departure.fault, departure.sentence(failed["variant"])
    row = {"class": fault, "meaning": CLASSES[fault], "where": failed["variant"], "because": sentence}
    return [row]


@dataclass(frozen=True)
class _Chosen:
    """The variant that is looked at.

    Args:
        kind: ``original`` or ``patched`` for a torch variant; empty for a graph.
        precision: what a torch variant is run in; a graph is of its own.
        record: what the manifest says of it.
        engine: what runs it.
    """

    kind: str
    precision: Precision
    record: VariantRecord
    engine: str

    @classmethod
    def find(cls, made: Manifest, name: str, place: Device, engine: str) -> _Chosen:
        """Find a variant by its name.

        Raises:
            UnknownNameError: there is no such variant, precision or engine.
            InputError: the device has not this precision.
            UnavailableError: the engine is not installed for the device.
        """
        torch = _TORCH.fullmatch(name)
        if torch:
            (precision,) = find_precisions((torch[2],), place)
            return cls(torch[1], precision, find_variant(made, PATCHED), "torch")
        graphs = {record.variant: record for record in made.variants if record.engine != "torch"}
        if name not in graphs:
            choices = [*graphs, PATCHED, "original-torch-fp32"]
            raise UnknownNameError("variant", name, choices, fix="choose one of those, or another precision")
        if engine not in GRAPH_ENGINES:
            raise UnknownNameError("engine", engine, GRAPH_ENGINES, fix="name one of those")
        lack = GRAPH_ENGINES[engine].lack(place)
        if lack:
            raise UnavailableError(
                f"{engine} cannot run here",
                got=lack,
                expected=f"{engine} for {place.name}",
                fix=f"install the build of {engine} for this device, or name another engine",
            )
        return cls("", PRECISIONS[graphs[name].precision], graphs[name], engine)

    def pair(self, place: Device) -> Pair:
        """Return its precision, and a device's arithmetic in that: what chooses its limit."""
        return self.precision.limits, place.arithmetic_of(self.precision.limits)

    def exact(self, place: Device) -> bool:
        """Tell whether it computes in float32 throughout, so that one wrong operator stands out."""
        return self.pair(place) == ("fp32", "fp32")

    def bound(self, limits: Limits, place: Device) -> float:
        """Return the vector relative error from which it departs.

        Raises:
            InputError: the limits have no bound on it.
        """
        pair = self.pair(place)
        bounds = limits.table[pair].bounds
        if METRIC not in bounds:
            raise InputError(
                f"[{'.'.join(pair)}] of {limits.within} does not say when a variant departs",
                got=", ".join(bounds),
                expected=METRIC,
                fix=f"add a bound on {METRIC}, or use --within strict",
            )
        return bounds[METRIC]

    def batch(self, pixel_values: Array) -> Array:
        """Return the images that are looked at, as many as a static graph takes."""
        count = self.record.batch or min(IMAGES, len(pixel_values))
        return np.ascontiguousarray(np.resize(pixel_values, (count, *pixel_values.shape[1:])))

    def stages(
        self,
        folder: Path,
        made: Manifest,
        source: Source | None,
        place: Device,
        closing: ExitStack,
        patches: Mapping[str, Patch],
    ) -> Stages:
        """Open it, in stages."""
        if not self.kind:
            return GraphStages(folder / self.record.file, patched_network(folder), place, self.engine)
        if self.kind == "original":
            assert source is not None
            session = _original(
                source, models.load(source.folder, source.network), made, place, self.precision
            )
        else:
            session = _patched(folder, made, place, self.precision, patches)
        return TorchStages(closing.enter_context(session), plain=False)


def _original(
    source: Source, model: nn.Module, made: Manifest, place: Device, precision: Precision
) -> TorchSession:
    return TorchSession(model, source.network, place, (), source.folder, made.size, precision)


def _patched(
    folder: Path,
    made: Manifest,
    place: Device,
    precision: Precision,
    patches: Mapping[str, Patch] = PATCHES,
) -> TorchSession:
    record = find_variant(made, PATCHED)
    session = open_variant(folder, made, record, place, precision=precision, patches=patches)
    assert isinstance(session, TorchSession)
    return session


def _reference(folder: Path, made: Manifest, source: Source | None) -> tuple[str, TorchSession]:
    """Open the reference in fp32 on the CPU, or, where the original is not here, what stands in for it."""
    cpu, exact = find_device("cpu"), PRECISIONS["fp32"]
    if source is None:
        return STAND_IN, _patched(folder, made, cpu, exact)
    model = models.load(source.folder, source.network)
    named = golden.correct(model, source)
    return named, _original(source, model, made, cpu, exact)


def _inputs(
    folder: Path, made: Manifest, photographs: Sequence[Image.Image], seed: int
) -> tuple[Array, dict[str, Any]]:
    """Return the images that are looked at: given, or recorded, or made up."""
    if made.golden and not photographs:
        recorded, _ = golden.load(folder / made.golden.file)
        return recorded, {"source": "recorded", "images": list(made.golden.images)}
    pixel_values, names = subjects.sample(folder, photographs, seed, made.size)
    return pixel_values, {"source": "photographs" if photographs else "made up", "images": list(names)}
