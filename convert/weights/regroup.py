"""Conversion from one layout of an architecture to another: rename, split, fuse and reshape tensors.

A rule of a layout states which stored tensors and which parts of the architecture hold the same elements in
the same order. So each part is a list of runs of elements in the source layout's tensors, and each tensor of
the target layout is a list of parts. Together, these give each target tensor as a list of runs of source
tensors. Elements are only copied, so that both directions are exact, bit by bit.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from vconv.convert.network import Group, Network
from vconv.convert.weights.ledger import ADDED, MatchedTensor
from vconv.convert.weights.pieces import Piece
from vconv.errors import WeightsError

UNUSED = "inference does not use it"
"""The proof for dropping a tensor that the other layout does not store."""


@dataclass(frozen=True)
class Run:
    """Consecutive elements of one stored tensor, which is named by its key."""

    key: str
    start: int
    count: int


def regrouped(
    matches: Iterable[MatchedTensor],
    source: Network,
    target: Network,
    proofs: Mapping[str, str] = MappingProxyType({}),
    replaced: Mapping[str, str] = MappingProxyType({}),
) -> tuple[list[MatchedTensor], dict[str, str]]:
    """Convert the tensors of a checkpoint to another layout.

    Args:
        matches: the checkpoint's tensors, as :func:`vconv.convert.weights.ledger.match_tensors` returns them,
            and those that are added to them.
        source: the network in the layout of the checkpoint.
        target: the same network in the new layout.
        proofs: why parts that the target does not store may be dropped, by part.
        replaced: the canonical key of the tensor that holds a part, if it is not where the source stores it:
            the part is computed, or the source lacks it.

    Returns:
        The matches with their places in the target's file, and the proof for each dropped tensor by canonical
        key.

    Raises:
        WeightsError: the source lacks a tensor of the target, or the target has no place for a tensor that
            inference uses.
    """
    stored = runs_of_parts(source)
    sizes = {part: size for group in target.groups() for part, size in group.parts.items()}
    wanted = {part for part, size in sizes.items() if size}
    absent: dict[str, list[Run]] = {part: [] for part in sizes.keys() - wanted}
    computed = {part: [Run(key, 0, sizes[part])] for part, key in replaced.items()}
    unused = {part for group in source.groups() if group.unused for part in group.parts}
    pieces: dict[str, list[tuple[int, Piece]]] = defaultdict(list)
    for (name, shape), found in _tensors_of(target, {**stored, **absent, **computed}).items():
        start = 0
        for run in found:
            pieces[run.key].append((run.start, Piece(name, shape, start, run.count)))
            start += run.count
    reasons: dict[str, list[str]] = defaultdict(list)
    for part, found in stored.items():
        if (part in wanted and part not in replaced) or not found:
            continue
        proof = proofs.get(part) or (UNUSED if part in unused else "")
        if not proof:
            got = f"no place for {found[0].key}"
            raise _misfit(target, got, "a place for every tensor that inference uses")
        for run in found:
            pieces[run.key].append((run.start, Piece("", (), 0, run.count)))
            reasons[run.key].append(proof)
    placed = [_placed(match, pieces.get(match.canonical, [])) for match in matches]
    told = {key: "; ".join(dict.fromkeys(found)) for key, found in reasons.items()}
    placed = [
        replace(pair, proof=told.get(pair.canonical) or pair.proof or ("" if pair.kept else UNUSED))
        for pair in placed
    ]
    dropped = {pair.canonical: pair.proof for pair in placed if not pair.kept}
    return placed, dropped


def without(
    matches: Iterable[MatchedTensor], drops: Mapping[str, str]
) -> tuple[list[MatchedTensor], dict[str, str]]:
    """Leave out tensors of a new layout.

    Args:
        matches: tensors with their places in the new layout, as :func:`regrouped` returns them.
        drops: the proof for each tensor of the new layout that is left out, by name.

    Returns:
        The matches without these tensors, and the proof for each dropped tensor by canonical key. A tensor
        that was added only for them is left out.
    """
    kept: list[MatchedTensor] = []
    dropped: dict[str, str] = {}
    for match in matches:
        pieces = match.pieces or (Piece(match.target, match.entry.shape, 0, math.prod(match.entry.shape)),)
        proofs = list(dict.fromkeys(drops[piece.target] for piece in pieces if piece.target in drops))
        left = tuple(Piece("", (), 0, piece.count) if piece.target in drops else piece for piece in pieces)
        if not proofs:
            kept.append(match)
        elif any(piece.target for piece in left):
            told = "; ".join(filter(None, (*proofs, match.proof)))
            kept.append(replace(match, pieces=left, proof=told))
        elif not match.source.startswith(ADDED):
            kept.append(match)
            dropped[match.canonical] = "; ".join(proofs)
    return kept, dropped


def _placed(match: MatchedTensor, found: Sequence[tuple[int, Piece]]) -> MatchedTensor:
    pieces = tuple(piece for _, piece in sorted(found, key=lambda pair: pair[0]))
    if len(pieces) == 1 and pieces[0].shape == match.entry.shape:
        return replace(match, target=pieces[0].target, pieces=())
    names = {piece.target for piece in pieces if piece.target}
    if not names:
        return replace(match, target="", pieces=())
    return replace(match, target=names.pop() if len(names) == 1 else "", pieces=pieces)


def runs_of_parts(network: Network) -> dict[str, list[Run]]:
    """Return, for every part, the runs of stored elements that it consists of."""
    found: dict[str, list[Run]] = {}
    for group in network.groups():
        stored = [Run(tensor.key, 0, math.prod(tensor.shape)) for tensor in group.stored]
        cuts = _cut(stored, list(group.parts.values()), network)
        found |= dict(zip(group.parts, cuts, strict=True))
    return found


def _tensors_of(network: Network, runs: dict[str, list[Run]]) -> dict[tuple[str, tuple[int, ...]], list[Run]]:
    """Return the runs that every tensor of a network consists of, by name on disk and shape."""
    found: dict[tuple[str, tuple[int, ...]], list[Run]] = {}
    for group in network.groups():
        line = [run for part in group.parts for run in _of_part(part, group, runs, network)]
        cuts = _cut(line, [math.prod(tensor.shape) for tensor in group.stored], network)
        names = [(network.stored_key(tensor), tensor.shape) for tensor in group.stored]
        found |= dict(zip(names, cuts, strict=True))
    return found


def _of_part(part: str, group: Group, runs: dict[str, list[Run]], network: Network) -> list[Run]:
    found = runs.get(part)
    if found is None:
        raise _misfit(
            network, f"no {part} in the source", "a source with every tensor that the layout stores"
        )
    elements = sum(run.count for run in found)
    if elements != group.parts[part]:
        wanted = f"{group.parts[part]} elements, by the numbers of the configuration"
        raise _misfit(network, f"a {part} of {elements} elements", wanted)
    return found


def _cut(line: Sequence[Run], lengths: Sequence[int], network: Network) -> list[list[Run]]:
    """Divide a sequence of runs into groups of these lengths; adjacent runs of the same tensor are joined.

    Raises:
        WeightsError: the lengths do not add up to the length of the runs: a rule of the layout is wrong.
    """
    elements = sum(run.count for run in line)
    if elements != sum(lengths):
        raise _misfit(
            network, f"a rule of {elements} elements for {sum(lengths)}", "the same number on both sides"
        )
    rest, cuts = list(reversed(line)), []
    for length in lengths:
        found: list[Run] = []
        left = length
        while left:
            run = rest.pop()
            if run.count > left:
                rest.append(Run(run.key, run.start + left, run.count - left))
                run = replace(run, count=left)
            found.append(run)
            left -= run.count
        cuts.append(_joined(found))
    return cuts


def _joined(runs: Iterable[Run]) -> list[Run]:
    found: list[Run] = []
    for run in runs:
        if found and found[-1].key == run.key and found[-1].start + found[-1].count == run.start:
            found[-1] = replace(found[-1], count=found[-1].count + run.count)
        else:
            found.append(run)
    return found


def _misfit(network: Network, got: str, expected: str) -> WeightsError:
    return WeightsError(
        f"the weights do not fit the layout {network.layout.family}",
        got=got,
        expected=expected,
        fix="choose a layout that stores the same tensors",
    )
