from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from safetensors import safe_open

from vconv.artifact import artifact as module
from vconv.artifact.artifact import Artifact, read_config
from vconv.artifact.manifest import Manifest
from vconv.artifact.records import FileRecord
from vconv.convert.sources.base import Source
from vconv.errors import ArtifactError, UnknownNameError
from vconv.hashes import sha256_of
from vconv.types import CONFIG_FILE, PREPROCESSOR_FILE, WEIGHTS_FILE, Status
from vconv.validators.checks.integrity import verify_files

ONE = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
"""One system for what does not depend on which."""


@ONE
def test_what_the_files_say_is_read_once(small: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    for name in ("read_header", "read_config", "network"):
        kept = getattr(module, name)

        def counted(*given: Any, name: str = name, kept: Any = kept) -> Any:
            read.append(name)
            return kept(*given)

        monkeypatch.setattr(module, name, counted)
    for _ in range(3):
        assert small.network.blocks == 3
        assert set(small.entries) == {line.target for line in small.ledger if line.target}
    assert sorted(read) == ["network", "read_config", "read_header"]


def test_entries_are_where_the_tensors_lie(small: Artifact) -> None:
    with safe_open(small.folder / WEIGHTS_FILE, "np") as file:
        for name, entry in small.entries.items():
            assert b"".join(entry.chunks()) == file.get_tensor(name).tobytes()


def test_the_originals_own_configurations_are_in_it_as_they_came(
    small: Artifact, small_source: Source
) -> None:
    assert small.original(CONFIG_FILE) == json.loads(json.dumps(dict(small_source.config)))
    assert small.original(PREPROCESSOR_FILE) == json.loads(json.dumps(dict(small_source.preprocessor)))
    assert small.config != small.original(CONFIG_FILE) or small.name.startswith("vit_small")


@ONE
def test_a_variant_is_known_by_its_path_and_not_by_its_files_name(copied: Path, made: Manifest) -> None:
    (dynamic,) = (record for record in made.variants if record.path == "model.onnx")
    (copied / "fp16").mkdir()
    onnx.save(onnx.load(copied / "model.onnx", load_external_data=False), copied / "fp16" / "model.onnx")
    shutil.copyfile(copied / WEIGHTS_FILE, copied / "fp16" / WEIGHTS_FILE)
    paths = {"path": "fp16/model.onnx", "weights": f"fp16/{WEIGHTS_FILE}"}
    half = dynamic.model_copy(update={"variant": "onnx-fp16", "precision": "fp16", **paths})
    files = {
        path: FileRecord(sha256=sha256_of(copied / path), nbytes=(copied / path).stat().st_size)
        for path in paths.values()
    }
    both = made.model_copy(update={"variants": (*made.variants, half), "files": {**made.files, **files}})
    both.save(copied)
    artifact = Artifact.open(copied)
    assert artifact.path(artifact.variant("onnx-fp16")) == copied / "fp16" / "model.onnx"
    assert artifact.path(artifact.variant("onnx-fp32")) == copied / "model.onnx"
    assert artifact.variant("onnx-fp16").graph == artifact.variant("onnx-fp32").graph
    assert artifact.variant("onnx-fp16").contract == dynamic.contract
    assert verify_files(artifact).status is Status.PASSED
    (copied / "fp16" / WEIGHTS_FILE).write_bytes(b"other")
    with pytest.raises(ArtifactError, match=r"fp16/model\.safetensors was changed"):
        verify_files(artifact)


@ONE
def test_an_unknown_variant_is_refused_with_the_nearest(small: Artifact) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown variant .*'onnx-fp23'.*onnx-fp32"):
        small.variant("onnx-fp23")


@pytest.mark.parametrize(
    ("content", "got"),
    [(None, "no such file"), (b"{", "no JSON"), (b"[" * 100_000, "more than 32 levels"), (b"[1]", "a list")],
)
def test_a_configuration_that_is_no_json_object_is_an_error_in_one_line(
    tmp_path: Path, content: bytes | None, got: str
) -> None:
    if content is not None:
        (tmp_path / CONFIG_FILE).write_bytes(content)
    with pytest.raises(ArtifactError, match=got) as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)


@ONE
def test_a_variants_contract_is_what_its_graph_declares(small: Artifact) -> None:
    for record in small.manifest.variants[1:]:
        graph = onnx.load(small.path(record), load_external_data=False).graph
        declared = {
            value.name: tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)
            for value in (*graph.input, *graph.output)
        }
        taken = record.contract.input
        assert {taken.name: taken.shape} | {
            tensor.name: tensor.shape for tensor in record.contract.outputs.values()
        } == declared
        assert {tensor.dtype for tensor in (taken, *record.contract.outputs.values())} == {"float32"}
        symbols = {axis for shape in declared.values() for axis in shape if isinstance(axis, str)}
        assert symbols == set(record.contract.axes)
