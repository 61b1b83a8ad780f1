"""The ledger: one line per source tensor, with the action that was taken on it. No tensor is left out."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, with_config

from vconv import documents
from vconv.convert.architectures.base import CLASSIFIER, Kind
from vconv.convert.files.safetensors_file import TensorEntry
from vconv.convert.layouts.foreign import recognise
from vconv.convert.network import Network
from vconv.convert.weights.pieces import Piece, taken_back
from vconv.errors import WeightsError

LEDGER_FILE = "ledger.json"
ADDED = "added:"
"""Prefix of the source names of tensors that vconv makes because the artifact's layout stores them."""
Action = Literal["copied", "renamed", "cast", "split", "fused", "folded", "resampled", "added", "dropped"]
ACTIONS: tuple[Action, ...] = ("copied", "renamed", "cast", "dropped")
"""Actions that every summary counts."""
REGROUPING: tuple[Action, ...] = ("split", "fused", "folded", "resampled", "added")
"""Actions that a summary counts only if they occur."""

CASTABLE = ("F16", "BF16", "F64")
"""Types that are converted to F32: the first two without loss, F64 rounded, as the libraries round it."""


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Line:
    """The action that was taken on one source tensor.

    Args:
        source: its name in the source.
        target: its name in the artifact; empty if it was dropped, or split into several tensors.
        action: ``copied``, ``renamed``, ``cast`` (to F32; only F64 changes values), ``split`` (into several
            tensors), ``fused`` (with others into one tensor), ``folded`` (its values are used to compute
            another tensor), ``resampled`` (for another size of images, as another tensor), ``added`` (made by
            vconv, not in the source) or ``dropped``.
        dtype: its dtype in the source.
        shape: its dimensions.
        sha256: SHA-256 of its bytes in the artifact, its pieces concatenated; of its bytes in the source if
            the artifact has none of them.
        proof: why dropping it, or a piece of it, changes nothing; or what it was folded or added for.
        pieces: the places of its elements in the artifact, in order; empty if it became one tensor of the
            same shape.
        stored: its dtype in the artifact; F32 for a tensor that was dropped.
    """

    source: str
    target: str
    action: Action
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    proof: str = ""
    pieces: tuple[Piece, ...] = ()
    stored: str = "F32"

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the artifact's tensors that hold its elements; empty if it was dropped."""
        pieces = tuple(piece.target for piece in self.pieces if piece.target)
        return pieces or ((self.target,) if self.target else ())

    def taken_back(self, artifact: Mapping[str, TensorEntry]) -> list[TensorEntry]:
        """Return the runs of an artifact that, concatenated, are this tensor; empty if they are not there."""
        return taken_back(self.shape, self.target, self.pieces, artifact)


@dataclass(frozen=True)
class MatchedTensor:
    """A source tensor and its key on disk in the artifact.

    Args:
        source: its name in the source.
        target: its name in the artifact; empty if it becomes several tensors.
        canonical: its key in the source's layout, without prefix.
        entry: its position on disk.
        pieces: the places of its elements in the artifact, in order; empty if it becomes one tensor of the
            same shape.
        proof: why it, or a piece of it, is dropped; or what it is folded or added for.
        folded: whether its values are used to compute another tensor.
        resampled: whether it is resampled to another tensor.
    """

    source: str
    target: str
    canonical: str
    entry: TensorEntry
    pieces: tuple[Piece, ...] = ()
    proof: str = ""
    folded: bool = False
    resampled: bool = False

    @property
    def kept(self) -> bool:
        """Whether the artifact has elements of it."""
        return bool(self.target) or any(piece.target for piece in self.pieces)

    @property
    def left_out(self) -> Action:
        """The action on a tensor of which the artifact has no elements."""
        return "resampled" if self.resampled else "folded" if self.folded else "dropped"


NOT_OF_THE_ENCODER = "it is not part of the image encoder"
"""The proof for leaving out a tensor of another part of a model of several encoders."""
_FIX = "check that the weights belong to this system and to this config.json"
_OTHER_HEAD = (
    "set num_labels or id2label (num_classes of timm) in a config.json beside the weights to their number of "
    "classes; if the classifier is left over from another use, remove it from the weights"
)
_MASK = "mask_token"
"""The end of the name of a tensor that training uses, and inference does not, in every family."""


