"""A network: an architecture as one library stores it, with a configuration and a head."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vconv.convert.architectures.base import CLASSIFIER, Capability, Kind, Numbers, Observed, sized
from vconv.convert.layouts.base import Layout, Rule
from vconv.types import Config


@dataclass(frozen=True)
class TensorSpec:
    """One tensor that a network stores.

    Args:
        key: its stored key, without the prefix of a classifier's backbone.
        role: the function of the tensor; empty if it is not known.
        shape: its dimensions.
        block: the number of its block; None for tensors before or after the blocks.
        head: the head that it belongs to; empty for the backbone.
        kind: what it is.
    """

    key: str
    role: str
    shape: tuple[int, ...]
    block: int | None
    head: str
    kind: Kind = Kind.PARAMETER


@dataclass(frozen=True)
class Group:
    """Stored tensors of a network and the parts of its architecture that they hold, both in order.

    Args:
        stored: the tensors.
        parts: the number of elements of each part, by name.
        unused: whether inference uses none of these tensors.
    """

    stored: tuple[TensorSpec, ...]
    parts: dict[str, int]
    unused: bool


@dataclass(frozen=True)
class Network:
    """One network.

    Args:
        layout: the layout in which its library stores it.
        library: the name of the library that builds it.
        config: its ``config.json``.
        known: the numbers that were read from the configuration; or, if the architecture is not declared,
            what was observed of the network.
        head: ``pooler`` or ``classifier`` if the network has the tensors of that head, else empty.
        stored_periods: the RoPE periods that the original checkpoint stores; None if it stores none.
    """

    layout: Layout
    library: str
    config: Config
    known: Numbers | Observed
    head: str
    stored_periods: tuple[float, ...] | None = None

    @property
    def numbers(self) -> Numbers:
        """The numbers of a declared architecture.

        Raises:
            LookupError: the architecture is not declared. Ask for a capability first.
        """
        if isinstance(self.known, Observed):
            raise LookupError(f"the numbers of {self.layout.family} are not known")
        return self.known

    @property
    def observed(self) -> Observed | None:
        """What was observed of a network whose architecture is not declared; None for a declared one."""
        return self.known if isinstance(self.known, Observed) else None

    @property
    def gelus(self) -> int:
        """How often one forward pass computes the exact GELU."""
        if isinstance(self.known, Observed):
            return self.known.gelus
        return self.blocks if self.known.exact_gelu else 0

    @property
    def rope_base(self) -> float | None:
        """Base of the RoPE periods; None without RoPE, and where the architecture is not declared."""
        return None if isinstance(self.known, Observed) else self.known.rope_base

    @property
    def pooling(self) -> str:
        """How ``pooled`` is computed; empty where that is not known."""
        return "" if isinstance(self.known, Observed) else self.known.pooling

    @property
    def blocks(self) -> int:
        """Number of transformer blocks."""
        return self.numbers.blocks

    @property
    def head_dim(self) -> int:
        """Number of channels per attention head."""
        return self.numbers.width // self.numbers.heads

    @property
    def registers(self) -> int:
        """Number of register tokens between the class token and the patches."""
        return self.numbers.registers

    @property
    def prefix(self) -> str:
        """Prefix of this network's backbone keys on disk."""
        return self.layout.prefix if self.head == CLASSIFIER else ""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The properties that vconv knows of this network."""
        return self.layout.architecture.capabilities

    @property
    def unused(self) -> frozenset[str]:
        """Keys on disk of the tensors that inference does not use."""
        return frozenset(
            self.stored_key(tensor) for group in self.groups() if group.unused for tensor in group.stored
        )

    def lack(self, *needed: Capability) -> str:
        """Return why a step that needs these capabilities is skipped; empty if the network has them all."""
        return next((capability.lack for capability in needed if capability not in self.capabilities), "")

    def groups(self) -> list[Group]:
        """Return every group of tensors that the configuration requires, in the order of the file."""
        parts, found = self.layout.architecture.parts, []
        for rule in self.layout.rules:
            if rule.when and rule.when not in self.numbers.flags:
                continue
            if parts[rule.parts[0]].head in ("", self.head):
                blocks = range(self.blocks) if rule.in_block else (None,)
                found += [self._group(rule, block) for block in blocks]
        return found

    def tensors(self) -> dict[str, TensorSpec]:
        """Return every tensor that the configuration requires, by stored key without prefix."""
        return {tensor.key: tensor for group in self.groups() for tensor in group.stored}

    def stored_key(self, tensor: TensorSpec) -> str:
        """Return a tensor's key on disk, prefix included."""
        return tensor.key if tensor.head == CLASSIFIER else self.prefix + tensor.key

    def _group(self, rule: Rule, block: int | None) -> Group:
        parts = [self.layout.architecture.parts[name] for name in rule.parts]
        shapes = [sized(part.shape, self.known) for part in parts]
        if rule.shape:
            shape = sized(rule.shape, self.known)
        elif len(rule.stored) == len(rule.parts) == 1:
            shape = shapes[0]
        else:
            shape = (sum(part_shape[0] for part_shape in shapes) // len(rule.stored), *shapes[0][1:])
        stored = tuple(
            TensorSpec(
                *(_in(key, block), rule.role or parts[0].role, shape, block),
                *(parts[0].head, parts[0].kind),
            )
            for key in rule.stored
        )
        sizes = {_in(name, block): math.prod(shape) for name, shape in zip(rule.parts, shapes, strict=True)}
        # A tensor of no elements, such as no registers, has a name in the file, and nothing to compute with.
        unused = all(part.unused for part in parts) or not any(sizes.values())
        return Group(stored, sizes, unused)


def _in(name: str, block: int | None) -> str:
    return name if block is None else name.replace("{i}", str(block))
