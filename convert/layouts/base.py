"""Definition of a layout: the rules by which a library names and shapes the tensors of an architecture.

A layout is declared and never guessed from a checkpoint. vconv compares each checkpoint with its layout, and
a missing or additional tensor is an error. The rules are data, and vconv reads them in both directions: from
a checkpoint to the parts of the architecture, and back. One stored tensor may hold several parts
(``qkv.weight`` holds query, key and value, concatenated along the first dimension). One part may also be
stored in several tensors. :mod:`vconv.convert.weights.regroup` converts weights from one layout to another
with these rules. Stored keys are the names that the library writes to disk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from vconv.convert.architectures.base import BLOCK, GATED_MLP, QUERY_KEY_VALUE, Architecture
from vconv.convert.architectures.positions import Kernel

_ATTENTION_BIASES = frozenset(f"{name}.bias" for name in QUERY_KEY_VALUE)
_STORED_BLOCK = "{i}."


@dataclass(frozen=True)
class Rule:
    """A list of stored tensors and a list of parts that, each concatenated, hold the same elements.

    Args:
        stored: keys on disk; ``{i}`` stands for the number of the block, ``{s}`` for that of the stage.
        parts: names of the architecture's parts.
        when: the flags, separated by spaces, that must be on for the library to store these tensors; empty if
            it always does.
        role: the role of a stored tensor that holds several parts; empty to use the role of the part.
        shape: dimensions of each stored tensor; empty to derive them from the parts.
        plus: a part that is added to the stored tensor in a network that does not store this part itself.
    """

    stored: tuple[str, ...]
    parts: tuple[str, ...]
    when: str = ""
    role: str = ""
    shape: tuple[str | int, ...] = ()
    plus: str = ""

    def holds(self, flags: frozenset[str]) -> bool:
        """Return whether a network with these flags has these tensors."""
        return flags.issuperset(self.when.split())

    @property
    def in_block(self) -> bool:
        """Whether every block has its own copy of these tensors."""
        return any("{i}" in name for name in self.stored)

    @property
    def in_stage(self) -> bool:
        """Whether every stage has its own copy of these tensors, or every block of every stage.

        What belongs to a stage and to none of its blocks is stored from the second stage on: the first has a
        stem instead.
        """
        return any("{s}" in name for name in self.stored)


class Use(StrEnum):
    """The use of a stored tensor that is no parameter."""

    BIAS_MASK = "bias mask"
    """It multiplies a bias; a bias that it sets to zero need not be stored."""
    PERIODS = "RoPE periods"
    """It holds the RoPE periods, which replace those of the library."""
    ALIAS = "alias"
    """It holds the same elements as another stored tensor."""
    TRAINING = "training"
    """Only training uses it."""


@dataclass(frozen=True)
class Extra:
    """Stored tensors that are no parameters, which a file may have or not.

    Args:
        stored: the key on disk; ``{i}`` stands for the number of the block.
        use: what the tensor is for.
        shape: its dimensions.
        of: the stored tensor that it masks or repeats; empty for other uses.
    """

    stored: str
    use: Use
    shape: tuple[str | int, ...]
    of: str = ""


@dataclass(frozen=True)
class Layout:
    """An architecture as one library stores it.

    Args:
        family: its name; for transformers, the ``model_type``.
        home: the library or repository that uses this layout.
        architecture: the architecture that is stored.
        rules: the rules for all stored tensors, in the order of the file.
        prefix: the prefix of backbone keys in a checkpoint that has a classifier.
        in_memory: pairs of pattern and replacement that turn a name in memory into a stored key. Names in
            memory differ between versions of the library.
        renamed: further names of tensors, in memory or in checkpoints, each with its stored key.
        left_out: a pattern of the names of tensors in a checkpoint that are not part of the network, such as
            those of a text encoder; empty if there are none.
        extras: the tensors that are no parameters.
        pooling: how ``pooled`` is computed in this home, unless a configuration says otherwise.
        epsilon: what LayerNorms add to the variance in this home, unless a configuration says otherwise.
        options: the option of the library's configuration for a flag, if it has another name.
        kernel: how the library resamples learned positions when a model runs; None if there are none, or if
            that is not declared.
    """

    family: str
    home: str
    architecture: Architecture
    rules: tuple[Rule, ...]
    prefix: str = ""
    in_memory: tuple[tuple[str, str], ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    left_out: str = ""
    extras: tuple[Extra, ...] = ()
    pooling: str = ""
    epsilon: float | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    kernel: Kernel | None = None

    @property
    def biases(self) -> Mapping[str, str]:
        """The flag of each query, key or value bias that may be stripped, by the ending of the bias's key.

        A bias that is no part of a linear layer, as in timm's ``_qkvb`` models, is not stripped.
        """
        return {
            key.partition(_STORED_BLOCK)[2]: rule.when
            for rule in self.rules
            if _ATTENTION_BIASES.issuperset(rule.parts)
            for key in rule.stored
            if key.endswith(".bias")
        }

    @property
    def heads(self) -> Mapping[str, str]:
        """The key of the weight of each head that the layout can store, by head."""
        found = {}
        for rule in self.rules:
            head = self.architecture.parts[rule.parts[0]].head
            if head and rule.stored[0].endswith(".weight"):
                found[head] = rule.stored[0]
        return found

    def stores_packed(self, module: str) -> bool:
        """Return whether gate and up projections that are two modules in memory are one tensor on disk."""
        keys = [self.disk_key(f"{module}.{name}.weight") for name in ("gate_proj", "up_proj")]
        return keys[0] == keys[1]

    def disk_key(self, name: str) -> str:
        """Return the stored key of a parameter from its name in memory, in any version of the library."""
        name = self.renamed.get(name, name)
        for pattern, replacement in self.in_memory:
            name = re.sub(pattern, replacement, name)
        return name


def one(stored: str, part: str, when: str = "", shape: tuple[str | int, ...] = ()) -> Rule:
    """Return the rule of a part that is stored as one tensor."""
    return Rule((stored,), (part,), when, shape=shape)


def positions(stored: str) -> Rule:
    """Return the rule of a learned position embedding: of the class token, if it has one, and of patches."""
    return Rule((stored,), ("cls_position", "positions"), shape=(1, "positions", "width"))


def norm(stored: str, part: str, when: str = "") -> tuple[Rule, ...]:
    """List the rules of a LayerNorm."""
    return tuple(one(f"{stored}.{kind}", f"{part}.{kind}", when) for kind in ("weight", "bias"))


def linear(stored: str, part: str, bias: str = "", when: str = "") -> tuple[Rule, ...]:
    """List the rules of a linear layer.

    Args:
        stored: its name in the library.
        part: its name in the architecture.
        bias: the flag under which it has a bias; empty if it always has one.
        when: the flag under which the library has the layer; empty if it always does.
    """
    both = f"{when} {bias}".strip()
    return one(f"{stored}.weight", f"{part}.weight", when), one(f"{stored}.bias", f"{part}.bias", both)


def separate_attention(stored: tuple[str, str, str], when: tuple[str, str, str]) -> tuple[Rule, ...]:
    """List the rules of query, key and value projections that are stored as separate tensors."""
    rules = zip(stored, QUERY_KEY_VALUE, when, strict=True)
    return tuple(rule for key, part, flag in rules for rule in linear(key, part, flag))


def fused_attention(stored: str, kind: str, role: str, when: str = "") -> Rule:
    """Return the rule of query, key and value weights, or biases, that are stored in one tensor."""
    return Rule((stored,), tuple(f"{part}.{kind}" for part in QUERY_KEY_VALUE), when, role)


def mlp(fc1: str, fc2: str, bias: str = "", when: str = "") -> tuple[Rule, ...]:
    """List the rules of a plain MLP; ``bias`` and ``when`` are those of :func:`linear`."""
    return (*linear(fc1, f"{BLOCK}.fc1", bias, when), *linear(fc2, f"{BLOCK}.fc2", bias, when))


def gated_mlp(gate: str, up: str, down: str, bias: str = "") -> tuple[Rule, ...]:
    """List the rules of a gated MLP; ``bias`` is that of :func:`linear`."""
    layers = ((gate, "gate"), (up, "up"), (down, "down"))
    return tuple(
        rule for stored, name in layers for rule in linear(stored, f"{BLOCK}.{name}", bias, GATED_MLP)
    )


def packed_gated_mlp(gate_up: str, down: str) -> tuple[Rule, ...]:
    """List the rules of a gated MLP whose gate and up projections are one layer, the gate first."""
    packed = tuple(
        Rule(
            (f"{gate_up}.{kind}",),
            (f"{BLOCK}.gate.{kind}", f"{BLOCK}.up.{kind}"),
            GATED_MLP,
            role,
        )
        for kind, role in (("weight", "gate_up"), ("bias", "gate_up_bias"))
    )
    return (*packed, *linear(down, f"{BLOCK}.down", when=GATED_MLP))
