"""What the tests of the sources share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vconv.convert.sources.base import Source


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """An empty folder for what a source writes."""
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.fixture
def given(small_source: Source, tmp_path: Path) -> Path:
    """A folder as a user would bring it, with a configuration."""
    folder = tmp_path / "given"
    folder.mkdir()
    for name in ("model.safetensors", *small_source.library.files):
        shutil.copy(small_source.folder / name, folder / name)
    return folder
