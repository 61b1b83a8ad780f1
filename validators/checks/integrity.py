"""Integrity: files are compared with the manifest's hashes, and tensors with the source checkpoint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import DIGEST_FILE, Manifest
from vconv.artifact.results import CARD_FILE, REPORTS_FOLDER, RESULTS_FILE
from vconv.convert.architectures.base import Known
from vconv.convert.ascend.fusions.switch_file import RESULT_FILE
from vconv.convert.ascend.routes import ROUTES
from vconv.convert.files.safetensors_file import ITEM_SIZES, TensorEntry
from vconv.convert.libraries.table import LIBRARIES
from vconv.convert.network import Network
from vconv.convert.sources.base import Source
from vconv.convert.weights import checkpoint
from vconv.convert.weights.ledger import ADDED, LEDGER_FILE, NOT_OF_THE_ENCODER, Line, MatchedTensor
from vconv.convert.weights.pieces import kept_runs
from vconv.errors import ArtifactError, UnknownNameError
from vconv.hashes import sha256_of
from vconv.progress import megabytes
from vconv.regular_files import kind_of
from vconv.types import MANIFEST_FILE, VARIANTS, WEIGHTS_FILE, Check, Say, Status, silent
from vconv.validators.faults import classes

_BESIDE = {MANIFEST_FILE, DIGEST_FILE, RESULTS_FILE, CARD_FILE}
"""Files that an artifact may contain although its manifest does not list them."""
TRANSPOSED = "is the transpose of"
_PATCHED = ("flags", "kernels")
"""What patches change in a network: options of its configuration, and how it computes the GELU."""


def verify_files(artifact: Artifact, say: Say = silent) -> Check:
    """Hash every file that the manifest lists.

    Args:
        artifact: the artifact.
        say: receives progress lines.

    Returns:
        The check. It fails if the folder contains a file that the manifest does not list and that vconv does
        not write after the manifest: stock libraries load such files, for example adapters and code.

    Raises:
        ArtifactError: a file is missing, differs, or is used but not listed.
        UnknownNameError: the artifact is of a library that this version does not know.
    """
    folder, manifest = artifact.folder, artifact.manifest
    if manifest.system.library not in LIBRARIES:
        raise UnknownNameError(
            "library", manifest.system.library, LIBRARIES, fix="use the version of vconv that made it"
        )
    unlisted = {*LIBRARIES[manifest.system.library].files, LEDGER_FILE, WEIGHTS_FILE}
    unlisted |= {variant.path for variant in manifest.variants if variant not in manifest.made_later}
    unlisted |= {manifest.golden.path} if manifest.golden else set()
    unlisted |= {variant.weights for variant in manifest.variants if variant.weights}
    unlisted |= {manifest.authors.path, manifest.authors.ledger} if manifest.authors else set()
    unlisted |= set(manifest.original.configurations.values()) if manifest.original else set()
    unlisted -= manifest.files.keys()
    if unlisted:
        raise ArtifactError(
            f"the manifest of {folder} is incomplete",
            got=f"no hash for {sorted(unlisted)[0]}",
            expected="a hash for every file that is used",
            fix="fetch or export the artifact again",
        )
    meter = megabytes("hashed", sum(record.nbytes for record in manifest.files.values()), say)
    for name, record in manifest.files.items():
        path = folder / name
        if name == WEIGHTS_FILE and manifest.without_weights:
            artifact.require_weights()
        if not path.is_file():
            raise ArtifactError(
                f"{path} is {'no file' if os.path.lexists(path) else 'missing'}",
                got=kind_of(path) or "no such file",
                expected=f"{record.nbytes} bytes",
                fix="fetch or export it again",
            )
        nbytes = path.stat().st_size
        digest = sha256_of(path, meter.add) if nbytes == record.nbytes else ""
        if digest != record.sha256:
            raise ArtifactError(
                f"{path} was changed",
                got=f"sha256 {digest[:12]}" if digest else f"{nbytes} bytes",
                expected=f"sha256 {record.sha256[:12]}" if digest else f"{record.nbytes} bytes",
                fix="fetch or export the artifact again",
            )
    stray = _stray(artifact)
    if stray:
        detail = f"{len(stray)} not in the manifest, such as {stray[0]}"
        return Check("files", Status.FAILED, detail, "files")
    return Check("files", Status.PASSED, f"{len(manifest.files)} files match their sha256")


def verify_made_later(artifact: Artifact) -> list[Check]:
    """Check whether each file that a script makes after the export exists: the manifest has no hash of it."""
    return [
        Check(
            variant.path,
            Status.SKIPPED,
            "not hashed: it was made after the manifest was written"
            if artifact.path(variant).is_file()
            else "not made yet: the script in the same folder makes it if CANN is installed",
        )
        for variant in artifact.manifest.made_later
    ]


def _stray(artifact: Artifact) -> list[str]:
    """List the files of an artifact that its manifest does not list and that vconv does not write later."""
    folder, manifest = artifact.folder, artifact.manifest
    listed = {*manifest.files, *(variant.path for variant in manifest.made_later)}
    for variant in manifest.made_later:
        beside = (RESULT_FILE, *(ROUTES[variant.offline.route].later if variant.offline else ()))
        listed |= {PurePosixPath(variant.path).with_name(name).as_posix() for name in beside}
    linked = {parent.as_posix() for name in listed for parent in PurePosixPath(name).parents}
    return sorted({*_names(folder, "", linked)} - listed - _BESIDE)


def _names(folder: Path, within: str, linked: Collection[str]) -> Iterator[str]:
    """Yield the names of files; a link to a folder is entered only if its name is in ``linked``."""
    for entry in os.scandir(folder / within):
        name = f"{within}{entry.name}"
        # Hidden files belong to a hub or to another run that has not finished; no library loads them.
        if not within and (entry.name.startswith(".") or (entry.name == REPORTS_FOLDER and entry.is_dir())):
            continue
        if entry.is_dir(follow_symlinks=name in linked):
            yield from _names(folder, f"{name}/", linked)
        else:
            yield name


def _sha256(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _same(first: Iterable[bytes], second: Iterable[bytes]) -> bool:
    """Return whether two streams contain the same bytes; the sizes of their chunks may differ."""
    chunks, others = filter(None, first), filter(None, second)
    one = other = b""
    while True:
        one, other = one or next(chunks, b""), other or next(others, b"")
        length = min(len(one), len(other))
        if not length:
            return not one and not other
        if memoryview(one)[:length] != memoryview(other)[:length]:
            return False
        one, other = one[length:], other[length:]


def _transposed(kept: TensorEntry, entry: TensorEntry) -> bool:
    """Return whether a square weight, or each square of a fused one, is another's transpose, bit by bit."""
    if len(entry.shape) != 2 or entry.shape[0] % entry.shape[1]:
        return False
    squares = (-1, entry.shape[1], entry.shape[1])
    bits = f"<u{ITEM_SIZES[kept.dtype]}"
    first = np.frombuffer(b"".join(kept.chunks()), bits).reshape(squares)
    second = np.frombuffer(b"".join(checkpoint.stored(entry, kept.dtype)), bits).reshape(squares)
    return np.array_equal(first, second.swapaxes(1, 2))


