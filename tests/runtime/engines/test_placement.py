from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest

from vconv.catalog.systems import SYSTEMS, System
from vconv.disk import SCRATCH
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.onnxruntime import OnnxRuntimeSession
from vconv.runtime.engines.placement import Profile, fallbacks
from vconv.runtime.engines.providers import PROVIDERS, Provider
from vconv.types import Array

CPU = find_device("cpu")
OTHER = "AzureExecutionProvider"
"""A provider of every build of ONNX Runtime, which takes no node of any graph here."""


NPU = replace(CPU, name="npu:0", kind="npu")
Pretend = Callable[[str], Device]


@pytest.fixture
def pretending(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """The function that makes a provider that of NPUs, with memory of the CPU; returns an NPU."""

    def pretend(provider: str) -> Device:
        monkeypatch.setitem(PROVIDERS, "npu", Provider(provider, "cpu"))  # type: ignore[arg-type]
        return NPU

    return pretend


@pytest.fixture
def system() -> System:
    """One system: what is tested here is the same for all."""
    return SYSTEMS["dinov3-vits16"]


def node(name: str, operator: str, provider: str, index: int) -> dict[str, Any]:
    details = {"op_name": operator, "provider": provider, "node_index": str(index)}
    return {"cat": "Node", "name": f"{name}_kernel_time", "args": details}


def profile(folder: Path, *events: Any) -> Path:
    path = folder / "profile.json"
    path.write_text(json.dumps([*events]))
    return path


def test_what_a_kill_leaves_of_a_profile_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = Profile()
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith(SCRATCH)
    kept.discard()
    assert list(tmp_path.iterdir()) == []


def test_nodes_that_ran_elsewhere_are_counted_by_operator_each_once(tmp_path: Path) -> None:
    events = [
        {"cat": "Session", "name": "model_run", "args": {}},
        {"cat": "Node", "name": "a_fence_before", "args": {"op_name": "Add", "provider": "CPU"}},
        *[node("a", "Add", "CPU", 1)] * 3,
        node("b", "Mul", "CPU", 2),
        node("c", "Add", "CPU", 3),
        node("", "Add", "CPU", 4),
        node("", "Add", "CPU", 5),
        node("d", "Erf", "CANN", 6),
    ]
    found = fallbacks(profile(tmp_path, *events), {"CANN"})
    assert (found, [*found]) == ({"Add": 4, "Mul": 1}, ["Add", "Mul"])


def test_nothing_falls_back_where_all_ran_where_they_were_to(tmp_path: Path) -> None:
    assert fallbacks(profile(tmp_path, node("a", "Add", "CANN", 1)), {"CANN", "other"}) == {}


def open_on(device: Device, artifact: Path, size: tuple[int, int]) -> OnnxRuntimeSession:
    return OnnxRuntimeSession(artifact / "model.npu.onnx", device, artifact, size, 2)


def test_a_provider_that_takes_no_node_leaves_them_all_to_the_cpu_and_the_session_says_so(
    small_artifact: Path,
    size: tuple[int, int],
    pixel_values: Array,
    tmp_path: Path,
    pretending: Pretend,
) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    graph = str(small_artifact / "model.npu.onnx")
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx", load_external_data=False).graph
    with open_on(pretending(OTHER), small_artifact, size) as session:
        assert session.fallbacks is None
        session.run(pixel_values[:2])
        assert session.fallbacks == Counter(one.op_type for one in optimised.node)
        first = session.fallbacks
        session.run(pixel_values[:2])
        assert session.fallbacks is first


def test_a_provider_that_takes_every_node_leaves_none_and_that_is_said_too(
    small_artifact: Path, size: tuple[int, int], pixel_values: Array, pretending: Pretend
) -> None:
    with open_on(pretending("CPUExecutionProvider"), small_artifact, size) as session:
        session.run(pixel_values[:2])
        assert session.fallbacks == {}


def test_a_cpu_has_nothing_to_fall_back_from(
    small_artifact: Path, size: tuple[int, int], pixel_values: Array
) -> None:
    with open_on(CPU, small_artifact, size) as session:
        session.run(pixel_values[:2])
        assert session.fallbacks is None


@pytest.mark.parametrize("runs", [0, 1])
def test_no_profile_stays_on_the_disk(
    runs: int,
    small_artifact: Path,
    size: tuple[int, int],
    pixel_values: Array,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pretending: Pretend,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with open_on(pretending(OTHER), small_artifact, size) as session:
        assert len([*tmp_path.iterdir()]) == 1
        for _ in range(runs):
            session.run(pixel_values[:2])
        assert len([*tmp_path.iterdir()]) == 1 - runs
    del session
    assert [*tmp_path.iterdir()] == []
