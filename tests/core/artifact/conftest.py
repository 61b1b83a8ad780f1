"""Manifests are alike in every size: those of shrunk systems are read here."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def artifact(small_artifact: Path) -> Path:
    """The artifact of a shrunk system; shared, and must not be changed."""
    return small_artifact
