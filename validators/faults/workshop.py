"""A copy of an artifact into which a fault is injected; every hash is updated afterwards."""

from __future__ import annotations

import filecmp
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import Manifest
from vconv.artifact.records import FileRecord, VariantRecord
from vconv.convert.files.safetensors_file import TensorEntry, read_header
from vconv.convert.network import Network
from vconv.convert.weights import ledger
from vconv.convert.weights.ledger import LEDGER_FILE, Line
from vconv.hashes import sha256_of
from vconv.types import WEIGHTS_FILE, Array


@dataclass(frozen=True)
class ArtifactCopy:
    """A copy of an artifact into which faults are injected one after another; each is undone before the next.

    The files are copied, not linked: engines refuse a weights file with more than one hard link.

    Args:
        artifact: the original artifact; it is never written to.
        folder: the folder of the copy.
        changed: names of the files that were changed.
    """

    artifact: Artifact
    folder: Path
    changed: set[str] = field(default_factory=set)

    @classmethod
    def open(cls, artifact: Artifact, folder: Path) -> ArtifactCopy:
        """Copy the files that an artifact's manifest lists into a new folder."""
        shop = cls(artifact, folder)
        shop.changed.update(shop.made.files)
        shop.restore()
        return shop

    def restore(self) -> None:
        """Restore the changed files."""
        for name in sorted(self.changed):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.artifact.folder / name, self.folder / name)
        self.changed.clear()
        self.made.save(self.folder)

    def altered(self) -> bool:
        """Return whether the content of any file differs from the artifact's."""
        pairs = ((self.folder / name, self.artifact.folder / name) for name in self.changed)
        return not all(filecmp.cmp(*pair, shallow=False) for pair in pairs)

    @property
    def made(self) -> Manifest:
        """The manifest of the artifact."""
        return self.artifact.manifest

    @property
    def network(self) -> Network:
        """The network that the artifact's configuration and weights describe."""
        return self.artifact.network

    def applies(self, patch: str) -> bool:
        """Return whether the artifact has a patch."""
        return self.artifact.applies(patch)

    @property
    def entries(self) -> dict[str, TensorEntry]:
        """The header of the weights file."""
        return read_header(self.folder / WEIGHTS_FILE)

    def write(self, name: str, content: bytes) -> None:
        """Write a file."""
        self.changed.add(name)
        (self.folder / name).write_bytes(content)

    def configuration(self, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Change a JSON file."""
        content = json.loads((self.folder / name).read_bytes())
        self.write(name, json.dumps(change(content), indent=2).encode())

    def stored(self, key: str) -> Array:
        """Read one tensor of the weights file."""
        entry = self.entries[key]
        return np.frombuffer(b"".join(entry.chunks()), "<f4").reshape(entry.shape)

    def weight(self, key: str, change: Callable[[Array], Array]) -> None:
        """Change one tensor in the weights file."""
        self.changed.add(WEIGHTS_FILE)
        before, entry = self.stored(key), self.entries[key]
        with (self.folder / WEIGHTS_FILE).open("r+b") as file:
            file.seek(entry.offset)
            file.write(np.ascontiguousarray(change(before), "<f4").tobytes())

    def graph(self, name: str) -> onnx.ModelProto:
        """Read a graph, not its weights."""
        return onnx.load(self.folder / name, load_external_data=False)

    def save_graph(self, name: str, model: onnx.ModelProto) -> None:
        """Write a graph."""
        self.write(name, model.SerializeToString())

    def value_of(self, tensor: onnx.TensorProto) -> Array:
        """Read an initializer of a graph, from the graph itself or from the weights file."""
        full = onnx.TensorProto()
        full.CopyFrom(tensor)
        if uses_external_data(full):
            load_external_data_for_tensor(full, str(self.folder))
        return numpy_helper.to_array(full)

    def rehash(self) -> None:
        """Make the manifest fit the changed files, so that no check finds the fault by it alone.

        This updates every hash, and what the manifest says of each graph's operators and opset.
        """
        entries = self.entries
        lines = ledger.load(self.folder / LEDGER_FILE)
        self.changed.add(LEDGER_FILE)
        ledger.save(
            self.folder / LEDGER_FILE,
            [replace(line, sha256=_digest(line, entries)) for line in lines],
        )
        files = {name: _record(self.folder / name) for name in self.made.files}
        variants = tuple(map(self._described, self.made.variants))
        self.made.model_copy(update={"files": files, "variants": variants}).save(self.folder)

    def _described(self, record: VariantRecord) -> VariantRecord:
        """Return the record of a variant, with the operators and the opset of its graph as it is now."""
        if record.graph is None or record.path not in self.changed or record.offline:
            return record
        model = self.graph(record.path)
        graph = record.graph.model_copy(
            update={
                "opset": next(entry.version for entry in model.opset_import if not entry.domain),
                "ir_version": model.ir_version,
                "operators": dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
            }
        )
        return record.model_copy(update={"graph": graph})


def _digest(line: Line, entries: Mapping[str, TensorEntry]) -> str:
    """Return the hash of a source tensor as it is now; the recorded hash if the artifact does not have it."""
    runs = line.taken_back(entries) if line.targets else []
    chunks = (chunk for run in runs for chunk in run.chunks())
    return hashlib.sha256(b"".join(chunks)).hexdigest() if runs else line.sha256


def _record(path: Path) -> FileRecord:
    return FileRecord(sha256=sha256_of(path), nbytes=path.stat().st_size)
