"""The execution providers of ONNX Runtime, by kind of device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vconv.runtime.devices.base import Device


@dataclass(frozen=True)
class Provider:
    """An execution provider, which runs nodes on a kind of device.

    Args:
        name: ONNX Runtime's name of the provider.
        memory: ONNX Runtime's name of the memory that the provider works on.
        options: the provider's options beside the device's index; None if the provider takes no options.
    """

    name: str
    memory: str
    options: Mapping[str, Any] | None = None

    def on(self, device: Device) -> str | tuple[str, dict[str, Any]]:
        """Return the provider in the form that ONNX Runtime takes, for one device."""
        if self.options is None:
            return self.name
        return self.name, {"device_id": device.index, **self.options}


_CPU = Provider("CPUExecutionProvider", "cpu")
PROVIDERS: Mapping[str, Provider] = {
    "cpu": _CPU,
    "npu-sim": _CPU,
    "cuda": Provider("CUDAExecutionProvider", "cuda", {"use_tf32": 0}),
    "npu": Provider(
        "CANNExecutionProvider", "cann", {"precision_mode": "must_keep_origin_dtype", "dump_om_model": 0}
    ),
}
"""Kind of device -> provider. CANN's defaults are force_fp16, and a file in the current folder per graph:
https://onnxruntime.ai/docs/execution-providers/community-maintained/CANN-ExecutionProvider.html."""
