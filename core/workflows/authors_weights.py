"""The weights for the authors' own code in an artifact: written, and compared with the original's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vconv.artifact.artifact import Artifact
from vconv.artifact.records import AuthorsRecord
from vconv.convert.files.safetensors_file import read_header
from vconv.convert.sources.authors import (
    AUTHORS_LEDGER,
    AUTHORS_WEIGHTS,
    HOME,
    ForAuthors,
    for_authors,
)
from vconv.convert.sources.base import Source
from vconv.convert.sources.table import refuse_losses
from vconv.convert.weights import ledger
from vconv.convert.weights.ledger import Line
from vconv.disk import require_space
from vconv.errors import InputError
from vconv.types import Check, Say, silent
from vconv.validators.checks.integrity import verify_ledger, verify_tensors


def wanted(layout: str | None, without_weights: bool) -> bool:
    """Return whether the requested layout is that of the authors.

    Raises:
        InputError: it is, and the artifact is to be made without weights.
    """
    if layout == HOME and without_weights:
        raise InputError(
            f"--without-weights is not used with --layout {HOME}",
            got="both",
            expected="one of them: fill makes only the artifact's own weights",
            fix="leave one of them out",
        )
    return layout == HOME


def planned(folder: Path, source: Source, keep_dtype: bool, allow_lossy: bool) -> ForAuthors:
    """Plan the file.

    Args:
        folder: the artifact.
        source: the source weights.
        keep_dtype: whether weights in float16 or bfloat16 are stored as they are.
        allow_lossy: whether the outputs of the authors' code may differ from the artifact's.

    Raises:
        ArtifactError: the disk has too little free space for it.
        InputError: the authors' layout of this network is not declared.
        WeightsError: the outputs would differ.
    """
    found = for_authors(source, folder / AUTHORS_WEIGHTS, keep_dtype)
    refuse_losses(found.losses, allow_lossy, "accept the loss with --allow-lossy")
    require_space(folder, found.plan.nbytes)
    return found


def written(
    plan: ForAuthors | None, folder: Path, say: Say = silent
) -> tuple[AuthorsRecord | None, list[Check]]:
    """Write the file and its ledger, and compare it with the source weights; do nothing without a plan."""
    if plan is None:
        return None, []
    say(f"{AUTHORS_WEIGHTS}: {len(plan.plan.entries)} tensors in the layout of {plan.family}")
    (folder / AUTHORS_WEIGHTS).parent.mkdir()
    lines, _ = plan.plan.write(say=say)
    ledger.save(folder / AUTHORS_LEDGER, lines)
    record = AuthorsRecord(
        path=AUTHORS_WEIGHTS, ledger=AUTHORS_LEDGER, family=plan.family, losses=plan.losses
    )
    return record, [_compared(lines, plan, folder / AUTHORS_WEIGHTS, say)]


def check_with_ledger(artifact: Artifact, say: Say = silent) -> list[Check]:
    """Compare the file with its ledger; empty if the artifact has none."""
    record = artifact.manifest.authors
    if record is None:
        return []
    lines, entries = ledger.load(artifact.folder / record.ledger), read_header(artifact.folder / record.path)
    return [_named(verify_ledger(lines, entries, say))]


def check_with_original(artifact: Artifact, source: Source, say: Say = silent) -> list[Check]:
    """Make the conversion again and compare the file with it; empty if the artifact has none."""
    record = artifact.manifest.authors
    if record is None:
        return []
    path = artifact.folder / record.path
    lines = ledger.load(artifact.folder / record.ledger)
    return [_compared(lines, for_authors(source, path), path, say, source)]


def _compared(
    lines: Sequence[Line], plan: ForAuthors, path: Path, say: Say, source: Source | None = None
) -> Check:
    entries = ledger.renamed(lines, source.stored, plan.entries) if source else plan.entries
    check = verify_tensors(lines, entries, read_header(path), lambda key: "weights", say, plan.plan.matches)
    return _named(check)


def _named(check: Check) -> Check:
    return replace(check, name=f"{AUTHORS_WEIGHTS}: {check.name}")
