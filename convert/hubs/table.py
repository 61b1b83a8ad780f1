"""The table of hubs, and the function that gets a repository from any of them.

Only the configuration, the licences and the weights in one format are downloaded. A new hub is one file and
one row here. The hubs' libraries list, download and cache files. This module decides which files are
needed, and when a snapshot is complete.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from vconv.convert.files import shards
from vconv.convert.hubs import huggingface, modelscope
from vconv.convert.hubs.base import WEIGHTS, Hub, Snapshot, Wanted, explained, status_of
from vconv.errors import UnknownNameError, WeightsError
from vconv.types import ADAPTER_FILE, CONFIG_FILE, PREPROCESSOR_FILE, Say, silent

HUBS: Mapping[str, Hub] = MappingProxyType({hub.name: hub for hub in (huggingface.HUB, modelscope.HUB)})
"""Every hub, by name."""

_BESIDE = (CONFIG_FILE, PREPROCESSOR_FILE, ADAPTER_FILE, "README.md")
_LICENCES = ("LICENSE", "LICENCE", "NOTICE")
_WEIGHT_SUFFIXES = {
    *(".safetensors", ".bin", ".h5", ".msgpack", ".onnx", ".pth", ".pt", ".ckpt", ".npz", ".gguf", ".tflite"),
}
_REPOSITORY = re.compile(r"(?!.*(--|\.\.|\.git$|[.-]/))[A-Za-z0-9][\w.-]*/([A-Za-z0-9][\w.-]*)?\w", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def download(
    hub: str,
    repository: str,
    revision: str | None = None,
    gated: bool = False,
    licence: str = "",
    say: Say = silent,
    offline: bool = False,
    weights: bool = True,
) -> Snapshot:
    """Find a repository in the hub's cache, or download the files that are needed.

    Args:
        hub: a name in :data:`HUBS`.
        repository: ``OWNER/NAME``.
        revision: a branch, tag or commit; None for the hub's default branch.
        gated: whether the repository is known to require consent.
        licence: the licence to accept, named in the error about access.
        say: receives progress lines.
        offline: whether to use only the cache.
        weights: whether the weights are needed; without them, only the files beside them are fetched.

    Returns:
        The complete snapshot: its configuration if it has one, its licences, its weights.

    Raises:
        UnknownNameError: there is no such hub.
        WeightsError: there is no such repository, no access, no network, no disk space, or no usable weights.
    """
    if hub not in HUBS:
        raise UnknownNameError("hub", hub, HUBS, fix="give one of them with --hub")
    if len(repository) > 96 or not _REPOSITORY.fullmatch(repository):
        raise WeightsError(
            "this is not the name of a repository",
            got=repr(repository),
            expected="OWNER/NAME",
            fix="copy the name from the model's page on the hub, such as facebook/dinov2-large",
        )
    wanted = Wanted(HUBS[hub], repository, revision, gated, licence)
    row, others = wanted.hub, [name for name in HUBS if name != hub]
    # A commit never changes: a complete one in the cache needs no request.
    pinned = row.cached(repository, revision) if revision and _COMMIT.fullmatch(revision) else None
    if offline or row.offline() or (pinned and not _lacking(row, pinned)):
        return _from_cache(wanted, say)
    try:
        commit, files = row.listing(repository, revision)
    except row.failures() as error:
        status = status_of(error)
        found = row.cached(repository, revision) if status is None or status >= 500 else None
        if found is None or _lacking(row, found):
            raise explained(wanted, error, began=False, others=others) from error
        say(f"cannot reach {row.endpoint()}: found {repository} in the cache of {hub}")
        return found
    try:
        if not weights:
            beside = [name for name in _BESIDE if name in files]
            return Snapshot(row.fetch(repository, commit, beside), row.name, repository, commit)
        return _fetched(wanted, commit, files, _chosen(wanted, files), say)
    except row.failures() as error:
        raise explained(wanted, error, began=True, others=others) from error


def _from_cache(wanted: Wanted, say: Say) -> Snapshot:
    found = wanted.hub.cached(wanted.repository, wanted.revision)
    lacking = _lacking(wanted.hub, found) if found else []
    if found is None or lacking:
        raise WeightsError(
            f"{wanted} is not in the cache of {wanted.hub.name}, and vconv is in offline mode",
            got="no " + ", no ".join(lacking) if lacking else "nothing of it",
            expected="a complete download",
            fix="run once with the network, or give a folder with `--weights FOLDER`",
        )
    say(f"found {wanted.repository} in the cache of {wanted.hub.name}")
    return found


def _lacking(row: Hub, found: Snapshot) -> list[str]:
    """Return the names of the files that a snapshot lacks."""
    folder = found.folder
    config = [] if (folder / CONFIG_FILE).is_file() or row.bare(found) else [CONFIG_FILE]
    weights = next((name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        return [*config, WEIGHTS[0]]
    return config + [name for name in _shards(folder / weights) if not (folder / name).is_file()]


def _chosen(wanted: Wanted, files: list[str]) -> str:
    """Choose the weights file, or the index of its shards."""
    for name in WEIGHTS:
        if name in files:
            return name
    others = sorted(name for name in files if Path(name).suffix in _WEIGHT_SUFFIXES)
    raise WeightsError(
        f"{wanted} on {wanted.hub.name} has no weights that can be used",
        got=", ".join(others[:8]) + (f" and {len(others) - 8} more" if len(others) > 8 else "")
        if others
        else f"no weights among {len(files)} files",
        expected="one of " + ", ".join(WEIGHTS),
        fix="save them as safetensors with their own library, and give the folder with `--weights FOLDER`",
    )


def _fetched(wanted: Wanted, commit: str, files: list[str], weights: str, say: Say) -> Snapshot:
    """Download what is missing: first the files of the listing, then the shards that an index names."""
    row, repository = wanted.hub, wanted.repository
    licences = [name for name in files if "/" not in name and name.upper().startswith(_LICENCES)]
    names = [*(name for name in _BESIDE if name in files), *sorted(licences), weights]
    held = row.cached(repository, commit)
    before = _stamps(held.folder, names, weights) if held else None
    if before is None:
        say(f"downloading {repository} from {row.name}")
    folder = row.fetch(repository, commit, names)
    parts = _shards(folder / weights)
    for name in parts:
        if name not in files:
            raise WeightsError(
                f"{weights} of {wanted} names a shard that the repository does not have",
                got=repr(name),
                expected="a file beside it",
                fix="name another revision, or give a folder with `--weights FOLDER`",
            )
    if parts:
        row.fetch(repository, commit, parts)
    found = Snapshot(folder, row.name, repository, commit)
    # Only now, so that the cache never records an interrupted download as the revision.
    row.remember(found, wanted.revision, weights, CONFIG_FILE not in files)
    # A branch can move: where the cache is not kept by commit, only the library notices.
    if before is not None and before == _stamps(folder, names, weights):
        say(f"found {repository} in the cache of {row.name}")
    elif before is not None:
        say(f"downloaded the changed files of {repository} from {row.name}")
    return found


def _stamps(folder: Path, names: list[str], weights: str) -> list[tuple[int, int, int]] | None:
    """Return what changes when a file is replaced; None if a file is missing."""
    paths = [folder / name for name in (*names, *_shards(folder / weights))]
    if not all(path.is_file() for path in paths):
        return None
    return [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in (path.stat() for path in paths)]


def _shards(path: Path) -> list[str]:
    """Return the shards that an index names; none if the file is not an index, or is missing."""
    return shards.names(path) if path.name in shards.INDEXES and path.is_file() else []
