from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import safetensors.torch
import torch
import transformers
from examples import EXAMPLES
from torch import Tensor

from vconv.catalog.systems import System
from vconv.convert.files.safetensors_file import read_header
from vconv.convert.files.shards import PICKLE_INDEX, SAFETENSORS_INDEX, read_index, read_shards
from vconv.errors import WeightsError

Refused = Callable[..., AbstractContextManager[None]]

SHARDS = {"one.safetensors": ("a", "b"), "two.safetensors": ("c",)}
WEIGHT_MAP = {name: shard for shard, names in SHARDS.items() for name in names}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """An index of two sound shards."""
    for shard, names in SHARDS.items():
        hold(tmp_path / shard, *names)
    path = tmp_path / SAFETENSORS_INDEX
    write(path, {"metadata": {"total_size": 48}, "weight_map": WEIGHT_MAP})
    return path


def hold(path: Path, *names: str) -> None:
    safetensors.torch.save_file({name: torch.full((4,), float(ord(name))) for name in names}, path)


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def raw(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def test_every_tensor_is_found_in_its_own_shard(index: Path) -> None:
    entries = read_shards(index)
    assert list(entries) == ["a", "b", "c"]
    for name, entry in entries.items():
        assert (entry.name, entry.path) == (name, index.parent / WEIGHT_MAP[name])
        assert entry == read_header(entry.path)[name]
        assert b"".join(entry.chunks()) == raw(torch.full((4,), float(ord(name))))


def test_every_shard_is_named_once_in_order(index: Path) -> None:
    assert read_index(index) == (index.parent / "one.safetensors", index.parent / "two.safetensors")


@pytest.mark.parametrize("metadata", [{}, {"metadata": {"total_size": 1}}, {"metadata": None}])
def test_metadata_is_not_relied_on(index: Path, metadata: dict[str, Any]) -> None:
    write(index, {**metadata, "weight_map": WEIGHT_MAP})
    assert list(read_shards(index)) == ["a", "b", "c"]


def test_shards_may_be_links_as_in_the_cache_of_the_hub(index: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for name in (SAFETENSORS_INDEX, *SHARDS):
        (snapshot / name).symlink_to(Path("..") / name)
    entries = read_shards(snapshot / SAFETENSORS_INDEX)
    assert {entry.path.parent for entry in entries.values()} == {snapshot}
    assert set(entries) == set(WEIGHT_MAP)


@pytest.mark.parametrize(
    "system",
    sorted(name for name, system in EXAMPLES.items() if system.library == "transformers"),
    indirect=True,
)
def test_shards_that_transformers_writes_are_the_model(small_system: System, tmp_path: Path) -> None:
    model = transformers.AutoModel.from_config(
        transformers.AutoConfig.for_model(**small_system.config), dtype=torch.float32
    )
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
    index = tmp_path / "sharded" / SAFETENSORS_INDEX
    assert len(read_index(index)) > 5
    assert set(read_index(index)) == set(index.parent.glob("*.safetensors"))
    entries = read_shards(index)
    whole = safetensors.torch.load_file(tmp_path / "whole" / "model.safetensors")
    assert set(entries) == set(whole)
    for name, entry in entries.items():
        assert (entry.dtype, entry.shape) == ("F32", tuple(whole[name].shape))
        assert b"".join(entry.chunks()) == raw(whole[name])
    # Names in memory may be other than those on disk, the bytes may not.
    in_memory = sorted(raw(tensor) for tensor in model.state_dict().values())
    assert sorted(b"".join(entry.chunks()) for entry in entries.values()) == in_memory


@pytest.mark.parametrize("safe", [True, False])
def test_shards_that_the_hubs_library_writes_are_found(tmp_path: Path, safe: bool) -> None:
    tensors = {f"layer.{number}": torch.full((1000,), float(number)) for number in range(9)}
    huggingface_hub.save_torch_state_dict(tensors, tmp_path, max_shard_size="10KB", safe_serialization=safe)
    index = tmp_path / (SAFETENSORS_INDEX if safe else PICKLE_INDEX)
    shards = read_index(index)
    assert len(shards) == 5
    assert shards == tuple(sorted({*tmp_path.iterdir()} - {index}))
    if safe:
        found = {name: b"".join(entry.chunks()) for name, entry in read_shards(index).items()}
    else:
        loaded = [torch.load(shard, weights_only=True) for shard in shards]
        found = {name: raw(tensor) for shard in loaded for name, tensor in shard.items()}
    assert found == {name: raw(tensor) for name, tensor in tensors.items()}


UNSOUND: dict[str, tuple[bytes, str]] = {
    "large": (b" " * (16 * 2**20 + 1), "got more than 16,777,216 bytes"),
    "empty": (b"", "expected an index of shards, in JSON"),
    "not JSON": (b"{nonsense", "expected an index of shards, in JSON"),
    "not UTF-8": (b'{"\xff\xfe": 1}', "expected an index of shards, in JSON"),
    "deep": (b"[" * 200_000, "expected an index of shards, in JSON"),
    "a zero byte": (b'{"weight_map": {"a": "one\\u0000"}}', "got the text 'one\\x00', with a zero byte"),
    "a name twice": (b'{"weight_map": {"a": "one", "a": "two"}}', "got the name 'a' twice"),
    "list": (b"[1]", "got a list | expected a JSON object"),
    "no weight_map": (b'{"metadata": {}}', "a weight_map that is None"),
    "empty weight_map": (b'{"weight_map": {}}', "a weight_map that is {}"),
    "weight_map that is a list": (b'{"weight_map": ["a"]}', "a weight_map that is ['a']"),
    "number for a file": (b'{"weight_map": {"a": 1}}', "the file 1 for 'a' | expected the name of a file"),
    "nothing for a file": (
        b'{"weight_map": {"a": null}}',
        "the file None for 'a' | expected the name of a file",
    ),
}


@pytest.mark.parametrize("read", [read_index, read_shards])
@pytest.mark.parametrize("kind", UNSOUND)
def test_an_unsound_index_is_refused(
    index: Path, refused: Refused, read: Callable[[Path], object], kind: str
) -> None:
    content, fragment = UNSOUND[kind]
    index.write_bytes(content)
    with refused(WeightsError, f"{SAFETENSORS_INDEX} is not a valid index", fragment):
        read(index)


OUTSIDE = ("../{}", "sub/{}", "sub/../{}", "./{}", "{}/", "..\\{}", "C:{}", "", ".", "..")


@pytest.mark.parametrize("read", [read_index, read_shards])
@pytest.mark.parametrize("name", [*OUTSIDE, "absolute"])
def test_an_index_cannot_reach_outside_its_folder(
    index: Path, tmp_path: Path, refused: Refused, read: Callable[[Path], object], name: str
) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for place in (folder, folder / "sub"):
        for shard in SHARDS:
            (place / shard).write_bytes((tmp_path / shard).read_bytes())
    file = str(tmp_path / "two.safetensors") if name == "absolute" else name.format("two.safetensors")
    inner = folder / SAFETENSORS_INDEX
    write(inner, {"weight_map": {**WEIGHT_MAP, "c": file}})
    with refused(WeightsError, "is not a valid index", f"a shard named {file!r:.120}", "a file beside it"):
        read(inner)


@pytest.mark.parametrize("read", [read_index, read_shards])
def test_a_missing_shard_is_an_error(index: Path, refused: Refused, read: Callable[[Path], object]) -> None:
    (index.parent / "two.safetensors").unlink()
    with refused(
        WeightsError, "are missing", "no two.safetensors |", "all 2 beside it", "download the whole"
    ):
        read(index)
    (index.parent / "one.safetensors").unlink()
    with refused(WeightsError, "are missing", "no one.safetensors and 1 more"):
        read(index)


def test_a_folder_is_not_a_shard(index: Path, refused: Refused) -> None:
    (index.parent / "two.safetensors").unlink()
    (index.parent / "two.safetensors").mkdir()
    with refused(WeightsError, "are missing", "got a folder two.safetensors"):
        read_index(index)


def test_a_tensor_that_its_shard_lacks_is_an_error(index: Path, refused: Refused) -> None:
    hold(index.parent / "one.safetensors", "a")
    with refused(WeightsError, "does not describe its shards", "no 'b' in one.safetensors", "one revision"):
        read_shards(index)


def test_a_tensor_that_the_index_lacks_is_an_error(index: Path, refused: Refused) -> None:
    hold(index.parent / "two.safetensors", "c", "d")
    with refused(
        WeightsError, "does not describe its shards", "'d' in two.safetensors, but not in the index"
    ):
        read_shards(index)


@pytest.mark.parametrize(("shard", "name"), [("two.safetensors", "a"), ("one.safetensors", "c")])
def test_a_tensor_in_two_shards_is_an_error(index: Path, refused: Refused, shard: str, name: str) -> None:
    hold(index.parent / shard, name, *SHARDS[shard])
    with refused(WeightsError, f"{name!r} in {shard}, but in {WEIGHT_MAP[name]} by the index", "one shard"):
        read_shards(index)


def test_tensors_that_changed_places_are_an_error(index: Path, refused: Refused) -> None:
    write(index, {"weight_map": {**WEIGHT_MAP, "b": "two.safetensors"}})
    with refused(WeightsError, "'b' in one.safetensors, but in two.safetensors by the index"):
        read_shards(index)


def test_a_shard_that_is_not_sound_is_an_error(index: Path, refused: Refused) -> None:
    shard = index.parent / "two.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with refused(WeightsError, "two.safetensors is not a valid safetensors file"):
        read_shards(index)


def test_an_index_that_is_not_there_is_an_error(tmp_path: Path, refused: Refused) -> None:
    with refused(WeightsError, SAFETENSORS_INDEX, "got no such file"):
        read_index(tmp_path / SAFETENSORS_INDEX)
