"""Graphs in TensorRT, through ONNX Runtime on NVIDIA's GPUs: the engine ``onnxruntime-tensorrt``.

The provider's options are those of
https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html. None of them turns TF32 off,
which TensorRT uses on GPUs since Ampere: https://github.com/microsoft/onnxruntime/issues/26029. Only the
environment variable ``NVIDIA_TF32_OVERRIDE=0`` does, for the whole process and before CUDA is loaded, so that
it is left to the user; what TensorRT then computes is found by the probe, as for every engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vconv.runtime.devices.base import Device
from vconv.runtime.engines.onnxruntime import OnnxRuntimeSession
from vconv.runtime.engines.providers import Provider

PROVIDERS: Mapping[str, Provider] = {
    "cuda": Provider(
        "TensorrtExecutionProvider",
        "cuda",
        {
            "trt_fp16_enable": 0,
            "trt_int8_enable": 0,
            "trt_engine_cache_enable": 0,
            "trt_timing_cache_enable": 0,
        },
    )
}
"""Kind of device -> provider: full precision, and no files beside the graph or in the current folder."""


class TensorRtSession(OnnxRuntimeSession):
    """A graph in TensorRT. Nodes that TensorRT does not take run on the CPU, and are counted as fallbacks."""

    engine = "onnxruntime-tensorrt"
    providers: ClassVar[Mapping[str, Provider]] = PROVIDERS

    @classmethod
    def lack(cls, device: Device) -> str:
        """See :meth:`vconv.runtime.engines.base.FileSession.lack`."""
        if device.kind not in cls.providers:
            return "TensorRT runs on NVIDIA's GPUs alone"
        return super().lack(device)
