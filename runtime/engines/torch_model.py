"""Torch models with their patches applied: the engine ``torch``."""

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
from vconv.convert.libraries import models, widening
from vconv.convert.network import Network
from vconv.convert.patches.base import Patch, applied
from vconv.errors import EngineError, MemoryShortError, UnavailableError
from vconv.precisions import FP32, PRECISIONS, Precision
from vconv.printable import shortened
from vconv.runtime.devices.base import Device
from vconv.runtime.engines import arithmetic
from vconv.runtime.engines.base import Placed, Session
from vconv.runtime.timing import launches
from vconv.runtime.timing.launches import Launches
from vconv.types import Array

_CPU_OUT_OF_MEMORY = "can't allocate memory"
"""The message of torch's CPU allocator when memory runs out, in a plain RuntimeError."""


def torch_type(name: str) -> torch.dtype:
    """Return torch's type with a given name."""
    found: torch.dtype = getattr(torch, name)
    return found


def autocast(precision: Precision, device: Device) -> AbstractContextManager[Any]:
    """Return the autocast context of a precision; an empty context if the precision uses no autocast."""
    if not precision.autocast:
        return contextlib.nullcontext()
    return torch.autocast(device.kind, dtype=torch_type(precision.autocast))


@contextlib.contextmanager
def refusals(precision: Precision, device: Device) -> Iterator[None]:
    """Turn torch's exceptions while a model is built or run into a readable error.

    Raises:
        MemoryShortError: the device has too little memory.
        EngineError: torch failed for any other reason.
    """
    try:
        yield
    except RuntimeError as error:
        got = f"{type(error).__name__}: {shortened(str(error))}"
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


def _probe(device: Device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return the images and both weights of :func:`vconv.runtime.engines.arithmetic.graph` on a device."""
    images = torch.from_numpy(arithmetic.images()).to(device.torch_name, dtype)
    first, second = (
        torch.from_numpy(weights.T.copy()).to(device.torch_name, dtype) for weights in arithmetic.weights()
    )
    return images, first, second


def _to_type(model: nn.Module, precision: Precision, device: Device) -> None:
    """Convert a model to the type of a precision; one that is widened while it runs stays as it is.

    Raises:
        UnavailableError: it is widened to float32 while it runs, and the precision has another type.
    """
    if not widening.is_narrow(model):
        model.to(torch_type(precision.dtype))
    elif precision.dtype != "float32":
        raise UnavailableError(
            f"torch does not run this model in {precision.name} on {device.name}",
            got="weights that are widened to float32 while they are used, to save memory",
            expected="fp32, or a smaller model",
            fix="run it in fp32",
        )


class TorchSession(Session):
    """A torch model with its patches applied.

    Args:
        model: the model, as its library loads it in float32. The session owns the model: closing the session
            frees the weights.
        network: the description of the model's network.
        device: the device to run on.
        patches: patches to apply to the model while the session is open.
        folder: see :class:`Session`.
        size: see :class:`Session`.
        precision: the precision to run the model in; its outputs come back as float32.
        gelu: how the patched GELU is computed, for reports; empty if no GELU is patched.
    """

    engine = "torch"

    @classmethod
    def lack(cls, device: Device) -> str:
        """Return an empty string: torch runs on every device."""
        return ""

    @classmethod
    def arithmetic(cls, device: Device, precision: str) -> str:
        """Return the arithmetic that torch really uses for a precision on a device, set as for a variant.

        Raises:
            EngineError: torch cannot run the probe.
        """
        row = PRECISIONS[precision]
        with (
            refusals(row, device),
            torch.inference_mode(),
            device.exact(),
            autocast(row, device),
        ):
            found = cls.products(device, *_probe(device, torch_type(row.dtype)))
            names = (arithmetic.MATMUL, arithmetic.CONVOLUTION)
            outputs = {name: value.float().cpu().numpy() for name, value in zip(names, found, strict=True)}
            return arithmetic.read(outputs)

    @classmethod
    def products(cls, device: Device, images: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Run the products of :func:`vconv.runtime.engines.arithmetic.graph` as this engine runs a model.

        Args:
            device: the device that holds the tensors.
            images: the probe's images, (16, 3, 4, 4).
            first: the weights of the first product, (32, 48).
            second: the weights of the second product, (16, 32).

        Returns:
            The two matrix products and the two convolutions, each (16, 16).
        """
        kernels = first.reshape(-1, *images.shape[1:])
        matmul = functional.linear(functional.linear(images.flatten(1), first).relu(), second)
        convolution = functional.conv2d(functional.conv2d(images, kernels).relu(), second[..., None, None])
        return matmul, convolution.flatten(1)

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
        self.threads = torch.get_num_threads() if device.kind == "cpu" else None
        self._ran: set[tuple[int, ...]] = set()
        with self.refusals(), contextlib.ExitStack() as undone:
            undone.callback(models.discard, model)
            # Apply patches last: a change of type rebuilds the buffers of transformers and timm.
            _to_type(model, precision, device)
            self.patches = undone.enter_context(applied(model, network, patches))
            self.outputs = models.Outputs(model, network).to(device.torch_name).eval()
            self._closing = undone.pop_all()

    def refusals(self) -> AbstractContextManager[None]:
        """See :func:`refusals`, for this session's precision and device."""
        return refusals(self.precision, self.device)

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        """See :meth:`Session.bind`."""
        return self._forward(pixel_values, torch.inference_mode)

    def launches(self, pixel_values: Array) -> Launches | None:
        """See :meth:`Session.launches`."""
        forward = self._forward(pixel_values, torch.no_grad)
        return launches.count(forward, self.device, ran=pixel_values.shape in self._ran)

    def _forward(
        self, pixel_values: Array, without_gradients: Callable[[], AbstractContextManager[Any]]
    ) -> Callable[[], Any]:
        self._check_open()
        images = self._on_device(pixel_values)

        def forward() -> Any:
            with self._running(without_gradients):
                made = self.compute(images)
            self._ran.add(pixel_values.shape)
            return made

        return forward

    def compute(self, images: Tensor) -> Any:
        """Run the model on (B, 3, H, W) on the device; return its outputs in the order of ``names``."""
        return self.outputs(images)

    def _on_device(self, pixel_values: Array) -> Tensor:
        with self.refusals():
            return torch.from_numpy(pixel_values).to(self.device.torch_name, torch_type(self.precision.dtype))

    @contextlib.contextmanager
    def _running(self, without_gradients: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
        """Set the state in which the model runs: exact arithmetic, its precision, no gradients."""
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
