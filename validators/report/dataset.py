"""The results on a folder of images: percentiles, neighbours, classes, and the worst images."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vconv.progress import counted
from vconv.runtime.inputs.image_folder import ImageFolder, shown, thumbnail
from vconv.runtime.inputs.pictures import UnreadableError
from vconv.types import Array, Say, Status
from vconv.validators.accuracy import many_images, neighbours
from vconv.validators.accuracy.limits import Limit
from vconv.validators.report.dataset_document import (
    LISTED,
    DatasetOutput,
    DatasetReport,
    DatasetRow,
    Neighbours,
    SharedNeighbours,
    SkippedImage,
    WorstImage,
)
from vconv.validators.report.journal import Journal
from vconv.validators.report.model import FrozenMapping, ReportPart
from vconv.validators.validation import Candidate

WORK_PREFIX = ".dataset-"
"""Prefix of the folder that an unfinished run leaves under ``reports/``."""
IMAGE, REFERENCE = "image", "features-reference"
"""Names in the journal: the index of each row's image in the folder, and the reference's features."""
WORST = 10
"""Number of images that are shown."""
_LISTED_CHARACTERS = 200_000
"""The greatest length of all names and reasons that a report lists; one name may have 4,096 characters."""


class FailedImages(ReportPart):
    """How many images of a step were beyond a variant's limit; ``first`` is an image's index, and why."""

    count: int
    first: tuple[int, str]


class StepNote(ReportPart):
    """What the journal keeps of a step, beside its rows.

    ``content`` is the hash of the images, ``skipped`` has the index of each image that was not judged, and
    why; ``failed`` has the variants, by the name of their figures, with images beyond their limit.
    """

    content: str
    skipped: tuple[tuple[int, str], ...]
    failed: FrozenMapping[FailedImages]


@dataclass(frozen=True)
class DatasetVariant:
    """One variant that is run on all images.

    Args:
        place: its index among the variants.
        candidate: the variant.
        limit: the limit for every image; None if the variant is measured but not judged.
    """

    place: int
    candidate: Candidate
    limit: Limit | None

    @property
    def name(self) -> str:
        """Its name, engine and device, with *simulated* if the device is simulated."""
        device = self.candidate.device
        simulated = ", simulated" * device.simulated
        return f"{self.candidate.variant} ({self.candidate.engine}, {device.name}{simulated})"

    @property
    def features(self) -> str:
        """The name of its features in the journal."""
        return f"features-{self.place}"

    @property
    def figures(self) -> str:
        """The name of its figures in the journal."""
        return f"figures-{self.place}"


def document(
    journal: Journal,
    lanes: Sequence[DatasetVariant],
    outputs: Sequence[str],
    feature: str,
    images: ImageFolder,
    say: Say,
    *,
    resumed: bool,
    started: float,
) -> DatasetReport:
    """Summarise a complete journal; a variant that failed on any image has failed.

    Args:
        journal: the journal of all images.
        lanes: the variants.
        outputs: the names of the compared outputs.
        feature: the output by which neighbours are found.
        images: the folder.
        say: receives progress lines.
        resumed: whether an earlier run has done a part of the images.
        started: the start of this run, by :func:`time.perf_counter`.
    """
    reference, near = _neighbours(journal, lanes, say)
    skipped, skipped_count = _listed(_skipped(journal, images))
    rows = []
    for lane, found in zip(lanes, near, strict=True):
        agreement = neighbours.shared_neighbours(reference, found)
        rows.append(
            _variant(journal, lane, outputs, images, Neighbours(k=found.shape[1], agreement=agreement))
        )
    count = journal.rows
    k = neighbours.how_many(count)
    return DatasetReport(
        folder=shown(str(images.path)),
        images=count,
        k=k,
        neighbours_of=feature,
        agreement_by_chance=k / (count - 1) if k else None,
        variants=tuple(rows),
        neighbours_between=tuple(_between(lanes, near)),
        worst=tuple(_worst(journal, lanes, outputs, images)),
        skipped=skipped,
        skipped_count=skipped_count,
        other_files=len(images.others),
        resumed=resumed,
        seconds=time.perf_counter() - started,
    )


def _variant(
    journal: Journal,
    lane: DatasetVariant,
    outputs: Sequence[str],
    images: ImageFolder,
    near: Neighbours,
) -> DatasetRow:
    candidate = lane.candidate
    figures = journal.array(lane.figures)
    failure = _failure(journal, lane, images)
    status = Status.PASSED if lane.limit else Status.SKIPPED
    summary = many_images.summary(figures, outputs, lane.limit)
    return DatasetRow(
        variant=candidate.variant,
        engine=candidate.engine,
        device=candidate.device.name,
        precision=candidate.precision,
        arithmetic=candidate.pair[1],
        simulated=candidate.device.simulated,
        status=Status.FAILED if failure else status,
        reason=failure or candidate.unjudged,
        outputs={name: DatasetOutput.model_validate(found) for name, found in summary.items()},
        top1_agreement=many_images.top1_agreement(figures, outputs),
        neighbours=near,
    )


def _failure(journal: Journal, lane: DatasetVariant, images: ImageFolder) -> str:
    """Return why a variant failed: the number of images beyond the limit, and the first; empty if none."""
    notes = [note["failed"][lane.figures] for note in journal.notes() if lane.figures in note["failed"]]
    if not notes:
        return ""
    beyond, (index, reason) = sum(note["count"] for note in notes), notes[0]["first"]
    name = shown(images.names[index])
    return (
        f"{beyond} of {journal.rows} images of the data set are beyond the limit, the first {name}: {reason}"
    )


def _neighbours(journal: Journal, lanes: Sequence[DatasetVariant], say: Say) -> tuple[Array, list[Array]]:
    """Find the neighbours of every image by the reference's features, and by the features of each variant."""
    found: list[Array] = []
    names = (REFERENCE, *(lane.features for lane in lanes))
    say("finding the nearest neighbours of every image")
    for name in counted(names, len(names), "nearest neighbours", say):
        near = journal.scratch(f"near-{name}", "<i8", (journal.rows, neighbours.how_many(journal.rows)))
        neighbours.nearest(journal.array(name), near)
        found.append(near)
    return found[0], found[1:]


