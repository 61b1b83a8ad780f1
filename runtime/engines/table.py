"""Engines that run a graph: ONNX Runtime and OpenVINO. A new engine is one class and one row."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from vconv.errors import EngineError, MemoryShortError, UnavailableError
from vconv.runtime.devices.base import Device
from vconv.runtime.engines.placement import Profile
from vconv.runtime.engines.session import Placed, Session
from vconv.types import INPUT, Array

_OUT_OF_MEMORY = "Failed to allocate memory"


@contextlib.contextmanager
def refusals(engine: str, errors: tuple[type[Exception], ...], subject: str) -> Iterator[None]:
    """Turn what an engine raises on a graph or batch that it will not take into a sentence."""
    try:
        yield
    except errors as error:
        short = _OUT_OF_MEMORY in str(error)
        raise (MemoryShortError if short else EngineError)(
            f"{engine} refuses {subject}",
            got=" ".join(str(error).split())[-300:] if short else " ".join(str(error).split())[:300],
            expected="room for the batch" if short else "a graph that it can run",
            fix="use a smaller batch"
            if short
            else "export the artifact again; if that does not help, report it",
        ) from error


def unavailable(engine: str, lack: str, device: Device) -> UnavailableError:
    """Make the error of an engine that is not there for a device."""
    return UnavailableError(
        f"{engine} cannot run here",
        got=lack,
        expected=f"{engine} for {device.name}",
        fix=f"install the build of {engine} for this device, or use another engine",
    )


ONNX_RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    *(
        value
        for value in vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ),
)
"""Everything that ONNX Runtime raises: of its own, and where inputs and outputs are bound, a RuntimeError."""
_TYPES = {"float": "float32", "double": "float64"}
"""From ONNX Runtime's name of a type to everyone else's, where they differ."""


_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
"""ONNX Runtime's key for where a serialised graph's weights are (session_options_config_keys.h)."""


def _session_options(profile: Profile | None, weights_folder: Path | None) -> onnxruntime.SessionOptions:
    """Return how every graph is run in ONNX Runtime; a serialised one with the weights of a folder."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Idle threads would otherwise spin on into the next variant's run and slow it down.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if weights_folder is not None:
        options.add_session_config_entry(_WEIGHTS_FOLDER, str(weights_folder))
    if profile:
        profile.start(options)
    return options


def onnxruntime_session(
    model: str | bytes,
    device: Device,
    subject: str,
    profile: Profile | None = None,
    weights_folder: Path | None = None,
) -> onnxruntime.InferenceSession:
    """Open a graph, or a serialised one, in ONNX Runtime.

    Args:
        model: the path of a graph, or its bytes.
        device: where to run it.
        subject: what a refusal calls it.
        profile: what notes where its nodes run; None for nothing.
        weights_folder: where a serialised graph's external weights are.

    Raises:
        EngineError: ONNX Runtime refuses it.
        UnavailableError: ONNX Runtime would run it somewhere else, as it does where a library is missing.
    """
    with refusals("ONNX Runtime", ONNX_RUNTIME_ERRORS, subject):
        options, providers = _session_options(profile, weights_folder), list(device.providers)
        session = onnxruntime.InferenceSession(model, options, providers=providers)
    used = session.get_providers()
    if not device.provider_names() <= set(used):
        raise unavailable("onnxruntime", f"{', '.join(used)} alone", device)
    return session


def _placed(output: Any) -> Placed:
    dtype = str(output.data_type())[len("tensor(") : -1]
    return Placed(_TYPES.get(dtype, dtype), output.device_name())


