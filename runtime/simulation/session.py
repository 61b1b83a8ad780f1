"""Sessions on the simulated NPU: a torch variant in a separate process, and a graph on the CPU."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from vconv.errors import EngineError
from vconv.precisions import FP32
from vconv.runtime.devices.base import Device
from vconv.runtime.engines import linked_weights
from vconv.runtime.engines.base import Placed, Session
from vconv.runtime.engines.onnxruntime import OnnxRuntimeSession, onnxruntime_session
from vconv.runtime.processes import child
from vconv.runtime.processes.request import OpenRequest
from vconv.runtime.simulation.arithmetic import Arithmetic
from vconv.runtime.simulation.graphs import rewritten
from vconv.runtime.simulation.process import Bug
from vconv.runtime.timing.launches import Launches
from vconv.types import Array

CHILD = child.command("vconv.runtime.simulation.process")
PATIENCE_SECONDS = 10.0
"""Time that a process may take to end after its pipe is closed: longer than Python takes to exit."""


@dataclass(frozen=True)
class Counts:
    """The counts of operators on a simulated device.

    Args:
        executed: operator -> how often it ran; for a graph, how many of the graph's nodes have this operator.
        changed: cause -> how many of these operators or nodes were computed differently from a CPU.
    """

    executed: Mapping[str, int]
    changed: Mapping[str, int]


class Simulated(Session):
    """A session on a simulated device, whose arithmetic can be changed."""

    @abstractmethod
    def configure(self, arithmetic: Arithmetic) -> None:
        """Change the device's arithmetic, and restart the counts."""

    @abstractmethod
    def counts(self) -> Counts:
        """Return the counts since the last :meth:`configure`."""


class Child:
    """A process that has the simulated NPU.

    Args:
        arithmetic: how the device computes initially.
        command: the command to start; the pipe's descriptor is added as its last argument.

    Raises:
        UnavailableError: the NPU cannot be simulated here.
        EngineError: the process ended.
    """

    def __init__(self, arithmetic: Arithmetic, command: Sequence[str] = CHILD) -> None:
        with contextlib.ExitStack() as undone:
            self._said = undone.enter_context(tempfile.TemporaryFile())
            self._pipe, theirs = Pipe()
            with theirs:
                self._process = subprocess.Popen(
                    [*command, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stderr=self._said,
                    env=child.environment(),
                )
            undone.callback(self._end)
            undone.enter_context(self._pipe)
            self._ask(arithmetic)
            self._closing = undone.pop_all()

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a method of :class:`vconv.runtime.simulation.process.Server` there, and return its result.

        Raises:
            VconvError: the method raised this error.
            EngineError: the process ended.
            Bug: the method raised any other exception.
        """
        return self._ask((name, arguments))

    def _ask(self, request: Any) -> Any:
        try:
            self._pipe.send(request)
            kind, answer = self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            status = self._process.wait()
            self._said.seek(0)
            raise EngineError(
                "the simulated NPU is gone",
                got=child.ended(status, self._said.read().decode(errors="replace")),
                expected="an answer",
                fix="give it more memory; if that does not help, report it",
            ) from error
        if kind == "refusal":
            raise answer
        if kind == "bug":
            raise Bug(f"on the simulated NPU:\n{answer}")
        return answer

    def _end(self) -> None:
        """Wait for the process, whose pipe is closed; kill the process if it does not end in time."""
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Close the pipe, which ends the process."""
        self._closing.close()


class SimulatedTorchSession(Simulated):
    """A torch variant on a simulated NPU.

    Args:
        subject: the variant to open.
        device: the simulated NPU.
        folder: see :class:`vconv.runtime.engines.base.Session`.
        size: see :class:`vconv.runtime.engines.base.Session`.
    """

    engine = "torch"

    def __init__(self, subject: OpenRequest, device: Device, folder: Path, size: tuple[int, int]) -> None:
        super().__init__(folder, size)
        assert device.simulates is not None
        self._device = device
        self._child = Child(device.simulates)
        self._closing.callback(self._child.close)
        try:
            self.gelu = self._child.call("open", subject)
        except BaseException:
            self.close()
            raise

    def configure(self, arithmetic: Arithmetic) -> None:
        """See :meth:`Simulated.configure`."""
        self._child.call("configure", arithmetic)

    def counts(self) -> Counts:
        """See :meth:`Simulated.counts`."""
        return Counts(*self._child.call("counts"))

    def launches(self, pixel_values: Array) -> Launches | None:
        """See :meth:`vconv.runtime.engines.base.Session.launches`."""
        found: Launches | None = self._child.call("launches", pixel_values)
        return found

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        """See :meth:`vconv.runtime.engines.base.Session.bind`."""
        self._check_open()
        return lambda: self._child.call("run", pixel_values)

    def fetch(self, raw: Any) -> dict[str, Array]:
        """See :meth:`vconv.runtime.engines.base.Session.fetch`."""
        outputs, placed = raw
        where = f"{self._device.name} (simulated)"
        self.placed = {name: Placed(dtype, where) for name, (dtype, _) in placed.items()}
        return dict(outputs)


class SimulatedGraphSession(OnnxRuntimeSession, Simulated):
    """A graph with a simulated NPU's arithmetic written into it, in ONNX Runtime on the CPU.

    Args:
        path: the ONNX file.
        device: the simulated NPU.
        folder: see :class:`vconv.runtime.engines.base.FileSession`.
        size: see the same class.
        batch: see the same class.
        precision: see the same class.
    """

    def __init__(
        self,
        path: Path,
        device: Device,
        folder: Path,
        size: tuple[int, int],
        batch: int | None,
        precision: str = FP32,
    ) -> None:
        self._model = onnx.load(path, load_external_data=False)
        self._weights_folder = linked_weights.resolved(self._model, path.parent)
        self._counts = Counts({}, {})
        super().__init__(path, device, folder, size, batch, precision)

    def load(self, graph: Path) -> onnxruntime.InferenceSession:
        """Load the graph with the device's arithmetic written into it."""
        assert self.device.simulates is not None
        return self._loaded(self.device.simulates)

    def _loaded(self, arithmetic: Arithmetic) -> onnxruntime.InferenceSession:
        model, changed = rewritten(self._model, arithmetic)
        nodes = Counter(node.op_type for node in self._model.graph.node)
        self._counts = Counts(dict(nodes), dict(changed))
        return onnxruntime_session(
            model.SerializeToString(), self.device, self.path.name, weights_folder=self._weights_folder
        )

    def configure(self, arithmetic: Arithmetic) -> None:
        """See :meth:`Simulated.configure`."""
        self._session = self._loaded(arithmetic)

    def counts(self) -> Counts:
        """See :meth:`Simulated.counts`."""
        return self._counts
