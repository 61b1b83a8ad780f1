"""The basic types and names that every package shares. This module imports no other package of vconv."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]
    Arrays = Mapping[str, Array]
else:
    Array = Arrays = Any

Config = Mapping[str, Any]
"""A model's or processor's configuration, as in its JSON file."""

Say = Callable[[str], None]
"""Receives one progress line. The command line prints the line to standard error."""

IMAGES = "images"
"""The input of a graph with preprocessing: uint8 (B, H, W, 3), in RGB."""

INPUT = "pixel_values"
"""The one input of every graph and session: float32 (B, 3, H, W), normalised."""

CHANNELS = 3
"""Channels of every image: red, green and blue."""

BATCH_AXIS = "batch"
"""The name of the batch axis in a shape with any batch."""
HEIGHT_AXIS, WIDTH_AXIS = "height", "width"
"""The names of the axes of the images, in pixels, in a shape with images of any size."""
ROWS_AXIS, COLUMNS_AXIS = "rows", "columns"
PATCHES_AXIS, TOKENS_AXIS = "patches", "tokens"
"""The names of the axes of an output that follow from them: rows times columns, and prefix tokens added."""


def finer_axis(axis: str, cells: int) -> str:
    """Return the name of an axis with so many cells for each row, or column, of patches."""
    return axis if cells == 1 else f"{axis}_x{cells}"


WEIGHTS_FILE = "model.safetensors"
"""The one weights file of an artifact, in its library's stock layout."""

PICKLE_FILE = "pytorch_model.bin"
"""The file name of a transformers checkpoint before safetensors existed."""

CONFIG_FILE = "config.json"
ADAPTER_FILE = "adapter_config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
"""The configurations of a model and of its image processor, as the hubs' libraries name them."""

MANIFEST_FILE = "vconv.json"
"""The file that makes a folder an artifact."""


@dataclass(frozen=True)
class VariantSpec:
    """A variant that every artifact holds.

    Args:
        name: the variant's name.
        engine: the engine that runs it, unless another engine is requested.
        path: the file that is run, inside the artifact.
        precision: the precision of its weights and arithmetic.
        for_npu: whether it is made for an NPU: a fixed batch, and only operators that CANN lists.
        from_images: whether it preprocesses images itself.
    """

    name: str
    engine: str
    path: str
    precision: str
    for_npu: bool = False
    from_images: bool = False


VARIANTS = (
    VariantSpec("patched-torch-fp32", "torch", WEIGHTS_FILE, "fp32"),
    VariantSpec("onnx-fp32", "onnxruntime", "model.onnx", "fp32"),
    VariantSpec("onnx-fp32-npu", "onnxruntime", "model.npu.onnx", "fp32", for_npu=True),
)
"""The variants that every artifact holds. The original also runs if its weights are available."""

FROM_IMAGES = VariantSpec("onnx-fp32-uint8", "onnxruntime", "model.uint8.onnx", "fp32", from_images=True)
"""The variant of an artifact that is exported with preprocessing."""

GRAPHS = tuple(variant for variant in VARIANTS if variant.engine != "torch")
"""The variants that are graphs."""


def reduced_name(graph: VariantSpec, precision: str) -> str:
    """Return the name of the variant that is a graph in another precision: ``onnx-fp16-npu``."""
    return graph.name.replace(graph.precision, precision)


class Status(StrEnum):
    """The result of a check, a variant or a whole validation."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True)
class Check:
    """The result of one check besides the comparison of outputs.

    Args:
        name: the name of the check.
        status: passed, failed, or skipped.
        detail: the finding, or the reason why the check was skipped.
        fault: the class of fault that caused the failure; empty if the check did not fail.
    """

    name: str
    status: Status
    detail: str
    fault: str = ""

    def __post_init__(self) -> None:
        if not self.detail:
            raise ValueError(f"check {self.name!r} has no detail")
        if bool(self.fault) != (self.status is Status.FAILED):
            raise ValueError(f"check {self.name!r} is {self.status}, of class {self.fault!r}")


_HASHED = re.compile(r"\b(folder|file):([0-9a-f]{12,64})\b")
"""The label of weights from a folder or a file, of which nothing but the hash is recorded."""


def weights_named(label: str, synthetic: bool) -> str:
    """Return the name of weights for display; it always says if the weights are synthetic."""
    plain = _HASHED.sub(r"a \1, sha256 \2", label)
    return f"{label} (synthetic: not trained weights)" if synthetic else plain


def silent(line: str) -> None:
    """Discard a progress line."""
