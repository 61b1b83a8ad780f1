"""`vconv card --page`: write the folder that is published as a repository, beside the artifact."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vconv._version import VERSION
from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import DIGEST_FILE
from vconv.artifact.staging import Replaceable, staging
from vconv.disk import require_space
from vconv.documents import DocumentKind
from vconv.errors import ArtifactError, InputError, UnknownNameError
from vconv.hashes import chunks_of
from vconv.regular_files import kind_of
from vconv.types import MANIFEST_FILE, WEIGHTS_FILE, Say, Status
from vconv.validators.checks.compiled import check_compiled
from vconv.validators.report.publishing.npu import npu_evidence
from vconv.validators.report.publishing.platforms import Platform, commands, find_platform
from vconv.validators.report.publishing.repository import MARK_FILE, made_later, measurements, written_files
from vconv.workflows.written_folder import refuse_inside, refuse_strangers

WITH_FILES = ("copy", "none")
"""What is done with the artifact's own files: they are copied into the folder, or left out of it."""
_PAGE = Replaceable(MARK_FILE, "a page that vconv wrote")
_MARK = DocumentKind('{"files": {...}}', 2**20, 20_000, "choose another --out")
_WRITTEN_LATER = ("results/performance_eval.json", "logs/accuracy_eval.log")
"""Files that scripts of the folder write."""
_BYTECODE = "__pycache__"


def platform_for(page: str | None, out: str | Path | None, with_files: str) -> Platform | None:
    """Check the options that belong together, and return the platform; None if no page is asked for.

    Raises:
        VconvError: an option is missing, or is not known.
    """
    if with_files not in WITH_FILES:
        raise UnknownNameError("value of --with-files", with_files, WITH_FILES, fix="name one of those")
    if (page is None) != (out is None):
        raise InputError(
            "--page and --out belong together",
            got="only --out" if page is None else "only --page",
            expected="both, for a page to publish; or neither, for the card in the artifact",
            fix="add the other one, or leave both out",
        )
    if page is None and with_files != WITH_FILES[0]:
        raise InputError(
            f"--with-files {with_files} is only for a page to publish",
            got="neither --page nor --out",
            expected="both",
            fix="add them, or leave --with-files out",
        )
    return None if page is None else find_platform(page)


def publish(
    artifact: Artifact,
    platform: Platform,
    out: str | Path,
    language: str,
    with_files: str,
    force: bool,
    say: Say,
) -> dict[str, Any]:
    """Write the folder that is published. The artifact stays as it is.

    Args:
        artifact: the artifact.
        platform: where the folder is published.
        out: the folder.
        language: the language of the page.
        with_files: one of :data:`WITH_FILES`.
        force: whether to replace a folder that vconv wrote.
        say: receives progress lines.

    Returns:
        ``folder``, ``page``, ``language``, ``with_files``; the ``files`` in the folder; the ``reports`` that
        the page uses, and ``left_out``; ``npu``, whether the page says that the model passed on a real NPU,
        and ``reason``, why it does not; ``publish``, the commands that publish the folder, as words; and
        ``weights_found_again``, whether the original's weights are found without being given.

    Raises:
        VconvError: an error that the user can fix; the folder is unchanged.
    """
    target = Path(out).absolute()
    refuse_inside(target, artifact, "the page")
    _refuse_fused(artifact)
    if force:
        refuse_strangers(target, MARK_FILE, _MARK, _WRITTEN_LATER, (_BYTECODE,))
    found = measurements(artifact.folder)
    npu = npu_evidence(found.evidence)
    for sentence in found.left_out:
        say(sentence)
    if npu.reason:
        say(f"the page for {platform.title} {platform.without_npu}: {npu.reason}")
    copied = list(_own_files(artifact, say)) if with_files == "copy" else []
    with staging(target, force, _PAGE) as stage:
        nbytes = sum((artifact.folder / name).stat().st_size for name in copied)
        require_space(stage.artifact, nbytes)
        say(f"copying {len(copied)} files of the artifact, {nbytes / 1e6:.1f} MB")
        files = {name: _copy(artifact, name, stage.artifact) for name in copied}
        for name, content in written_files(artifact, platform, found, language, bool(copied)).items():
            files[name] = _write(stage.artifact / name, [content])
        mark = {"vconv": VERSION, "page": platform.name, "language": language, "files": files}
        _write(stage.artifact / MARK_FILE, [(json.dumps(mark, indent=2) + "\n").encode()])
    return {
        **{"folder": str(out), "page": platform.name, "language": language, "with_files": with_files},
        **{"files": [*files, MARK_FILE], "reports": list(found.raw), "left_out": found.left_out},
        **{"npu": npu.passed, "reason": npu.reason},
        "publish": commands(platform, str(out)),
        "weights_found_again": artifact.manifest.source.found_again,
    }


def _refuse_fused(artifact: Artifact) -> None:
    """Refuse an artifact whose offline model the compiler changed, by the compiler's own report.

    Raises:
        ArtifactError: a pass changed a result, or the report cannot be read.
    """
    for check in check_compiled(artifact):
        if check.status is Status.FAILED:
            raise ArtifactError(
                f"cannot publish {artifact.folder}",
                got=f"{check.name}: {check.detail}",
                expected="an offline model in which no fusion pass changes a result",
                fix="compile it with another version of CANN, or move the model and the report of atc away",
            )


def _own_files(artifact: Artifact, say: Say) -> Iterator[str]:
    """Yield the artifact's own files: its manifest, those that it lists, and those that were made later.

    Raises:
        ArtifactError: one is missing; except for weights that the export left out, which are only named.
    """
    made = artifact.manifest
    yield from (name for name in (MANIFEST_FILE, DIGEST_FILE) if (artifact.folder / name).is_file())
    for name in made.files:
        if (artifact.folder / name).is_file():
            yield name
        elif made.without_weights and name == WEIGHTS_FILE:
            say(f"{name} is left out: the artifact was exported without weights")
        else:
            raise _damaged(artifact, name, kind_of(artifact.folder / name) or "no such file")
    yield from made_later(artifact)


def _copy(artifact: Artifact, name: str, into: Path) -> str:
    """Copy a file with its permissions, and return its hash.

    Two names never share one file: to change a copy changes no artifact.

    Raises:
        ArtifactError: the file is not the one that the manifest lists.
    """
    found = _write(into / name, chunks_of(artifact.folder / name))
    record = artifact.manifest.files.get(name)
    if record and found != record.sha256:
        raise _damaged(artifact, name, f"a file with the sha256 {found[:12]}")
    shutil.copymode(artifact.folder / name, into / name)
    return found


def _damaged(artifact: Artifact, name: str, got: str) -> ArtifactError:
    return ArtifactError(
        f"cannot publish {artifact.folder / name}",
        got=got,
        expected="the file that vconv.json lists",
        fix=f"export the artifact again, or restore it; `vconv info {shlex.quote(str(artifact))}` says more",
    )


def _write(path: Path, chunks: Iterator[bytes] | list[bytes]) -> str:
    """Write a new file, and return its sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()
