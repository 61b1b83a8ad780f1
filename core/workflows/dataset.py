"""Agreement over a folder of images: every variant is compared with the reference on every image."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vconv.artifact import results
from vconv.artifact.manifest import Manifest
from vconv.convert.sources.base import Source
from vconv.errors import EngineError, InputError
from vconv.hashes import sha256_of
from vconv.progress import counted
from vconv.runtime.engines.base import Session, in_batches
from vconv.runtime.inputs.image_folder import ImageFolder, shown
from vconv.runtime.inputs.preprocessing import Processor, load_processor
from vconv.types import MANIFEST_FILE, Array, Arrays, Say, Status
from vconv.validators.accuracy import golden, many_images
from vconv.validators.accuracy.golden import AT_ONCE
from vconv.validators.accuracy.limits import UNLIMITED, Limit
from vconv.validators.report import saving
from vconv.validators.report.dataset import IMAGE, REFERENCE, WORK_PREFIX, DatasetVariant, StepNote, document
from vconv.validators.report.dataset_document import DatasetReport
from vconv.validators.report.journal import Journal, JournalTable, open_journal
from vconv.validators.report.rows import VariantRow
from vconv.validators.validation import Candidate
from vconv.workflows.checks import CheckedArtifact
from vconv.workflows.sample_images import require_size

FEATURES = ("pooled", "cls")
"""The outputs that are one vector an image: the first that a network has is compared from image to image."""
_LEFT_OUT = ("artifact", "original")
"""Fields of a variant's request that hold paths: they do not change the figures."""
_Refer = Callable[[Array], dict[str, Array]]


@dataclass(frozen=True)
class Agreed:
    """The result of a comparison over a folder of images.

    Args:
        document: the data-set section of the report.
        rows: the report's rows, one per variant; a variant that failed on an image has failed.
        work: the working folder; it is not needed after the report is saved.
    """

    document: DatasetReport
    rows: tuple[VariantRow, ...]
    work: Path


def require_original(source: Source | None) -> Source:
    """Check that the original's weights are available, to run the reference on new images.

    Raises:
        InputError: the original's weights are not available.
    """
    if source is None:
        raise InputError(
            "cannot judge on a data set",
            got="no weights of the original",
            expected="the original, to run it on every image",
            fix="give --weights, or leave --dataset out to use the recorded inputs",
        )
    return source


