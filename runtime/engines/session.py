"""Sessions: a variant that is loaded and can be run. One class an engine."""

from __future__ import annotations

import contextlib
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vconv.convert.architectures.outputs import output_names
from vconv.convert.libraries import models
from vconv.convert.network import Network
from vconv.convert.patches.base import Patch, applied
from vconv.errors import EngineError, InputError, MemoryShortError
from vconv.runtime.devices.base import Device
from vconv.runtime.engines.precisions import PRECISIONS, Precision
from vconv.runtime.inputs.preprocessing import Processor, load_processor
from vconv.runtime.timing import launches
from vconv.runtime.timing.launches import Launches
from vconv.types import Array

_CPU_OUT_OF_MEMORY = "can't allocate memory"
"""What torch's allocator for CPUs says, in a plain RuntimeError."""


@dataclass(frozen=True)
class Placed:
    """What an output was before it became an array.

    Args:
        dtype: its type.
        device: where it was.
    """

    dtype: str
    device: str


class Session(ABC):
    """A loaded variant. Close it, or use it in a ``with`` statement.

    Args:
        folder: the folder with its ``preprocessor_config.json``.
        size: (height, width) that it takes.
        batch: the batch that it is fixed to; None for any.

    Attributes:
        fallbacks: by operator, how many nodes an accelerator left to the CPU; None on a CPU, where it is not
            known, and before anything was run and fetched.
    """

    engine: str
    variant: str = ""
    """Which it is, where :func:`vconv.load` opened it."""
    gelu: str = ""
    """How a patched GELU is computed; empty where torch has none that is patched."""

    def __init__(self, folder: Path, size: tuple[int, int], batch: int | None = None) -> None:
        self.folder, self.size, self.batch = folder, size, batch
        self.placed: Mapping[str, Placed] = {}
        self.fallbacks: Mapping[str, int] | None = None
        self.closed = False
        self._closing = contextlib.ExitStack()

    @abstractmethod
    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        """Put a batch on the device; return a function that runs it there and does nothing else."""

    @abstractmethod
    def fetch(self, raw: Any) -> dict[str, Array]:
        """Read what a bound batch gave to the host, as the named outputs; note what and where they were."""

    def launches(self, pixel_values: Array) -> Launches | None:
        """Run one batch and count what it launches; None where the engine does not let that be seen."""
        return None

    def run(self, pixel_values: Array) -> dict[str, Array]:
        """Run one batch of float32 (B, 3, H, W); return the named outputs, and note where they were."""
        return self.fetch(self.bind(pixel_values)())

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
        self._check_open()
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

    def _check_open(self) -> None:
        if self.closed:
            raise InputError(
                "the session is closed", got="a call", expected="an open one", fix="load it again"
            )

    def _pixel_values(self, images: Array | Sequence[Image.Image]) -> Array:
        if not isinstance(images, (list, tuple)):
            array = np.asarray(images)
            if array.dtype.kind in "OSU":
                raise _no_images(f"a {type(images).__name__}")
            return array
        if not images or not all(isinstance(image, Image.Image) for image in images):
            raise _no_images("an empty list" if not images else f"a list with a {type(images[0]).__name__}")
        return self._processor(images)

    @functools.cached_property
    def _processor(self) -> Processor:
        return load_processor(self.folder)

    def close(self) -> None:
        """Let go of what the session holds; it cannot be called after."""
        self.closed = True
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _no_images(got: str) -> InputError:
    return InputError(
        "the images cannot be preprocessed",
        got=got,
        expected="one PIL image or more",
        fix="pass PIL images, or one array (B, 3, H, W) that is normalised already",
    )


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
        model: the model, as its library loads it in float32. It is the session's own: its weights are gone
            when the session is closed.
        network: what it is.
        device: where to run it.
        patches: patches to put on it while the session is open.
        folder: see :class:`Session`.
        size: see :class:`Session`.
        precision: what to run it in; its outputs come back as float32.
        gelu: how its patched GELU is computed, for reports; empty where none is patched.
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
        precision: Precision = PRECISIONS["fp32"],
        gelu: str = "",
    ) -> None:
        super().__init__(folder, size)
        self.gelu = gelu
        self.names = output_names(network)
        self.device, self.precision = device, precision
        with self.refusals(), contextlib.ExitStack() as undone:
            undone.callback(models.discard, model)
            # Patches go on last: a change of type makes transformers' and timm's buffers anew.
            model.to(precision.dtype)
            self.patches = undone.enter_context(applied(model, network, patches))
            self.outputs = models.Outputs(model, network).to(device.torch_name).eval()
            self._closing = undone.pop_all()

    @contextlib.contextmanager
    def refusals(self) -> Iterator[None]:
        """Turn what torch raises while the model is built or run into a sentence."""
        try:
            yield
        except RuntimeError as error:
            got = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            if isinstance(error, torch.OutOfMemoryError) or _CPU_OUT_OF_MEMORY in got:
                raise MemoryShortError(
                    f"{self.device.name} has too little memory",
                    got=got,
                    expected="room for the model and the batch",
                    fix="use a smaller batch",
                ) from error
            raise EngineError(
                f"torch cannot run this in {self.precision.name} on {self.device.name}",
                got=got,
                expected="a model that it can run",
                fix="use another precision or device; if that does not help, report it",
            ) from error

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        """See :meth:`Session.bind`."""
        return self._forward(pixel_values, torch.inference_mode)

    def launches(self, pixel_values: Array) -> Launches | None:
        """See :meth:`Session.launches`."""
        return launches.count(self._forward(pixel_values, torch.no_grad), self.device)

    def _forward(
        self, pixel_values: Array, without_gradients: Callable[[], AbstractContextManager[Any]]
    ) -> Callable[[], Any]:
        self._check_open()
        images = self._on_device(pixel_values)

        def forward() -> Any:
            with self._running(without_gradients):
                return self.outputs(images)

        return forward

    def _on_device(self, pixel_values: Array) -> Tensor:
        with self.refusals():
            return torch.from_numpy(pixel_values).to(self.device.torch_name, self.precision.dtype)

    @contextlib.contextmanager
    def _running(self, without_gradients: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
        """Be in the state in which the model is run: exact arithmetic, its precision, no gradients."""
        with (
            self.refusals(),
            without_gradients(),
            self.device.exact(),
            self.precision.context(self.device),
        ):
            yield

    def fetch(self, raw: Any) -> dict[str, Array]:
        """See :meth:`Session.fetch`."""
        outputs = dict(zip(self.names, raw, strict=True))
        self.placed = {
            name: Placed(str(output.dtype).removeprefix("torch."), str(output.device))
            for name, output in outputs.items()
        }
        with self.refusals():
            return {name: output.float().cpu().numpy() for name, output in outputs.items()}
