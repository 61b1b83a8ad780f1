"""Filling an artifact that was passed on without its weights, from the recipient's own copy."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from vconv import catalog
from vconv.convert import checkpoint, ledger
from vconv.convert.ledger import LEDGER_FILE
from vconv.convert.room import disk_full, require_room
from vconv.convert.sources.base import sha256_of
from vconv.convert.sources.table import Request, open_source
from vconv.errors import ArtifactError
from vconv.manifest import Manifest
from vconv.types import WEIGHTS_FILE, Say


def fill_weights(folder: Path, made: Manifest, weights: str | None, hub: str, say: Say) -> None:
    """Write an artifact's weights file, and prove that it is the one that export left out.

    Args:
        folder: the artifact.
        made: its manifest.
        weights: the original's weights, or the very file that was left out.
        hub: where repositories are looked for.
        say: takes progress.

    Raises:
        ArtifactError: it has its weights already, its ledger was changed, or there is no room.
        WeightsError: the weights are not those that it was made from.
    """
    target, wanted = folder / WEIGHTS_FILE, made.files[WEIGHTS_FILE]
    if target.exists():
        raise ArtifactError(
            f"{folder} has its weights already",
            got=f"a {WEIGHTS_FILE}",
            expected="none",
            fix="validate it; to fill it anew, delete that file first",
        )
    if sha256_of(folder / LEDGER_FILE) != made.files[LEDGER_FILE].sha256:
        raise ArtifactError(
            f"{folder / LEDGER_FILE} was changed",
            got="another sha256",
            expected=made.files[LEDGER_FILE].sha256[:12],
            fix="fetch the artifact again",
        )
    require_room(folder, wanted.nbytes)
    try:
        with tempfile.TemporaryDirectory(prefix=".filling-", dir=folder) as name:
            written = Path(name) / WEIGHTS_FILE
            digest = _write(written, Path(name), folder, made, weights, hub, say)
            if digest != wanted.sha256:
                raise ArtifactError(
                    "the filled weights are not those of the artifact",
                    got=f"sha256 {digest[:12]}",
                    expected=f"sha256 {wanted.sha256[:12]}",
                    fix="use the weights that it was made from: `vconv info` names them",
                )
            written.rename(target)
    except OSError as error:
        full = disk_full(error)
        if full is None:
            raise
        raise full from error


def _write(
    written: Path, scratch: Path, folder: Path, made: Manifest, weights: str | None, hub: str, say: Say
) -> str:
    """Copy the very file that was left out, or make it anew from the original's; return its sha256."""
    given = Path(weights) if weights else None
    if given is not None and given.is_file() and given.stat().st_size == made.files[WEIGHTS_FILE].nbytes:
        digest = sha256_of(given)
        if digest == made.files[WEIGHTS_FILE].sha256:
            say(f"copying {given.name}")
            shutil.copyfile(given, written)
            return sha256_of(written)
    (scratch / "source").mkdir()
    system = catalog.find(made.system.name)
    source = open_source(Request(system, weights, hub), scratch / "source", say)
    say(f"writing {WEIGHTS_FILE}")
    return checkpoint.rewrite(written, ledger.load(folder / LEDGER_FILE), source.entries)