def agree(
    found: CheckedArtifact,
    candidates: Sequence[Candidate],
    rows: Sequence[VariantRow],
    images: ImageFolder,
    say: Say,
) -> Agreed:
    """Run the reference and every variant that ran without error on a folder of images, in small steps.

    Finished steps are kept under the artifact's ``reports/`` until the report is saved. After a kill, the
    same call resumes at the first unfinished step and gives the same figures. A variant with an image beyond
    its limit has failed, and its row says so.

    Args:
        found: the checked artifact, with the original's weights.
        candidates: the artifact's variants.
        rows: the result of each variant so far, with the limit by which the variant is judged.
        images: the folder.
        say: receives progress lines.

    Raises:
        InputError: the original's weights are not available, or no image could be judged.
        ArtifactError: another process works on the same comparison, or the disk is full.
    """
    start = time.perf_counter()
    source = require_original(found.source)
    run = {
        place: (candidate, row)
        for place, (candidate, row) in enumerate(zip(candidates, rows, strict=True))
        if row.outputs and (candidate.unjudged or row.judged)
    }
    lanes = [
        DatasetVariant(number, candidate, Limit(row.limit.bounds, row.limit.source) if row.limit else None)
        for number, (candidate, row) in enumerate(run.values())
    ]
    assert found.reference is not None
    outputs = list(found.reference.outputs)
    key = _key(found, source, lanes, images)
    reports = results.reports_folder(found.artifact.folder)
    work = reports / f"{WORK_PREFIX}{key}"
    feature = next((name for name in FEATURES if name in outputs), "")
    if not feature:
        raise InputError(
            "there is no output to compare a data set by",
            got=", ".join(outputs),
            expected=" or ".join(FEATURES),
            fix=f"export the plain model, with {FEATURES[1]} among its outputs",
        )
    features = JournalTable("<f4", found.reference.outputs[feature].shape[1:])
    figures = JournalTable("<f8", (len(outputs), len(many_images.COLUMNS)))
    tables = {IMAGE: JournalTable("<i8"), REFERENCE: features}
    tables |= {lane.features: features for lane in lanes} | {lane.figures: figures for lane in lanes}
    with open_journal(work, tables, StepNote) as journal:
        total = len(images.names)
        journal.keep(_unchanged(journal, images))
        done = min(journal.steps * AT_ONCE, total)
        if done:
            say(f"resuming at image {done:,} of {total:,}")
        for other in sorted(reports.glob(f"{WORK_PREFIX}*")):
            if other != work:
                say(f"{other} is of an unfinished run over other images or variants: resume it, or delete it")
        if done < total:
            _Stream(found, source, lanes, images, journal, feature).go(done, say)
        if not journal.rows:
            raise _nothing_read(journal, images)
        result = document(journal, lanes, outputs, feature, images, say, resumed=done > 0, started=start)
    failed = {
        place: {"status": one.status, "reason": one.reason}
        for place, one in zip(run, result.variants, strict=True)
        if one.status is Status.FAILED
    }
    judged = (row.model_copy(update=failed.get(place, {})) for place, row in enumerate(rows))
    return Agreed(result, tuple(judged), work)


def _nothing_read(journal: Journal, images: ImageFolder) -> InputError:
    index, reason = next(note["skipped"][0] for note in journal.notes())
    return InputError(
        f"no image in {images.path} could be judged",
        got=f"{shown(images.names[index])}: {reason}",
        expected="images that the artifact's image processor takes",
        fix="name a folder that holds some",
    )


