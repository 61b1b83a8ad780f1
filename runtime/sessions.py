"""Sessions: a variant that is loaded and can be run. One class an engine."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnxruntime
import torch
from PIL import Image
from torch import nn

from vconv.convert import models
from vconv.convert.layouts import Network
from vconv.convert.patches.base import Patch, applied
from vconv.errors import EngineError, InputError
from vconv.runtime.devices import Device
from vconv.runtime.preprocessing import preprocess
from vconv.types import INPUT, Array


class Session(ABC):
    """A loaded variant. Close it, or use it in a ``with`` statement.

    Args:
        folder: the folder with its ``preprocessor_config.json``.
        size: (height, width) that it takes.
        batch: the batch that it is fixed to; None for any.
    """

    engine: str

    def __init__(self, folder: Path, size: tuple[int, int], batch: int | None = None) -> None:
        self.folder, self.size, self.batch = folder, size, batch
        self.closed = False
        self._closing = contextlib.ExitStack()

    @abstractmethod
    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        """Put a batch on the device; return a function that runs it there and does nothing else."""

    @abstractmethod
    def run(self, pixel_values: Array) -> dict[str, Array]:
        """Run one batch of float32 (B, 3, H, W); return the named outputs as arrays."""

    def __call__(self, images: Array | Sequence[Image.Image]) -> dict[str, Array]:
        """Run a batch.

        Args:
            images: float32 (B, 3, H, W), normalised already, or a list of images to be preprocessed.

        Returns:
            Each output by name, with B rows. A variant with a fixed batch takes any B: it is run as often
            as needed, and the last run is filled up.

        Raises:
            InputError: the images have another shape or type, there are none, or the session is closed.
        """
        if self.closed:
            raise InputError(
                "the session is closed", got="a call", expected="an open one", fix="load it again"
            )
        pixel_values = self._pixel_values(images)
        expected = (3, *self.size)
        if pixel_values.ndim != 4 or pixel_values.shape[1:] != expected or not len(pixel_values):
            raise InputError(
                "the images do not fit this variant",
                got=f"an array of shape {list(pixel_values.shape)}",
                expected=f"[B, {', '.join(map(str, expected))}] with B at least 1",
                fix="resize them, or pass a list of PIL images",
            )
        if pixel_values.dtype != np.float32:
            raise InputError(
                "the images do not fit this variant",
                got=f"an array of {pixel_values.dtype}",
                expected="float32, normalised",
                fix="pass a list of PIL images, or convert the array",
            )
        return in_batches(self.run, pixel_values, self.batch or len(pixel_values))

    def _pixel_values(self, images: Array | Sequence[Image.Image]) -> Array:
        if not isinstance(images, (list, tuple)):
            return np.asarray(images)
        if not images or not all(isinstance(image, Image.Image) for image in images):
            raise InputError(
                "the images cannot be preprocessed",
                got="an empty list" if not images else f"a list with a {type(images[0]).__name__}",
                expected="one PIL image or more",
                fix="pass PIL images, or one array (B, 3, H, W) that is normalised already",
            )
        return preprocess(self.folder, list(images))

    def close(self) -> None:
        """Undo what the session did to its model; it cannot be called after."""
        self.closed = True
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def in_batches(run: Callable[[Array], dict[str, Array]], pixel_values: Array, batch: int) -> dict[str, Array]:
    """Run images ``batch`` at a time; the last batch is filled up with its last image, and cut again.

    Args:
        run: runs one batch.
        pixel_values: float32 (N, 3, H, W).
        batch: images a run.

    Returns:
        Each output by name, with N rows.
    """
    parts = []
    for start in range(0, len(pixel_values), batch):
        part = pixel_values[start : start + batch]
        filled = np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)])
        parts.append({name: output[: len(part)] for name, output in run(filled).items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class TorchSession(Session):
    """A torch model with its patches on.

    Args:
        model: the model, in the precision and with the buffers that it is to have.
        network: what it is.
        device: where to run it.
        patches: patches to put on it while the session is open.
        folder: see :class:`Session`.
        size: see :class:`Session`.
    """

    engine = "torch"

    def __init__(
        self,
        model: nn.Module,
        network: Network,
        device: Device,
        patches: Iterable[Patch],
        folder: Path,
        size: tuple[int, int],
    ) -> None:
        super().__init__(folder, size)
        self._names = models.output_names(network)
        self._device = device
        self.patches = self._closing.enter_context(applied(model, network, patches))
        self._outputs = models.Outputs(model, network).to(device.torch_name).eval()

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        """See :meth:`Session.bind`."""
        images = torch.from_numpy(pixel_values).to(self._device.torch_name)

        def forward() -> Any:
            with torch.inference_mode():
                return self._outputs(images)

        return forward

    def run(self, pixel_values: Array) -> dict[str, Array]:
        """See :meth:`Session.run`."""
        outputs = self.bind(pixel_values)()
        return {name: output.cpu().numpy() for name, output in zip(self._names, outputs, strict=True)}


@contextlib.contextmanager
def _refusals(engine: str, errors: tuple[type[Exception], ...], subject: str) -> Iterator[None]:
    """Turn what an engine raises on a graph or batch that it will not take into a sentence."""
    try:
        yield
    except errors as error:
        raise EngineError(
            f"{engine} refuses {subject}",
            got=" ".join(str(error).split())[:300],
            expected="a graph that it can run",
            fix="export the artifact again; if that does not help, report it",
        ) from error


def _lacks(engine: str, got: str, expected: str) -> InputError:
    return InputError(
        f"{engine} cannot run here",
        got=got,
        expected=expected,
        fix=f"install the build of {engine} for this device",
    )


_ONNX_RUNTIME_ERRORS: tuple[type[Exception], ...] = tuple(
    value
    for value in vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
    if isinstance(value, type) and issubclass(value, Exception)
)
"""Everything that ONNX Runtime raises of its own."""


class OnnxRuntimeSession(Session):
    """A graph in ONNX Runtime.

    Args:
        graph: the ONNX file.
        device: where to run it.
        folder: see :class:`Session`.
        size: see :class:`Session`.
        batch: see :class:`Session`.
    """

    engine = "onnxruntime"

    def __init__(
        self, graph: Path, device: Device, folder: Path, size: tuple[int, int], batch: int | None
    ) -> None:
        super().__init__(folder, size, batch)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Idle threads would otherwise spin on into the next variant's run and slow it down.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._graph = graph.name
        available = onnxruntime.get_available_providers()
        if not set(device.providers) <= set(available):
            raise _lacks("ONNX Runtime", ", ".join(available), ", ".join(device.providers))
        with self._refusals():
            self._session = onnxruntime.InferenceSession(
                str(graph), options, providers=list(device.providers)
            )
        used = self._session.get_providers()
        if not set(device.providers) <= set(used):
            raise _lacks("ONNX Runtime", ", ".join(used), ", ".join(device.providers))
        self._names = [output.name for output in self._session.get_outputs()]

    def _refusals(self) -> contextlib.AbstractContextManager[None]:
        return _refusals("ONNX Runtime", _ONNX_RUNTIME_ERRORS, self._graph)

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        """See :meth:`Session.bind`."""
        feed = {INPUT: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(pixel_values))}

        def forward() -> Any:
            with self._refusals():
                return self._session.run_with_ort_values(self._names, feed)

        return forward

    def run(self, pixel_values: Array) -> dict[str, Array]:
        """See :meth:`Session.run`."""
        with self._refusals():
            outputs = self._session.run(self._names, {INPUT: pixel_values})
        return dict(zip(self._names, outputs, strict=True))


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

    def __init__(
        self, graph: Path, device: Device, folder: Path, size: tuple[int, int], batch: int | None
    ) -> None:
        super().__init__(folder, size, batch)
        try:
            import openvino
        except ImportError as error:
            raise _lacks("openvino", "not installed", "the package openvino") from error
        if device.name != "cpu":
            raise InputError(
                "OpenVINO runs on CPU here", got=device.name, expected="cpu", fix="use another engine there"
            )
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        self._graph = graph.name
        with self._refusals():
            self._model = openvino.Core().compile_model(str(graph), "CPU", settings)
        self._names = [output.get_any_name() for output in self._model.outputs]

    def _refusals(self) -> contextlib.AbstractContextManager[None]:
        return _refusals("OpenVINO", (RuntimeError,), self._graph)

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        """See :meth:`Session.bind`."""

        def forward() -> Any:
            with self._refusals():
                return self._model([pixel_values])

        return forward

    def run(self, pixel_values: Array) -> dict[str, Array]:
        """See :meth:`Session.run`."""
        outputs = self.bind(pixel_values)()
        return {name: np.array(outputs[index]) for index, name in enumerate(self._names)}


GRAPH_ENGINES: dict[str, type[OnnxRuntimeSession] | type[OpenVinoSession]] = {
    session.engine: session for session in (OnnxRuntimeSession, OpenVinoSession)
}
"""Engines that run a graph, by name."""
