"""The part of a card that says how graphs in reduced precision were planned."""

from __future__ import annotations

from vconv.artifact.manifest import Manifest
from vconv.artifact.reduction_records import ReductionRecord
from vconv.convert.ascend import operators as cann
from vconv.precisions import type_of
from vconv.validators.report.card.markdown import code, table
from vconv.validators.report.card.words import Words

_COLUMNS = ("folder", "low_type", "low_share", "chosen", "planned_on")
_LOSSES = ("cosine", "neighbours", "top1")


def plans(made: Manifest, words: Words) -> str:
    """Lay out how each reduced precision was planned, once for each weights file; empty if there is none."""
    found: dict[str | None, tuple[str, str, ReductionRecord]] = {}
    for one in made.variants:
        if one.reduction:
            found.setdefault(one.weights, (one.path.rpartition("/")[0], one.precision, one.reduction))
    losses = [
        key for key in _LOSSES if any(getattr(of.losses, key, None) is not None for *_, of in found.values())
    ]
    rows = [
        [
            code(f"{folder}/"),
            code(type_of(precision).lower() or precision),
            f"{of.share:.1%}",
            _chosen(of, words),
            _images(of, words),
            *(_lost(of, key) for key in losses),
        ]
        for folder, precision, of in found.values()
    ]
    headings = [words.say("headings", key) for key in (*_COLUMNS, *(f"lost_{key}" for key in losses))]
    return table(headings, rows, len(losses))


def have_losses(made: Manifest) -> bool:
    """Return whether a plan says what was lost on its images."""
    return any(one.reduction and one.reduction.losses for one in made.variants)


def on_photographs(made: Manifest) -> int:
    """Return the number of photographs on which plans were made; 0 if there were none."""
    found = [one.reduction for one in made.variants if one.reduction]
    return max((of.images for of in found if not of.made_up), default=0)


def of_operators_that_cann_does_not_list(made: Manifest, words: Words) -> str:
    """List the graphs for an NPU with operators that CANN does not list; empty if there are none."""
    found = [
        code(one.path)
        for one in made.variants
        if one.reduction and one.batch and one.graph and one.graph.operators.keys() - cann.SUPPORTED
    ]
    return words.say("marks", "and").join(found)


def _chosen(of: ReductionRecord, words: Words) -> str:
    counts = {"kept": len(of.kept), "quantised": len(of.quantised)}
    found = [words.say("planned", key).format(count=count) for key, count in counts.items() if count]
    return words.say("marks", "and").join(found) or "-"


def _images(of: ReductionRecord, words: Words) -> str:
    if not of.images:
        return words.say("planned", "without")
    return words.say("planned", "made_up" if of.made_up else "photographs").format(count=of.images)


def _lost(of: ReductionRecord, key: str) -> str:
    lost = getattr(of.losses, key, None)
    return "-" if lost is None else f"{lost:.2g}"
