"""Draws results for a terminal. This package computes no results."""

from vconv.cli.render.artifacts import carded, exported, filled, referred, systems, written_page
from vconv.cli.render.doctor import diagnosed
from vconv.cli.render.faults import bisected, selftested
from vconv.cli.render.info import artifact
from vconv.cli.render.msprobe import dumped
from vconv.cli.render.validation import compared, validated

__all__ = [
    "artifact",
    "bisected",
    "carded",
    "compared",
    "diagnosed",
    "dumped",
    "exported",
    "filled",
    "referred",
    "selftested",
    "systems",
    "validated",
    "written_page",
]
