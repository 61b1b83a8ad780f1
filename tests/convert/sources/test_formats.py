from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import safetensors.torch
import torch
from torch import Tensor

from vconv.catalog.systems import System
from vconv.convert.conversion import Conversion
from vconv.convert.sources import local
from vconv.convert.sources.base import Source
from vconv.convert.sources.local import FORMATS, find_weights, open_local
from vconv.errors import WeightsError
from vconv.types import silent

Refused = Callable[..., AbstractContextManager[None]]
Laying = Callable[[Path, dict[str, Tensor]], Path]
ONE = "vit_small_patch16_dinov3.lvd1689m"
one_system = pytest.mark.parametrize("system", [ONE], indirect=True)


def opened(system: System, path: Path, scratch: Path, lines: list[str] | None = None) -> Source:
    say = silent if lines is None else lines.append
    return open_local(system, path, scratch, say, "FIX")


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def as_pickle(folder: Path, tensors: dict[str, Tensor]) -> Path:
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


def in_shards(folder: Path, tensors: dict[str, Tensor], safe: bool = True) -> Path:
    huggingface_hub.save_torch_state_dict(tensors, folder, max_shard_size="300KB", safe_serialization=safe)
    (index,) = folder.glob("*.index.json")
    return index


def in_pickled_shards(folder: Path, tensors: dict[str, Tensor]) -> Path:
    return in_shards(folder, tensors, safe=False)


def as_safetensors(folder: Path, tensors: dict[str, Tensor]) -> Path:
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    return folder / "model.safetensors"


LAID: Mapping[str, Laying] = {
    "model.safetensors": as_safetensors,
    "model.safetensors.index.json": in_shards,
    "pytorch_model.bin": as_pickle,
    "pytorch_model.bin.index.json": in_pickled_shards,
}
"""By the name that stands for them, how another library's tools lay weights down."""


@pytest.fixture(params=LAID)
def laid(request: pytest.FixtureRequest, given: Path) -> Path:
    """The user's folder with its weights in every format in turn; the file that stands for them."""
    tensors = tensors_of(given)
    (given / "model.safetensors").unlink()
    return LAID[request.param](given, tensors)


def test_every_format_is_tried_here() -> None:
    assert [form.name for form in FORMATS] == list(LAID)


def test_every_format_gives_every_tensor_bit_by_bit(
    small_system: System, small_source: Source, laid: Path, scratch: Path, stock: Callable[[Path], Any]
) -> None:
    expected, lines = tensors_of(small_source.folder), list[str]()
    source = opened(small_system, laid.parent, scratch, lines)
    found = tensors_of(source.folder)
    assert set(found) == set(expected) == set(source.entries)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    parts = sorted(laid.parent.glob(laid.name.removesuffix(".index.json").split(".")[0] + "*"))
    parts = [part for part in parts if not part.name.endswith(".index.json")]
    hashes = {part.name: hashlib.sha256(part.read_bytes()).hexdigest() for part in parts}
    assert source.files == hashes
    several = f", {len(parts)} shards" if laid.name.endswith(".index.json") else ""
    assert (len(parts) > 1) is bool(several)
    assert lines[-1] == f"reading {laid.name}{several}"
    assert sorted(path.name for path in scratch.iterdir()) == sorted(
        ["model.safetensors", *source.library.files]
    )
    disk_key = source.network.layout.disk_key
    held = {disk_key(name): value for name, value in stock(source.folder).named_parameters()}
    assert {name for name in expected if torch.equal(held[name], expected[name])} == set(held)


@one_system
@pytest.mark.parametrize("form", LAID)
def test_prefixes_are_removed_from_every_format_and_only_if_every_name_has_them(
    form: str, small_system: System, given: Path, scratch: Path
) -> None:
    tensors = tensors_of(given)
    (given / "model.safetensors").unlink()
    LAID[form](given, {f"module.{name}": tensor for name, tensor in tensors.items()})
    source = opened(small_system, given, scratch)
    assert source.prefixes == ("module.",)
    found = tensors_of(source.folder)
    assert found.keys() == source.entries.keys() == tensors.keys()
    assert [name for name in tensors if not torch.equal(found[name], tensors[name])] == []


def test_nothing_is_written_beside_the_users_weights(small_system: System, laid: Path, scratch: Path) -> None:
    before = {path.name: path.read_bytes() for path in laid.parent.iterdir()}
    opened(small_system, laid.parent, scratch)
    assert {path.name: path.read_bytes() for path in laid.parent.iterdir()} == before


@one_system
def test_only_what_is_copied_needs_disk_space(
    small_system: System, laid: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, int]] = []
    monkeypatch.setattr(local, "require_space", lambda *given: asked.append(given))
    source = opened(small_system, laid.parent, scratch)
    if laid.name == "model.safetensors":
        assert asked == []
    else:
        assert {folder for folder, _ in asked} == {scratch}
        # All but the headers of the files: each tensor is written once.
        assert max(nbytes for _, nbytes in asked) >= sum(entry.nbytes for entry in source.entries.values())


@one_system
@pytest.mark.parametrize(("corrected", "warned"), [("99.0", True), ("1.0", False)])
def test_a_pickle_under_a_torch_that_can_be_tricked_is_warned_of(
    small_system: System,
    laid: Path,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
    corrected: str,
    warned: bool,
) -> None:
    monkeypatch.setattr(local, "_SAFE_PICKLES", corrected)
    lines: list[str] = []
    opened(small_system, laid.parent, scratch, lines)
    pickled = laid.name.startswith("pytorch_model.bin")
    assert any("CVE-2026-24747" in line and laid.name in line for line in lines) is (warned and pickled)


