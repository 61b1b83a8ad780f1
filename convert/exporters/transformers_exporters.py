"""``transformers.exporters``, which transformers has since version 5."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from vconv.convert.exporters.base import Exporter, Job
from vconv.types import INPUT


def _lack() -> str:
    try:
        found = importlib.util.find_spec("transformers.exporters")
    except ModuleNotFoundError:
        return "transformers is not installed"
    return "" if found else "transformers before version 5 has no exporters"


def export(job: Job) -> Path:
    """Export in the default configuration."""
    from transformers.exporters import (  # type: ignore[import-not-found, unused-ignore]
        OnnxConfig,
        OnnxExporter,
    )

    exported = OnnxExporter().export(job.model(), {INPUT: job.images()}, config=OnnxConfig())
    exported.save_pretrained(str(job.target))
    return next(job.target.glob("*.onnx"))


EXPORTER = Exporter("transformers", export, ("transformers",), _lack)
