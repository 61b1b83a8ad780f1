from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from engines_here import ENGINES_HERE
from onnx import TensorProto, helper

from vconv.errors import EngineError, MemoryShortError, UnavailableError
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.onnxruntime import OnnxRuntimeSession
from vconv.runtime.engines.providers import PROVIDERS
from vconv.runtime.engines.table import graph_engines
from vconv.types import INPUT, Array

CPU = find_device("cpu")
CUDA = replace(CPU, name="cuda:1", kind="cuda", index=1)
NPU = replace(CUDA, name="npu:1", kind="npu")
SIZE = (64, 64)


@pytest.mark.parametrize("content", [b"", b"not a graph", None], ids=["empty", "garbage", "missing"])
@pytest.mark.parametrize("engine", ENGINES_HERE)
def test_a_file_that_is_no_graph_is_an_engine_error(
    engine: str, content: bytes | None, tmp_path: Path
) -> None:
    graph = tmp_path / "broken.onnx"
    if content is not None:
        graph.write_bytes(content)
    with pytest.raises(EngineError, match=r"refuses broken\.onnx") as caught:
        graph_engines()[engine].open(graph, CPU, tmp_path, SIZE, None)
    assert not isinstance(caught.value, (MemoryShortError, UnavailableError))


@pytest.mark.parametrize("way", ["run", "bind"])
@pytest.mark.parametrize("engine", ENGINES_HERE)
def test_a_batch_that_the_graph_does_not_take_is_an_engine_error(
    engine: str, way: str, small_artifact: Path, pixel_values: Array, size: tuple[int, int]
) -> None:
    graph = small_artifact / "model.npu.onnx"
    with (
        graph_engines()[engine].open(graph, CPU, small_artifact, size, 3) as session,
        pytest.raises(EngineError, match=r"refuses model\.npu\.onnx") as caught,
    ):
        session.run(pixel_values[:3]) if way == "run" else session.bind(pixel_values[:3])()
    assert not isinstance(caught.value, MemoryShortError)


@pytest.fixture
def greedy(tmp_path: Path) -> Path:
    """A graph that wants 2 ** 48 bytes, more than any process can address."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [4], [1 << 20, 1 << 20, 8, 8])
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", [INPUT], ["sum"], keepdims=1),
            helper.make_node("Expand", ["sum", "shape"], ["cls"]),
        ],
        "greedy",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 3, 64, 64])],
        [helper.make_tensor_value_info("cls", TensorProto.FLOAT, None)],
        [shape],
    )
    path = tmp_path / "greedy.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


@pytest.mark.parametrize("way", ["run", "bind"])
def test_too_little_memory_for_onnx_runtime_is_told_from_other_refusals(way: str, greedy: Path) -> None:
    feed = np.ones((1, 3, *SIZE), np.float32)
    with (
        OnnxRuntimeSession(greedy, CPU, greedy.parent, SIZE, None) as session,
        pytest.raises(MemoryShortError, match=r"refuses greedy\.onnx .*Failed to allocate memory"),
    ):
        session.run(feed) if way == "run" else session.bind(feed)()


class StandInRuntime:
    """ONNX Runtime on a machine with accelerators: it notes what it is asked, and computes nothing."""

    def __init__(self, drops: bool = False) -> None:
        self.drops = drops
        self.asked: list[tuple[Any, ...]] = []
        self.providers: list[Any] = []
        self.options: Any = None

    def get_available_providers(self) -> list[str]:
        return ["CANNExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    def open(self, path: str, options: Any, providers: list[Any], **more: Any) -> StandInRuntime:
        self.providers, self.options = providers, options
        return self

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"] if self.drops else self.get_available_providers()

    def get_inputs(self) -> list[Any]:
        return [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [2])]

    def get_outputs(self) -> list[Any]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("cls", "patches")]

    def io_binding(self) -> StandInRuntime:
        return self

    def ortvalue_from_numpy(self, array: Array, kind: str, index: int) -> Array:
        self.asked.append(("put", kind, index))
        assert array.flags.c_contiguous
        return array

    def bind_ortvalue_input(self, name: str, value: Array) -> None:
        self.asked.append(("input", name))

    def bind_output(self, name: str, kind: str, index: int) -> None:
        self.asked.append(("output", name, kind, index))

    def run_with_iobinding(self, binding: Any) -> None:
        self.asked.append(("run",))


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> StandInRuntime:
    found = StandInRuntime()
    monkeypatch.setattr(onnxruntime, "get_available_providers", found.get_available_providers)
    monkeypatch.setattr(onnxruntime, "InferenceSession", found.open)
    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", found.ortvalue_from_numpy)
    return found


@pytest.mark.parametrize(("device", "kind"), [(CUDA, "cuda"), (NPU, "cann")], ids=["cuda", "npu"])
def test_inputs_and_outputs_are_bound_on_the_right_accelerator_before_the_clock_starts(
    runtime: StandInRuntime, device: Device, kind: str, tmp_path: Path
) -> None:
    session = OnnxRuntimeSession(tmp_path / "model.onnx", device, tmp_path, SIZE, None)
    assert runtime.providers == [PROVIDERS[device.kind].on(device)]
    feed = np.ones((3, *SIZE, 2), np.float32).transpose(3, 0, 1, 2)
    forward = session.bind(feed)
    assert runtime.asked == [
        ("put", kind, 1),
        ("input", INPUT),
        ("output", "cls", kind, 1),
        ("output", "patches", kind, 1),
    ]
    runtime.asked.clear()
    forward()
    forward()
    assert runtime.asked == [("run",)] * 2


@pytest.mark.parametrize("device", [CUDA, NPU], ids=["cuda", "npu"])
def test_an_accelerators_first_run_is_profiled_and_no_file_of_it_stays(
    runtime: StandInRuntime, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    session = OnnxRuntimeSession(tmp_path / "model.onnx", device, tmp_path, SIZE, None)
    assert runtime.options.enable_profiling
    assert Path(runtime.options.profile_file_prefix).parent.parent == tmp_path
    assert len([*tmp_path.iterdir()]) == 1
    session.close()
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("device", [CUDA, NPU], ids=["cuda", "npu"])
def test_a_device_that_onnx_runtime_takes_and_then_drops_is_not_replaced_by_the_cpu(
    runtime: StandInRuntime, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.drops = True
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(UnavailableError, match="CPUExecutionProvider alone"):
        OnnxRuntimeSession(tmp_path / "model.onnx", device, tmp_path, SIZE, None)
    assert [*tmp_path.iterdir()] == []


def test_a_build_of_onnx_runtime_without_the_device_says_what_it_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UnavailableError, match=r"no CUDAExecutionProvider, only CPUExec.* cuda:1 ") as caught:
        OnnxRuntimeSession(tmp_path / "model.onnx", CUDA, tmp_path, SIZE, None)
    assert "\n" not in str(caught.value)
    assert OnnxRuntimeSession.lack(CPU) == ""


def test_tensorrt_is_asked_for_full_precision_and_no_files_on_the_right_gpu(
    runtime: StandInRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The options are those of onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html."""
    available = ["TensorrtExecutionProvider", *runtime.get_available_providers()]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setattr(runtime, "get_providers", lambda: available)
    with graph_engines()["onnxruntime-tensorrt"].open(
        tmp_path / "model.onnx", CUDA, tmp_path, SIZE, None
    ) as made:
        assert made.engine == "onnxruntime-tensorrt"
    off = ("trt_fp16_enable", "trt_int8_enable", "trt_engine_cache_enable", "trt_timing_cache_enable")
    assert runtime.providers == [("TensorrtExecutionProvider", {"device_id": 1, **dict.fromkeys(off, 0)})]


