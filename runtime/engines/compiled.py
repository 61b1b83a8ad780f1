"""Torch models compiled by ``torch.compile`` with inductor: the engine ``torch-compiled``.

A session compiles at the first run of every shape of images, so that the first inference shows what it takes:
torch's in-memory and on-disk results of earlier compilations are not used, and what this compilation writes
is removed. Only torch's headers, compiled once, stay where torch keeps them, in the temporary folder.
Whatever torch cannot compile as one graph is refused, because the rest would run uncompiled.
The options are torch's own defaults (https://docs.pytorch.org/docs/stable/generated/torch.compile.html),
without its search for faster kernels; the products stay those of the device's libraries.
"""

from __future__ import annotations

import contextlib
import functools
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vconv.artifact.staging import workplace
from vconv.convert.libraries.base import quiet
from vconv.disk import SCRATCH
from vconv.errors import UnavailableError
from vconv.printable import shortened
from vconv.runtime.devices.base import Device
from vconv.runtime.engines.torch_model import TorchSession
from vconv.runtime.timing.launches import Launches
from vconv.types import Array

Run = Callable[..., Any]
"""Runs a model or a function on tensors."""
_CHATTY = ("torch.utils.cpp_extension", "torch._inductor.utils")
"""Loggers that warn of a machine without a CUDA runtime, and of a folder that is removed anyway."""
_OPTIONS: Mapping[str, Any] = {"compile_threads": 1}
"""inductor's options: no worker processes. They would stay, and count as other processes' load."""


def _on_cpu() -> str:
    """Return what inductor lacks to make C++ code run: it looks for CXX, then for g++."""
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return "torch.compile finds no C++ compiler: neither $CXX nor g++ runs"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return "" if header.exists() else f"torch.compile needs the header {header} of Python, which is not here"


def _on_cuda() -> str:
    from torch.utils._triton import has_triton

    return "" if has_triton() else "torch.compile finds no triton that works with this GPU"


def _on_npu() -> str:
    from torch._inductor.codegen import common

    common.init_backend_registration()
    known = common.get_scheduling_for_device("npu") is not None
    return "" if known else "torch_npu has not registered a backend for torch.compile's inductor"


_LACKS: Mapping[str, Callable[[], str]] = {"cpu": _on_cpu, "cuda": _on_cuda, "npu": _on_npu}
"""Kind of device -> returns what inductor lacks to compile for it, by inductor's own means."""


@contextlib.contextmanager
def _anew() -> Iterator[None]:
    """Let torch compile without earlier results, in a folder that is removed afterwards."""
    from torch._inductor.utils import fresh_inductor_cache

    temporary = Path(tempfile.gettempdir())
    with workplace(temporary, SCRATCH) as place, fresh_inductor_cache(dir=str(place)):
        yield


def _compiling(run: Run) -> Run:
    """Return a function that compiles at its first call, for one shape of its arguments."""

    def forward(*tensors: Tensor) -> Any:
        return run(*tensors)

    # torch keeps what it compiled at a function's code, and gives up after some shapes of one code.
    forward.__code__ = forward.__code__.replace()
    compiled: Run = torch.compile(forward, fullgraph=True, dynamic=False, options=dict(_OPTIONS))
    return compiled


@contextlib.contextmanager
def _as_one_graph() -> Iterator[None]:
    """Turn torch's refusal to compile a model as one graph into an error.

    Raises:
        UnavailableError: torch refuses.
    """
    from torch._dynamo.exc import Unsupported

    try:
        yield
    except Unsupported as error:
        raise UnavailableError(
            "torch.compile does not take this model",
            got=shortened(str(error)),
            expected="a forward pass that it compiles as one graph",
            fix="run it in the engine torch",
        ) from error


class CompiledSession(TorchSession):
    """A torch model with its patches applied, compiled at the first run of each shape of images."""

    engine = "torch-compiled"

    @classmethod
    def lack(cls, device: Device) -> str:
        """See :meth:`vconv.runtime.engines.base.FileSession.lack`."""
        if device.kind not in _LACKS:
            return f"torch.compile does not compile for {device.name}"
        with quiet(*_CHATTY):
            return _LACKS[device.kind]()

    @classmethod
    def products(cls, device: Device, images: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`TorchSession.products`: compiled as a model is."""
        run = _compiling(functools.partial(super().products, device))
        with quiet(*_CHATTY), _anew():
            found: tuple[Tensor, Tensor] = run(images, first, second)
        return found

    @functools.cached_property
    def _runs(self) -> dict[tuple[int, ...], Run]:
        compiled: dict[tuple[int, ...], Run] = {}
        # The compiled code refers to the weights: free it first.
        self._closing.callback(compiled.clear)
        return compiled

    @contextlib.contextmanager
    def refusals(self) -> Iterator[None]:
        """See :meth:`TorchSession.refusals`."""
        with super().refusals(), _as_one_graph():
            yield

    def compute(self, images: Tensor) -> Any:
        """See :meth:`TorchSession.compute`: compiles the model if it has not run on this shape."""
        shape = tuple(images.shape)
        if shape in self._runs:
            return self._runs[shape](images)
        run = _compiling(self.outputs)
        with quiet(*_CHATTY), _anew():
            made = run(images)
        self._runs[shape] = run
        return made

    def launches(self, pixel_values: Array) -> Launches | None:
        """Return None: what compiled code launches does not pass through torch's dispatcher."""
        return None
