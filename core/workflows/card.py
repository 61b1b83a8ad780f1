"""`vconv card`: write an artifact's model card."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from vconv.artifact import results
from vconv.artifact.artifact import Artifact
from vconv.artifact.results import CARD_FILE
from vconv.errors import ArtifactError, UnknownNameError, VconvError
from vconv.types import Say, silent
from vconv.validators.report.card.card import render
from vconv.validators.report.card.evidence import newest
from vconv.validators.report.card.words import LANGUAGES

DEFAULT_LANGUAGE = LANGUAGES[0]


def card(
    path: str | Path, lang: str | None = None, *, force: bool = False, say: Say = silent
) -> dict[str, Any]:
    """Write an artifact's model card from its manifest and its reports, and from nothing else.

    Args:
        path: the artifact.
        lang: ``en`` or ``zh``; by default the language of the card that is there, else English.
        force: whether to replace a README.md that vconv did not write, or that was changed since.
        say: takes a line of progress.

    Returns:
        ``artifact``, ``file``, ``language``, ``sha256``, and the ``reports`` that it rests on.

    Raises:
        VconvError: something that the user can fix; the card is as it was.
    """
    artifact = Artifact.open(path)
    folder = artifact.folder
    if lang is not None and lang not in LANGUAGES:
        raise UnknownNameError("language", lang, LANGUAGES, fix="name one of those")
    if (folder / CARD_FILE).is_dir():
        raise ArtifactError(
            f"{folder / CARD_FILE} is in the way",
            got="a folder",
            expected="nothing there, or a card",
            fix="move it away",
        )
    try:
        with results.locked(folder):
            kept = results.read(folder)
            if not force and _foreign(folder, kept):
                raise ArtifactError(
                    f"{folder / CARD_FILE} is not vconv's",
                    got="a file that was written or changed by somebody else",
                    expected="none, or the card as vconv wrote it",
                    fix="move it away, or replace it with --force",
                )
            return {"artifact": str(path), **_write(artifact, kept, lang)}
    except OSError as error:
        raise ArtifactError(
            f"cannot write {folder / CARD_FILE}",
            got=error.strerror or "an error",
            expected="a folder that can be written, with room in it",
            fix="repair its permissions, or work on a copy",
        ) from error


def refresh(artifact: Artifact, say: Say) -> str | None:
    """Write the card anew after a validation; leave one alone that vconv did not write.

    Args:
        artifact: the artifact.
        say: takes a line of progress.

    Returns:
        The card's path; None where it was left alone.
    """
    try:
        with results.locked(artifact.folder):
            kept = results.read(artifact.folder)
            if _foreign(artifact.folder, kept):
                say(f"{CARD_FILE} was changed by hand and is left alone: `vconv card --force` replaces it")
                return None
            _write(artifact, kept, None)
    except VconvError as error:
        # The validation is done and saved: what is wrong with an older report is no fault of it.
        say(f"{CARD_FILE} is left as it was: {error}")
        return None
    return str(artifact.folder / CARD_FILE)


def _foreign(folder: Path, kept: dict[str, Any]) -> bool:
    """Tell whether the README.md that is there is anything but what vconv wrote last."""
    path = folder / CARD_FILE
    if not path.exists():
        return False
    written = (kept["card"].get("sha256"), kept["card"].get("next"))
    return not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() not in written


def _write(artifact: Artifact, kept: dict[str, Any], lang: str | None) -> dict[str, Any]:
    folder = artifact.folder
    language = lang or kept["card"].get("language", DEFAULT_LANGUAGE)
    evidence = newest(results.reports(folder))
    content = render(artifact.manifest, evidence, language).encode()
    digest = hashlib.sha256(content).hexdigest()
    # A kill between these three leaves a card that is known for vconv's all the same.
    results.write(folder, {**kept, "card": {**kept["card"], "next": digest}})
    results.replace(folder / CARD_FILE, content)
    results.write(folder, {**kept, "card": {"language": language, "sha256": digest}})
    used = list(dict.fromkeys(one.file for one in evidence))
    return {"file": str(folder / CARD_FILE), "language": language, "sha256": digest, "reports": used}
