"""The part of a report on a folder of images: see :mod:`vconv.validators.report.dataset`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import model_validator

from vconv.types import Status
from vconv.validators.report.model import Figure, FrozenMapping, ReportPart

LISTED = 1_000
"""The greatest number of skipped images that a report lists."""


class DatasetOutput(ReportPart):
    """The results of one output of a variant on all images.

    ``compared`` is the number of images that could be compared. ``beyond`` is the number of images beyond the
    limit, or None without a limit. Each metric has percentiles over the images: ``p0`` is the least value,
    ``p100`` the greatest.
    """

    compared: int
    cosine: FrozenMapping[Figure]
    relative_error: FrozenMapping[Figure]
    vector_relative_error: FrozenMapping[Figure]
    limit: Figure
    beyond: int | None


class Neighbours(ReportPart):
    """The share of the ``k`` nearest neighbours of each image that the reference finds too."""

    k: int
    agreement: Figure


class DatasetRow(ReportPart):
    """The results of one variant on all images. ``top1_agreement`` is None without a classifier."""

    variant: str
    engine: str
    device: str
    precision: str
    arithmetic: str
    simulated: bool
    status: Status
    reason: str
    outputs: FrozenMapping[DatasetOutput]
    top1_agreement: Figure
    neighbours: Neighbours


class SharedNeighbours(ReportPart):
    """The share of nearest neighbours that two variants have in common."""

    first: str
    second: str
    simulated: bool
    agreement: Figure


class WorstImage(ReportPart):
    """An image with one of the greatest shares of a limit, and the variant and output with this share."""

    image: str
    variant: str
    engine: str
    device: str
    simulated: bool
    output: str
    cosine: Figure
    relative_error: Figure
    vector_relative_error: Figure
    share_of_limit: Figure
    thumbnail: str | None


class SkippedImage(ReportPart):
    """An image that was not judged, and why."""

    image: str
    reason: str


class DatasetReport(ReportPart):
    """The results on a folder of images.

    ``k`` neighbours of each image were found by the output ``neighbours_of``. ``agreement_by_chance`` is the
    share of neighbours that two unrelated variants would have in common. Of ``skipped_count`` images that
    were skipped, ``skipped`` has the first :data:`LISTED`, and fewer if their names are very long.
    """

    folder: str
    images: int
    k: int
    neighbours_of: str
    agreement_by_chance: Figure
    variants: tuple[DatasetRow, ...]
    neighbours_between: tuple[SharedNeighbours, ...]
    worst: tuple[WorstImage, ...]
    skipped: tuple[SkippedImage, ...]
    skipped_count: int
    other_files: int
    resumed: bool
    seconds: float

    @model_validator(mode="before")
    @classmethod
    def _count(cls, content: Any) -> Any:
        """Count the skipped images of a report that has no count: it lists them all."""
        if isinstance(content, Mapping) and isinstance(content.get("skipped"), Sequence):
            return {"skipped_count": len(content["skipped"]), **content}
        return content