class OnnxRuntimeSession(Session):
    """A graph in ONNX Runtime. On an accelerator, what runs before the first fetch is profiled, to see where.

    Args:
        graph: the ONNX file.
        device: where to run it.
        folder: see :class:`Session`.
        size: see :class:`Session`.
        batch: see :class:`Session`.
    """

    engine = "onnxruntime"

    @staticmethod
    def lack(device: Device) -> str:
        """Say what this installation lacks to run on a device; empty if nothing."""
        available = onnxruntime.get_available_providers()
        missing = sorted(device.provider_names() - set(available))
        return f"no {missing[0]}, only {', '.join(available)}" if missing else ""

    def __init__(
        self, graph: Path, device: Device, folder: Path, size: tuple[int, int], batch: int | None
    ) -> None:
        super().__init__(folder, size, batch)
        self.path, self._graph = graph, graph.name
        self._device = device
        lack = self.lack(device)
        if lack:
            raise unavailable(self.engine, lack, device)
        self._profile = None if device.kind == "cpu" or device.simulated else Profile()
        with contextlib.ExitStack() as undone:
            if self._profile:
                undone.callback(self._profile.discard)
            self._session = self.load(graph)
            self._closing = undone.pop_all()
        self._names = [output.name for output in self._session.get_outputs()]

    def load(self, graph: Path) -> onnxruntime.InferenceSession:
        """Load the graph."""
        return onnxruntime_session(str(graph), self._device, self._graph, self._profile)

    def _refusals(self) -> contextlib.AbstractContextManager[None]:
        return refusals("ONNX Runtime", ONNX_RUNTIME_ERRORS, self._graph)

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        """See :meth:`Session.bind`."""
        self._check_open()
        kind, index = self._device.ort_name, self._device.index
        binding = self._session.io_binding()
        with self._refusals():
            images = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(pixel_values), kind, index)
            binding.bind_ortvalue_input(INPUT, images)
            for name in self._names:
                binding.bind_output(name, kind, index)

        def forward() -> Any:
            with self._refusals():
                self._session.run_with_iobinding(binding)
                return binding.get_outputs()

        return forward

    def fetch(self, raw: Any) -> dict[str, Array]:
        """See :meth:`Session.fetch`."""
        outputs = dict(zip(self._names, raw, strict=True))
        self.placed = {name: _placed(output) for name, output in outputs.items()}
        if self._profile and self.fallbacks is None:
            self.fallbacks = self._profile.end(self._session, self._device.provider_names())
        with self._refusals():
            return {name: output.numpy() for name, output in outputs.items()}


OPENVINO_SETTINGS = {"INFERENCE_PRECISION_HINT": "f32"}
"""How every graph is run in OpenVINO: its own default, on a CPU that has it, is bfloat16."""


class OpenVinoSession(Session):
    """A graph in OpenVINO on CPU, in float32: its own default there would be bfloat16.

    Args:
        graph: the ONNX file.
        device: the CPU.
        folder: see :class:`Session`.
        size: see :class:`Session`.
        batch: see :class:`Session`.
    """

    engine = "openvino"

    @staticmethod
    def lack(device: Device) -> str:
        """Say what this installation lacks to run on a device; empty if nothing."""
        if importlib.util.find_spec("openvino") is None:
            return "the package openvino is not installed"
        return "" if device.kind == "cpu" else "OpenVINO runs on CPU here"

    def __init__(
        self, graph: Path, device: Device, folder: Path, size: tuple[int, int], batch: int | None
    ) -> None:
        super().__init__(folder, size, batch)
        lack = self.lack(device)
        if lack:
            raise unavailable(self.engine, lack, device)
        try:
            import openvino
        except ImportError as error:
            raise unavailable(self.engine, f"it fails to load: {error}", device) from error
        self.path, self._graph = graph, graph.name
        with self._refusals():
            self._model = openvino.Core().compile_model(str(graph), "CPU", OPENVINO_SETTINGS)
        # Two outputs that are one value, as DINOv3's pooled and cls are, may share their names here.
        graph_outputs = onnx.load(graph, load_external_data=False).graph.output
        self._places = {output.name: self._model.output(output.name) for output in graph_outputs}

    def _refusals(self) -> contextlib.AbstractContextManager[None]:
        return refusals("OpenVINO", (RuntimeError,), self._graph)

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        """See :meth:`Session.bind`."""
        self._check_open()

        def forward() -> Any:
            with self._refusals():
                return self._model([pixel_values])

        return forward

    def fetch(self, raw: Any) -> dict[str, Array]:
        """See :meth:`Session.fetch`."""
        with self._refusals():
            arrays = {name: np.array(raw[place]) for name, place in self._places.items()}
        self.placed = {name: Placed(str(array.dtype), "cpu") for name, array in arrays.items()}
        return arrays


GRAPH_ENGINES: dict[str, type[OnnxRuntimeSession] | type[OpenVinoSession]] = {
    session.engine: session for session in (OnnxRuntimeSession, OpenVinoSession)
}
"""Engines that run a graph, by name."""
