"""A checkpoint in another layout than its system's: made into an original that the system's library loads.

The elements are only copied, with three exceptions that the ledger names: tensors that only one side stores
are added as zeros or dropped with proof, a position embedding of the class token is added to this token where
the library stores only the sum, and the values of buffers such as RoPE periods are used elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vconv.convert.architectures.base import Part
from vconv.convert.files import safetensors_file
from vconv.convert.files.safetensors_file import PlannedTensor, TensorEntry
from vconv.convert.layouts.base import Use
from vconv.convert.libraries.readers import network
from vconv.convert.libraries.table import library_of
from vconv.convert.network import Network
from vconv.convert.weights import values
from vconv.convert.weights.checkpoint import WeightsPlan
from vconv.convert.weights.ledger import ADDED, MatchedTensor, match_tensors
from vconv.convert.weights.pieces import NARROW
from vconv.convert.weights.recognition import Fit, canonical
from vconv.convert.weights.regroup import regrouped, runs_of_parts
from vconv.convert.weights.values import KINDS, Bias, Values
from vconv.types import WEIGHTS_FILE, Config, Say

EPSILON = "layer_norm_eps"
"""The option of transformers' configurations for the epsilon; timm has none."""
GIVEN_FILE, ADDED_FILE = "given/given.safetensors", "given/added.safetensors"
"""In the folder of a source: the checkpoint as it was given, and the tensors that vconv adds to it. They have
a folder for themselves: timm 1.0.27 cannot load from a folder with several files of one suffix."""
_PROOFS: Mapping[Use, str] = {
    Use.BIAS_MASK: "multiplied into {of}",
    Use.PERIODS: "the RoPE periods of the graphs and of vconv.json",
    Use.ALIAS: "the same elements as {of}",
    Use.TRAINING: "only training uses it",
}
"""The proof in the ledger for each use of a tensor that is no parameter."""
_FOLDED = (Use.BIAS_MASK, Use.PERIODS)
"""Uses whose values go into something else."""


@dataclass(frozen=True)
class Regrouped:
    """A checkpoint that was made into an original of another library.

    Args:
        stored: the network as the checkpoint stores it.
        entries: every tensor of the checkpoint by its name, and those that were added.
        matches: each of them with its place in the original.
        original: the tensors of the original, as its library stores them.
        config: the configuration of the original, which may have further biases.
        periods: the RoPE periods that the checkpoint stores; None if it stores none.
        losses: how the original's outputs differ from those of the network that the checkpoint is from.
    """

    stored: Network
    entries: Mapping[str, TensorEntry]
    matches: tuple[MatchedTensor, ...]
    original: Mapping[str, TensorEntry]
    config: Config
    periods: tuple[float, ...] | None
    losses: tuple[str, ...]

    @property
    def home(self) -> str:
        """The home of the checkpoint's layout."""
        return self.stored.layout.home


@dataclass
class Work:
    """What is decided about the parts of a network.

    Args:
        replaced: by part, the canonical key of the added tensor that holds it.
        added: the values of each added tensor, by canonical key, and what it is added for.
        proofs: why parts may be dropped.
        folded: parts whose values are used to compute an added tensor.
        losses: parts that are lost.
    """

    replaced: dict[str, str] = field(default_factory=dict)
    added: dict[str, tuple[Values, str]] = field(default_factory=dict)
    proofs: dict[str, str] = field(default_factory=dict)
    folded: set[str] = field(default_factory=set)
    losses: list[str] = field(default_factory=list)

    def add(self, part: str, value: Values, why: str) -> None:
        """Add a tensor that holds a part."""
        self.replaced[part] = ADDED + part
        self.added[ADDED + part] = value, why

    def fold(self, part: str, why: str) -> None:
        """Use the values of a part for an added tensor."""
        self.folded.add(part)
        self.proofs[part] = why


def regroup(found: Fit, config: Config, scratch: Path, say: Say) -> Regrouped:
    """Make a checkpoint into an original of the library of a configuration.

    Args:
        found: the layout of the checkpoint, which fits.
        config: the configuration.
        scratch: the folder with the checkpoint as ``model.safetensors``, which becomes the original.
        say: receives progress lines.

    Raises:
        WeightsError: a tensor is not usable, or the library has no place for a tensor that inference uses.
    """
    stored = found.network
    (scratch / GIVEN_FILE).parent.mkdir()
    (scratch / WEIGHTS_FILE).rename(scratch / GIVEN_FILE)
    entries = safetensors_file.read_header(scratch / GIVEN_FILE)
    named = {canonical(stored.layout, name): name for name in entries}
    by_key = {key: entries[name] for key, name in named.items()}
    parameters = {name: entries[name] for key, name in named.items() if key not in found.extras}
    masks = {row.of: key for key, row in found.extras.items() if row.use is Use.BIAS_MASK}
    biases = values.biases(stored, by_key, masks)
    config, target = _fitted(config, stored, biases)
    say(f"converting from the layout of {stored.layout.family} to that of {target.layout.family}")
    work = decide(stored, target, by_key, biases)
    added = write_added(scratch / ADDED_FILE, work, parameters)
    matches = [
        *match_tensors(stored, parameters),
        *(MatchedTensor(name, "", name, entry, proof=work.added[name][1]) for name, entry in added.items()),
    ]
    placed, dropped = regrouped(matches, stored, target, work.proofs, work.replaced)
    runs = runs_of_parts(stored)
    folded = {run.key for part in work.folded for run in runs[part]}
    placed = [replace(pair, folded=pair.canonical in folded) for pair in placed]
    WeightsPlan(scratch / WEIGHTS_FILE, placed, dropped, keep=True).write(say=say)
    extras, periods = _extras(found, by_key)
    return Regrouped(
        stored=stored,
        entries={**entries, **added},
        matches=(*placed, *extras),
        original=safetensors_file.read_header(scratch / WEIGHTS_FILE),
        config=config,
        periods=periods,
        losses=tuple(work.losses),
    )


