"""Small artifacts to run: every system, shrunk, exported once a session."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vconv import catalog, manifest, workflows
from vconv.catalog import System
from vconv.manifest import Manifest
from vconv.runtime.images import natural_images
from vconv.runtime.preprocessing import preprocess
from vconv.types import Array


@pytest.fixture
def small_artifact(
    small_system: System, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The artifact of every shrunk system, its static graph of batch 2; it is shared: do not change it."""
    monkeypatch.setattr(catalog, "SYSTEMS", {small_system.name: small_system})
    path = tmp_path_factory.getbasetemp() / "small" / small_system.name
    if not path.exists():
        workflows.export(small_system.name, "synthetic:1", path, batch=2)
    return path


@pytest.fixture
def made(small_artifact: Path) -> Manifest:
    """The manifest of :func:`small_artifact`."""
    return manifest.load(small_artifact)


@pytest.fixture
def pixel_values(small_artifact: Path) -> Array:
    """Five images for :func:`small_artifact`, float32 (5, 3, 64, 64)."""
    return preprocess(small_artifact, natural_images(5, 3))


@pytest.fixture
def processor_folder(system: System, tmp_path: Path) -> Path:
    """A folder that holds a system's ``preprocessor_config.json`` and nothing else."""
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(dict(system.preprocessor)))
    return tmp_path
