from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from vconv.convert.libraries import models
from vconv.convert.sources.base import Source
from vconv.errors import EngineError, InputError, MemoryShortError
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines import capture
from vconv.runtime.engines.capture import WARMUPS, CapturedSession
from vconv.runtime.engines.torch_model import TorchSession
from vconv.runtime.processes.request import OpenRequest
from vconv.types import Array, Status, silent
from vconv.validators import validation
from vconv.validators.accuracy.golden import Reference
from vconv.validators.accuracy.limits import open_limits
from vconv.validators.validation import Candidate

CPU = find_device("cpu")
ONE = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
"""What does not depend on the system is tried with one."""


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


class Graph(TorchDispatchMode):
    """A graph as a GPU has it: it notes what is run while it captures, and runs that again in its memory.

    Args:
        machine: whose it is.
    """

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine
        self.steps: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.steps.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        self.machine.note("replay")
        self.machine.replaying = True
        with torch.inference_mode():
            for func, args, kwargs, result in self.steps if self.machine.replays else ():
                given = {tensor.untyped_storage()._cdata for tensor in tensors((args, kwargs))}
                again = tensors(func(*args, **kwargs))
                for old, new in zip(tensors(result), again, strict=True):
                    if old.untyped_storage()._cdata not in given:
                        old.copy_(new)
        self.machine.replaying = False


@dataclass
class Machine:
    """What captures on ``torch.cuda`` and ``torch.npu``, on CPU memory; everything asked is noted.

    Args:
        replays: whether a replayed graph runs anything.
        error: what a capture fails with.
        journal: what was done, in order.
        on: the device that is current.
        replaying: whether a graph is being replayed.
    """

    replays: bool = True
    error: RuntimeError | None = None
    journal: list[str] = field(default_factory=list)
    on: int = 0
    replaying: bool = False

    def note(self, what: str) -> None:
        self.journal.append(f"{what} on {self.on}")

    @contextlib.contextmanager
    def device(self, index: int) -> Iterator[None]:
        before, self.on = self.on, index
        yield
        self.on = before

    def Stream(self) -> Stream:
        return Stream(self, "side")

    def current_stream(self) -> Stream:
        return Stream(self, "main")

    @contextlib.contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        self.note(f"{stream.name} stream")
        yield
        self.note("main stream")

    @contextlib.contextmanager
    def graph(self, graph: Graph) -> Iterator[None]:
        self.note("capture")
        if self.error:
            raise self.error
        with graph:
            yield
        self.note("captured")

    def CUDAGraph(self) -> Graph:
        return Graph(self)

    NPUGraph = CUDAGraph


@dataclass
class Stream:
    machine: Machine
    name: str

    def wait_stream(self, other: Stream) -> None:
        self.machine.note(f"{self.name} waits for {other.name}")


