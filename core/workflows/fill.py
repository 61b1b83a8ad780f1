"""`vconv fill`: add the weights to an artifact that came without them, from the user's copy."""

from __future__ import annotations

import contextlib
import errno
import shutil
from pathlib import Path
from typing import Any

from vconv.arguments import checked_arguments
from vconv.artifact.artifact import Artifact
from vconv.artifact.records import FileRecord
from vconv.artifact.staging import left_behind, workplace
from vconv.convert.sources.table import DEFAULT_HUB, Request, open_source
from vconv.convert.weights import checkpoint, ledger
from vconv.convert.weights.ledger import LEDGER_FILE
from vconv.disk import FILLING, disk_full, require_space
from vconv.errors import ArtifactError, WeightsError
from vconv.hashes import sha256_of
from vconv.progress import megabytes
from vconv.surroundings import own_surroundings
from vconv.types import WEIGHTS_FILE, Say, silent
from vconv.workflows import originals

_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


@checked_arguments
@own_surroundings()
def fill(
    path: str | Path,
    weights: str | Path | None = None,
    *,
    hub: str = DEFAULT_HUB,
    offline: bool = False,
    say: Say = silent,
) -> dict[str, Any]:
    """Add the weights file to an artifact that was exported without it, from a copy of the original weights.

    Args:
        path: the artifact.
        weights: the original's weights, as for :func:`export`; by default where the manifest says.
        hub: the hub on which to look for repositories.
        offline: whether to look for repositories only in the hub's cache.
        say: receives progress lines.

    Returns:
        ``artifact`` and the weights file's ``sha256`` and ``nbytes``; ``weights_given``, the original's
        weights if they were given, else None; and ``weights_found_again``, whether they are found without it.

    Raises:
        VconvError: an error that the user can fix; the artifact is unchanged.
    """
    artifact = Artifact.open(path)
    copied = _fill_weights(artifact, originals.request(artifact, weights, hub, offline), say)
    return {
        "artifact": str(path),
        **artifact.manifest.files[WEIGHTS_FILE].model_dump(),
        "weights_given": None if weights is None or copied else str(weights),
        "weights_found_again": artifact.manifest.source.found_again,
    }


def _fill_weights(artifact: Artifact, asked: Request, say: Say) -> bool:
    """Write an artifact's weights file, and check its hash against the hash of the file that export left out.

    Args:
        artifact: the artifact.
        asked: the request for the original's weights, or for the file that was left out.
        say: receives progress lines.

    Returns:
        Whether the file that was left out was copied, and not made from the original's weights.

    Raises:
        ArtifactError: the artifact has its weights already, is incomplete or changed, or cannot be written;
            the disk is full; or the weights file that was written has another hash.
        WeightsError: the weights cannot be found or used, or they must be given and were not.
    """
    folder, made = artifact.folder, artifact.manifest
    target = folder / WEIGHTS_FILE
    if target.exists():
        raise ArtifactError(
            f"{folder} has its weights already",
            got=f"a {WEIGHTS_FILE}",
            expected="none",
            fix="validate it; to fill it anew, delete that file first",
        )
    wanted = _checked(artifact)
    if asked.weights is None:
        raise WeightsError(
            "the artifact does not say where its weights can be had",
            got=f"weights from a {made.source.kind}",
            expected="--weights",
            fix=f"say with --weights where your copy of {made.source.label} is",
        )
    try:
        with contextlib.ExitStack() as kept:
            for left in left_behind(folder, FILLING):
                say(f"removing {left.name}, which a killed fill left")
            place = kept.enter_context(workplace(folder, FILLING))
            require_space(place, wanted.nbytes)
            written = place / WEIGHTS_FILE
            digest, copied = _write(written, place, artifact, asked, say)
            if digest != wanted.sha256:
                raise ArtifactError(
                    "the filled weights are not those of the artifact",
                    got=f"sha256 {digest[:12]}",
                    expected=f"sha256 {wanted.sha256[:12]}",
                    fix="use the weights that it was made from: `vconv info` names them",
                )
            written.rename(target)
            return copied
    except OSError as error:
        full = disk_full(error, folder / FILLING)
        if full is not None:
            raise full from error
        if error.errno not in _READ_ONLY or not _is_inside(error.filename, folder):
            raise
        raise ArtifactError(
            f"cannot write to {folder}",
            got=error.strerror,
            expected="an artifact that can be written",
            fix="repair its permissions, or fill a copy",
        ) from error


def _is_inside(filename: object, folder: Path) -> bool:
    return isinstance(filename, str) and Path(filename).absolute().is_relative_to(folder.absolute())


def _checked(artifact: Artifact) -> FileRecord:
    """Check that the ledger is unchanged, and return the recorded hash and size of the weights file."""
    folder, made = artifact.folder, artifact.manifest
    for name in (WEIGHTS_FILE, LEDGER_FILE):
        if name not in made.files:
            raise ArtifactError(
                f"the manifest of {folder} does not know {name}",
                got="no hash of it",
                expected="its hash, to hold it against",
                fix="export the artifact again, or fetch it again",
            )
    path, sha256 = folder / LEDGER_FILE, made.files[LEDGER_FILE].sha256
    if not path.is_file():
        raise ArtifactError(
            f"{path} is missing",
            got="no such file",
            expected="the ledger of the artifact",
            fix="fetch the artifact again",
        )
    if sha256_of(path) != sha256:
        raise ArtifactError(
            f"{path} was changed",
            got="another sha256",
            expected=sha256[:12],
            fix="fetch the artifact again",
        )
    return made.files[WEIGHTS_FILE]


def _write(written: Path, scratch: Path, artifact: Artifact, asked: Request, say: Say) -> tuple[str, bool]:
    """Copy the weights file that was left out, or make it from the original's weights.

    Returns:
        Its sha256, and whether it was copied.
    """
    given, wanted = Path(asked.weights or ""), artifact.manifest.files[WEIGHTS_FILE]
    if given.is_file() and given.stat().st_size == wanted.nbytes:
        nbytes = given.stat().st_size
        digest = sha256_of(given, megabytes("hashed", nbytes, say).add)
        if digest == wanted.sha256:
            say(f"copying {given.name}")
            shutil.copyfile(given, written)
            return sha256_of(written, megabytes("hashed", nbytes, say).add), True
    (scratch / "source").mkdir()
    source = open_source(asked, scratch / "source", say)
    say(f"writing {WEIGHTS_FILE}")
    lines = artifact.ledger
    renamed = ledger.renamed(lines, source.stored, source.entries)
    return checkpoint.rewrite(written, lines, renamed, say), False