def _between(lanes: Sequence[DatasetVariant], near: Sequence[Array]) -> Iterator[SharedNeighbours]:
    for (first, one), (second, other) in itertools.combinations(zip(lanes, near, strict=True), 2):
        yield SharedNeighbours(
            first=first.name,
            second=second.name,
            simulated=first.candidate.device.simulated or second.candidate.device.simulated,
            agreement=neighbours.shared_neighbours(one, other),
        )


def _worst(
    journal: Journal, lanes: Sequence[DatasetVariant], outputs: Sequence[str], images: ImageFolder
) -> Iterator[WorstImage]:
    """Yield the images with the greatest share of a limit, each with its worst variant and output."""
    judged = [lane for lane in lanes if lane.limit]
    shares = np.full((journal.rows), -1.0)
    worst_lane, worst_output = np.zeros((2, journal.rows), np.int64)
    for place, lane in enumerate(judged):
        share, output = many_images.worst_of(journal.array(lane.figures))
        worse = share > shares
        shares[worse], worst_lane[worse], worst_output[worse] = share[worse], place, output[worse]
    for row in np.argsort(-shares, kind="stable")[:WORST] if judged else ():
        lane, output = judged[worst_lane[row]], worst_output[row]
        index = int(journal.array(IMAGE)[row])
        figures = dict(zip(many_images.COLUMNS, journal.array(lane.figures)[row, output], strict=True))
        yield WorstImage(
            image=shown(images.names[index]),
            variant=lane.candidate.variant,
            engine=lane.candidate.engine,
            device=lane.candidate.device.name,
            simulated=lane.candidate.device.simulated,
            output=outputs[output],
            **{name: float(figures[name]) for name in (*many_images.PERCENTILES, many_images.SHARE)},
            thumbnail=_thumbnail(images, index),
        )


def _thumbnail(images: ImageFolder, index: int) -> str | None:
    try:
        return thumbnail(images.open(index))
    except UnreadableError:
        return None  # the image was readable when it was judged


def _skipped(journal: Journal, images: ImageFolder) -> Iterator[SkippedImage]:
    for name, reason in images.closed.items():
        yield SkippedImage(image=shown(name) or ".", reason=reason)
    for note in journal.notes():
        for index, reason in note["skipped"]:
            yield SkippedImage(image=shown(images.names[index]), reason=reason)


def _listed(skipped: Iterable[SkippedImage]) -> tuple[tuple[SkippedImage, ...], int]:
    """Return the first of the skipped images, which a report has room for, and how many there are."""
    listed, count, room = [], 0, _LISTED_CHARACTERS
    for count, one in enumerate(skipped, start=1):
        room -= len(one.image) + len(one.reason)
        if count <= LISTED and room >= 0:
            listed.append(one)
    return tuple(listed), count
