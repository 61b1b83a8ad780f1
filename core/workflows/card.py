"""`vconv card`: write an artifact's model card."""

from __future__ import annotations

import hashlib
import os
import shlex
from pathlib import Path
from typing import Any

from vconv.arguments import checked_arguments
from vconv.artifact import results
from vconv.artifact.artifact import Artifact
from vconv.artifact.results import CARD_FILE
from vconv.errors import ArtifactError, UnknownNameError, VconvError
from vconv.hashes import sha256_of
from vconv.regular_files import kind_of
from vconv.types import Say, silent
from vconv.validators.report.card.card import render
from vconv.validators.report.card.evidence import newest, saved_reports
from vconv.validators.report.card.words import LANGUAGES
from vconv.workflows.publishing import platform_for, publish

DEFAULT_LANGUAGE = LANGUAGES[0]


@checked_arguments
def card(
    path: str | Path,
    lang: str | None = None,
    *,
    page: str | None = None,
    out: str | Path | None = None,
    with_files: str = "copy",
    force: bool = False,
    say: Say = silent,
) -> dict[str, Any]:
    """Write an artifact's model card, or a folder to publish, only from its manifest and its reports.

    Args:
        path: the artifact.
        lang: ``en`` or ``zh``; by default the language of the existing card, or English without a card.
        page: ``gitcode``, ``modelscope`` or ``huggingface``, to write a folder that is published there as a
            repository; by default the card is written into the artifact.
        out: that folder. The artifact then stays as it is.
        with_files: ``copy`` to copy the artifact's own files into that folder, ``none`` to leave them out.
        force: whether to replace a README.md that vconv did not write, or that was changed afterwards; with
            ``page``, whether to replace a folder that vconv wrote.
        say: receives progress lines.

    Returns:
        ``artifact``, ``file``, ``language``, ``sha256``, the ``reports`` that the card uses, and
        ``left_out``: a sentence for each report that is damaged; and ``weights_found_again``, whether the
        original's weights are found without being given. With ``page``, what
        :func:`vconv.workflows.publishing.publish` returns, and ``artifact``.

    Raises:
        VconvError: an error that the user can fix; the card is unchanged.
    """
    if lang is not None and lang not in LANGUAGES:
        raise UnknownNameError("language", lang, LANGUAGES, fix="name one of those")
    platform = platform_for(page, out, with_files)
    artifact = Artifact.open(path)
    folder = artifact.folder
    if platform is not None and out is not None:
        language = _language(lang, results.read(folder))
        found = publish(artifact, platform, out, language, with_files, force, say)
        return {"artifact": str(path), **found}
    if (folder / CARD_FILE).exists() and not (folder / CARD_FILE).is_file():
        raise ArtifactError(
            f"{folder / CARD_FILE} is in the way",
            got=kind_of(folder / CARD_FILE),
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
            return {
                "artifact": str(path),
                **_write(artifact, kept, lang, say),
                "weights_found_again": artifact.manifest.source.found_again,
            }
    except OSError as error:
        raise ArtifactError(
            f"cannot write {folder / CARD_FILE}",
            got=error.strerror or "an error",
            expected="a folder that can be written, with room in it",
            fix="repair its permissions, or work on a copy",
        ) from error


def refresh(artifact: Artifact, say: Say) -> str | None:
    """Rewrite the card after a validation, but keep a README.md that vconv did not write.

    Args:
        artifact: the artifact.
        say: receives progress lines.

    Returns:
        The card's path; None if the README.md was kept.
    """
    try:
        with results.locked(artifact.folder):
            kept = results.read(artifact.folder)
            if _foreign(artifact.folder, kept):
                replacing = f"vconv card {shlex.quote(str(artifact.folder))} --force"
                say(f"{CARD_FILE} was changed by hand and is left alone: `{replacing}` replaces it")
                return None
            _write(artifact, kept, None, say)
    except (VconvError, OSError) as error:
        # The validation is done and saved: neither a damaged older report nor an unreadable card fails it.
        say(f"{CARD_FILE} is left as it was: {error}")
        return None
    return str(artifact.folder / CARD_FILE)


def _foreign(folder: Path, kept: dict[str, Any]) -> bool:
    """Return whether the folder has a README.md that differs from the card that vconv wrote last."""
    path = folder / CARD_FILE
    if not os.path.lexists(path):
        return False
    written = (kept["card"].get("sha256"), kept["card"].get("next"))
    return not path.is_file() or sha256_of(path) not in written


def _language(lang: str | None, kept: dict[str, Any]) -> str:
    """Return the requested language; by default that of the card that vconv wrote last, or the usual one."""
    before = str(kept["card"].get("language"))
    return lang or (before if before in LANGUAGES else DEFAULT_LANGUAGE)


def _write(artifact: Artifact, kept: dict[str, Any], lang: str | None, say: Say) -> dict[str, Any]:
    folder, language = artifact.folder, _language(lang, kept)
    reports, left_out = saved_reports(folder)
    for sentence in left_out:
        say(sentence)
    evidence = newest(reports)
    content = render(artifact.manifest, evidence, language, artifact.unlike, artifact.processor).encode()
    digest = hashlib.sha256(content).hexdigest()
    # After a kill between these three steps, vconv still recognises the card as its own.
    results.write(folder, {**kept, "card": {**kept["card"], "next": digest}})
    results.replace(folder / CARD_FILE, content)
    results.write(folder, {**kept, "card": {"language": language, "sha256": digest}})
    used = list(dict.fromkeys(one.file for one in evidence))
    return {
        **{"file": str(folder / CARD_FILE), "language": language, "sha256": digest},
        **{"reports": used, "left_out": left_out},
    }