def _differs(
    line: Line,
    source: Mapping[str, TensorEntry],
    artifact: Mapping[str, TensorEntry],
    match: MatchedTensor | None,
) -> str:
    entry = source.get(line.source)
    if entry is None:
        return f"{line.source} is not in the source"
    if line.action in ("dropped", "folded", "resampled"):
        return _not_dropped(line, entry, artifact, match)
    if any(not piece.target for piece in line.pieces) and (match is None or match.proof not in line.proof):
        return f"a piece of {line.source} was dropped without proof"
    named = ", ".join(line.targets)
    kept = line.taken_back(artifact)
    if line.shape != entry.shape or not kept or any(run.dtype != line.stored for run in kept):
        return f"{named} is not in the artifact as {line.stored} {list(entry.shape)}"
    if line.stored not in ("F32", entry.dtype):
        return f"{named} is stored as {line.stored}, and {entry.dtype} in the source"
    runs = kept_runs(entry, line.pieces)
    expected = (chunk for run in runs for chunk in checkpoint.stored(run, line.stored))
    if not _same(_end_to_end(kept), expected):
        if not line.pieces and _transposed(kept[0], entry):
            return f"{named} {TRANSPOSED} {line.source} in the source"
        return f"{named} differs from {line.source} in the source"
    return ""


def _not_dropped(
    line: Line, entry: TensorEntry, artifact: Mapping[str, TensorEntry], match: MatchedTensor | None
) -> str:
    """Return why a tensor could not be dropped; empty if it could.

    Either the conversion of the source to its library's layout drops it again, for the same reason, or the
    elements that this conversion keeps are all zero.
    """
    if line.targets or (line.source in artifact and match is None):
        return f"{line.source} is dropped according to the ledger, but the artifact has it"
    if line.action != "dropped" and _sha256(entry.chunks()) != line.sha256:
        return f"{line.source} has other values in the source"
    if match and not match.kept:
        return (
            ""
            if (match.proof, match.left_out) == (line.proof, line.action)
            else (f"{line.source} was dropped for a reason that the source does not prove: {line.proof}")
        )
    if line.proof == NOT_OF_THE_ENCODER:
        return ""
    runs = kept_runs(entry, match.pieces if match else ())
    greatest = max(map(checkpoint.greatest, runs), default=0.0)
    return f"{line.source} was dropped, but max|b| is {greatest:.3g}" if greatest else ""


def _end_to_end(runs: Iterable[TensorEntry]) -> Iterator[bytes]:
    return (chunk for run in runs for chunk in run.chunks())