@one_system
def test_the_file_that_stands_for_the_weights_may_be_named_itself(
    small_system: System, small_source: Source, laid: Path, scratch: Path
) -> None:
    source = opened(small_system, laid, scratch)
    assert source.origin.kind == "file"
    assert set(source.entries) == set(small_source.entries)


@one_system
def test_a_conversion_of_every_format_is_the_same(
    small_system: System,
    small_source: Source,
    laid: Path,
    scratch: Path,
    tmp_path: Path,
    convert_weights: Callable[..., Conversion],
) -> None:
    written = []
    for name, source in (("a", small_source), ("b", opened(small_system, laid.parent, scratch))):
        (tmp_path / name).mkdir()
        convert_weights(tmp_path / name, source)
        written.append(tensors_of(tmp_path / name))
    assert set(written[0]) == set(written[1])
    assert [name for name in written[0] if not torch.equal(written[0][name], written[1][name])] == []


@one_system
@pytest.mark.parametrize("name", ["mine.safetensors", "mine.bin", "mine.pth", "mine.pt", "mine.pth.tar"])
def test_weights_of_another_name_are_found_alone_in_a_folder(
    small_system: System, small_source: Source, given: Path, scratch: Path, name: str
) -> None:
    tensors = tensors_of(given)
    (given / "model.safetensors").unlink()
    if name.endswith(".safetensors"):
        safetensors.torch.save_file(tensors, given / name)
    else:
        torch.save(tensors, given / name)
    (given / "notes.txt").write_text("no weights")
    source = opened(small_system, given, scratch)
    assert source.files.keys() == {name}
    assert set(source.entries) == set(small_source.entries)


@one_system
def test_two_files_that_may_be_the_weights_are_refused(system: System, given: Path, refused: Refused) -> None:
    (given / "model.safetensors").rename(given / "b.safetensors")
    (given / "a.bin").write_bytes(b"")
    with refused(WeightsError, f"no weights in {given}", "several: a.bin, b.safetensors", "--weights"):
        find_weights(given, "FIX")


@one_system
def test_the_published_name_comes_before_any_other(system: System, given: Path) -> None:
    for form in reversed(FORMATS):
        (given / form.name).write_bytes(b"")
        (given / "other.safetensors").write_bytes(b"")
    for form in FORMATS:
        assert find_weights(given, "FIX") == (given / form.name, form)
        (given / form.name).unlink()


@one_system
def test_a_folder_without_weights_is_refused(system: System, given: Path, refused: Refused) -> None:
    (given / "model.safetensors").unlink()
    fragments = ("no model.safetensors", *(form.name for form in FORMATS), "fix: FIX")
    with refused(WeightsError, f"no weights in {given}", *fragments):
        find_weights(given, "FIX")


@one_system
@pytest.mark.parametrize("name", ["weights.onnx", "weights", "config.json", "weights.index.json"])
def test_a_file_of_another_kind_is_refused(
    system: System, tmp_path: Path, refused: Refused, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"x")
    with refused(WeightsError, f"cannot use {path}", "suffix", ".safetensors, .bin, .pth, .pt", "fix: FIX"):
        find_weights(path, "FIX")


@one_system
def test_a_damaged_file_is_refused(
    small_system: System, given: Path, scratch: Path, refused: Refused
) -> None:
    path = given / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with refused(WeightsError, "model.safetensors is not a valid safetensors file"):
        opened(small_system, given, scratch)


@one_system
def test_a_pickle_that_is_none_is_refused(small_system: System, given: Path, scratch: Path) -> None:
    (given / "model.safetensors").unlink()
    (given / "pytorch_model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin"):
        opened(small_system, given, scratch)


@one_system
@pytest.mark.parametrize("format", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
def test_a_shard_that_is_not_there_is_named(
    small_system: System, given: Path, scratch: Path, refused: Refused, format: str
) -> None:
    tensors = tensors_of(given)
    (given / "model.safetensors").unlink()
    LAID[format](given, tensors)
    lost = sorted(path for path in given.iterdir() if "-of-" in path.name)[1]
    lost.unlink()
    with refused(WeightsError, lost.name):
        opened(small_system, given, scratch)


@one_system
def test_a_folder_may_be_moved_once_it_has_been_read_from_shards(
    small_system: System, given: Path, scratch: Path
) -> None:
    tensors = tensors_of(given)
    (given / "model.safetensors").unlink()
    in_shards(given, tensors)
    source = opened(small_system, given, scratch)
    shutil.rmtree(given)
    assert len(tensors_of(source.folder)) == len(source.entries)


@one_system
@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("form", LAID)
def test_the_users_file_and_the_name_in_it_are_told_in_every_format(
    form: str, prefix: str, value: float, small_system: System, given: Path, scratch: Path, refused: Refused
) -> None:
    tensors = tensors_of(given)
    name = sorted(name for name, tensor in tensors.items() if tensor.ndim == 1)[-1]
    tensors[name][-1] = value
    (given / "model.safetensors").unlink()
    laid = LAID[form](given, {prefix + key: tensor for key, tensor in tensors.items()})
    files = [laid.name]
    if laid.suffix == ".json":
        files = [json.loads(laid.read_text())["weight_map"][prefix + name]]
    with refused(
        WeightsError, f"a weight is not finite in {files[0]} |", f"got NaN or Inf in {prefix}{name} |"
    ):
        opened(small_system, given, scratch)
