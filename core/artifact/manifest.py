"""The manifest: what an artifact is, written once by export and never changed after.

Names of engines, precisions, patches, passes and outputs are plain text here: the tables of each know them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from vconv.artifact import schema1
from vconv.errors import ArtifactError
from vconv.types import BATCH_AXIS, MANIFEST_FILE

DIGEST_FILE = "vconv.json.sha256"
SCHEMA_VERSION = 2
"""Of manifests that this version writes."""
ORIGINAL_FOLDER = "original"
"""Folder of an artifact with the original's own configurations, as they came."""


def _inside(name: str) -> str:
    """Return a path that stays inside the artifact on every system, or refuse it."""
    parts = name.split("/")
    if {"", ".", ".."} & set(parts) or set(name) & set("\\:\0"):
        raise ValueError("not a path inside the artifact")
    return name


Inside = Annotated[str, AfterValidator(_inside)]
"""A path inside the artifact, with ``/`` between its parts. It is what a file is known by everywhere."""


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


class OriginalRecord(_Frozen):
    """The original as its library builds it: all that is needed to open it again, beside its weights.

    ``configurations`` are the files with its own configurations, as they came, by the name that its library
    knows them by; ``gated`` says whether the hub asks for consent before a download.
    """

    configurations: dict[str, Inside]
    licence: str
    gated: bool


class SourceRecord(_Frozen):
    """Where the weights came from. No name of the exporting machine is kept.

    ``kind`` is synthetic, file, folder, or a hub; ``identity`` the seed, a hash, or the repository; and
    ``files`` the sha256 of each weights file as it was there. ``recipe`` is the version of the recipe by
    which synthetic weights were drawn. ``pool`` is the pooling that was asked for in place of the library's
    own, ``periods`` whose RoPE periods were. ``from_catalog`` names the configuration files that did not
    come with the weights, but from the catalog.
    """

    label: str
    kind: str
    identity: str
    revision: str
    synthetic: bool
    recipe: int | None = None
    files: dict[str, str]
    configuration_sha256: str
    pool: str | None
    periods: str | None
    from_catalog: tuple[str, ...]
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


class AxisRecord(_Frozen):
    """The bounds of an axis that is a symbol. ``greatest`` is None where only memory bounds it."""

    least: int
    greatest: int | None


class TensorRecord(_Frozen):
    """An input or output: the name that the file itself gives it, its type, and its shape.

    A symbol stands for an axis that may have any length within its bounds.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class ContractRecord(_Frozen):
    """What a variant takes and gives.

    ``outputs`` are by vconv's own names. ``axes`` bounds every symbol of a shape. ``layout`` is the order of
    the input's axes; ``preprocessing`` says whether resizing and normalising are inside.
    """

    input: TensorRecord
    layout: str
    preprocessing: bool
    outputs: dict[str, TensorRecord]
    axes: dict[str, AxisRecord]

    @property
    def batch(self) -> int | None:
        """The batch that it is fixed to; None where it takes any."""
        first = self.input.shape[0]
        return first if isinstance(first, int) else None


class GraphRecord(_Frozen):
    """What a graph is made of. ``passes`` are those that were run on it, in their order."""

    opset: int
    ir_version: int
    operators: dict[str, int]
    passes: tuple[str, ...]


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
    """One variant that the artifact holds.

    ``path`` is what is run, ``weights`` the file that holds its weights; None where they are inside.
    ``patches`` are those that are in it. ``graph`` is there where it is one, or was compiled from one, and
    ``offline`` where ATC compiles it.
    """

    variant: str
    engine: str
    path: Inside
    weights: Inside | None
    precision: str
    patches: tuple[str, ...]
    contract: ContractRecord
    graph: GraphRecord | None = None
    offline: OfflineRecord | None = None

    @property
    def batch(self) -> int | None:
        """The batch that it is fixed to; None where it takes any."""
        return self.contract.batch


class GoldenRecord(_Frozen):
    """Recorded inputs and reference outputs, with the distances that a reader needs beside them."""

    path: Inside
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

    ``size`` is the (height, width) that the image processor makes. ``without_weights`` says that export left
    the weights file out: its hash is there, for ``vconv fill``. ``original`` is None in manifests of schema
    1, whose original only the catalog knows; ``complexity`` is the original's, None where it was not counted.
    """

    schema_version: Literal[1, 2] = 2
    vconv: str
    system: SystemRecord
    original: OriginalRecord | None
    source: SourceRecord
    size: tuple[int, int]
    ledger: dict[str, int]
    patches: tuple[PatchRecord, ...]
    rope_periods: tuple[float, ...] | None
    variants: tuple[VariantRecord, ...]
    golden: GoldenRecord | None
    files: dict[Inside, FileRecord]
    without_weights: bool
    complexity: ComplexityRecord | None = None

    @property
    def outputs(self) -> dict[str, tuple[int | str, ...]]:
        """The shape of every output that the artifact gives, its batch a symbol."""
        found: dict[str, tuple[int | str, ...]] = {}
        for variant in self.variants:
            for name, tensor in variant.contract.outputs.items():
                found.setdefault(name, (BATCH_AXIS, *tensor.shape[1:]))
        return found

    @property
    def made_later(self) -> tuple[VariantRecord, ...]:
        """Variants whose file was not made when the manifest was written, so that it has no hash of it."""
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
    """Return the hash of an artifact's manifest, as the file beside it has it; empty where there is none."""
    path = folder / DIGEST_FILE
    return "".join(path.read_text("utf-8", "replace").split(maxsplit=1)[:1]) if path.is_file() else ""


_READERS: Mapping[int, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
    1: schema1.upgraded,
    SCHEMA_VERSION: dict,
}
"""By schema version, what makes a document of this version's schema of one that was read."""


def load(folder: Path) -> Manifest:
    """Read an artifact's manifest, of this schema or of an older one.

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
        return Manifest.model_validate(_in_this_schema(path, json.loads(raw)), strict=False)
    except (ValueError, ValidationError, RecursionError, KeyError, TypeError, AttributeError) as error:
        first = str(error).splitlines()
        raise ArtifactError(
            f"cannot read {path}", got=" ".join(first[:3]), expected="a manifest", fix="export it again"
        ) from error


def _in_this_schema(path: Path, content: Any) -> Mapping[str, Any]:
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or version not in _READERS:
        raise ArtifactError(
            f"cannot read {path}",
            got=f"schema version {version}",
            expected=f"schema version {' or '.join(map(str, _READERS))}",
            fix="use the version of vconv that made it, or export it again",
        )
    return _READERS[version](content)
