"""The workshop: a copy of an artifact in which something is made wrong, with every hash made to fit again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from vconv import manifest
from vconv.convert import ledger
from vconv.convert.layouts.base import Network
from vconv.convert.ledger import LEDGER_FILE
from vconv.convert.safetensors_file import Entry, read_header
from vconv.convert.sources.base import sha256_of
from vconv.manifest import FileRecord, Manifest
from vconv.types import WEIGHTS_FILE, Array


@dataclass(frozen=True)
class Workshop:
    """A copy of an artifact. Files are shared with it until they are changed: they are never changed in place.

    Args:
        folder: the copy.
        made: the manifest of the artifact.
        network: what the artifact's own configuration and weights describe.
    """

    folder: Path
    made: Manifest
    network: Network

    @classmethod
    def open(cls, artifact: Path, folder: Path, network: Network) -> Workshop:
        """Copy an artifact, what its manifest names alone, into a folder that is not there yet."""
        made = manifest.load(artifact)
        for name in made.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _share(artifact / name, folder / name)
        made.save(folder)
        return cls(folder, made, network)

    @property
    def entries(self) -> dict[str, Entry]:
        """The header of its weights file."""
        return read_header(self.folder / WEIGHTS_FILE)

    def write(self, name: str, content: bytes) -> None:
        """Write a file beside, then rename: what the artifact itself has is left as it is."""
        beside = self.folder / f"{name}.beside"
        beside.write_bytes(content)
        beside.replace(self.folder / name)

    def configuration(self, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Change a JSON file."""
        content = json.loads((self.folder / name).read_bytes())
        self.write(name, json.dumps(change(content), indent=2).encode())

    def weight(self, key: str, change: Callable[[Array], Array]) -> None:
        """Change one tensor in the weights file."""
        entry = self.entries[key]
        path = self.folder / WEIGHTS_FILE
        beside = path.with_name(f"{WEIGHTS_FILE}.beside")
        shutil.copyfile(path, beside)
        before = np.frombuffer(b"".join(entry.chunks()), "<f4").reshape(entry.shape)
        with beside.open("r+b") as file:
            file.seek(entry.offset)
            file.write(np.ascontiguousarray(change(before), "<f4").tobytes())
        beside.replace(path)

    def graph(self, name: str) -> onnx.ModelProto:
        """Read a graph, not its weights."""
        return onnx.load(self.folder / name, load_external_data=False)

    def save_graph(self, name: str, model: onnx.ModelProto) -> None:
        """Write a graph."""
        self.write(name, model.SerializeToString())

    def value_of(self, tensor: onnx.TensorProto) -> Array:
        """Read an initializer of a graph, wherever its data lie."""
        full = onnx.TensorProto()
        full.CopyFrom(tensor)
        if uses_external_data(full):
            load_external_data_for_tensor(full, str(self.folder))
        return numpy_helper.to_array(full)

    def rehash(self) -> None:
        """Make every hash fit what is there now, as someone would who meant to deceive."""
        digests = {
            name: hashlib.sha256(b"".join(entry.chunks())).hexdigest() for name, entry in self.entries.items()
        }
        lines = ledger.load(self.folder / LEDGER_FILE)
        # Written anew, and not into the file that the artifact has.
        (self.folder / LEDGER_FILE).unlink()
        ledger.save(
            self.folder / LEDGER_FILE,
            [replace(line, sha256=digests.get(line.target, line.sha256)) for line in lines],
        )
        files = {name: _record(self.folder / name) for name in self.made.files}
        self.made.model_copy(update={"files": files}).save(self.folder)


def _record(path: Path) -> FileRecord:
    return FileRecord(sha256=sha256_of(path), nbytes=path.stat().st_size)


def _share(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system cannot."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
