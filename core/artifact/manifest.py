"""The manifest: what an artifact is, written once by export and never changed after."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from vconv.errors import ArtifactError
from vconv.types import MANIFEST_FILE

DIGEST_FILE = "vconv.json.sha256"
SCHEMA_VERSION = 1


def _inside(name: str) -> str:
    """Return a path that stays inside the artifact on every system, or refuse it."""
    parts = name.split("/")
    if {"", ".", ".."} & set(parts) or set(name) & set("\\:\0"):
        raise ValueError("not a path inside the artifact")
    return name


_Inside = Annotated[str, AfterValidator(_inside)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SystemRecord(_Frozen):
    """Which system this is. ``pooling`` says how its pooled output comes about."""

    name: str
    hub_id: str
    library: str
    family: str
    head: str
    pooling: str


class SourceRecord(_Frozen):
    """Where the weights came from. No name of the exporting machine is kept.

    ``kind`` is synthetic, file, folder, or a hub; ``identity`` the seed, a hash, or the repository; and
    ``files`` the sha256 of each weights file as it was there. ``pool`` is the pooling that was asked for in
    place of the library's own, ``periods`` whose RoPE periods were. ``published`` names the configuration
    files that did not come with the weights, but from the catalog.
    """

    label: str
    kind: str
    identity: str
    revision: str
    synthetic: bool
    files: dict[str, str]
    configuration_sha256: str
    pool: str | None
    periods: str | None
    published: tuple[str, ...]
    licence: str


class PatchRecord(_Frozen):
    """One patch: what it touched, how it travels, and why it may."""

    name: str
    reason: str
    corrective: bool
    applied: bool
    sites: int
    carried_by_config: int
    carriers: tuple[str, ...]
    proof: str


class OfflineRecord(_Frozen):
    """How an offline model is compiled: see :mod:`vconv.convert.ascend.atc`.

    ``command`` is for a folder with the graph and the settings; where export had ATC, the graph, which is one
    of the artifact's with its weights inside, is not kept. Where export had none, the manifest has no hash of
    the model's file, which the script beside it makes later.
    """

    soc: str
    precision_mode: str
    gears: tuple[int, ...]
    command: tuple[str, ...]


class VariantRecord(_Frozen):
    """One variant that the artifact holds. ``offline`` is there where ATC compiles it."""

    variant: str
    engine: Literal["torch", "onnxruntime", "acl"]
    file: _Inside
    precision: Literal["fp32", "fp16"]
    batch: int | None
    opset: int | None
    ir_version: int | None
    operators: dict[str, int]
    offline: OfflineRecord | None = None


class GoldenRecord(_Frozen):
    """Recorded inputs and reference outputs, with the distances that a reader needs beside them."""

    file: _Inside
    images: tuple[str, ...]
    reference: str
    floor: dict[str, float]
    to_stock_original: dict[str, float]


class ComplexityRecord(_Frozen):
    """What one forward pass of one image takes: see :mod:`vconv.convert.libraries.complexity`."""

    parameters: int
    multiply_accumulates: int
    activations: int


class FileRecord(_Frozen):
    """One file's identity."""

    sha256: str
    nbytes: int


class Manifest(_Frozen):
    """Everything that an artifact says about itself.

    ``without_weights`` says that export left the weights file out: its hash is there, for ``vconv fill``.
    ``complexity`` is the original's; None in manifests that were written before it was counted.
    """

    schema_version: Literal[1] = 1
    vconv: str
    system: SystemRecord
    source: SourceRecord
    size: tuple[int, int]
    outputs: dict[str, tuple[int | str, ...]]
    ledger: dict[str, int]
    patches: tuple[PatchRecord, ...]
    rope_periods: tuple[float, ...] | None
    variants: tuple[VariantRecord, ...]
    golden: GoldenRecord | None
    files: dict[_Inside, FileRecord]
    without_weights: bool
    complexity: ComplexityRecord | None = None

    @property
    def made_later(self) -> tuple[VariantRecord, ...]:
        """Variants whose file was not made when the manifest was written, so that it has no hash of it."""
        return tuple(
            variant for variant in self.variants if variant.offline and variant.file not in self.files
        )

    def save(self, folder: Path) -> None:
        """Write the manifest and its digest into a folder."""
        text = json.dumps(self.model_dump(mode="json"), indent=2) + "\n"
        (folder / MANIFEST_FILE).write_text(text)
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        (folder / DIGEST_FILE).write_text(f"{sha256}  {MANIFEST_FILE}\n")


def digest(folder: Path) -> str:
    """Return the hash of an artifact's manifest, as the file beside it has it; empty where there is none."""
    path = folder / DIGEST_FILE
    return "".join(path.read_text("utf-8", "replace").split(maxsplit=1)[:1]) if path.is_file() else ""


def load(folder: Path) -> Manifest:
    """Read an artifact's manifest.

    Args:
        folder: the artifact.

    Raises:
        ArtifactError: there is none, its digest differs, or it is of a schema that this version cannot read.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file() or not (folder / DIGEST_FILE).is_file():
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
    raw = path.read_bytes()
    found, expected = hashlib.sha256(raw).hexdigest(), digest(folder)
    if expected != found:
        raise ArtifactError(
            f"{path} was changed",
            got=f"sha256 {found[:12]}",
            expected=expected[:12] or "a digest",
            fix="export the artifact again, or fetch it again",
        )
    try:
        content = json.loads(raw)
        version = content.get("schema_version") if isinstance(content, dict) else None
        if version != SCHEMA_VERSION:
            raise ArtifactError(
                f"cannot read {path}",
                got=f"schema version {version}",
                expected=f"schema version {SCHEMA_VERSION}",
                fix="use the version of vconv that made it, or export it again",
            )
        return Manifest.model_validate_json(raw)
    except (ValueError, ValidationError, RecursionError) as error:
        first = str(error).splitlines()
        raise ArtifactError(
            f"cannot read {path}", got=" ".join(first[:3]), expected="a manifest", fix="export it again"
        ) from error
