"""timm's own function, ``timm.utils.onnx.onnx_export``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from vconv.convert.exporters.base import GRAPH, Exporter, Job


def _lack() -> str:
    try:
        found = importlib.util.find_spec("timm.utils.onnx")
    except ModuleNotFoundError:
        return "timm is not installed"
    return "" if found else "this version of timm has no utils.onnx"


def export(job: Job) -> Path:
    """Export a model that is made with ``exportable=True``, as timm's script does."""
    from timm.utils import onnx as timm_onnx

    path = job.target / GRAPH
    timm_onnx.onnx_export(job.model(exportable=True), str(path), job.images())
    return path


EXPORTER = Exporter("timm", export, ("timm",), _lack)
