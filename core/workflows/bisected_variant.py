"""The variant that is looked at stage by stage, and the reference that it is held against."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import VariantRecord
from vconv.convert.libraries import models
from vconv.convert.patches.base import Patch
from vconv.convert.sources.base import Source
from vconv.errors import InputError, UnknownNameError
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.precisions import PRECISIONS, Precision
from vconv.runtime.engines.session import TorchSession
from vconv.runtime.engines.table import GRAPH_ENGINES, unavailable
from vconv.runtime.engines.variants import (
    PATCHED,
    TorchName,
    open_original,
    open_variant,
)
from vconv.runtime.stages.base import Stages
from vconv.runtime.stages.graph import GraphStages
from vconv.runtime.stages.torch_model import TorchStages
from vconv.types import Array
from vconv.validators.accuracy import golden
from vconv.validators.accuracy.limits import Limits, Pair

METRIC = "vector_relative_error"
"""By which stages and operators are compared."""
IMAGES = 2
"""Images that are looked at, in one batch."""
STAND_IN = f"{PATCHED} in its place: the original's weights are not here"


@dataclass(frozen=True)
class BisectedVariant:
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
    def find(cls, artifact: Artifact, name: str, place: Device, engine: str | None) -> BisectedVariant:
        """Find a variant by its name.

        Args:
            artifact: the artifact.
            name: the variant's name.
            place: where it is run.
            engine: what runs a graph; None for ONNX Runtime, and for torch variants.

        Raises:
            InputError: an engine is named for a torch variant.
            UnknownNameError: there is no such variant or engine, or the device has not this precision.
            UnavailableError: the engine is not installed for the device.
        """
        torch = TorchName.read(name)
        if torch and engine not in (None, "torch"):
            raise InputError(
                f"{name} is not run by {engine}",
                got=f"--engine {engine}",
                expected="no engine: torch runs it",
                fix="leave --engine out, or name a graph",
            )
        if torch:
            if torch.captured or torch.precision not in place.precisions:
                names = [str(TorchName(torch.kind, precision)) for precision in place.precisions]
                raise UnknownNameError(f"variant on {place.name}", name, names, fix="choose one of those")
            return cls(torch.kind, PRECISIONS[torch.precision], artifact.variant(PATCHED), "torch")
        graphs = {
            record.variant: record for record in artifact.manifest.variants if record.engine in GRAPH_ENGINES
        }
        if name not in graphs:
            choices = [*graphs, PATCHED, "original-torch-fp32"]
            raise UnknownNameError("variant", name, choices, fix="choose one of those, or another precision")
        engine = engine or "onnxruntime"
        if engine not in GRAPH_ENGINES:
            raise UnknownNameError("engine", engine, GRAPH_ENGINES, fix="name one of those")
        lack = GRAPH_ENGINES[engine].lack(place)
        if lack:
            raise unavailable(engine, lack, place)
        return cls("", PRECISIONS[graphs[name].precision], graphs[name], engine)

    def pair(self, place: Device) -> Pair:
        """Return its precision, and a device's arithmetic in that: what chooses its limit."""
        return self.precision.limits, place.arithmetic_of(self.precision.limits, self.engine)

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
        artifact: Artifact,
        source: Source | None,
        place: Device,
        closing: ExitStack,
        patches: Mapping[str, Patch] | None,
    ) -> Stages:
        """Open it, in stages."""
        if not self.kind:
            return GraphStages(artifact.path(self.record), artifact.network, place, self.engine)
        if self.kind == "original":
            assert source is not None
            size = artifact.manifest.size
            session = open_original(source.folder, source.network, size, place, self.precision)
        else:
            session = _patched(artifact, place, self.precision, patches)
        return TorchStages(closing.enter_context(session), plain=False)


def _patched(
    artifact: Artifact,
    place: Device,
    precision: Precision,
    patches: Mapping[str, Patch] | None = None,
) -> TorchSession:
    record = artifact.variant(PATCHED)
    session = open_variant(artifact, record, place, precision=precision, patches=patches)
    assert isinstance(session, TorchSession)
    return session


def open_reference(artifact: Artifact, source: Source | None) -> tuple[str, TorchSession]:
    """Open the reference in fp32 on the CPU, or, where the original is not here, what stands in for it."""
    cpu, exact = find_device("cpu"), PRECISIONS["fp32"]
    if source is None:
        return STAND_IN, _patched(artifact, cpu, exact)
    model = models.load(source.folder, source.network)
    named = golden.correct(model, source)
    size = artifact.manifest.size
    return named, TorchSession(model, source.network, cpu, (), source.folder, size, exact)
