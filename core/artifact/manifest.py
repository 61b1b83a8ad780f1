"""The manifest: the description of an artifact. Export writes it once, and it is never changed afterwards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from vconv import documents
from vconv.artifact import schema1
from vconv.artifact.record import Inside, Record, Side
from vconv.artifact.records import (
    AuthorsRecord,
    AxisRecord,
    ComplexityRecord,
    FileRecord,
    GoldenRecord,
    OriginalRecord,
    PatchRecord,
    PositionsRecord,
    SourceRecord,
    SystemRecord,
    VariantRecord,
)
from vconv.errors import ArtifactError
from vconv.regular_files import open_regular
from vconv.types import BATCH_AXIS, MANIFEST_FILE

DIGEST_FILE = "vconv.json.sha256"
SCHEMA_VERSION = 2
"""The schema version of the manifests that this version writes."""
_DIGEST_BYTES = 200
"""More than a hash and the name of a file."""
ORIGINAL_FOLDER = "original"
"""The folder with the original's own configurations, without the entries that name code."""


class Manifest(Record):
    """The complete description of an artifact.

    ``size`` is the (height, width) of the images that the image processor makes. ``without_weights`` means
    that export left the weights file out; the file's hash is still in ``files``, for ``vconv fill``.
    ``original`` is None in manifests of schema 1: the catalog describes their originals. ``complexity`` is
    the complexity of the original; None if it was not counted. ``authors`` describes the weights for the
    authors' own code; None if there are none. ``meanings`` says of each output of a single block which
    block it is after, and whether it has the final norm. ``positions`` says how the position embedding is
    resampled; None if there is none, or if it is stored for images of this size. ``aipp`` is the mode of the
    configuration of AIPP; None if there is none.
    """

    schema_version: Literal[1, 2] = 2
    vconv: str
    system: SystemRecord
    original: OriginalRecord | None
    source: SourceRecord
    size: tuple[Side, Side]
    ledger: dict[str, int]
    patches: tuple[PatchRecord, ...]
    rope_periods: tuple[float, ...] | None
    variants: tuple[VariantRecord, ...]
    golden: GoldenRecord | None
    files: dict[Inside, FileRecord]
    without_weights: bool
    complexity: ComplexityRecord | None = None
    authors: AuthorsRecord | None = None
    meanings: dict[str, str] = Field(default_factory=dict)
    positions: PositionsRecord | None = None
    aipp: Literal["static", "dynamic"] | None = None

    @field_validator("variants")
    @classmethod
    def _each_once(cls, variants: tuple[VariantRecord, ...]) -> tuple[VariantRecord, ...]:
        for kind, names in (
            ("variant", [variant.variant for variant in variants]),
            ("path of a variant", [variant.path for variant in variants]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"the {kind} {twice[0]} is there twice")
        return variants

    @property
    def outputs(self) -> dict[str, tuple[int | str, ...]]:
        """The shape of every output of the artifact for images of ``size``, with the batch as a symbol."""
        found: dict[str, tuple[int | str, ...]] = {}
        for variant in sorted(self.variants, key=lambda one: one.contract.sides is not None):
            for name, tensor in variant.contract.outputs.items():
                found.setdefault(name, (BATCH_AXIS, *tensor.shape[1:]))
        return found

    @property
    def sides(self) -> tuple[AxisRecord, AxisRecord] | None:
        """The bounds of height and width of the variants that take images of any size; None if none does."""
        return next(filter(None, (variant.contract.sides for variant in self.variants)), None)

    @property
    def gears_size(self) -> tuple[tuple[int, int], ...]:
        """The (height, width) that an offline model was compiled for; empty without gears by size."""
        found = (variant.offline.gears_size for variant in self.variants if variant.offline)
        return next(found, ())

    @property
    def made_later(self) -> tuple[VariantRecord, ...]:
        """Variants whose file did not exist when export wrote the manifest, which has no hash of the file."""
        return tuple(
            variant for variant in self.variants if variant.offline and variant.path not in self.files
        )

    def save(self, folder: Path) -> None:
        """Write the manifest and its digest into a folder."""
        text = json.dumps(self.model_dump(mode="json"), indent=2) + "\n"
        (folder / MANIFEST_FILE).write_text(text)
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        (folder / DIGEST_FILE).write_text(f"{sha256}  {MANIFEST_FILE}\n")


def digest(folder: Path) -> str:
    """Return a manifest's hash, read from the digest file beside it; empty if there is no such file."""
    path = folder / DIGEST_FILE
    if not path.is_file():
        return ""
    with open_regular(path) as file:
        return "".join(file.read(_DIGEST_BYTES).decode("utf-8", "replace").split(maxsplit=1)[:1])


_READERS: Mapping[int, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
    1: schema1.upgraded,
    SCHEMA_VERSION: dict,
}
"""By schema version: a function that turns a document of that version into one of the current version."""


def load(folder: Path) -> Manifest:
    """Read an artifact's manifest, of the current or an older schema.

    Args:
        folder: the artifact's folder.

    Raises:
        ArtifactError: there is no manifest, its digest differs, or this version cannot read it.
    """
    path = folder / MANIFEST_FILE
    if path.is_file() and not (folder / DIGEST_FILE).is_file():
        raise ArtifactError(
            f"{folder / DIGEST_FILE} is missing",
            got=f"{MANIFEST_FILE} without its hash",
            expected=f"{MANIFEST_FILE} and {DIGEST_FILE}",
            fix="fetch the artifact again, or export it again",
        )
    if not path.is_file():
        raise ArtifactError(
            f"no artifact at {folder}",
            got="a folder without a manifest"
            if folder.is_dir()
            else "a file"
            if folder.exists()
            else "no such folder",
            expected=f"a folder with {MANIFEST_FILE} and {DIGEST_FILE}",
            fix="make one with `vconv export NAME`, or check the path",
        )
    raw = documents.read(path, documents.MANIFEST)
    found, expected = hashlib.sha256(raw).hexdigest(), digest(folder)
    if expected != found:
        raise ArtifactError(
            f"{path} was changed",
            got=f"sha256 {found[:12]}",
            expected=expected[:12] or "a digest",
            fix="export the artifact again, or fetch it again",
        )
    content = documents.parse(path, raw, documents.MANIFEST)
    return documents.typed(path, Manifest, _in_this_schema(path, content), documents.MANIFEST)


def _in_this_schema(path: Path, content: Any) -> Mapping[str, Any]:
    version = content.get("schema_version") if isinstance(content, dict) else None
    if type(version) is not int or version not in _READERS:
        raise ArtifactError(
            f"cannot read {path}",
            got=f"schema version {version}",
            expected=f"schema version {' or '.join(map(str, _READERS))}",
            fix="use the version of vconv that made it, or export it again",
        )
    try:
        return _READERS[version](content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise documents.refusal(path, documents.MANIFEST, f"{type(error).__name__}: {error}") from error
