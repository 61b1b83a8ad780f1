"""Extra data for the page of a validation: pictures, and the error after each block."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from vconv.artifact.artifact import Artifact
from vconv.convert.architectures.base import Capability
from vconv.convert.network import Network
from vconv.runtime.devices.base import Device
from vconv.runtime.inputs.preprocessing import denormalised
from vconv.runtime.stages.base import undivided
from vconv.runtime.stages.table import SIMULATED
from vconv.runtime.stages.torch_model import TorchStages
from vconv.types import CHANNELS, Say
from vconv.validators.accuracy.golden import Reference
from vconv.validators.bisect.depth import NO_ORIGINAL, QUICK, Depths
from vconv.validators.report.page.gallery import SHOWN, Gallery
from vconv.workflows.bisected_variant import open_reference
from vconv.workflows.checks import CheckedArtifact


def gallery(found: CheckedArtifact) -> Gallery:
    """Return the gallery of judged images with the reference's maps; it is empty without a reference."""
    height, width = found.artifact.manifest.size
    if found.reference is None:
        return Gallery.of((), np.zeros((0, height, width, CHANNELS), np.uint8), {}, (0, 0))
    return gallery_of(found.artifact.folder, found.artifact.network, found.reference, found.inputs["images"])


def gallery_of(folder: Path, network: Network, reference: Reference, names: Sequence[str]) -> Gallery:
    """Return the gallery of a reference's images, with its maps.

    Args:
        folder: a folder with the configuration of the image processor.
        network: the network.
        reference: the reference.
        names: what each image is.
    """
    photographs = denormalised(folder, reference.pixel_values[:SHOWN])
    lack = network.lack(Capability.TOKEN_GRID)
    if lack:
        return Gallery.of((), photographs, {}, (0, 0), lack)
    patch, (height, width) = network.numbers.patch, reference.pixel_values.shape[2:]
    return Gallery.of(names, photographs, reference.outputs, (height // patch, width // patch))


def depths(found: CheckedArtifact, quick: bool, places: Sequence[Device], say: Say) -> Depths:
    """Run the reference stage by stage, or give the reason why it is not run.

    Args:
        found: the checked artifact.
        quick: whether this is a quick run (`--quick`), which skips the stages.
        places: the devices that run the variants.
        say: receives progress lines.
    """
    if quick or found.reference is None or found.source is None:
        return Depths(reason=QUICK if quick else NO_ORIGINAL)
    if all(place.simulated for place in places):
        return Depths(reason=SIMULATED)
    lack = undivided(found.source.network)
    if lack:
        return Depths(reason=lack)
    say("running the reference stage by stage")
    with ExitStack() as closing:
        _, session = open_reference(found.artifact, found.source)
        stages = TorchStages(closing.enter_context(session), plain=False)
        return Depths.of(stages, found.reference.pixel_values, found.artifact.network)


def identity(artifact: Artifact) -> dict[str, Any]:
    """Return the hash of an artifact's manifest, and the hashes of its files as the manifest has them."""
    made = artifact.manifest
    files = {name: {"sha256": file.sha256, "nbytes": file.nbytes} for name, file in made.files.items()}
    return {"sha256": artifact.digest, "vconv": made.vconv, "files": files}
