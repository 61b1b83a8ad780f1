"""A folder outside the artifact that a command writes whole, and may replace only if it wrote all of it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from vconv import documents
from vconv.artifact.artifact import INSIDE, Artifact, is_inside
from vconv.documents import DocumentKind
from vconv.errors import ArtifactError


def refuse_inside(target: Path, artifact: Artifact, what: str = "") -> None:
    """Refuse a folder that is inside the artifact.

    Args:
        target: the folder.
        artifact: the artifact.
        what: what is written, before ``into`` in the message.

    Raises:
        ArtifactError: it is inside.
    """
    if is_inside(target, artifact.folder):
        raise ArtifactError(
            " ".join(["cannot write", *([what] if what else []), f"into {target}"]),
            got=INSIDE,
            expected="a folder outside of the artifact",
            fix="choose another --out",
        )


def refuse_strangers(
    target: Path,
    mark: str,
    kind: DocumentKind,
    further: Collection[str] = (),
    ignored: Collection[str] = (),
) -> None:
    """Refuse to replace a folder with files that vconv did not write, such as those of git.

    Args:
        target: the folder.
        mark: the file in it whose entry ``files`` has the path of every file that was written.
        kind: how that file is read.
        further: files that may also be there.
        ignored: names of folders whose files may be there.

    Raises:
        ArtifactError: there is such a file, or the list cannot be read.
    """
    path = target / mark
    if not path.is_file():
        return  # staging refuses it, unless it is empty
    listed = documents.load(path, kind)
    known = listed.get("files") if isinstance(listed, dict) else None
    if not isinstance(known, dict | list):
        raise documents.refusal(path, kind, "no list of files")
    allowed = {*map(str, known), *further, mark}
    for one in sorted(target.rglob("*")):
        inside = one.relative_to(target)
        name, filled = inside.as_posix(), one.is_dir() and not one.is_symlink() and any(one.iterdir())
        if not filled and name not in allowed and not set(ignored).intersection(inside.parts):
            raise ArtifactError(
                f"{target} has files that vconv did not write",
                got=name,
                expected="only files that vconv wrote",
                fix="move them away, or choose another --out",
            )
