"""A toy engine: all that a new engine is, in one file. It runs graphs in onnx's own reference evaluator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx.external_data_helper import load_external_data_for_model
from onnx.reference import ReferenceEvaluator

from vconv.precisions import FP32
from vconv.runtime.devices.base import Device
from vconv.runtime.engines.base import GraphSession, Placed, RunPiece
from vconv.types import INPUT, Array, Arrays


class ToySession(GraphSession):
    """A graph in onnx's reference evaluator, on a CPU."""

    engine = "toy"

    @classmethod
    def lack(cls, device: Device) -> str:
        """See GraphSession."""
        return "" if device.kind == "cpu" else "a toy runs on a CPU"

    @classmethod
    def piece(
        cls, model: onnx.ModelProto, folder: Path, names: Sequence[str], device: Device, precision: str
    ) -> RunPiece:
        """See GraphSession."""
        load_external_data_for_model(model, str(folder))
        evaluator, wanted = ReferenceEvaluator(model), list(names)

        def run(given: Arrays) -> dict[str, Array]:
            return dict(zip(wanted, evaluator.run(wanted, dict(given)), strict=True))

        return run

    def __init__(
        self,
        path: Path,
        device: Device,
        folder: Path,
        size: tuple[int, int],
        batch: int | None,
        precision: str = FP32,
    ) -> None:
        super().__init__(path, device, folder, size, batch, precision)
        self._evaluator = ReferenceEvaluator(str(path))

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        """See Session."""
        self._check_open()
        return lambda: self._evaluator.run(None, {INPUT: pixel_values})

    def fetch(self, raw: Any) -> dict[str, Array]:
        """See Session."""
        arrays = dict(zip(self._evaluator.output_names, raw, strict=True))
        self.placed = {name: Placed(str(array.dtype), "cpu") for name, array in arrays.items()}
        return arrays
