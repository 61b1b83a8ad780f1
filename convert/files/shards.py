"""Sharded checkpoints: a JSON index that says which file beside it contains which tensor.

The format is that of transformers and huggingface_hub, ``{"metadata": {...}, "weight_map": {tensor: file}}``.
``metadata.total_size`` is not compared with the files: writers do not agree on what it counts. Those
libraries read an index while they load a model, and trust it; here it is checked before any file is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from vconv import documents
from vconv.convert.files import safetensors_file
from vconv.convert.files.safetensors_file import TensorEntry
from vconv.documents import DocumentKind
from vconv.errors import ArtifactError, WeightsError
from vconv.regular_files import kind_of

SAFETENSORS_INDEX = "model.safetensors.index.json"
PICKLE_INDEX = "pytorch_model.bin.index.json"
INDEXES = (SAFETENSORS_INDEX, PICKLE_INDEX)
_INDEX = DocumentKind("an index of shards, in JSON", 2**24, 500_000)
"""A network of 1,000 blocks needs 2 MB."""


def read_index(path: Path) -> tuple[Path, ...]:
    """Return the shards that an index names, after checking that each is a file beside the index.

    Args:
        path: the index, of safetensors files or of pickles.

    Returns:
        The shards in order of name, each once; none is opened.

    Raises:
        WeightsError: the index is not valid, names a file outside its folder, or a shard is missing.
    """
    return _shards(path, _weight_map(path))


def names(path: Path) -> list[str]:
    """Return the names of the shards in an index, in order, each once, without looking for the files.

    Raises:
        WeightsError: the index is not valid, or names a file outside its folder.
    """
    return _names(path, _weight_map(path))


def read_shards(
    index: Path, read: Callable[[Path], Mapping[str, TensorEntry]] = safetensors_file.read_header
) -> dict[str, TensorEntry]:
    """Read the place of every tensor of a sharded checkpoint, and compare it with the weight_map.

    Args:
        index: the index, with its shards beside it.
        read: reads the places of the tensors of one shard.

    Returns:
        One entry for each tensor, with the shard that contains it, in order of shards.

    Raises:
        WeightsError: the index or a shard is not valid, or they disagree about a tensor.
    """
    weight_map = _weight_map(index)
    found: dict[str, TensorEntry] = {}
    for shard in _shards(index, weight_map):
        entries = read(shard)
        _check_shard(index, shard.name, entries.keys(), weight_map)
        found |= entries
    return found


def _check_shard(index: Path, shard: str, held: Collection[str], weight_map: dict[str, str]) -> None:
    named = {name for name, file in weight_map.items() if file == shard}
    for name in sorted(named.difference(held)):
        raise _disagree(
            index, f"no {name!r} in {shard}", "every tensor in the shard that the index names for it"
        )
    for name in sorted(set(held).difference(named)):
        place = f"in {weight_map[name]} by the index" if name in weight_map else "not in the index"
        raise _disagree(
            index,
            f"{name!r} in {shard}, but {place}",
            "every tensor in one shard, and in the index",
        )


def _disagree(index: Path, got: str, expected: str) -> WeightsError:
    return WeightsError(
        f"{index.name} does not describe its shards",
        got=got,
        expected=expected,
        fix="download the index and every shard again, from one revision",
    )


def _broken(path: Path, got: str, expected: str) -> WeightsError:
    return WeightsError(
        f"{path.name} is not a valid index",
        got=got,
        expected=expected,
        fix="download or copy the index again",
    )


def _weight_map(path: Path) -> dict[str, str]:
    try:
        content = documents.load(path, _INDEX)
    except ArtifactError as error:
        raise _broken(path, str(error.got), error.expected) from error
    if not isinstance(content, dict):
        raise _broken(path, f"a {type(content).__name__}", "a JSON object")
    found = content.get("weight_map")
    if not isinstance(found, dict) or not found:
        raise _broken(path, f"a weight_map that is {found!r:.120}", "a JSON object from tensors to files")
    for name, file in found.items():
        if not isinstance(file, str):
            raise _broken(path, f"the file {file!r:.120} for {name!r}", "the name of a file")
    return found


def _shards(path: Path, weight_map: dict[str, str]) -> tuple[Path, ...]:
    found = _names(path, weight_map)
    # Links are followed: in the cache of Hugging Face, the files of a snapshot are links to blobs.
    missing = [name for name in found if not (path.parent / name).is_file()]
    if missing:
        raise WeightsError(
            f"shards that {path.name} names are missing",
            got=f"{kind_of(path.parent / missing[0]) or 'no'} {missing[0]}"
            + (f" and {len(missing) - 1} more" if missing[1:] else ""),
            expected=f"all {len(found)} beside it",
            fix="download the whole folder",
        )
    return tuple(path.parent / name for name in found)


def _names(path: Path, weight_map: dict[str, str]) -> list[str]:
    found = sorted(set(weight_map.values()))
    for name in found:
        if name in ("", ".", "..") or not {"/", "\\", ":", "\0"}.isdisjoint(name):
            raise _broken(
                path, f"a shard named {name!r:.120}", "the name of a file beside it, without a folder"
            )
    return found
