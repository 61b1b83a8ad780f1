"""Weights from a seed: the true architecture, drawn by :mod:`vconv.convert.sources.recipes`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vconv.catalog.systems import System
from vconv.convert.files import safetensors_file
from vconv.convert.libraries.readers import network
from vconv.convert.libraries.table import library_of
from vconv.convert.network import Network
from vconv.convert.sources import module_recipe
from vconv.convert.sources.base import SYNTHETIC, Origin, Source, write_configurations
from vconv.convert.sources.class_names import published_config
from vconv.convert.sources.recipes.table import RECIPES
from vconv.disk import require_space
from vconv.types import PREPROCESSOR_FILE, WEIGHTS_FILE, Config, Say

LICENCE = "none: synthetic weights"
_PROCESSOR: Config = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
"""The image processor of synthetic weights that come without one. Trained weights need their own."""


def draw(system: System, seed: int, recipe: int, scratch: Path, say: Say) -> Source:
    """Draw the weights of a system into an empty folder.

    Args:
        system: the catalog row.
        seed: 0 or greater.
        recipe: the version of the recipe.
        scratch: the folder.
        say: receives progress lines.
    """
    say(f"drawing synthetic weights from seed {seed}")
    net = network(system.config)
    observed = net.observed is not None
    drawn = module_recipe.planned(net, seed, recipe) if observed else RECIPES[recipe].planned(net, seed)
    path, planned = scratch / WEIGHTS_FILE, list(drawn)
    require_space(scratch, sum(tensor.nbytes for tensor in planned))
    sha256 = safetensors_file.write(path, planned, say)
    config, preprocessor = published_config(system), _preprocessor(system, net, say)
    write_configurations(scratch, config, preprocessor)
    return Source(
        origin=Origin(SYNTHETIC, str(seed), recipe=recipe),
        folder=scratch,
        entries=safetensors_file.read_header(path),
        config=config,
        preprocessor=preprocessor,
        files={WEIGHTS_FILE: sha256},
        licence=LICENCE,
    )


def _preprocessor(system: System, network: Network, say: Say) -> dict[str, Any]:
    """Return the configuration of a system's image processor, or a plain one at the size of its network."""
    library = library_of(network)
    if system.preprocessor or PREPROCESSOR_FILE not in library.files:
        return dict(system.preprocessor)
    _, height, width = library.beyond.images(network.config)
    say(f"no {PREPROCESSOR_FILE}: synthetic weights get images of {height}x{width}, normalised as ImageNet's")
    return {**_PROCESSOR, "size": {"height": height, "width": width}}
