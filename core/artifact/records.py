"""The records of a manifest: each record describes one part of an artifact.

Names of engines, precisions, patches, passes and outputs are plain text here; other tables define the names.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vconv.artifact.record import Count, Inside, Length, Record, Sha256, Side
from vconv.artifact.reduction_records import ReductionRecord


class SystemRecord(Record):
    """The system of the artifact. ``pooling`` says how the pooled output is computed."""

    name: str
    hub_id: str
    library: str
    family: str
    head: str
    pooling: str


class OriginalRecord(Record):
    """The original as its library builds it: everything besides the weights that is needed to open it again.

    ``configurations`` are the files with the original's own configurations, by their name in its library;
    ``gated`` says whether the hub asks for consent before a download.
    """

    configurations: dict[str, Inside]
    licence: str
    gated: bool


class SourceRecord(Record):
    """The source of the weights. Nothing here names the exporting machine.

    ``kind`` is synthetic, file, folder, or a hub; ``identity`` is the seed, a hash, or the repository.
    ``files`` has the sha256 of each weights file of the source. ``recipe`` is the version of the recipe that
    drew synthetic weights. ``pool`` is the pooling that replaces the library's default, and ``periods`` names
    the requested RoPE periods, or says that the weights store them. ``positions`` says whose kernel was
    requested for the position embedding; None for the library's. ``size`` is the requested (height, width)
    of the images, and ``dynamic_size`` says whether a graph for images of any size was requested.
    ``resampling_asked`` says whether the library is asked, in every call of the original at this size, to
    resample the position embedding.
    ``outputs`` are the requested outputs; empty for those that the network has.
    ``from_catalog`` names the configuration files that came from the catalog, not with the weights.
    ``prefixes`` are those of training tools that were removed from the names of the tensors.
    ``layout`` is the home of the layout that the weights were converted from; None if they have that of the
    system's library. ``losses`` says how this conversion changed the outputs. ``state_dict``
    is the entry of a training checkpoint that held the weights; None if the file is a state dict itself.
    """

    label: str
    kind: str
    identity: str
    revision: str
    synthetic: bool
    recipe: int | None = Field(default=None, ge=1)
    files: dict[str, str]
    configuration_sha256: str
    pool: str | None
    periods: str | None
    positions: str | None = None
    size: tuple[Side, Side] | None = None
    dynamic_size: bool = False
    resampling_asked: bool = False
    outputs: tuple[str, ...] = ()
    from_catalog: tuple[str, ...]
    prefixes: tuple[str, ...] = ()
    licence: str
    layout: str | None = None
    losses: tuple[str, ...] = ()
    state_dict: str | None = None

    @property
    def found_again(self) -> bool:
        """Whether the weights are found without being given: drawn again, or in a repository's revision."""
        return bool(self.synthetic or self.revision)


class PositionsRecord(Record):
    """How the position embedding comes from the grid of patches that it is stored for to that of the images.

    ``by`` is whose ``kernel`` it is: that of the authors, or of the library. ``stored`` and ``grid`` are the
    (rows, columns) of the original's embedding and of the images. ``at`` is ``export`` if the artifact stores
    the resampled embedding, and ``run`` if the library resamples it whenever it runs.
    """

    by: str
    kernel: str
    stored: tuple[Side, Side]
    grid: tuple[Side, Side]
    at: Literal["export", "run"]


class PatchRecord(Record):
    """One patch: the sites that it changed, how the artifact carries it, and the proof that it is valid."""

    name: str
    reason: str
    corrective: bool
    applied: bool
    sites: int
    carried_by_config: int
    carriers: tuple[str, ...]
    proof: str


class AxisRecord(Record):
    """The bounds of a symbolic axis: its length is a multiple of ``multiple``.

    ``greatest`` is None if only memory limits the axis.
    """

    least: int
    greatest: int | None
    multiple: Length = 1

    @property
    def told(self) -> str:
        """The bounds in words."""
        return f"multiples of {self.multiple} from {self.least} to {self.greatest}"

    def allows(self, length: int) -> bool:
        """Return whether the axis may have this length."""
        short = self.greatest is None or length <= self.greatest
        return self.least <= length and short and length % self.multiple == 0


