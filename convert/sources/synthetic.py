"""Weights from a seed: the true architecture, drawn by :mod:`vconv.convert.recipe`."""

from __future__ import annotations

import json
from pathlib import Path

from vconv.catalog import System
from vconv.convert import recipe, safetensors_file
from vconv.convert.layouts.table import find_layout, network
from vconv.convert.libraries.table import LIBRARIES
from vconv.convert.room import require_room
from vconv.convert.sources.base import SYNTHETIC, Origin, Source
from vconv.types import WEIGHTS_FILE, Config, Say

LICENCE = "none: synthetic weights"


def write_configurations(folder: Path, config: Config, preprocessor: Config) -> None:
    """Write the configuration files of a configuration's library."""
    files = LIBRARIES[find_layout(config).library].files
    for name, content in zip(files, (config, preprocessor), strict=False):
        (folder / name).write_text(json.dumps(dict(content), indent=2, sort_keys=True) + "\n")


def draw(system: System, seed: int, scratch: Path, say: Say) -> Source:
    """Draw the weights of a system into an empty folder.

    Args:
        system: the catalog row.
        seed: 0 or greater.
        scratch: the folder.
        say: takes progress.
    """
    say(f"drawing synthetic weights from seed {seed}")
    path, planned = scratch / WEIGHTS_FILE, list(recipe.planned(network(system.config), seed))
    require_room(scratch, sum(tensor.nbytes for tensor in planned))
    sha256 = safetensors_file.write(path, planned)
    write_configurations(scratch, system.config, system.preprocessor)
    return Source(
        origin=Origin(SYNTHETIC, str(seed)),
        folder=scratch,
        entries=safetensors_file.read_header(path),
        config=dict(system.config),
        preprocessor=dict(system.preprocessor),
        files={WEIGHTS_FILE: sha256},
        licence=LICENCE,
    )
