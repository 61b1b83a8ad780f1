"""Captured variants: the forward pass is captured once as a graph of kernels, and then replayed.

Eager inference at a small batch waits for the host, which launches one kernel after another. A captured graph
is launched as a whole. torch supports capture for CUDA
(https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs), and torch_npu under the same names for NPUs,
with ``NPUGraph`` for ``CUDAGraph``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vconv.errors import EngineError, MemoryShortError
from vconv.runtime.devices.base import Device
from vconv.runtime.engines.torch_model import TorchSession
from vconv.runtime.timing.launches import Launches
from vconv.types import Array

WARMUPS = 3
"""Runs before a capture, in which libraries choose their kernels and allocate their memory."""
REPLAYED = "replayed as one graph"

Run = Callable[[Tensor], Any]
"""Runs a batch that is on the device."""


def _captured(module: Any, graph: Any, index: int, run: Run, images: Tensor) -> Run:
    """Capture the kernels of a run; return a function that replays them on other images of the same shape.

    Args:
        module: ``torch.cuda`` or ``torch.npu``.
        graph: an empty graph of this module.
        index: the device's index.
        run: the run to capture.
        images: (B, 3, H, W) on the device.
    """
    with module.device(index):
        given, side = images.clone(), module.Stream()
        side.wait_stream(module.current_stream())
        with module.stream(side):
            for _ in range(WARMUPS):
                run(given)
        module.current_stream().wait_stream(side)
        with module.graph(graph):
            outputs = run(given)

    def replay(images: Tensor) -> Any:
        with module.device(index):
            given.copy_(images)
            graph.replay()
        return outputs

    return replay


def _on_cuda(index: int, run: Run, images: Tensor) -> Run:
    return _captured(torch.cuda, torch.cuda.CUDAGraph(), index, run, images)


def _on_npu(index: int, run: Run, images: Tensor) -> Run:
    npu: Any = torch.npu  # type: ignore[attr-defined]
    return _captured(npu, npu.NPUGraph(), index, run, images)


_KINDS: Mapping[str, Callable[[int, Run, Tensor], Run]] = {"cuda": _on_cuda, "npu": _on_npu}
"""Kind of device -> the function that captures on it."""


def lack(device: Device) -> str:
    """Return why a device cannot capture; empty if it can."""
    return "" if device.kind in _KINDS else f"{device.name}, which captures no graphs"


class CapturedSession(TorchSession):
    """A torch model that captures the forward pass at the first run of each shape, and then replays it.

    The outputs of a run are valid until the next run of the same shape, which overwrites them.
    """

    @functools.cached_property
    def _replays(self) -> dict[tuple[int, ...], Run]:
        replays: dict[tuple[int, ...], Run] = {}
        # A graph reads the weights from their addresses: free the graphs before the weights.
        self._closing.callback(replays.clear)
        return replays

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        """See :meth:`vconv.runtime.engines.base.Session.bind`. The first run of a shape is captured."""
        self._check_open()
        images = self._on_device(pixel_values)
        shape = tuple(images.shape)

        def forward() -> Any:
            self._check_open()
            if shape not in self._replays:
                self._replays[shape] = self._capture(images)
            with self.refusals(), torch.inference_mode():
                return self._replays[shape](images)

        return forward

    def _capture(self, images: Tensor) -> Run:
        try:
            with self._running(torch.inference_mode):
                return _KINDS[self.device.kind](self.device.index, self.outputs, images)
        except MemoryShortError:
            raise
        except EngineError as error:
            raise EngineError(
                f"{self.device.name} cannot capture this in {self.precision.name}",
                got=error.got,
                expected="a forward pass that waits for nothing on the host",
                fix="leave --capture out",
            ) from error

    def launches(self, pixel_values: Array) -> Launches | None:
        """See :meth:`Session.launches`: counts the launches of the same forward pass outside a graph."""
        found = super().launches(pixel_values)
        return None if found is None else replace(found, how=f"{found.how}, {REPLAYED}")
