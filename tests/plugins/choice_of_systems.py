"""Which systems a test meets, and what only `make test-full` runs."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CARRIERS = ("dinov3-vits16", "vit_small_patch14_reg4_dinov2.lvd142m")
"""The systems of what does not depend on the system: one of each library, one with RoPE and one with a
learned position embedding, one pooled by its head and one by its class token; both have registers."""
EVERY_SYSTEM = (
    "convert",
    "core/catalog",
    "core/workflows/test_page_data.py",
    "runtime/devices/test_npu_gelu.py",
    "runtime/engines/test_precisions.py",
    "runtime/engines/test_variants.py",
    "runtime/inputs/test_preprocessing.py",
    "runtime/simulation",
    "runtime/stages",
    "runtime/timing/test_launches.py",
    "validators/accuracy",
    "validators/bisect",
    "validators/checks/test_graphs.py",
    "validators/checks/test_preprocessing.py",
    "validators/faults",
    "validators/report/card",
    "validators/test_validation.py",
)
"""Folders and files of tests that depend on the system: on its layout, patches, graphs or preprocessing."""
FULL_SIZED = "dinov3-vits16"
"""The system that every run takes through the whole way in full size."""


@pytest.fixture(scope="session", autouse=True)
def _places() -> None:
    assert [place for place in EVERY_SYSTEM if not (TESTS / place).exists()] == [], "EVERY_SYSTEM: moved?"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what only `make test-full` runs, and begin with what takes longest.

    A test that takes the fixture `system` runs with :data:`CARRIERS`; with every system where it, its file or
    its folder (in :data:`EVERY_SYSTEM`) is marked `every_system`, or where it names its systems itself.
    """
    for item in items:
        if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
            continue
        named = item.callspec.params.get("system")
        in_full = "export_in_full" in item.fixturenames or "in full" in item.callspec.params.values()
        narrow = (FULL_SIZED,) if in_full else CARRIERS
        if isinstance(named, str) and named not in narrow and (in_full or not _meets_every_system(item)):
            item.add_marker(pytest.mark.full)
    items.sort(key=lambda item: "export_in_full" not in getattr(item, "fixturenames", ()))


def _meets_every_system(item: pytest.Function) -> bool:
    place = item.path.relative_to(TESTS).as_posix()
    if item.get_closest_marker("every_system") or place.startswith(EVERY_SYSTEM):
        return True
    chosen = (marker.args[0] for marker in item.iter_markers("parametrize"))
    return any("system" in (names.split(",") if isinstance(names, str) else names) for names in chosen)
