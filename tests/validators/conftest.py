"""Small artifacts to look at and to break: every system, shrunk, exported once a session."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.base import Session
from vconv.runtime.processes.request import OpenRequest
from vconv.types import Array
from vconv.validators.accuracy.golden import Reference
from vconv.validators.report.page.gallery import Gallery
from vconv.validators.validation import Candidate


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Run the shrunk networks on one thread: waiting for a second costs more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


RECORDED = Path(__file__).parent / "report" / "recorded"
"""Reports of a miniature of dinov3-vits16, as `vconv validate` wrote them: measured, and simulated."""
IMAGES, GRID, WIDTH = 2, (3, 4), 8


@pytest.fixture
def measured() -> dict[str, Any]:
    """The report of a validation on the CPU."""
    return dict(json.loads((RECORDED / "measured.json").read_text()))


@pytest.fixture
def simulated() -> dict[str, Any]:
    """The report of a validation on the simulated NPU."""
    return dict(json.loads((RECORDED / "simulated.json").read_text()))


@pytest.fixture
def hang() -> Callable[[dict[str, Any]], Gallery]:
    """The function that makes a gallery for a report, each variant a little off the reference."""

    def gallery(report: dict[str, Any]) -> Gallery:
        chance = np.random.default_rng(5)
        expected = chance.standard_normal((IMAGES, GRID[0] * GRID[1], WIDTH)).astype(np.float32)
        photographs = chance.integers(0, 256, (IMAGES, 24, 32, 3), dtype=np.uint8)
        made = Gallery.of(report["inputs"]["images"], photographs, {"patches": expected}, GRID)
        for place, row in enumerate(report["variants"]):
            actual = expected * np.float32(1 + 1e-4 * (place + 1))
            found = made.look(stand_in(row), Unopened(), {"patches": actual})
            row["patch_maps"] = [one.as_json() for one in found.rows or ()]
            row["patch_maps_reason"] = found.reason
        return made

    return gallery


class Unopened(Session):
    """A session that nobody may run."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"), (1, 1))

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        raise AssertionError("it was run")

    def fetch(self, raw: Any) -> dict[str, Array]:
        raise AssertionError("it was run")


def stand_in(row: dict[str, Any]) -> Candidate:
    """Make the candidate of a report's row, as far as it goes by its names."""
    device = replace(find_device("cpu"), name=row["device"])
    subject = OpenRequest("a", row["variant"], row["engine"], "fp32", row["device"])
    reference = Reference("original", np.zeros((1, 3, 1, 1), np.float32), {}, {}, {})
    return Candidate("a", row["variant"], row["engine"], "fp32", device, reference, Unopened, subject)
