"""Small artifacts to look at and to break: every system, shrunk, exported once a session."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vconv import catalog, manifest, workflows
from vconv.catalog import System
from vconv.manifest import Manifest


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
def copied(small_artifact: Path, tmp_path: Path) -> Path:
    """A copy of :func:`small_artifact`, to be changed."""
    return shutil.copytree(small_artifact, tmp_path / "copied")
