"""Fragments: pieces of a graph with their weights inside, run by the engines that run whole graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vconv.runtime.devices.base import Device
from vconv.runtime.engines.table import ONNX_RUNTIME_ERRORS, OPENVINO_SETTINGS, onnxruntime_session, refusals
from vconv.types import Array, Arrays

Fragment = Callable[[Arrays], dict[str, Array]]
"""Runs a piece of a graph: from named inputs to named outputs."""
_PIECE = "a piece of the graph"
"""What a refusal calls it."""


def _onnxruntime(model: bytes, names: list[str], device: Device) -> Fragment:
    session = onnxruntime_session(model, device, _PIECE)

    def run(given: Arrays) -> dict[str, Array]:
        with refusals("ONNX Runtime", ONNX_RUNTIME_ERRORS, _PIECE):
            return dict(zip(names, session.run(names, dict(given)), strict=True))

    return run


def _openvino(model: bytes, names: list[str], device: Device) -> Fragment:
    import openvino

    with refusals("OpenVINO", (RuntimeError,), _PIECE):
        core = openvino.Core()
        compiled: Any = core.compile_model(core.read_model(model), "CPU", OPENVINO_SETTINGS)

    def run(given: Arrays) -> dict[str, Array]:
        with refusals("OpenVINO", (RuntimeError,), _PIECE):
            found = compiled(dict(given))
        # Values that are one and the same share a port here, under all of their names.
        ports = {name: port for port in compiled.outputs for name in port.names}
        return {name: found[ports[name]].copy() for name in names}

    return run


FRAGMENT_ENGINES: Mapping[str, Callable[[bytes, list[str], Device], Fragment]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
"""By engine: loads a serialised graph; takes the names of its outputs and the device."""
