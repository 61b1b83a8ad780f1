"""Results drawn for a terminal. Nothing is computed here."""

from vconv.display.artifacts import carded, exported, filled, referred, systems
from vconv.display.described import artifact
from vconv.display.doctor import diagnosed
from vconv.display.faults import bisected, selftested
from vconv.display.judged import compared, validated

__all__ = [
    "artifact",
    "bisected",
    "carded",
    "compared",
    "diagnosed",
    "exported",
    "filled",
    "referred",
    "selftested",
    "systems",
    "validated",
]
