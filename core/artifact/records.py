"""Records of a manifest: each is one thing that an artifact says about itself.

Names of engines, precisions, patches, passes and outputs are plain text here: the tables of each know them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


def _inside(name: str) -> str:
    """Return a path that stays inside the artifact on every system, or refuse it."""
    parts = name.split("/")
    if {"", ".", ".."} & set(parts) or set(name) & set("\\:\0"):
        raise ValueError("not a path inside the artifact")
    return name


Inside = Annotated[str, AfterValidator(_inside)]
"""A path inside the artifact, with ``/`` between its parts. It is what a file is known by everywhere."""


class Record(BaseModel):
    """A frozen part of a manifest, which takes no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SystemRecord(Record):
    """Which system this is. ``pooling`` says how its pooled output comes about."""

    name: str
    hub_id: str
    library: str
    family: str
    head: str
    pooling: str


class OriginalRecord(Record):
    """The original as its library builds it: all that is needed to open it again, beside its weights.

    ``configurations`` are the files with its own configurations, by the name that its library
    knows them by; ``gated`` says whether the hub asks for consent before a download.
    """

    configurations: dict[str, Inside]
    licence: str
    gated: bool


class SourceRecord(Record):
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


class PatchRecord(Record):
    """One patch: what it touched, how it travels, and why it may."""

    name: str
    reason: str
    corrective: bool
    applied: bool
    sites: int
    carried_by_config: int
    carriers: tuple[str, ...]
    proof: str


class AxisRecord(Record):
    """The bounds of an axis that is a symbol. ``greatest`` is None where only memory bounds it."""

    least: int
    greatest: int | None


class TensorRecord(Record):
    """An input or output: the name that the file itself gives it, its type, and its shape.

    A symbol stands for an axis that may have any length within its bounds.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class ContractRecord(Record):
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


class GraphRecord(Record):
    """What a graph is made of. ``passes`` are those that were run on it, in their order."""

    opset: int
    ir_version: int
    operators: dict[str, int]
    passes: tuple[str, ...]


class OfflineRecord(Record):
    """How an offline model is compiled: see :mod:`vconv.convert.ascend.atc`.

    ``command`` is for a folder with the graph and the settings; where export had ATC, the graph, which is one
    of the artifact's with its weights inside, is not kept. Where export had none, the manifest has no hash of
    the model's file, which the script beside it makes later.
    """

    soc: str
    precision_mode: str
    gears: tuple[int, ...]
    command: tuple[str, ...]


class VariantRecord(Record):
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


class GoldenRecord(Record):
    """Recorded inputs and reference outputs, with the distances that a reader needs beside them."""

    path: Inside
    images: tuple[str, ...]
    reference: str
    floor: dict[str, float]
    to_stock_original: dict[str, float]


class ComplexityRecord(Record):
    """What one forward pass of one image takes: see :mod:`vconv.convert.libraries.complexity`."""

    parameters: int
    multiply_accumulates: int
    activations: int


class FileRecord(Record):
    """One file's identity."""

    sha256: str
    nbytes: int