def verify_tensors(
    lines: Iterable[Line],
    source: Mapping[str, TensorEntry],
    artifact: Mapping[str, TensorEntry],
    fault_of: Callable[[str], str],
    say: Say = silent,
    matches: Iterable[MatchedTensor] = (),
) -> Check:
    """Compare every tensor of an artifact, bit by bit, with the source that it came from.

    This finds a single altered weight, whose effect on the outputs stays within the limits.

    Args:
        lines: the ledger.
        source: the source checkpoint.
        artifact: the artifact's weights file.
        fault_of: returns the class of fault of a wrong tensor, by its key in the artifact.
        say: receives progress lines.
        matches: the conversion of the source to its library's layout, made again from the source; empty if it
            has this layout.
    """
    lines, made = list(lines), {match.source: match for match in matches}
    named = {line.source for line in lines}
    targets = {target for line in lines for target in line.targets}
    wrong = [
        f"{name} of the source is not in the ledger"
        for name in source.keys() - named
        if not name.startswith(ADDED)
    ]
    wrong += [f"{name} of the artifact is not in the ledger" for name in artifact.keys() - targets]
    differing = {}
    meter = megabytes("compared", sum(entry.nbytes for entry in source.values()), say)
    for line in lines:
        if found := _differs(line, source, artifact, made.get(line.source)):
            differing[line] = found
        if line.source in source:
            meter.add(source[line.source].nbytes)
    wrong += differing.values()
    if wrong:
        keys = [(*line.targets, line.source)[0] for line in differing]
        transposed = any(TRANSPOSED in found for found in wrong)
        fault = "transposed weight" if transposed else fault_of(keys[0]) if keys else "weights"
        return Check("tensors", Status.FAILED, f"{len(wrong)} wrong, the first: {wrong[0]}", fault)
    return Check("tensors", Status.PASSED, f"all {len(lines)} source tensors are accounted for, bit by bit")


def verify_source(manifest: Manifest, source: Source) -> Check:
    """Compare a live source with the hashes of the source that an artifact was made from.

    The weights are compared by tensors: another file with the same tensors is accepted. The configurations
    must be identical, because a wrong epsilon does not show in any tensor.
    """
    if source.configuration_sha256 != manifest.source.configuration_sha256:
        detail = "the configuration differs from the one that was exported"
        return Check("source", Status.FAILED, detail, "source")
    same = "and the same file" if dict(source.files) == manifest.source.files else "in another file"
    if set(source.from_catalog) >= set(source.library.files):
        detail = (
            f"the weights came without a configuration, so that of the artifact's original was used, {same}"
        )
        return Check("source", Status.PASSED, detail)
    return Check("source", Status.PASSED, f"the configuration is the one that was exported, {same}")


def verify_architecture(artifact: Network, source: Network) -> Check:
    """Compare the network of an artifact's configuration with the original's, number by number.

    Some differences, such as another epsilon, barely change any output. What patches change is not compared:
    the flags of biases differ if zero biases were stripped, which the ledger records.
    """
    ours, theirs = _compared(artifact.known), _compared(source.known)
    wrong = [
        name for name in {**ours, **theirs} if name not in _PATCHED and ours.get(name) != theirs.get(name)
    ]
    if wrong:
        detail = "; ".join(f"{name} is {ours.get(name)}, the original's {theirs.get(name)}" for name in wrong)
        return Check("architecture", Status.FAILED, detail, classes.of_number(wrong[0]))
    return Check("architecture", Status.PASSED, "the configuration describes the original's network")


def _compared(known: Known) -> dict[str, Any]:
    """Return what is known of a network, without functions."""
    return {one.name: getattr(known, one.name) for one in fields(known) if one.compare}


def verify_variants(manifest: Manifest) -> Check:
    """Check whether an artifact has every variant that its schema requires."""
    found = {record.variant for record in manifest.variants}
    missing = [variant.name for variant in VARIANTS if variant.name not in found]
    if missing:
        return Check("variants", Status.FAILED, f"{', '.join(missing)} missing", "variants")
    more = len(found) - len(VARIANTS)
    others = f", and {more} more" * bool(more)
    return Check("variants", Status.PASSED, f"the {len(VARIANTS)} that every artifact has are there{others}")


def verify_ledger(lines: Iterable[Line], artifact: Mapping[str, TensorEntry], say: Say = silent) -> Check:
    """Compare every tensor of an artifact with its hash in the ledger.

    Args:
        lines: the ledger.
        artifact: the artifact's weights file.
        say: receives progress lines.
    """
    kept = [line for line in lines if line.targets]
    wrong = [name for name in artifact if name not in {target for line in kept for target in line.targets}]
    meter = megabytes("checked", sum(entry.nbytes for entry in artifact.values()), say)
    for line in kept:
        found = line.taken_back(artifact)
        if not found or _sha256(_end_to_end(found)) != line.sha256:
            wrong.append(line.targets[0])
        meter.add(sum(run.nbytes for run in found))
    if wrong:
        detail = f"{len(wrong)} tensors differ from the ledger, such as {wrong[0]}"
        return Check("ledger", Status.FAILED, detail, "weights")
    return Check("ledger", Status.PASSED, f"all {len(kept)} tensors match their sha256 in the ledger")
