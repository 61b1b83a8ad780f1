"""Garbage is collected seldom: a full collection searches all that torch and transformers have loaded."""

from __future__ import annotations

import gc


def pytest_collection_finish() -> None:
    """Leave out what is loaded by now: with Python's own thresholds, a fifth of the time goes there."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
