"""Graphs in ONNX Runtime, on every kind of device: the engine ``onnxruntime``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from vconv.precisions import FP32
from vconv.runtime.devices.base import Device
from vconv.runtime.engines.base import PIECE, GraphSession, Piece, Placed, refusals, unavailable
from vconv.runtime.engines.placement import Profile
from vconv.types import INPUT, Array, Arrays


@dataclass(frozen=True)
class Provider:
    """What runs nodes on a kind of device.

    Args:
        name: ONNX Runtime's name of it, an execution provider.
        memory: ONNX Runtime's name of the memory that it works on.
        options: how it is set up, beside the device's index; None for one that takes nothing.
    """

    name: str
    memory: str
    options: Mapping[str, Any] | None = None

    def on(self, device: Device) -> str | tuple[str, dict[str, Any]]:
        """Return it as ONNX Runtime takes it, for one device."""
        if self.options is None:
            return self.name
        return self.name, {"device_id": device.index, **self.options}


_CPU = Provider("CPUExecutionProvider", "cpu")
PROVIDERS: Mapping[str, Provider] = {
    "cpu": _CPU,
    "npu-sim": _CPU,
    "cuda": Provider("CUDAExecutionProvider", "cuda", {"use_tf32": 0}),
    "npu": Provider(
        "CANNExecutionProvider", "cann", {"precision_mode": "must_keep_origin_dtype", "dump_om_model": 0}
    ),
}
"""By kind of device. CANN's own defaults are force_fp16, and a file in the current folder for every graph:
https://onnxruntime.ai/docs/execution-providers/community-maintained/CANN-ExecutionProvider.html."""
ONNX_RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    *(
        value
        for value in vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ),
)
"""Everything that ONNX Runtime raises: its exceptions, and RuntimeError from binding inputs or outputs."""
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
        options, provider = _session_options(profile, weights_folder), PROVIDERS[device.kind]
        session = onnxruntime.InferenceSession(model, options, providers=[provider.on(device)])
    used = session.get_providers()
    if provider.name not in used:
        raise unavailable("onnxruntime", f"{', '.join(used)} alone", device)
    return session


def _placed(output: Any) -> Placed:
    dtype = str(output.data_type())[len("tensor(") : -1]
    return Placed(_TYPES.get(dtype, dtype), output.device_name())


class OnnxRuntimeSession(GraphSession):
    """A graph in ONNX Runtime. On an accelerator, what runs before the first fetch is profiled, to see where.

    Args:
        path: the ONNX file.
        device: see :class:`vconv.runtime.engines.base.FileSession`, and likewise the other arguments.
        folder: see there.
        size: see there.
        batch: see there.
        precision: see there. It is the graph's own: ONNX Runtime takes no word on it.
    """

    engine = "onnxruntime"

    @classmethod
    def lack(cls, device: Device) -> str:
        """See :meth:`vconv.runtime.engines.base.FileSession.lack`."""
        if device.kind not in PROVIDERS:
            return f"vconv knows no execution provider for {device.name}"
        available, provider = onnxruntime.get_available_providers(), PROVIDERS[device.kind]
        return "" if provider.name in available else f"no {provider.name}, only {', '.join(available)}"

    @classmethod
    def piece(cls, model: bytes, names: Sequence[str], device: Device, precision: str) -> Piece:
        """See :meth:`vconv.runtime.engines.base.GraphSession.piece`."""
        session, wanted = onnxruntime_session(model, device, PIECE), list(names)

        def run(given: Arrays) -> dict[str, Array]:
            with refusals("ONNX Runtime", ONNX_RUNTIME_ERRORS, PIECE):
                return dict(zip(wanted, session.run(wanted, dict(given)), strict=True))

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
        self._profile = None if device.kind == "cpu" or device.simulated else Profile()
        with contextlib.ExitStack() as undone:
            if self._profile:
                undone.callback(self._profile.discard)
            self._session = self.load(path)
            self._closing = undone.pop_all()
        self._names = [output.name for output in self._session.get_outputs()]

    def load(self, graph: Path) -> onnxruntime.InferenceSession:
        """Load the graph."""
        return onnxruntime_session(str(graph), self.device, self.path.name, self._profile)

    def _refusals(self) -> contextlib.AbstractContextManager[None]:
        return refusals("ONNX Runtime", ONNX_RUNTIME_ERRORS, self.path.name)

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        """See :meth:`vconv.runtime.engines.base.Session.bind`."""
        self._check_open()
        kind, index = PROVIDERS[self.device.kind].memory, self.device.index
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
        """See :meth:`vconv.runtime.engines.base.Session.fetch`."""
        outputs = dict(zip(self._names, raw, strict=True))
        self.placed = {name: _placed(output) for name, output in outputs.items()}
        if self._profile and self.fallbacks is None:
            self.fallbacks = self._profile.end(self._session, {PROVIDERS[self.device.kind].name})
        with self._refusals():
            return {name: output.numpy() for name, output in outputs.items()}