def match_tensors(
    network: Network, entries: Mapping[str, TensorEntry], fix: str = _FIX
) -> list[MatchedTensor]:
    """Match every tensor of a checkpoint with a tensor of the network.

    Args:
        network: the network whose tensors the checkpoint must hold.
        entries: the tensors of the checkpoint.
        fix: the remedy for the error text, if they do not fit.

    Returns:
        One match per tensor of the checkpoint.

    Raises:
        WeightsError: a tensor is missing, unknown or double, or has the wrong shape, or its type is not F32,
            F16, BF16 or F64.
    """
    wanted = network.tensors()
    matches: list[MatchedTensor] = []
    unknown: list[str] = []
    for name, entry in entries.items():
        canonical = _canonical(network, name)
        if canonical in wanted:
            matches.append(MatchedTensor(name, network.stored_key(wanted[canonical]), canonical, entry))
        elif network.layout.left_out and re.fullmatch(network.layout.left_out, name):
            matches.append(MatchedTensor(name, "", name, entry, proof=NOT_OF_THE_ENCODER))
        else:
            unknown.append(name)
    found = Counter(pair.canonical for pair in matches)
    missing = [key for key in wanted if key not in found]
    twice = [key for key, count in found.items() if count > 1]
    if missing or unknown or twice:
        raise _misfit(network, entries, {"missing": missing, "unknown": unknown, "double": twice}, fix)
    for pair in matches:
        if not pair.kept:
            continue
        shape, integer = wanted[pair.canonical].shape, wanted[pair.canonical].kind is Kind.INTEGER
        if pair.entry.shape != shape or (pair.entry.dtype in ("F32", *CASTABLE)) == integer:
            raise WeightsError(
                f"the tensor {pair.source} does not fit {network.layout.family}",
                got=f"{pair.entry.dtype} {list(pair.entry.shape)}",
                expected=("whole numbers" if integer else "F32, F16, BF16 or F64") + f" {list(shape)}",
                fix=_OTHER_HEAD if wanted[pair.canonical].head == CLASSIFIER else fix,
            )
    return matches


def _misfit(
    network: Network, names: Iterable[str], wrong: Mapping[str, Sequence[str]], fix: str
) -> WeightsError:
    """Return the error for a checkpoint that lacks tensors, or has others, with the cause if it is known."""
    family, bare = network.layout.family, [_canonical(network, name) for name in names]
    foreign = recognise(bare, network.layout) if wrong["missing"] else None
    what = f"the checkpoint does not fit {family}"
    if foreign:
        what, fix = f"the checkpoint is {foreign.name}", foreign.fix
    elif all(name.endswith(_MASK) for kind in wrong.values() for name in kind):
        flag = next((rule.when for rule in network.layout.rules if rule.stored[0].endswith(_MASK)), "")
        on = "false" if wrong["missing"] else "true"
        change = "add it as zeros" if wrong["missing"] else "remove it from the file"
        fix = "inference does not use it: " + (f"set {flag} to {on} in config.json" if flag else change)
    elif not wrong["missing"] and not wrong["double"]:
        fix = f"remove what belongs to a head that is not exported; else {fix}"
    elif [*map(len, wrong.values())] == [1, 1, 0]:
        fix = f"rename {wrong['unknown'][0]} to {wrong['missing'][0]} if it is that tensor; else {fix}"
    elif not wrong["unknown"] and not wrong["double"]:
        whole = _whole_blocks(network, wrong["missing"]) or "the weights are not whole"
        fix = f"{whole}: save or download them again; else {fix}"
    return WeightsError(
        what,
        got="; ".join(
            f"the {kind} tensor {found[0]}"
            if len(found) == 1
            else f"{len(found)} {kind} tensors, such as {', '.join(found[:3])}"
            for kind, found in wrong.items()
            if found
        ),
        expected=f"exactly the {len(network.tensors())} tensors that config.json requires",
        fix=fix,
    )


def _whole_blocks(network: Network, missing: Collection[str]) -> str:
    """Say how many blocks the weights have if just those of others are missing; else return nothing."""
    blocks = {key: tensor.block for key, tensor in network.tensors().items()}
    without = {blocks[key] for key in missing}
    there = {block for key, block in blocks.items() if key not in missing} - {None}
    if None in without or without & there:
        return ""
    return f"the weights have {len(there)} of the {len(there) + len(without)} blocks of config.json"


def renamed(
    lines: Iterable[Line], network: Network, entries: Mapping[str, TensorEntry]
) -> dict[str, TensorEntry]:
    """Rename the tensors of a checkpoint to the source names in a ledger.

    The same weights can be saved under the names that the library uses on disk, or under those that it uses
    in memory.

    Args:
        lines: the ledger.
        network: the network that the checkpoint holds.
        entries: the tensors of the checkpoint.

    Returns:
        The same tensors; a tensor that is not in the ledger keeps its name.
    """
    known = {_canonical(network, line.source): line.source for line in lines}
    return {known.get(_canonical(network, name), name): entry for name, entry in entries.items()}


def _canonical(network: Network, name: str) -> str:
    """Return a tensor's canonical key; libraries use different names in memory and on disk."""
    return network.layout.disk_key(name.removeprefix(network.layout.prefix))


def summary(lines: Iterable[Line]) -> dict[str, int]:
    """Return the number of lines as ``tensors``, and the number for each action."""
    lines = list(lines)
    counts = Counter(line.action for line in lines)
    shown = (*ACTIONS, *(action for action in REGROUPING if counts[action]))
    return {"tensors": len(lines), **{action: counts[action] for action in shown}}


def save(path: Path, lines: Iterable[Line]) -> None:
    """Write a ledger as JSON, one line per tensor."""
    rows = [json.dumps(_row(line)) for line in lines]
    path.write_text("[\n" + ",\n".join(rows) + "\n]\n")


def _row(line: Line) -> dict[str, Any]:
    row = asdict(line)
    usual = {"pieces": (), "stored": "F32"}
    return {name: value for name, value in row.items() if name not in usual or value != usual[name]}


def load(path: Path) -> list[Line]:
    """Read a ledger that :func:`save` wrote.

    Raises:
        ArtifactError: the file is not a ledger.
    """
    return documents.typed(path, list[Line], documents.load(path, documents.LEDGER), documents.LEDGER)
