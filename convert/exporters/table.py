"""The table of exporters of others. A new exporter is one file and one row."""

from __future__ import annotations

from collections.abc import Mapping

from vconv.convert.exporters import optimum, timm_exporter, torch_onnx, transformers_exporters
from vconv.convert.exporters.base import Exporter

EXPORTERS: Mapping[str, Exporter] = {
    exporter.name: exporter
    for exporter in (
        torch_onnx.DYNAMO,
        torch_onnx.TORCHSCRIPT,
        transformers_exporters.EXPORTER,
        timm_exporter.EXPORTER,
        optimum.EXPORTER,
    )
}
"""Every exporter, by name."""
