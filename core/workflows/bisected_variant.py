"""The variant that is bisected stage by stage, and the reference that it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from vconv.artifact.artifact import Artifact
from vconv.artifact.records import VariantRecord
from vconv.convert.libraries import models
from vconv.convert.patches.base import Patch
from vconv.convert.sources.base import Source
from vconv.errors import InputError, UnknownNameError
from vconv.precisions import FP32, PRECISIONS, Precision, type_of
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.arithmetic import arithmetic_of
from vconv.runtime.engines.base import unavailable
from vconv.runtime.engines.runnable import require_bounds
from vconv.runtime.engines.table import engines_for, graph_engines
from vconv.runtime.engines.torch_kinds import ORIGINAL, PATCHED, PATCHED_FP32, TorchName
from vconv.runtime.engines.torch_model import TorchSession
from vconv.runtime.engines.variants import open_original, open_variant
from vconv.runtime.stages.base import Stages
from vconv.runtime.stages.graph import GraphStages
from vconv.runtime.stages.torch_model import TorchStages
from vconv.types import Array
from vconv.validators.accuracy import golden
from vconv.validators.accuracy.limits import Limits, Pair
from vconv.validators.report.rows import LimitRow

METRIC = "vector_relative_error"
"""The metric by which stages and operators are compared."""
IMAGES = 2
"""The number of images to compare on, in one batch."""
STAND_IN = f"{PATCHED_FP32} in its place: the original's weights are not here"


def _engine_of(record: VariantRecord, place: Device) -> str:
    """Return the engine that runs a graph by default: on a CPU, one that rounds to the graph's own type."""
    return engines_for(type_of(record.precision), place.kind, None)[-1]


@dataclass(frozen=True)
class BisectedVariant:
    """The variant that is bisected.

    Args:
        kind: the kind of torch variant; empty for a graph.
        precision: the precision in which a torch variant is run; for a graph, the precision in its record.
        record: the variant's record in the manifest.
        engine: the engine that runs the variant.
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
            place: the device that runs the variant.
            engine: the engine that runs a graph; None for the usual engine, and for torch variants.

        Raises:
            InputError: an engine is named for a torch variant.
            UnknownNameError: there is no such variant or engine, or the device does not have this precision.
            UnavailableError: the engine is not installed for the device.
        """
        torch, known = TorchName.read(name), graph_engines()
        record = artifact.variant(PATCHED_FP32)
        if torch and engine not in (None, record.engine):
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
            return cls(torch.kind, PRECISIONS[torch.precision], record, record.engine)
        graphs = {
            record.variant: record
            for record in artifact.manifest.variants
            if record.engine in known and not record.contract.preprocessing
        }
        if name not in graphs:
            choices = [*graphs, PATCHED_FP32, str(TorchName(ORIGINAL, FP32))]
            raise UnknownNameError("variant", name, choices, fix="choose one of those, or another precision")
        engine = engine or _engine_of(graphs[name], place)
        if engine not in known:
            raise UnknownNameError("engine", engine, known, fix="name one of those")
        lack = known[engine].lack(place)
        if lack:
            raise unavailable(engine, lack, place)
        return cls("", PRECISIONS[graphs[name].precision], graphs[name], engine)

    def pair(self, place: Device) -> Pair:
        """Return the variant's precision and its engine's arithmetic on a device: the key of its limit."""
        return self.precision.limits, arithmetic_of(self.engine, place, self.precision.name)

    def exact(self, place: Device) -> bool:
        """Return whether the variant computes only in float32, so that a single wrong operator stands out."""
        return self.pair(place) == ("fp32", "fp32")

    def limit(self, limits: Limits, place: Device) -> LimitRow:
        """Return the limit by which the variant is judged.

        Raises:
            InputError: there are no limits for the variant's precision and its engine's arithmetic.
        """
        pair = self.pair(place)
        if pair not in limits.table:
            raise InputError(
                f"{self.record.variant} cannot be held to limits on {place.name}",
                got=f"{self.engine} computes {pair[1]}",
                expected=" or ".join(known[1] for known in limits.table if known[0] == pair[0]),
                fix="name another engine or device",
            )
        return LimitRow.of(pair, limits.table[pair])

    def batch(self, pixel_values: Array) -> Array:
        """Return the images to compare on, in the batch size of a static graph if the variant is one."""
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
        """Open the variant, split into stages."""
        if not self.kind:
            path, net = artifact.path(self.record), artifact.network
            # A graph that was altered since the export is bisected too: its operators are not counted.
            require_bounds(path, self.record, graph_engines()[self.engine].domains, count=False)
            return GraphStages(path, net, place, self.engine, self.precision.name)
        if self.kind == ORIGINAL:
            assert source is not None
            size = artifact.manifest.size
            session = open_original(source.folder, source.network, size, place, self.precision)
        else:
            session = _of_artifact(artifact, place, self.precision, self.kind, patches)
        return TorchStages(closing.enter_context(session), plain=False)


def bound_of(limit: LimitRow, within: str) -> float:
    """Return the vector relative error from which a variant departs.

    Args:
        limit: the limit by which the variant is judged.
        within: the name of the table of limits.

    Raises:
        InputError: the limit has no bound on the vector relative error.
    """
    if METRIC not in limit.bounds:
        raise InputError(
            f"[{limit.precision}.{limit.arithmetic}] of {within} does not say when a variant departs",
            got=", ".join(limit.bounds),
            expected=METRIC,
            fix=f"add a bound on {METRIC}, or use --within strict",
        )
    return limit.bounds[METRIC]


def _of_artifact(
    artifact: Artifact,
    place: Device,
    precision: Precision,
    kind: str,
    patches: Mapping[str, Patch] | None = None,
) -> TorchSession:
    record = artifact.variant(PATCHED_FP32)
    session = open_variant(artifact, record, place, precision=precision, patches=patches, kind=kind)
    assert isinstance(session, TorchSession)
    return session


def open_reference(artifact: Artifact, source: Source | None) -> tuple[str, TorchSession]:
    """Open the reference in fp32 on the CPU; without the original's weights, the patched model instead."""
    cpu, exact = find_device("cpu"), PRECISIONS[FP32]
    if source is None:
        return STAND_IN, _of_artifact(artifact, cpu, exact, PATCHED)
    model = models.load(source.folder, source.network)
    named = golden.correct(model, source)
    size = artifact.manifest.size
    return named, TorchSession(model, source.network, cpu, (), source.folder, size, exact)
