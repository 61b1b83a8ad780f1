"""What graphs of other exporters are judged by: an artifact or a checkpoint, and its reference."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from vconv.artifact.artifact import Artifact
from vconv.convert.architectures.outputs import output_names
from vconv.convert.files.safetensors_file import TensorEntry
from vconv.convert.network import Network
from vconv.convert.sources.base import Source
from vconv.convert.sources.names import find_system
from vconv.convert.sources.sizes import SizeRequest
from vconv.convert.sources.table import Request, open_source
from vconv.errors import InputError
from vconv.runtime.engines.adapted import on_whole_levels
from vconv.runtime.inputs.preprocessing import normalisation
from vconv.types import MANIFEST_FILE, Say
from vconv.validators.accuracy.golden import Reference, run_reference
from vconv.validators.foreign.readings import Reading, readings, wanted
from vconv.workflows import originals, sample_images


@dataclass(frozen=True)
class Judge:
    """The reference of graphs that take images of one size, and what their outputs may be.

    Args:
        source: the original.
        reference: the reference, with everything that outputs are compared with.
        readings: what an output may be.
        images: what each image is.
        whole: whether their grey levels were rounded, for graphs that take whole numbers.
    """

    source: Source
    reference: Reference
    readings: Mapping[str, Reading]
    images: tuple[str, ...]
    whole: bool = False

    @property
    def network(self) -> Network:
        """The network, in the layout of its library."""
        return self.source.network

    @property
    def own(self) -> Reference:
        """The reference with the outputs of the network alone."""
        names = output_names(self.network)
        return replace(self.reference, outputs={name: self.reference.outputs[name] for name in names})

    @property
    def originals(self) -> Mapping[str, TensorEntry]:
        """Every tensor of the original, by its name there."""
        return self.source.original


@dataclass(frozen=True)
class AskedReference:
    """What a user asks graphs to be judged by.

    Args:
        where: an artifact, a folder with a checkpoint, or the name of a system.
        weights: where the original's weights are; None for where an artifact's manifest, or the system, says.
        hub: the hub of a repository.
        offline: whether to look for repositories only in the hub's cache.
        periods: the RoPE periods: ``authors`` or ``library``; None for an artifact's, or for the authors'.
        photographs: photographs to judge on; an empty sequence for made-up images.
        seed: the seed of made-up images.
    """

    where: str | Path
    weights: str | Path | None
    hub: str
    offline: bool
    periods: str | None
    photographs: Sequence[Image.Image]
    seed: int


@dataclass
class Against:
    """A network with weights, which graphs are judged by.

    Args:
        request: what opens its original.
        photographs: photographs to judge on; an empty sequence for made-up images.
        seed: the seed of made-up images.
        scratch: a folder for files that exist as long as this object is used.
        say: receives progress lines.
    """

    request: Request
    photographs: Sequence[Image.Image]
    seed: int
    scratch: Path
    say: Say
    _judges: dict[tuple[tuple[int, int] | None, bool], Judge] = field(default_factory=dict)

    def at(self, size: tuple[int, int] | None, whole: bool = False) -> Judge:
        """Return the reference for images of (height, width); None for the size that is asked for.

        A processor that rescales before it resizes makes grey levels that are no whole numbers. A graph that
        takes whole numbers never gets those, so that its reference must not either.

        Args:
            size: (height, width), or None.
            whole: whether the grey levels of the images are rounded.

        Raises:
            InputError: the network takes no images of this size.
            WeightsError: the original cannot be used.
        """
        if (size, whole) not in self._judges:
            judge = self._made(size, whole)
            self._judges[size, whole] = self._judges[judge.source.image_size, whole] = judge
        return self._judges[size, whole]

    def _made(self, size: tuple[int, int] | None, whole: bool) -> Judge:
        place = Path(tempfile.mkdtemp(prefix="original-", dir=self.scratch))
        asked = self.request if size is None else replace(self.request, size=SizeRequest(size, False))
        source = open_source(asked, place, self.say)
        made = source.image_size
        if (made, whole) in self._judges:
            return self._judges[made, whole]
        pixel_values, images = sample_images.sample(source.folder, self.photographs, self.seed, made)
        if whole:
            pixel_values = on_whole_levels(pixel_values, *normalisation(source.folder))
        rounded = ", their grey levels rounded" if whole else ""
        self.say(f"running the reference in fp32 and float64, on images of {made[0]}x{made[1]}{rounded}")
        network = source.network
        wider = source if network.observed else replace(source, outputs=wanted(network))
        reference = run_reference(wider, pixel_values)
        return Judge(source, reference, readings(network, reference.outputs), images, whole)

    @property
    def synthetic(self) -> bool:
        """Whether the weights are synthetic."""
        return self.at(None).source.origin.synthetic

    @property
    def weights(self) -> str:
        """The label of the weights."""
        return self.at(None).source.origin.label


def open_against(asked: AskedReference, scratch: Path, say: Say) -> Against:
    """Open what graphs are judged by.

    Args:
        asked: what the user asks for.
        scratch: an empty folder, for files that exist as long as the result is used.
        say: receives progress lines.

    Raises:
        InputError: an artifact does not say where its original is, and no weights are given.
    """
    hub, offline, photographs, seed = asked.hub, asked.offline, asked.photographs, asked.seed
    if (Path(asked.where) / MANIFEST_FILE).exists():
        artifact = Artifact.open(asked.where)
        request = originals.request(artifact, asked.weights, hub, offline)
        if request.weights is None:
            raise InputError(
                f"{artifact.name} cannot judge other graphs",
                got=f"an original that came from a {artifact.manifest.source.kind}",
                expected="the original's weights",
                fix="give --weights what the artifact was exported from",
            )
        request = replace(request, periods=asked.periods or request.periods)
        return Against(request, photographs, seed, scratch, say)
    given = None if asked.weights is None else str(asked.weights)
    system, place = find_system(str(asked.where), hub, given, offline, say)
    request = Request(system, place, hub, periods=asked.periods, offline=offline)
    return Against(request, photographs, seed, scratch, say)


def inputs_of(against: Against) -> dict[str, Any]:
    """Describe the images that graphs are judged on, as a report has it."""
    kind = "photographs" if against.photographs else "made up"
    return {"source": kind, "images": list(against.at(None).images)}