def _key(found: CheckedArtifact, source: Source, lanes: Sequence[DatasetVariant], images: ImageFolder) -> str:
    """Return a short digest of everything that the figures depend on, except the contents of the images."""
    # The manifest has the hashes of all other files, and files with another hash were refused.
    folder = found.artifact.folder
    files = [MANIFEST_FILE, *(variant.path for variant in found.artifact.manifest.made_later)]
    present = [folder / name for name in files if (folder / name).is_file()]
    names = "\0".join(images.names).encode("utf-8", "surrogateescape")
    origin = [source.origin.label, dict(source.files), source.configuration_sha256, source.pool]
    text = json.dumps(
        {
            "artifact": [sha256_of(path) for path in present],
            "images": hashlib.sha256(names).hexdigest(),
            "original": [
                *origin,
                source.periods,
                source.positions,
                found.reference.name if found.reference else "",
            ],
            "variants": [_described(lane) for lane in lanes],
            "environment": saving.environment(),
            "threads": [torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS", "")],
            "columns": many_images.COLUMNS,
            "at once": AT_ONCE,
        },
        sort_keys=True,
        default=str,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _described(lane: DatasetVariant) -> dict[str, Any]:
    candidate = lane.candidate
    subject = {name: value for name, value in asdict(candidate.subject).items() if name not in _LEFT_OUT}
    device = candidate.device
    return {
        **subject,
        "name": candidate.variant,
        "run by": candidate.engine,
        "unjudged": candidate.unjudged,
        "device": [device.name, device.model, dict(device.options), asdict(device.settings)],
        "simulates": device.simulates,
        "bounds": dict(lane.limit.bounds) if lane.limit else None,
    }


def _unchanged(journal: Journal, images: ImageFolder) -> int:
    """Return how many of the journal's first steps used images that are unchanged since then."""
    total = len(images.names)
    if not np.isin(journal.array(IMAGE), np.arange(total)).all():
        return 0
    for step, note in enumerate(journal.notes()):
        own = _step(step, total)
        named = [index for index, _ in note["skipped"]]
        named += [found["first"][0] for found in note["failed"].values()]
        if note["content"] != _content(map(images.digest, own)) or not {*named} <= {*own}:
            return step
    return journal.steps


def _step(step: int, total: int) -> range:
    return range(step * AT_ONCE, min((step + 1) * AT_ONCE, total))


def _content(digests: Iterator[str]) -> str:
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


class _Stream:
    """Runs images through the reference and all variants; no image stays in memory."""

    def __init__(
        self,
        found: CheckedArtifact,
        source: Source,
        lanes: Sequence[DatasetVariant],
        images: ImageFolder,
        journal: Journal,
        feature: str,
    ) -> None:
        self._made: Manifest = found.artifact.manifest
        self._folder, self._source, self._lanes = found.artifact.folder, source, lanes
        self._images, self._journal, self._feature = images, journal, feature

    def go(self, done: int, say: Say) -> None:
        """Run all images from index ``done`` on."""
        total = len(self._images.names)
        with ExitStack() as closing:
            process = load_processor(self._folder)
            refer = closing.enter_context(golden.running(self._source))
            sessions = [closing.enter_context(lane.candidate.open()) for lane in self._lanes]
            for index in counted(range(done, total), total, "images", say, done):
                if index + 1 == total or (index + 1) % AT_ONCE == 0:
                    self._take(_step(index // AT_ONCE, total), process, refer, sessions)

    def _take(self, step: range, process: Processor, refer: _Refer, sessions: Sequence[Session]) -> None:
        """Run one step of images, and add its results to the journal."""
        read, pixels, digests, skipped = [], [], [], []
        for index in step:
            image, digest = self._images.read(index)
            digests.append(digest)
            found = image if isinstance(image, str) else self._pixels(process, image)
            if isinstance(found, str):
                skipped.append([index, found])
            else:
                read.append(index)
                pixels.append(found)
        note: dict[str, Any] = {"content": _content(iter(digests)), "skipped": skipped, "failed": {}}
        rows: dict[str, Array] = {
            name: np.empty((0, *table.shape), table.dtype) for name, table in self._journal.tables.items()
        }
        if read:
            batch = np.concatenate(pixels)
            expected = refer(batch)
            rows = {IMAGE: np.array(read), REFERENCE: expected[self._feature]}
            for lane, session in zip(self._lanes, sessions, strict=True):
                rows[lane.features], rows[lane.figures], reasons = self._judged(
                    lane, session, batch, expected
                )
                failed = [(index, reason) for index, reason in zip(read, reasons, strict=True) if reason]
                if failed:
                    note["failed"][lane.figures] = {"count": len(failed), "first": failed[0]}
        self._journal.append(rows, note)

    def _pixels(self, process: Processor, image: Any) -> Array | str:
        """Preprocess one image; return the reason if the image processor refuses it or makes another size."""
        try:
            pixel_values = process([image])
            require_size(pixel_values, self._made.size)
        except InputError as error:
            return f"{error.what}: {error.got}"
        return pixel_values

    def _judged(
        self, lane: DatasetVariant, session: Session, batch: Array, expected: Arrays
    ) -> tuple[Array, Array, list[str]]:
        """Return a variant's features, its figures and, if it is judged, the reason why each image failed."""
        missing = np.full_like(expected[self._feature], np.nan)
        try:
            actual = in_batches(session.run, batch, session.batch or len(batch))
        except EngineError as error:
            figures = many_images.refused_images(len(batch), len(expected))
            return missing, figures, [str(error) if lane.limit else ""] * len(batch)
        figures, failed = many_images.judge_images(actual, expected, lane.limit or UNLIMITED)
        features = actual.get(self._feature, missing)
        features = features if features.shape == missing.shape else missing
        return features, figures, [reasons[0] if reasons and lane.limit else "" for reasons in failed]
