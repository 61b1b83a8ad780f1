"""Weights on disk: a file, or a folder as a hub's download tool writes it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from packaging.version import Version

from vconv.catalog.systems import System
from vconv.convert.files import pickles, safetensors_file, shards
from vconv.convert.files.prefixes import keep, peel
from vconv.convert.files.safetensors_file import PlannedTensor, TensorEntry
from vconv.convert.libraries import widening
from vconv.convert.libraries.readers import refuse_unfit
from vconv.convert.sources import configurations
from vconv.convert.sources.base import STORED, Origin, Source, digest_of, write_configurations
from vconv.convert.sources.licences import licence_files, licence_of
from vconv.convert.sources.recognised import recognised
from vconv.convert.sources.regrouping import regroup
from vconv.convert.weights.finite import NotFinite
from vconv.disk import require_space
from vconv.errors import WeightsError
from vconv.hashes import chunks_of, sha256_of_chunks
from vconv.progress import megabytes
from vconv.regular_files import A_FILE, kind_of
from vconv.types import CONFIG_FILE, MANIFEST_FILE, PICKLE_FILE, WEIGHTS_FILE, Say

_SAFE_PICKLES = "2.10"


def _alone(file: Path) -> tuple[Path, ...]:
    return (file,)


Placed = tuple[dict[str, TensorEntry], tuple[str, ...], str]
"""The header of a placed weights file, the prefixes that were removed from the names of its tensors, and the
entry of the file that held them; empty if the file has no entries."""


def _link(file: Path, scratch: Path, entry: str | None, faulty: NotFinite) -> Placed:
    entries = safetensors_file.read_header(file)
    if peel(entries)[1]:
        return _written(entries, scratch, faulty)
    (scratch / WEIGHTS_FILE).symlink_to(file.resolve())
    return safetensors_file.read_header(scratch / WEIGHTS_FILE), (), ""


def _rewrite(file: Path, scratch: Path, entry: str | None, faulty: NotFinite) -> Placed:
    read = partial(faulty.read, file.name)
    removed, held = pickles.rewrite(file, scratch / WEIGHTS_FILE, entry=entry, read=read)
    return safetensors_file.read_header(scratch / WEIGHTS_FILE), removed, held


def _merge(index: Path, scratch: Path, entry: str | None, faulty: NotFinite) -> Placed:
    """Write the tensors of all shards into one file: timm cannot read shards.

    Weights that are mapped when they are loaded are not copied: see :mod:`vconv.convert.libraries.widening`.
    """
    entries = shards.read_shards(index)
    if not widening.too_large(entries) or peel(entries)[1]:
        return _written(entries, scratch, faulty)
    (scratch / shards.SAFETENSORS_INDEX).symlink_to(index.resolve())
    for shard in shards.read_index(index):
        (scratch / shard.name).symlink_to(shard.resolve())
    return shards.read_shards(scratch / shards.SAFETENSORS_INDEX), (), ""


def _rewrite_shards(index: Path, scratch: Path, entry: str | None, faulty: NotFinite) -> Placed:
    with tempfile.TemporaryDirectory(dir=scratch) as name:

        def read(shard: Path) -> dict[str, TensorEntry]:
            pickles.rewrite(shard, Path(name) / shard.name, keep)
            return safetensors_file.read_header(Path(name) / shard.name)

        return _written(shards.read_shards(index, read), scratch, faulty)


def _written(entries: Mapping[str, TensorEntry], scratch: Path, faulty: NotFinite) -> Placed:
    new, removed = peel(entries)
    require_space(scratch, sum(entry.nbytes for entry in entries.values()))
    planned = [
        PlannedTensor(
            new[name], entry.dtype, entry.shape, partial(faulty.entry, entry, new[name], entry.path.name)
        )
        for name, entry in entries.items()
    ]
    safetensors_file.write(scratch / WEIGHTS_FILE, planned)
    return safetensors_file.read_header(scratch / WEIGHTS_FILE), removed, ""


@dataclass(frozen=True)
class Format:
    """A file format of weights.

    Args:
        name: the name of the weights file, or of the index, in a folder.
        files: takes that file; returns all files that belong to it.
        place: puts the weights into an empty folder as one file that a library loads, and notes those that
            are not finite if it copies them.
        copies: whether that needs disk space for all files, which must be free before.
        pickled: whether the files are pickles.
    """

    name: str
    files: Callable[[Path], tuple[Path, ...]]
    place: Callable[[Path, Path, str | None, NotFinite], Placed]
    copies: bool = True
    pickled: bool = False


FORMATS = (
    Format(WEIGHTS_FILE, _alone, _link, copies=False),
    Format(shards.SAFETENSORS_INDEX, shards.read_index, _merge, copies=False),
    Format(PICKLE_FILE, _alone, _rewrite, pickled=True),
    Format(shards.PICKLE_INDEX, shards.read_index, _rewrite_shards, pickled=True),
)
"""Formats in the order in which a folder is searched for them. A new format is one row."""
_SUFFIXES = {".safetensors": FORMATS[0], **dict.fromkeys(pickles.PICKLE_SUFFIXES, FORMATS[2])}
"""Formats by suffix, for a file with another name."""


def _by_suffix(path: Path) -> Format | None:
    return next((form for suffix, form in _SUFFIXES.items() if path.name.endswith(suffix)), None)


def find_weights(path: Path, fix: str) -> tuple[Path, Format]:
    """Find the weights file, or the index of its shards, and its format.

    Args:
        path: a file, or a folder.
        fix: the fix to name in the error if there are no weights.

    Raises:
        WeightsError: there are no weights, or several files of weights.
    """
    if path.is_file():
        known = {form.name: form for form in FORMATS}
        form = known.get(path.name) or _by_suffix(path)
        if form:
            return path, form
        raise WeightsError(
            f"cannot use {path}",
            got=f"a file with the suffix {path.suffix!r}",
            expected=f"one of {', '.join(_SUFFIXES)}, or an index",
            fix=fix,
        )
    if not path.is_dir():
        raise WeightsError(
            f"cannot use {path}",
            got=kind_of(path) or "neither a file nor a folder",
            expected="a file or a folder",
            fix=fix,
        )
    for form in FORMATS:
        if os.path.lexists(path / form.name):
            return _regular(path / form.name), form
    others = sorted(file for file in path.iterdir() if _by_suffix(file) and not file.is_dir())
    form = _by_suffix(others[0]) if len(others) == 1 else None
    if form:
        return _regular(others[0]), form
    raise WeightsError(
        f"no weights in {path}",
        got=f"several: {', '.join(file.name for file in others)}" if others else f"no {WEIGHTS_FILE}",
        expected=f"one of {', '.join(form.name for form in FORMATS)}",
        fix="name the file itself with --weights" if others else fix,
    )


def _regular(file: Path) -> Path:
    """Refuse a name of weights that is no file, such as a link to nothing in a broken cache of a hub."""
    found = kind_of(file)
    if found != A_FILE:
        raise WeightsError(
            f"cannot use {file}", got=found, expected="a file of weights", fix="download the file again"
        )
    return file


def open_local(
    system: System,
    path: Path,
    scratch: Path,
    say: Say,
    fix: str,
    origin: Origin | None = None,
    stated: str | None = None,
    state_dict: str | None = None,
) -> Source:
    """Prepare weights on disk for reading.

    Args:
        system: the catalog row.
        path: a file, or a folder.
        scratch: an empty folder.
        say: receives progress lines.
        fix: the fix to name in the error if there are no weights.
        origin: the source of the weights; by default, the files themselves.
        stated: the home of the layout of the weights; by default it is recognised.
        state_dict: the entry of a training checkpoint that has several state dicts.

    Raises:
        WeightsError: there are no weights, they are not valid, or they are of another architecture.
    """
    if path.is_dir():
        configurations.refuse_adapter(path)
    file, form = find_weights(path, fix)
    if (file.parent / MANIFEST_FILE).exists():
        raise WeightsError(
            f"{path} is an artifact",
            got="patched weights",
            expected="the original's weights",
            fix="give the weights that the artifact was made from",
        )
    home = path if path.is_dir() else path.parent
    config, preprocessor, from_catalog, theirs = configurations.read(system, path, home, say)
    # A file without a configuration beside it may be in a folder of unrelated downloads, not of one model.
    of_model = path.is_dir() or CONFIG_FILE not in from_catalog
    parts = form.files(file)
    if form.pickled and Version(torch.__version__) < Version(_SAFE_PICKLES):
        say(
            f"a crafted pickle can make torch {torch.__version__} run code (CVE-2026-24747, fixed in "
            f"{_SAFE_PICKLES}): continue only if you trust {file.name}"
        )
    say(f"reading {file.name}" + f", {len(parts)} shards" * (len(parts) > 1))
    if form.copies:
        require_space(scratch, 2 * sum(part.stat().st_size for part in parts))
    faulty = NotFinite()
    entries, prefixes, held = form.place(file, scratch, state_dict, faulty)
    if held:
        say(f"the weights are those of the entry {held}")
    if prefixes:
        say(f"removed {' and '.join(prefixes)} from the names of the tensors: training tools add them")
    published = CONFIG_FILE in from_catalog
    network, fit = recognised(config, entries, stated, published, theirs)
    if not fit:
        refuse_unfit(config, entries)
    files = _hashed(parts, entries, faulty, say)
    faulty.refuse(fit.network if fit else network)
    regrouped = regroup(fit, config, scratch, say) if fit else None
    if regrouped:
        config, entries = dict(regrouped.config), dict(regrouped.entries)
    write_configurations(scratch, config, preprocessor)
    own = Origin("folder" if path.is_dir() else "file", digest_of(files))
    return Source(
        origin=origin or own,
        folder=scratch,
        entries=entries,
        config=config,
        preprocessor=preprocessor,
        files=files,
        licence=(licence_of(home) if of_model else "") or system.licence,
        from_catalog=from_catalog,
        licence_files=licence_files(home, say) if of_model else (),
        prefixes=prefixes,
        state_dict=held or None,
        regrouped=regrouped,
        periods=STORED if regrouped and regrouped.periods else None,
    )


def _hashed(
    parts: Sequence[Path], entries: Mapping[str, TensorEntry], faulty: NotFinite, say: Say
) -> dict[str, str]:
    """Return the sha256 of every file by its name; look into the tensors of files that were not copied."""
    meter = megabytes("hashed", sum(part.stat().st_size for part in parts), say)
    linked = {path.resolve(): path for path in {one.path for one in entries.values()} if path.is_symlink()}
    found = {}
    for part in parts:
        own = [entry for entry in entries.values() if entry.path == linked.get(part.resolve())]
        chunks = faulty.content(part, own) if own else chunks_of(part)
        found[part.name] = sha256_of_chunks(chunks, meter.add)
    return found
