from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import Manifest
from vconv.convert.sources.base import Source
from vconv.errors import EngineError, InputError, UnavailableError
from vconv.runtime.devices.base import Settings
from vconv.runtime.devices.npu_gelu import SPELLED_OUT
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.variants import open_variant
from vconv.runtime.processes.request import OpenRequest
from vconv.runtime.simulation.arithmetic import EXACT, PROFILES, Arithmetic
from vconv.runtime.simulation.device import lack
from vconv.runtime.simulation.process import Bug
from vconv.runtime.simulation.session import Child, Simulated, SimulatedTorchSession
from vconv.types import Array, Arrays

if lack():
    pytest.skip(lack(), allow_module_level=True)

CPU, NPU = find_device("cpu"), find_device("npu-sim")
ONE = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)


def images(made: Manifest, count: int = 2) -> Array:
    return np.random.default_rng(0).standard_normal((count, 3, *made.size), dtype=np.float32)


def distance(actual: Arrays, expected: Arrays) -> float:
    """The worst output's relative L2 distance."""
    assert list(actual) == list(expected)
    wide = {name: array.astype(np.float64) for name, array in expected.items()}
    return max(
        float(np.linalg.norm(actual[name] - wide[name]) / np.linalg.norm(wide[name])) for name in expected
    )


@pytest.fixture
def patched(small: Artifact) -> Iterator[Simulated]:
    with open_variant(small, small.variant("patched-torch-fp32"), NPU) as session:
        assert isinstance(session, Simulated)
        yield session


@pytest.fixture
def original(small_artifact: Path, small_source: Source, made: Manifest) -> Iterator[Simulated]:
    folder, head = str(small_source.folder), small_source.network.head
    subject = OpenRequest(str(small_artifact), "", "torch", "fp32", NPU.name, folder, head)
    with SimulatedTorchSession(subject, NPU, small_source.folder, made.size) as session:
        yield session


@ONE
def test_a_patched_model_feels_the_convolution_alone_and_agrees_where_nothing_is_simulated(
    small: Artifact, patched: Simulated, made: Manifest
) -> None:
    pixel_values = images(made)
    record = small.variant("patched-torch-fp32")
    with open_variant(small, record, CPU) as session:
        expected = session(pixel_values)
        assert session.gelu == SPELLED_OUT
    assert patched.gelu == "npu_gelu"
    found = patched(pixel_values)
    assert 1e-5 < distance(found, expected) < 1e-3
    assert dict(patched.counts().changed) == {"convolution": 1}
    assert {place.device for place in patched.placed.values()} == {"npu-sim (simulated)"}
    patched.configure(EXACT)
    assert distance(patched(pixel_values), expected) < 5e-6
    assert patched.counts().changed == {}


@ONE
def test_an_original_feels_the_tanh_form_of_every_gelu(original: Simulated, made: Manifest) -> None:
    original(images(made))
    counts = original.counts()
    assert counts.changed == {"gelu": counts.executed["gelu"], "convolution": 1}
    assert counts.executed["gelu"] == 3
    original.configure(Arithmetic(matmul="hf32"))
    original(images(made))
    assert set(original.counts().changed) == {"matmul"}


@ONE
def test_a_graph_feels_what_the_checkpoint_feels(small: Artifact, patched: Simulated, made: Manifest) -> None:
    pixel_values = images(made)
    for profile in PROFILES:
        device = find_device("npu-sim", Settings(profile=profile))
        patched.configure(PROFILES[profile])
        expected = patched(pixel_values)
        for name in ("onnx-fp32", "onnx-fp32-npu"):
            with open_variant(small, small.variant(name), device) as session:
                assert isinstance(session, Simulated)
                found = session(pixel_values)
                assert session.counts().changed["convolution"] == 1
        # float16 operands that differ in their last bit of float32 may round to different neighbours.
        assert distance(found, expected) < {"910b": 5e-5, "310p": 5e-3}[profile]


@ONE
@pytest.mark.real_processes
def test_a_session_that_is_closed_has_no_process_left(patched: Simulated, made: Manifest) -> None:
    assert isinstance(patched, SimulatedTorchSession)
    process = patched._child._process
    assert process.poll() is None
    patched.close()
    assert process.poll() is not None
    with pytest.raises(InputError, match="closed"):
        patched(images(made))


@ONE
@pytest.mark.real_processes
def test_a_process_that_is_killed_is_an_engine_that_failed(patched: Simulated, made: Manifest) -> None:
    assert isinstance(patched, SimulatedTorchSession)
    os.kill(patched._child._process.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match=r"the simulated NPU is gone .* was killed"):
        patched(images(made))


def child(source: str) -> Child:
    """Start a stand-in for the process; ``pipe`` is its end of the pipe."""
    prologue = (
        "import sys; from multiprocessing.connection import Connection; pipe = Connection(int(sys.argv[1]))"
    )
    return Child(EXACT, (sys.executable, "-c", f"{prologue}\n{source}"))


def test_a_bug_over_there_keeps_its_traceback() -> None:
    source = """
from vconv.runtime.simulation import process
class Server:
    def __init__(self, arithmetic): pass
    def divide(self, by): return 1 // by
process.serve(pipe, Server)
"""
    started = child(source)
    assert started.call("divide", 1) == 1
    with pytest.raises(Bug, match=r"(?s)Traceback .*in divide.*ZeroDivisionError"):
        started.call("divide", 0)
    assert started.call("divide", -1) == -1, "one bug does not end it"
    started.close()


def test_a_refusal_over_there_is_the_same_one_here() -> None:
    source = """
from vconv.errors import UnavailableError
from vconv.runtime.simulation import process
def make(arithmetic):
    raise UnavailableError("no NPU", got="nothing", expected="one", fix="buy one")
process.serve(pipe, make)
"""
    with pytest.raises(UnavailableError) as caught:
        child(source)
    error = caught.value
    assert (error.what, error.got, error.expected, error.fix) == ("no NPU", "nothing", "one", "buy one")


def test_a_process_that_never_starts_says_what_it_last_said() -> None:
    with pytest.raises(EngineError, match=r"status 1: ModuleNotFoundError: No module named 'no_such'"):
        child("import no_such")


def test_a_process_that_goes_on_computing_is_ended_with_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vconv.runtime.simulation.session.PATIENCE_SECONDS", 0.1)
    busy = child("pipe.recv(); pipe.send(('result', None))\nwhile True: pass")
    process = busy._process
    busy.close()
    assert process.returncode == -signal.SIGKILL
