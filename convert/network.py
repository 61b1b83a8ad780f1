"""A network: an architecture as one library stores it, with a configuration and a head."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from vconv.convert.architectures.base import CLASSIFIER, Capability, Kind, Numbers, Observed, Stage, sized
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
class _Place:
    """A place in a network that has its own copy of a rule's tensors.

    Args:
        numbers: the numbers of the network at this place.
        block: the number of the block, counted over all stages; None outside the blocks.
        index: the number of the block in names; None outside the blocks.
        stage: the number of the stage; None in a network without stages.
    """

    numbers: Numbers | Observed
    block: int | None
    index: int | None
    stage: int | None = None

    def name(self, pattern: str) -> str:
        """Return the name of a tensor at this place."""
        return pattern.replace("{s}", str(self.stage)).replace("{i}", str(self.index))


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
        asked: the outputs that are asked for, in the order of :mod:`vconv.convert.architectures.outputs`;
            empty for those that every network has.
    """

    layout: Layout
    library: str
    config: Config
    known: Numbers | Observed
    head: str
    stored_periods: tuple[float, ...] | None = None
    asked: tuple[str, ...] = ()

    def asking(self, names: tuple[str, ...]) -> Network:
        """Return the network with the outputs that are asked for; as it is if none are.

        A network whose architecture is not declared has the outputs that its library returns.
        """
        return replace(self, asked=names) if names and not self.observed else self

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
    def stages(self) -> tuple[Stage, ...]:
        """The stages of a network whose width changes; empty where it does not, or is not known."""
        return () if isinstance(self.known, Observed) else self.known.stages

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
        known, lacks = self.capabilities, self.layout.architecture.lacks
        return next((lacks.get(one, one.lack) for one in needed if one not in known), "")

    def groups(self) -> list[Group]:
        """Return every group of tensors that the configuration requires, in the order of the file."""
        parts, found = self.layout.architecture.parts, []
        for rule in self.layout.rules:
            if rule.when and not rule.holds(self.numbers.flags):
                continue
            if parts[rule.parts[0]].head in ("", self.head):
                found += [self._group(rule, place) for place in self._places(rule)]
        return found

    def _places(self, rule: Rule) -> Iterator[_Place]:
        """Yield every place in the network where the tensors of a rule are."""
        if not rule.in_stage:
            for block in range(self.blocks) if rule.in_block else (None,):
                yield _Place(self.known, block, block)
            return
        for stage, one in enumerate(self.numbers.stages):
            numbers, first = self.numbers.at(stage), self.numbers.first_block(stage)
            if rule.in_block:
                for index in range(one.blocks):
                    yield _Place(numbers, first + index, index, stage)
            elif stage:
                yield _Place(numbers, None, None, stage)

    def tensors(self) -> dict[str, TensorSpec]:
        """Return every tensor that the configuration requires, by stored key without prefix."""
        return {tensor.key: tensor for group in self.groups() for tensor in group.stored}

    def divided(self) -> dict[str, dict[str, int]]:
        """Return the stored tensors that a library divides in memory, where the architecture is not declared.

        Returns:
            By stored key: the tensors in memory, in order, each with its number of rows.
        """
        if not self.observed:
            return {}
        return {
            group.stored[0].key: {
                name: size // math.prod(group.stored[0].shape[1:]) for name, size in group.parts.items()
            }
            for group in self.groups()
            if len(group.parts) > 1
        }

    def stored_key(self, tensor: TensorSpec) -> str:
        """Return a tensor's key on disk, prefix included."""
        return tensor.key if tensor.head == CLASSIFIER else self.prefix + tensor.key

    def _group(self, rule: Rule, place: _Place) -> Group:
        parts = [self.layout.architecture.parts[name] for name in rule.parts]
        shapes = [sized(part.shape, place.numbers) for part in parts]
        if rule.shape:
            shape = sized(rule.shape, place.numbers)
        elif len(rule.stored) == len(rule.parts) == 1:
            shape = shapes[0]
        else:
            shape = (sum(part_shape[0] for part_shape in shapes) // len(rule.stored), *shapes[0][1:])
        stored = tuple(
            TensorSpec(
                *(place.name(key), rule.role or parts[0].role, shape, place.block),
                *(parts[0].head, parts[0].kind),
            )
            for key in rule.stored
        )
        sizes = {place.name(name): math.prod(shape) for name, shape in zip(rule.parts, shapes, strict=True)}
        # A tensor of no elements, such as no registers, has a name in the file, and nothing to compute with.
        unused = all(part.unused for part in parts) or not any(sizes.values())
        return Group(stored, sizes, unused)
