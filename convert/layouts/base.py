"""What a layout is: rules by which one home names and shapes the tensors of an architecture.

A layout is declared, never guessed from a checkpoint: a checkpoint is compared with it, and anything
missing or left over is an error. Its rules are data and are read in both directions: from a checkpoint to the
architecture's parts, and back. One stored tensor may hold several parts (``qkv.weight`` holds query, key and
value, one below the other), and one part may be stored in several tensors.
:mod:`vconv.convert.weights.regroup` follows the rules from one layout to another. Stored keys are those that
the library writes to disk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vconv.convert.architectures.base import BLOCK, QUERY_KEY_VALUE, Architecture

_ATTENTION_BIASES = frozenset(f"{name}.bias" for name in QUERY_KEY_VALUE)
_STORED_BLOCK = "{i}."


@dataclass(frozen=True)
class Rule:
    """Stored tensors that hold the same elements as some parts, each side laid end to end.

    Args:
        stored: keys on disk; ``{i}`` stands for the block.
        parts: names of the architecture's parts.
        when: the flag that must be on for the home to store them; empty for always.
        role: the role of what is stored, where that is several parts in one; else the part's own.
        shape: dimensions of each stored tensor, where they are not what the parts say.
    """

    stored: tuple[str, ...]
    parts: tuple[str, ...]
    when: str = ""
    role: str = ""
    shape: tuple[str | int, ...] = ()

    @property
    def in_block(self) -> bool:
        """Whether there is one such group of tensors a block."""
        return any("{i}" in name for name in self.stored)


@dataclass(frozen=True)
class Layout:
    """An architecture as one home stores it.

    Args:
        family: its name; transformers' ``model_type`` where that is the home.
        home: the library or repository whose layout it is.
        architecture: what is stored.
        rules: which tensors there are, in the order of the file.
        prefix: what stands before backbone keys in a checkpoint that has a classifier.
        in_memory: pairs of pattern and replacement that turn a name in memory into a stored key: the names in
            memory differ from one version of the library to the next.
    """

    family: str
    home: str
    architecture: Architecture
    rules: tuple[Rule, ...]
    prefix: str = ""
    in_memory: tuple[tuple[str, str], ...] = ()

    @property
    def biases(self) -> Mapping[str, str]:
        """Endings of the query, key and value biases that may be stripped, each with its flag."""
        return {
            key.partition(_STORED_BLOCK)[2]: rule.when
            for rule in self.rules
            if _ATTENTION_BIASES.issuperset(rule.parts)
            for key in rule.stored
        }

    @property
    def heads(self) -> Mapping[str, str]:
        """By head that it can store, the key of the head's weight."""
        found = {}
        for rule in self.rules:
            head = self.architecture.parts[rule.parts[0]].head
            if head and rule.stored[0].endswith(".weight"):
                found[head] = rule.stored[0]
        return found

    def disk_key(self, name: str) -> str:
        """Return the stored key of a parameter by its name in memory, old or new."""
        for pattern, replacement in self.in_memory:
            name = re.sub(pattern, replacement, name)
        return name


def one(stored: str, part: str, when: str = "", shape: tuple[str | int, ...] = ()) -> Rule:
    """Return the rule of a tensor that is stored as it is."""
    return Rule((stored,), (part,), when, shape=shape)


def norm(stored: str, part: str, when: str = "") -> tuple[Rule, ...]:
    """List the rules of a LayerNorm."""
    return tuple(one(f"{stored}.{kind}", f"{part}.{kind}", when) for kind in ("weight", "bias"))


def linear(stored: str, part: str, when: str = "") -> tuple[Rule, ...]:
    """List the rules of a linear layer; its bias is stored when the flag ``when`` is on, or always."""
    return one(f"{stored}.weight", f"{part}.weight"), one(f"{stored}.bias", f"{part}.bias", when)


def separate_attention(stored: tuple[str, str, str], when: tuple[str, str, str]) -> tuple[Rule, ...]:
    """List the rules of query, key and value projections that are stored apart."""
    rules = zip(stored, QUERY_KEY_VALUE, when, strict=True)
    return tuple(rule for key, part, flag in rules for rule in linear(key, part, flag))


def fused_attention(stored: str, kind: str, role: str, when: str = "") -> Rule:
    """Return the rule of query, key and value weights, or biases, that are stored in one tensor."""
    return Rule((stored,), tuple(f"{part}.{kind}" for part in QUERY_KEY_VALUE), when, role)


def mlp(fc1: str, fc2: str, when: str = "") -> tuple[Rule, ...]:
    """List the rules of a plain MLP."""
    return (*linear(fc1, f"{BLOCK}.fc1", when), *linear(fc2, f"{BLOCK}.fc2", when))
