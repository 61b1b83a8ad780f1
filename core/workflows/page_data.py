"""What a validation looks at for its page, beside judging: pictures, and the error after each block."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from vconv.artifact.manifest import Manifest, digest
from vconv.convert.architectures.base import Capability
from vconv.runtime.devices.base import Device
from vconv.runtime.engines.variants import patched_network
from vconv.runtime.inputs.preprocessing import denormalised
from vconv.runtime.stages.table import SIMULATED
from vconv.runtime.stages.torch_model import TorchStages
from vconv.types import CHANNELS, Say
from vconv.validators.bisect.depth import NO_ORIGINAL, QUICK, Depths
from vconv.validators.report.page.gallery import SHOWN, Gallery
from vconv.workflows.bisected_variant import open_reference
from vconv.workflows.checks import CheckedArtifact


def gallery(found: CheckedArtifact) -> Gallery:
    """Hang up the images that are judged on, with the reference's maps of them; none without a reference."""
    height, width = found.made.size
    if found.reference is None:
        return Gallery.of((), np.zeros((0, height, width, CHANNELS), np.uint8), {}, (0, 0))
    network = patched_network(found.folder)
    photographs = denormalised(found.folder, found.reference.pixel_values[:SHOWN])
    lack, patch = network.lack(Capability.TOKEN_GRID), network.numbers.patch
    if lack:
        return Gallery.of((), photographs, {}, (0, 0), lack)
    grid = height // patch, width // patch
    return Gallery.of(found.inputs["images"], photographs, found.reference.outputs, grid)


def depths(found: CheckedArtifact, quick: bool, places: Sequence[Device], say: Say) -> Depths:
    """Run the reference stage by stage, where it is here and there is time for it.

    Args:
        found: what was found in an artifact.
        quick: whether a glance is enough.
        places: the devices that variants are run on.
        say: takes progress.
    """
    if quick or found.reference is None or found.source is None:
        return Depths(reason=QUICK if quick else NO_ORIGINAL)
    if all(place.simulated for place in places):
        return Depths(reason=SIMULATED)
    lack = found.source.network.lack(Capability.BLOCKS)
    if lack:
        return Depths(reason=lack)
    say("running the reference stage by stage")
    with ExitStack() as closing:
        _, session = open_reference(found.folder, found.made, found.source)
        stages = TorchStages(closing.enter_context(session), plain=False)
        return Depths.of(stages, found.reference.pixel_values)


def identity(folder: Path, made: Manifest) -> dict[str, Any]:
    """Tell by which hashes an artifact is known, as its manifest has them."""
    files = {name: {"sha256": file.sha256, "nbytes": file.nbytes} for name, file in made.files.items()}
    return {"sha256": digest(folder), "vconv": made.vconv, "files": files}
