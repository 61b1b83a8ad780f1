"""The nouns that every room shares. No room is imported here, and nothing heavy."""

from __future__ import annotations

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
"""A model's or processor's configuration, as its JSON file holds it."""

Say = Callable[[str], None]
"""Takes one line of progress. The command line prints it to standard error."""

INPUT = "pixel_values"
"""The one input of every graph and session: float32 (B, 3, H, W), normalised."""

CHANNELS = 3
"""Channels of every image: red, green and blue."""

BATCH_AXIS = "batch"
"""What the batch is called in a shape where it may have any length."""

WEIGHTS_FILE = "model.safetensors"
"""The one weights file of an artifact, in its library's stock layout."""

PICKLE_FILE = "pytorch_model.bin"
"""What transformers called a checkpoint before there was safetensors."""

CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
"""The configurations of a model and of its image processor, as the hubs' libraries name them."""

MANIFEST_FILE = "vconv.json"
"""The file that makes a folder an artifact."""


@dataclass(frozen=True)
class VariantSpec:
    """A variant that every artifact holds.

    Args:
        name: its name.
        engine: what runs it, unless another engine is asked for.
        path: what is run, inside the artifact.
        precision: of its weights and arithmetic.
        for_npu: whether it is made for an NPU: a fixed batch, and only what CANN lists.
    """

    name: str
    engine: str
    path: str
    precision: str
    for_npu: bool = False


VARIANTS = (
    VariantSpec("patched-torch-fp32", "torch", WEIGHTS_FILE, "fp32"),
    VariantSpec("onnx-fp32", "onnxruntime", "model.onnx", "fp32"),
    VariantSpec("onnx-fp32-npu", "onnxruntime", "model.npu.onnx", "fp32", for_npu=True),
)
"""The variants that every artifact holds. The original is run beside them where its weights are at hand."""

GRAPHS = tuple(variant for variant in VARIANTS if variant.engine != "torch")
"""Those of them that are graphs."""


class Status(StrEnum):
    """How a check, a variant or a whole validation ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, beside the comparison of outputs.

    Args:
        name: what was checked.
        status: passed, failed, or skipped.
        detail: the finding, or why it was skipped.
        fault: the class of fault that a failure comes of; empty where nothing failed.
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


def weights_named(label: str, synthetic: bool) -> str:
    """Name weights, and say so where they are synthetic: the word follows them wherever they are named."""
    return f"{label} (synthetic: not trained weights)" if synthetic else label


def silent(line: str) -> None:
    """Discard a line of progress."""
