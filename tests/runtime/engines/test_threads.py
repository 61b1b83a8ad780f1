"""The number of threads of each engine on a CPU, as reports state it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from vconv.artifact.artifact import Artifact
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines import threads
from vconv.runtime.engines.variants import open_variant
from vconv.types import INPUT

CPU = find_device("cpu")
ONE = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
"""What does not depend on the system is tried with one."""
COUNTED = """
import os, sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[2])
before = len(os.listdir("/proc/self/task"))
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print(len(os.listdir("/proc/self/task")) - before + 1)
"""
"""Prints the threads of ONNX Runtime: those that a session starts, and the one that calls it."""


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """A graph that does nothing."""
    given, made = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 4]) for name in (INPUT, "cls")
    )
    content = helper.make_graph([helper.make_node("Neg", [INPUT], ["cls"])], "negated", [given], [made])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(content, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


@pytest.mark.parametrize("setting", [0, 1, 3])
def test_onnx_runtime_starts_as_many_threads_as_are_stated(setting: int, graph: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, str(graph), str(setting)], capture_output=True, text=True, check=True
    )
    assert threads.of_onnxruntime(setting) == int(done.stdout)


@pytest.mark.parametrize(
    ("cores", "count"),
    [
        pytest.param(["0", "1"], 2, id="one thread each"),
        pytest.param(["0,2", "1,3", "0,2", "1,3"], 2, id="two threads each"),
        pytest.param(["0-1", "0-1", "2", "3"], 3, id="some of two threads"),
        pytest.param([], None, id="not known"),
    ],
)
def test_hardware_threads_of_one_core_count_once(cores: list[str], count: int | None, tmp_path: Path) -> None:
    """The files are those of Linux's documentation: admin-guide/cputopology.rst."""
    for number, shared in enumerate(cores):
        place = tmp_path / f"cpu{number}" / "topology"
        place.mkdir(parents=True)
        (place / "core_cpus_list").write_text(shared + "\n")
    (tmp_path / "cpufreq").mkdir()
    assert threads.physical_cores(tmp_path) == count


@ONE
@pytest.mark.parametrize("engine", ["torch", "torch-compiled"])
def test_torch_states_its_threads_on_a_cpu(engine: str, small: Artifact) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with open_variant(small, small.variant("patched-torch-fp32"), CPU, engine) as session:
            assert session.threads == 3
    finally:
        torch.set_num_threads(before)


@ONE
def test_openvino_states_its_threads(small: Artifact, size: tuple[int, int]) -> None:
    with open_variant(small, small.variant("onnx-fp32"), CPU, "openvino") as session:
        session.run(np.zeros((1, 3, *size), np.float32))
        assert session.threads is not None and session.threads >= 1


@ONE
def test_on_an_accelerator_threads_are_not_stated(small: Artifact) -> None:
    elsewhere = replace(CPU, kind="other")
    with open_variant(small, small.variant("patched-torch-fp32"), elsewhere) as session:
        assert session.threads is None
