"""The records of a manifest that say how a graph in reduced precision was planned."""

from __future__ import annotations

from pydantic import Field

from vconv.artifact.record import Count, Record, Share


class RangeRecord(Record):
    """The range that a quantised graph represents by the numbers 0 to 255: see docs/precisions.md."""

    least: float = Field(le=0, allow_inf_nan=False)
    greatest: float = Field(ge=0, allow_inf_nan=False)


class LossesRecord(Record):
    """What is lost on the calibration images: see :mod:`vconv.validators.accuracy.losses`."""

    cosine: float
    neighbours: Share | None
    top1: Share | None


class ReductionRecord(Record):
    """How a graph in reduced precision was planned.

    ``kept`` are the nodes that the plan keeps in float32, beside those that every such graph keeps.
    ``quantised`` has the range of what is multiplied by each quantised weight; None if each run finds it.
    ``images`` is the number of calibration images; 0 if no plan was needed. ``made_up`` says whether they
    were made up, and not photographs. ``share`` is the share of the multiply-adds in low precision.
    ``max_drop`` is the greatest loss that was asked for, and ``losses`` are those on the calibration images.
    """

    kept: tuple[str, ...] = ()
    quantised: dict[str, RangeRecord | None] = Field(default_factory=dict)
    images: Count = 0
    made_up: bool = False
    share: Share
    max_drop: Share | None = None
    losses: LossesRecord | None = None