@pytest.mark.parametrize(
    ("device", "said"),
    [
        (CPU, "TensorRT runs on NVIDIA's GPUs alone"),
        (NPU, "NVIDIA's"),
        (CUDA, "no TensorrtExecutionProvider"),
    ],
    ids=["cpu", "npu", "cuda"],
)
def test_tensorrt_says_what_it_lacks(
    runtime: StandInRuntime, device: Device, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UnavailableError, match=said):
        graph_engines()["onnxruntime-tensorrt"].open(tmp_path / "model.onnx", device, tmp_path, SIZE, None)


def test_a_tensorrt_that_onnx_runtime_drops_is_not_replaced_by_another_provider(
    runtime: StandInRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    available = ["TensorrtExecutionProvider", *runtime.get_available_providers()]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setattr(runtime, "get_providers", lambda: available[2:])
    with pytest.raises(
        UnavailableError, match="onnxruntime-tensorrt cannot run here .*CUDAExecutionProvider"
    ):
        graph_engines()["onnxruntime-tensorrt"].open(tmp_path / "model.onnx", CUDA, tmp_path, SIZE, None)


@pytest.mark.parametrize("device", [CUDA, NPU], ids=["cuda", "npu"])
def test_openvino_refuses_a_device_that_is_not_the_cpu(device: Device, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="OpenVINO runs on CPU"):
        graph_engines()["openvino"].open(tmp_path / "model.onnx", device, tmp_path, SIZE, None)


def hide_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    found: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else found(name))


def test_an_engine_that_is_not_installed_is_an_error_that_the_user_can_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_openvino(monkeypatch)
    with pytest.raises(UnavailableError, match="openvino is not installed"):
        graph_engines()["openvino"].open(tmp_path / "model.onnx", CPU, tmp_path, SIZE, None)


@pytest.mark.parametrize("engine", ENGINES_HERE)
def test_every_engine_lacks_nothing_on_the_cpu_and_something_elsewhere(engine: str) -> None:
    assert graph_engines()[engine].lack(CPU) == ""
    nowhere = replace(NPU, kind="a kind that nobody knows")
    assert graph_engines()[engine].lack(nowhere)