@pytest.fixture(params=["cuda", "npu"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Put = Callable[..., tuple[Device, Machine]]


@pytest.fixture
def put(kind: str, monkeypatch: pytest.MonkeyPatch) -> Put:
    """The function that makes this a machine that captures; returns its second device."""

    def make(**settings: Any) -> tuple[Device, Machine]:
        machine = Machine(**settings)
        here = {kind: machine, "inference_mode": torch.inference_mode}
        monkeypatch.setattr(capture, "torch", SimpleNamespace(**here))
        return replace(CPU, kind=kind, index=1), machine

    return make


class Captured(CapturedSession):
    """What is read from a device is a copy; from CPU memory that stands in for one, it is made one."""

    def fetch(self, raw: Any) -> dict[str, Array]:
        return {name: array.copy() for name, array in super().fetch(raw).items()}


@pytest.fixture
def opened(small_source: Source, size: tuple[int, int]) -> Callable[..., TorchSession]:
    """Open the original of a small system, captured or not; each run of the model is noted in a machine."""

    def open_it(
        device: Device, machine: Machine | None = None, kind: type[TorchSession] = Captured
    ) -> TorchSession:
        net, folder = small_source.network, small_source.folder
        model = models.load(folder, net)
        if machine:
            first = next(part for part in model.modules() if isinstance(part, torch.nn.Conv2d))
            first.register_forward_hook(lambda *_: machine.note("run"))
        return kind(model, net, device, (), folder, size)

    return open_it


def images(count: int, size: tuple[int, int], seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, 3, *size), dtype=np.float32)


def assert_same(actual: dict[str, Array], expected: dict[str, Array]) -> None:
    assert actual.keys() == expected.keys()
    for name in expected:
        assert np.array_equal(actual[name], expected[name]), name


def test_a_replayed_graph_gives_what_the_eager_model_gives_on_other_images_and_batches(
    put: Put, opened: Callable[..., TorchSession], size: tuple[int, int]
) -> None:
    device, _ = put()
    with opened(device) as captured, opened(CPU, kind=TorchSession) as eager:
        for count, seed in ((1, 1), (1, 2), (2, 3), (1, 4), (2, 5)):
            given = images(count, size, seed)
            assert_same(captured.run(given), eager.run(given))


@ONE
def test_a_batch_is_warmed_up_on_a_side_stream_captured_once_and_replayed_from_then_on(
    put: Put, opened: Callable[..., TorchSession], size: tuple[int, int]
) -> None:
    device, machine = put()
    with opened(device, machine) as session:
        forward = session.bind(images(1, size))
        assert machine.journal == []
        forward()
        warming = ["side stream", *["run"] * WARMUPS, "main stream"]
        capturing = ["main waits for side", "capture", "run", "captured"]
        first = ["side waits for main", *warming, *capturing, "replay"]
        assert machine.journal == [f"{line} on 1" for line in first]
        machine.journal.clear()
        forward()
        session.run(images(1, size, seed=1))
        assert machine.journal == ["replay on 1"] * 2
        machine.journal.clear()
        session.run(images(2, size))
        assert machine.journal == [f"{line} on 1" for line in first]


class Outside(TorchDispatchMode):
    """Notes the operators that run while no graph of a machine is replayed."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine
        self.ran: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.machine.replaying:
            self.ran.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@ONE
def test_beside_a_replay_nothing_runs_but_the_copy_of_the_images(
    put: Put, opened: Callable[..., TorchSession], size: tuple[int, int]
) -> None:
    device, machine = put()
    with opened(device) as session:
        session.run(images(1, size))
        forward = session.bind(images(1, size, seed=1))
        with Outside(machine) as outside:
            forward()
        assert outside.ran == ["copy_"]


@ONE
def test_two_batches_of_one_shape_that_are_bound_at_once_keep_their_own_images(
    put: Put, opened: Callable[..., TorchSession], size: tuple[int, int]
) -> None:
    device, _ = put()
    one, other = images(1, size, seed=1), images(1, size, seed=2)
    with opened(device) as session, opened(CPU, kind=TorchSession) as eager:
        bound = [session.bind(one), session.bind(other)]
        for forward, given in ((bound[0], one), (bound[1], other), (bound[0], one)):
            assert_same(session.fetch(forward()), eager.run(given))


@ONE
def test_the_devices_exact_arithmetic_is_on_while_a_graph_is_captured(
    put: Put, opened: Callable[..., TorchSession], size: tuple[int, int]
) -> None:
    device, machine = put()

    @contextlib.contextmanager
    def exact() -> Iterator[None]:
        machine.note("exact")
        yield
        machine.note("as before")

    with opened(replace(device, exact=exact), machine) as session:
        session.run(images(1, size))
    places = [machine.journal.index(f"{line} on {on}") for line, on in (("exact", 0), ("as before", 0))]
    runs = [place for place, line in enumerate(machine.journal) if line == "run on 1"]
    assert places[0] < min(runs) and max(runs) < places[1]


@ONE
def test_a_model_that_cannot_be_captured_is_a_sentence(
    put: Put, opened: Callable[..., TorchSession], size: tuple[int, int]
) -> None:
    device, _ = put(error=RuntimeError("operation not permitted when stream is capturing"))
    with opened(device) as session, pytest.raises(EngineError) as caught:
        session.run(images(1, size))
    assert not isinstance(caught.value, MemoryShortError)
    for part in ("cannot capture this in fp32", "not permitted", "fix: leave --capture out"):
        assert part in str(caught.value)


@ONE
def test_too_little_memory_for_a_capture_is_not_taken_for_a_model_that_cannot_be_captured(
    put: Put, opened: Callable[..., TorchSession], size: tuple[int, int]
) -> None:
    device, _ = put(error=torch.OutOfMemoryError("Tried to allocate 20.00 GiB"))
    with opened(device) as session, pytest.raises(MemoryShortError, match="too little memory"):
        session.run(images(1, size))


@ONE
def test_a_bound_batch_is_refused_once_the_session_is_closed_and_its_weights_are_gone(
    put: Put, opened: Callable[..., TorchSession], size: tuple[int, int]
) -> None:
    device, machine = put()
    with opened(device) as session:
        forward = session.bind(images(1, size))
        forward()
    machine.journal.clear()
    with pytest.raises(InputError, match="the session is closed"):
        forward()
    assert machine.journal == []


@ONE
@pytest.mark.parametrize("kind", ["npu"], indirect=True)
def test_launches_are_those_of_the_eager_model_and_said_to_be_replayed(
    put: Put, opened: Callable[..., TorchSession], size: tuple[int, int]
) -> None:
    device, _ = put()
    with opened(device) as captured, opened(CPU, kind=TorchSession) as eager:
        found, expected = captured.launches(images(1, size)), eager.launches(images(1, size))
    assert found is not None and expected is not None
    assert found == replace(expected, how="operators, replayed as one graph")


def test_the_kinds_that_capture_are_cuda_and_npu() -> None:
    assert [capture.lack(replace(CPU, kind=kind)) for kind in ("cuda", "npu")] == ["", ""]
    assert capture.lack(CPU) == "cpu, which captures no graphs"


@ONE
@pytest.mark.parametrize("kind", ["npu"], indirect=True)
@pytest.mark.parametrize(("replays", "status"), [(True, Status.PASSED), (False, Status.FAILED)])
def test_a_captured_variant_is_judged_on_what_its_graph_gives(
    put: Put,
    opened: Callable[..., TorchSession],
    size: tuple[int, int],
    replays: bool,
    status: Status,
) -> None:
    device, _ = put(replays=replays)
    given = images(2, size)
    with opened(CPU, kind=TorchSession) as eager:
        expected = eager.run(given)
    reference = Reference("original", given, expected, dict.fromkeys(expected, 1e-7), {})
    subject = OpenRequest("a", "a", "torch", "fp32", "npu:1", captured=True)
    name = "patched-torch-fp32-captured"
    candidate = Candidate("a", name, "torch", "fp32", device, reference, lambda: opened(device), subject)
    (row,) = validation.run([candidate], open_limits("strict"), None, silent).rows
    assert row.status is status, row.outputs
