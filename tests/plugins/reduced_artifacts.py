"""A small artifact in every reduced precision, exported once a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vconv.catalog.systems import SYSTEMS, miniature
from vconv.precisions import AUTO, MIXED, REDUCED_PRECISIONS
from vconv.workflows import export as workflows


@pytest.fixture
def reduced_artifact(once: Callable[..., Path]) -> Path:
    """A miniature of dinov3-vits16 in every reduced precision; it must not be changed."""
    names = [AUTO if name == MIXED else name for name in REDUCED_PRECISIONS]
    system = miniature(SYSTEMS["dinov3-vits16"])
    return once(
        "reduced", lambda path: workflows.export(system, "synthetic:1", path, batch=2, precision=names)
    )
