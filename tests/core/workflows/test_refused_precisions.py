"""What an export says if a graph in a reduced precision is too far from the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import vconv
from vconv.catalog.systems import find, miniature
from vconv.convert.sources.table import Request, open_source
from vconv.errors import ExportCheckError

GREAT = 2.0**17


def test_an_overflow_in_float16_is_refused_with_the_precision_to_leave_out(tmp_path: Path) -> None:
    system, folder = miniature(find("dinov2-small")), tmp_path / "source"
    folder.mkdir()
    open_source(Request(system, "synthetic"), folder)
    file = folder / "model.safetensors"
    tensors = {name: np.array(value) for name, value in safetensors.numpy.load_file(file).items()}
    attention = "encoder.layer.1.attention"
    tensors[f"{attention}.attention.value.weight"][5] *= GREAT
    tensors[f"{attention}.output.dense.weight"][:, 5] /= GREAT
    safetensors.numpy.save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ExportCheckError, match=r"onnx-fp16 .*NaN.* fix: .*: leave fp16 out of --precision$"):
        vconv.export(system, folder, tmp_path / "artifact", precision=["fp16"])
    assert not (tmp_path / "artifact").exists()