class TensorRecord(Record):
    """An input or output: its name in the file, its type, and its shape.

    A symbol stands for an axis that may have any length within its bounds.
    """

    name: str
    dtype: str
    shape: tuple[Length | str, ...]


class ContractRecord(Record):
    """The input and the outputs of a variant.

    ``outputs`` uses vconv's own names. ``axes`` has the bounds of every symbol in a shape. ``layout`` is the
    order of the input's axes; ``preprocessing`` says whether the variant itself resizes and normalises.
    """

    input: TensorRecord
    layout: str
    preprocessing: bool
    outputs: dict[str, TensorRecord]
    axes: dict[str, AxisRecord]

    @property
    def batch(self) -> int | None:
        """The fixed batch size; None if the variant takes any batch."""
        first = self.input.shape[0]
        return first if isinstance(first, int) else None

    @property
    def sides(self) -> tuple[AxisRecord, AxisRecord] | None:
        """The bounds of height and width; None if the variant takes images of one size."""
        height, width = self.input.shape[2:] if len(self.input.shape) == 4 else (0, 0)
        if not isinstance(height, str) or not isinstance(width, str):
            return None
        return self.axes[height], self.axes[width]


class GraphRecord(Record):
    """The contents of a graph. ``passes`` are the passes that were run on the graph, in order."""

    opset: int
    ir_version: int
    operators: dict[str, Count]
    passes: tuple[str, ...]


class OfflineRecord(Record):
    """How an offline model is compiled: see :mod:`vconv.convert.ascend.atc`.

    ``route`` is ``om`` if ATC compiles a graph of ONNX, and ``air`` if it compiles a graph of Ascend IR that
    torchair makes of the same network.

    ``command`` runs in a folder with the settings and the graph: one of the artifact's graphs, with its
    weights inside, or that of Ascend IR. If export had ATC, this graph is not kept. If export had no ATC, or
    no torchair where it is needed, the manifest has no hash of the model's file, and a script beside that
    file makes the model later. ``gears`` are the batches that the model takes, ``gears_size`` the (height,
    width); either is empty for that of the static graph.
    """

    soc: str
    precision_mode: str
    gears: tuple[int, ...]
    gears_size: tuple[tuple[Side, Side], ...] = ()
    command: tuple[str, ...]
    route: Literal["om", "air"] = "om"


class VariantRecord(Record):
    """One variant that the artifact holds.

    ``path`` is the file that is run. ``weights`` is the file with its weights; None if the weights are inside
    ``path``. ``patches`` are the patches that the variant has. ``graph`` is set if the variant is a graph or
    is compiled from one; ``offline`` is set if ATC compiles the variant. ``reduction`` is set if it is a
    graph in reduced precision.
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
    reduction: ReductionRecord | None = None

    @property
    def batch(self) -> int | None:
        """The fixed batch size; None if the variant takes any batch."""
        return self.contract.batch


class SizedGoldenRecord(Record):
    """Recorded inputs and outputs at another (height, width) than the image processor's."""

    path: Inside
    size: tuple[Side, Side]


class GoldenRecord(Record):
    """The recorded inputs and reference outputs, with the distances that are needed to judge by them.

    ``elsewhere`` has those at other sizes, if the artifact has a graph for images of any size.
    """

    path: Inside
    images: tuple[str, ...]
    reference: str
    floor: dict[str, float]
    to_stock_original: dict[str, float]
    elsewhere: tuple[SizedGoldenRecord, ...] = ()


class ComplexityRecord(Record):
    """The cost of a forward pass of one image: see :mod:`vconv.convert.libraries.complexity`."""

    parameters: Count
    multiply_accumulates: Count
    activations: Count


class AuthorsRecord(Record):
    """A file with the same weights in the layout of the authors' repository, for the authors' own code.

    ``ledger`` is the file with its ledger, ``family`` the name of the layout. ``losses`` says how the outputs
    of the authors' code differ from the artifact's.
    """

    path: Inside
    ledger: Inside
    family: str
    losses: tuple[str, ...] = ()


class FileRecord(Record):
    """The hash and the size of one file."""

    sha256: Sha256
    nbytes: Count
