"""Graphs in OpenVINO, on a CPU: the engine ``openvino``."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import EncodeError
from onnx.external_data_helper import load_external_data_for_model

from vconv.errors import UnavailableError
from vconv.precisions import FP32, PRECISIONS
from vconv.runtime.devices.base import Device
from vconv.runtime.engines import linked_weights
from vconv.runtime.engines.base import PIECE, GraphSession, Placed, RunPiece, refusals, unavailable
from vconv.types import Array, Arrays

_HINTS = {"FLOAT": "f32", "FLOAT16": "f16", "BFLOAT16": "bf16", "INT8": "f32"}
"""ONNX's name of a type -> OpenVINO's. A probe finds the arithmetic that OpenVINO then really uses."""


def settings(precision: str) -> Mapping[str, str]:
    """Return OpenVINO's settings for a graph of a precision.

    Without them, OpenVINO computes in bfloat16 on a CPU that has bfloat16.

    Raises:
        UnavailableError: OpenVINO has no such precision.
    """
    row = PRECISIONS.get(precision)
    if row is None or row.onnx not in _HINTS:
        raise UnavailableError(
            f"OpenVINO has no precision {precision}",
            got=precision,
            expected=f"a graph of {', '.join(_HINTS)}",
            fix="use another engine, or a variant in another precision",
        )
    return {"INFERENCE_PRECISION_HINT": _HINTS[row.onnx]}


def _with_weights(model: onnx.ModelProto, folder: Path) -> bytes:
    """Serialise a graph with its weights: OpenVINO finds a weights file only from the path of a graph."""
    load_external_data_for_model(model, str(linked_weights.resolved(model, folder)))
    serialised: bytes = model.SerializeToString()
    return serialised


class OpenVinoSession(GraphSession):
    """A graph in OpenVINO on a CPU, in the requested precision.

    Args:
        path: the ONNX file.
        device: the CPU.
        folder: see :class:`vconv.runtime.engines.base.FileSession`.
        size: see the same class.
        batch: see the same class.
        precision: see the same class.
    """

    engine = "openvino"

    @classmethod
    def lack(cls, device: Device) -> str:
        """See :meth:`vconv.runtime.engines.base.FileSession.lack`."""
        if importlib.util.find_spec("openvino") is None:
            return "the package openvino is not installed"
        return "" if device.kind == "cpu" else "OpenVINO runs on CPU here"

    @classmethod
    def piece(
        cls, model: onnx.ModelProto, folder: Path, names: Sequence[str], device: Device, precision: str
    ) -> RunPiece:
        """See :meth:`vconv.runtime.engines.base.GraphSession.piece`."""
        import openvino

        with refusals("OpenVINO", (RuntimeError, EncodeError), PIECE):
            core = openvino.Core()
            serialised = _with_weights(model, folder)
            compiled: Any = core.compile_model(core.read_model(serialised), "CPU", settings(precision))

        def run(given: Arrays) -> dict[str, Array]:
            with refusals("OpenVINO", (RuntimeError,), PIECE):
                found = compiled(dict(given))
            # Outputs that are the same value share one port, which has all of their names.
            ports = {name: port for port in compiled.outputs for name in port.names}
            return {name: found[ports[name]].copy() for name in names}

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
        lack = self.lack(device)
        if lack:
            raise unavailable(self.engine, lack, device)
        try:
            import openvino
        except ImportError as error:
            raise unavailable(self.engine, f"it fails to load: {error}", device) from error
        linked = linked_weights.opened(path)
        with self._refusals():
            core = openvino.Core()
            source = core.read_model(_with_weights(linked, path.parent)) if linked else str(path)
            self._model = core.compile_model(source, "CPU", settings(precision))
            self.threads = int(self._model.get_property("INFERENCE_NUM_THREADS"))
        # Two outputs that are the same value, such as DINOv3's pooled and cls, may share their names.
        graph_outputs = onnx.load(path, load_external_data=False).graph.output
        self._places = {output.name: self._model.output(output.name) for output in graph_outputs}

    def _refusals(self) -> contextlib.AbstractContextManager[None]:
        return refusals("OpenVINO", (RuntimeError, EncodeError), self.path.name)

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        """See :meth:`vconv.runtime.engines.base.Session.bind`."""
        self._check_open()

        def forward() -> Any:
            with self._refusals():
                return self._model([pixel_values])

        return forward

    def fetch(self, raw: Any) -> dict[str, Array]:
        """See :meth:`vconv.runtime.engines.base.Session.fetch`."""
        with self._refusals():
            arrays = {name: np.array(raw[place]) for name, place in self._places.items()}
        self.placed = {name: Placed(str(array.dtype), "cpu") for name, array in arrays.items()}
        return arrays
