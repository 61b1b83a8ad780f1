"""Weights from a seed: the true architecture, drawn by :mod:`vconv.convert.sources.recipe`."""

from __future__ import annotations

from pathlib import Path

from vconv.catalog.systems import System
from vconv.convert.architectures.base import Capability
from vconv.convert.files import safetensors_file
from vconv.convert.libraries.readers import network
from vconv.convert.sources import recipe
from vconv.convert.sources.base import SYNTHETIC, Origin, Source, write_configurations
from vconv.convert.sources.class_names import published_config
from vconv.disk import require_space
from vconv.errors import WeightsError
from vconv.types import WEIGHTS_FILE, Say

LICENCE = "none: synthetic weights"


def draw(system: System, seed: int, scratch: Path, say: Say) -> Source:
    """Draw the weights of a system into an empty folder.

    Args:
        system: the catalog row.
        seed: 0 or greater.
        scratch: the folder.
        say: receives progress lines.

    Raises:
        WeightsError: the roles of the network's tensors are not known.
    """
    say(f"drawing synthetic weights from seed {seed}")
    net = network(system.config)
    lack = net.lack(Capability.ROLES)
    if lack:
        raise WeightsError(
            f"synthetic weights of {system.name} cannot be drawn",
            got=lack,
            expected="a network of a declared architecture",
            fix="give trained weights with --weights",
        )
    path, planned = scratch / WEIGHTS_FILE, list(recipe.planned(net, seed))
    require_space(scratch, sum(tensor.nbytes for tensor in planned))
    sha256 = safetensors_file.write(path, planned, say)
    config = published_config(system)
    write_configurations(scratch, config, system.preprocessor)
    return Source(
        origin=Origin(SYNTHETIC, str(seed)),
        folder=scratch,
        entries=safetensors_file.read_header(path),
        config=config,
        preprocessor=dict(system.preprocessor),
        files={WEIGHTS_FILE: sha256},
        licence=LICENCE,
    )
