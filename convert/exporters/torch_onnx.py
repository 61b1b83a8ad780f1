"""torch's own exporters: ``torch.onnx.export``, by way of torch.export (dynamo) or of TorchScript."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vconv.convert.exporters.base import GRAPH, Exporter, Job
from vconv.types import BATCH_AXIS, INPUT

if TYPE_CHECKING:
    from torch import Tensor, nn

OPSET, SCRIPT_OPSET = 18, 17
"""The opsets that users of each exporter name: dynamo's lowest, and the first with LayerNormalization."""


def _as_tensors(given: Any) -> tuple[Tensor, ...]:
    """Return the tensors that a stock model gives, in order."""
    if isinstance(given, Mapping) or hasattr(given, "to_tuple"):
        given = given.to_tuple() if hasattr(given, "to_tuple") else tuple(given.values())
    found = given if isinstance(given, tuple | list) else (given,)
    return tuple(one for one in found if hasattr(one, "dtype"))


def _names(given: Any) -> list[str]:
    keys = list(given.keys()) if hasattr(given, "keys") else []
    return keys if len(keys) == len(_as_tensors(given)) else []


def _wrapped(model: nn.Module) -> nn.Module:
    """Return a module that gives the tensors of a model in a tuple."""
    from torch import nn

    class Tensors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
            return _as_tensors(self.model(pixel_values))

    return Tensors().eval()


def by_dynamo(job: Job) -> Path:
    """Export by way of torch.export, with any batch."""
    import torch

    model, images, path = job.model(), job.images(), job.target / GRAPH
    batch = torch.export.Dim(BATCH_AXIS, min=1, max=1024)
    with torch.no_grad():
        names = _names(model(images))
    torch.onnx.export(
        _wrapped(model),
        (images.repeat(2, 1, 1, 1),),
        str(path),
        input_names=[INPUT],
        output_names=names or None,
        opset_version=OPSET,
        dynamic_shapes=({0: batch},),
        dynamo=True,
        verbose=False,
    )
    return path


def by_torchscript(job: Job) -> Path:
    """Export by way of TorchScript, with any batch."""
    import torch

    model, images, path = job.model(), job.images(), job.target / GRAPH
    with torch.no_grad():
        names = _names(model(images))
    torch.onnx.export(
        _wrapped(model),
        (images,),
        str(path),
        input_names=[INPUT],
        output_names=names or None,
        opset_version=SCRIPT_OPSET,
        dynamic_axes={INPUT: {0: BATCH_AXIS}},
        dynamo=False,
    )
    return path


DYNAMO = Exporter("torch-dynamo", by_dynamo, ("transformers", "timm"))
TORCHSCRIPT = Exporter("torch-script", by_torchscript, ("transformers", "timm"))