def _fitted(config: Config, stored: Network, biases: Mapping[str, Bias]) -> tuple[Config, Network]:
    """Return the configuration that computes what the checkpoint's network does, and its network.

    It has a place for every bias that is not zero, and the epsilon of the home of the checkpoint, if the
    configurations of its library have such options.
    """
    heads = network(config).layout.heads
    keys = [heads.get(stored.head, "no head")]
    target = network(config, keys)
    options: dict[str, Any] = {
        target.layout.options.get(rule.when, rule.when): True
        for rule in target.layout.rules
        if not rule.holds(target.numbers.flags)
        for part in rule.parts
        if biases.get(_kind(part), Bias(0.0)).greatest
    }
    if EPSILON in config and stored.numbers.epsilon != target.numbers.epsilon:
        options[EPSILON] = stored.numbers.epsilon
    if options:
        config = library_of(target).switched(config, options)
    return config, network(config, keys)


def _base(part: str) -> str:
    """Return the name of a part in its architecture, without the numbers of its stage and block."""
    return re.sub(r"\bstages\.\d+", "stages.{s}", re.sub(r"\bblocks\.\d+", "blocks.{i}", part))


def _kind(part: str) -> str:
    """Return the name of a part within its block."""
    return part.partition(".")[2].partition(".")[2]


def _sizes(net: Network) -> dict[str, int]:
    return {part: size for group in net.groups() for part, size in group.parts.items() if size}


def decide(
    stored: Network, target: Network, by_key: Mapping[str, TensorEntry], biases: Mapping[str, Bias]
) -> Work:
    """Decide on every part that only one of two networks stores, or that is not stored as it is used."""
    work, have, want = Work(), _sizes(stored), _sizes(target)
    parts = target.layout.architecture.parts
    for part, size in want.items():
        bias = biases.get(_kind(part))
        if bias and part in bias.masked:
            work.fold(part, f"times its mask in {ADDED}{part}")
            work.add(part, bias.masked[part], "the bias times its mask")
        elif part not in have and _neutral(part, parts):
            work.add(part, np.zeros(size, np.float32), "zeros: the source has none")
    for part in have.keys() - want.keys():
        bias = biases.get(_kind(part))
        if bias:
            name = KINDS[_kind(part)]
            masked = " after the mask" * (part in bias.masked)
            if bias.greatest:
                loss = f"the {name} biases, up to {bias.greatest:.3g}, are dropped"
                work.losses += [loss] * (loss not in work.losses)
                work.proofs[part] = f"lost: {target.layout.family} has no {name} bias"
            else:
                work.proofs[part] = f"max|b| = 0 over all {name} biases{masked}"
        elif parts[_base(part)].head:
            loss = f"the {parts[_base(part)].head} is dropped"
            work.losses += [loss] * (loss not in work.losses)
            work.proofs[part] = f"lost: {target.layout.family} has no such layer"
    for rule in target.layout.rules:
        if rule.plus in have and rule.plus not in want:
            (whole,) = rule.parts
            why = f"{whole} + {rule.plus} in {ADDED}{whole}"
            total = values.of_part(whole, stored, by_key) + values.of_part(rule.plus, stored, by_key)
            work.add(whole, total, f"{whole} + {rule.plus}, in float32")
            work.fold(whole, why)
            work.fold(rule.plus, why)
    return work


def _neutral(part: str, parts: Mapping[str, Part]) -> bool:
    """Return whether a part that is all zero changes nothing, so that it may be added."""
    row = parts[_base(part)]
    return row.unused or _kind(part) in KINDS or part == "cls_position"


def write_added(path: Path, work: Work, beside: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
    """Write the added tensors, each in the narrow type of the checkpoint's own if that holds its values.

    Args:
        path: the file to write; no file is written if there are none.
        work: the tensors.
        beside: the tensors of the checkpoint.
    """
    narrow = {entry.dtype for entry in beside.values()} & NARROW
    planned = []
    for name, (value, _) in work.added.items():
        dtype, raw = values.exact_bytes(value, narrow)
        planned.append(PlannedTensor(name, dtype, value.shape, partial(tuple, (raw,))))
    if not planned:
        return {}
    safetensors_file.write(path, planned)
    return safetensors_file.read_header(path)


def _extras(
    found: Fit, by_key: Mapping[str, TensorEntry]
) -> tuple[list[MatchedTensor], tuple[float, ...] | None]:
    """Account for the tensors that are no parameters; return them, and the RoPE periods if there are any."""
    matches, periods = [], None
    for key, row in found.extras.items():
        entry = by_key[key]
        if row.use is Use.PERIODS:
            periods = values.periods(entry, found.network)
        elif row.use is Use.ALIAS:
            values.require_alias(entry, by_key[row.of])
        proof = _PROOFS[row.use].format(of=row.of)
        matches.append(MatchedTensor(entry.name, "", key, entry, proof=proof, folded=row.use in _FOLDED))
    return matches, periods
