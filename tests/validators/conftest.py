"""Small artifacts to look at and to break: every system, shrunk, exported once a session."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def copied(small_artifact: Path, tmp_path: Path) -> Path:
    """A copy of :func:`small_artifact`, to be changed."""
    return shutil.copytree(small_artifact, tmp_path / "copied")
