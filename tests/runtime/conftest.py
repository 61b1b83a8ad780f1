"""Small artifacts to run: every system, shrunk, exported once a session."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vconv.catalog import System
from vconv.runtime.images import natural_images
from vconv.runtime.preprocessing import preprocess
from vconv.types import Array


@pytest.fixture
def pixel_values(small_artifact: Path) -> Array:
    """Five images for :func:`small_artifact`, float32 (5, 3, 64, 64)."""
    return preprocess(small_artifact, natural_images(5, 3))


@pytest.fixture
def processor_folder(system: System, tmp_path: Path) -> Path:
    """A folder that holds a system's ``preprocessor_config.json`` and nothing else."""
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(dict(system.preprocessor)))
    return tmp_path
