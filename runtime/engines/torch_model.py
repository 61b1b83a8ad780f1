"""Torch models with their patches on: the engine ``torch``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vconv.convert.architectures.outputs import output_names
from vconv.convert.libraries import models
from vconv.convert.network import Network
from vconv.convert.patches.base import Patch, applied
from vconv.errors import EngineError, MemoryShortError
from vconv.precisions import FP32, PRECISIONS, Precision
from vconv.runtime.devices.base import Device
from vconv.runtime.engines import arithmetic
from vconv.runtime.engines.base import Placed, Session
from vconv.runtime.timing import launches
from vconv.runtime.timing.launches import Launches
from vconv.types import Array, Arrays

_CPU_OUT_OF_MEMORY = "can't allocate memory"
"""What torch's allocator for CPUs says, in a plain RuntimeError."""


def torch_type(name: str) -> torch.dtype:
    """Return the type that torch has under a name."""
    found: torch.dtype = getattr(torch, name)
    return found


def autocast(precision: Precision, device: Device) -> AbstractContextManager[Any]:
    """Return the context in which a model is run in a precision."""
    if not precision.autocast:
        return contextlib.nullcontext()
    return torch.autocast(device.kind, dtype=torch_type(precision.autocast))


@contextlib.contextmanager
def refusals(precision: Precision, device: Device) -> Iterator[None]:
    """Turn what torch raises while a model is built or run into a sentence."""
    try:
        yield
    except RuntimeError as error:
        got = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if isinstance(error, torch.OutOfMemoryError) or _CPU_OUT_OF_MEMORY in got:
            raise MemoryShortError(
                f"{device.name} has too little memory",
                got=got,
                expected="room for the model and the batch",
                fix="use a smaller batch",
            ) from error
        raise EngineError(
            f"torch cannot run this in {precision.name} on {device.name}",
            got=got,
            expected="a model that it can run",
            fix="use another precision or device; if that does not help, report it",
        ) from error


def _probed(place: str, dtype: torch.dtype) -> Arrays:
    """Run the products of :func:`vconv.runtime.engines.arithmetic.graph` in torch."""
    images = torch.from_numpy(arithmetic.images()).to(place, dtype)
    first, second = (torch.from_numpy(weights.T.copy()).to(place, dtype) for weights in arithmetic.weights())
    kernels = first.reshape(-1, *images.shape[1:])
    matmul = functional.linear(functional.linear(images.flatten(1), first).relu(), second)
    convolution = functional.conv2d(functional.conv2d(images, kernels).relu(), second[..., None, None])
    named = ((arithmetic.MATMUL, matmul), (arithmetic.CONVOLUTION, convolution.flatten(1)))
    return {name: value.float().cpu().numpy() for name, value in named}


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

    @classmethod
    def lack(cls, device: Device) -> str:
        """Return nothing: torch runs on every device."""
        return ""

    @classmethod
    def arithmetic(cls, device: Device, precision: str) -> str:
        """Find out what torch really computes a precision in on a device, as its variants are run.

        Raises:
            EngineError: torch cannot run it.
        """
        row = PRECISIONS[precision]
        with (
            refusals(row, device),
            torch.inference_mode(),
            device.exact(),
            autocast(row, device),
        ):
            return arithmetic.read(_probed(device.torch_name, torch_type(row.dtype)))

    def __init__(
        self,
        model: nn.Module,
        network: Network,
        device: Device,
        patches: Iterable[Patch],
        folder: Path,
        size: tuple[int, int],
        precision: Precision = PRECISIONS[FP32],
        gelu: str = "",
    ) -> None:
        super().__init__(folder, size)
        self.gelu = gelu
        self.names = output_names(network)
        self.device, self.precision = device, precision
        with self.refusals(), contextlib.ExitStack() as undone:
            undone.callback(models.discard, model)
            # Patches go on last: a change of type makes transformers' and timm's buffers anew.
            model.to(torch_type(precision.dtype))
            self.patches = undone.enter_context(applied(model, network, patches))
            self.outputs = models.Outputs(model, network).to(device.torch_name).eval()
            self._closing = undone.pop_all()

    def refusals(self) -> AbstractContextManager[None]:
        """Turn what torch raises while the model is built or run into a sentence."""
        return refusals(self.precision, self.device)

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
            return torch.from_numpy(pixel_values).to(self.device.torch_name, torch_type(self.precision.dtype))

    @contextlib.contextmanager
    def _running(self, without_gradients: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
        """Be in the state in which the model is run: exact arithmetic, its precision, no gradients."""
        with (
            self.refusals(),
            without_gradients(),
            self.device.exact(),
            autocast(self.precision, self.device),
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
