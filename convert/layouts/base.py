"""What a layout is: the tensors of an architecture, what each is for, and what its library calls them.

A layout is declared, never guessed from a checkpoint: a checkpoint is compared with it, and anything
missing or left over is an error. Canonical keys are those that the library writes to disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vconv.types import Config

ANY_SIZE = "any size"
"""The flag of an architecture that takes images of any size."""
CLASSIFIER = "classifier"
"""The head that tells classes apart, and the flag of a configuration that asks for it in so many words."""
EMBEDDING_ROLES = frozenset({"patch", "patch_bias", "position", "token"})
"""Roles of the tensors by which an image becomes tokens, before the first block."""


@dataclass(frozen=True)
class Numbers:
    """What shapes and passes need to know of a network, whatever library describes it.

    Args:
        width: channels of a token.
        hidden: channels inside an MLP.
        blocks: transformer blocks.
        heads: attention heads.
        channels: of an image.
        patch: side of a patch, in pixels.
        registers: register tokens between the class token and the patches.
        positions: tokens that have a learned position.
        labels: classes that a classifier tells apart.
        image: (height, width) that the network is made for.
        flags: what the configuration switches on, by which :attr:`Slot.when` is decided.
        exact_gelu: whether the activation is the exact GELU, in whatever spelling.
        epsilon: what every LayerNorm adds to the variance.
        rope_base: base of the RoPE periods; None without RoPE.
        pooling: how ``pooled`` comes about: ``cls``, ``avg``, ``pooler``, or another of the library's words.
    """

    width: int
    hidden: int
    blocks: int
    heads: int
    channels: int
    patch: int
    registers: int
    positions: int
    labels: int
    image: tuple[int, int]
    flags: frozenset[str]
    exact_gelu: bool
    epsilon: float
    rope_base: float | None
    pooling: str

    @property
    def triple_width(self) -> int:
        """Rows of a fused query, key and value projection."""
        return 3 * self.width

    @property
    def double_width(self) -> int:
        """Inputs of a classifier that sees the class token beside the mean patch."""
        return 2 * self.width


@dataclass(frozen=True)
class Slot:
    """One tensor of an architecture, or one a block where its key has ``{i}``.

    Args:
        key: canonical key.
        role: what it does, by which :mod:`vconv.convert.sources.recipe` draws it.
        shape: dimensions, as numbers or as names of :class:`Numbers`.
        when: the flag that must be on for it to exist; empty for always.
        head: the head that it belongs to; empty for the backbone.
    """

    key: str
    role: str
    shape: tuple[str | int, ...]
    when: str = ""
    head: str = ""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of one network: a slot with its numbers filled in."""

    key: str
    role: str
    shape: tuple[int, ...]
    block: int | None
    head: str


@dataclass(frozen=True)
class Layout:
    """An architecture as one library stores it.

    Args:
        family: its name; transformers' ``model_type`` where that is the library.
        library: the library that builds it.
        describes: tells whether a configuration is one of this architecture.
        numbers: reads a configuration.
        slots: every tensor it can have.
        pooled_with: the heads with which the library gives a pooled output.
        prefix: what stands before backbone keys in a checkpoint that has a classifier.
        in_memory: pairs of pattern and replacement that turn a name in memory into a canonical key: the
            names in memory differ from one version of the library to the next.
        biases: the query, key and value biases that may be stripped, each with its flag.
        unused: endings of the keys that inference makes no use of.
    """

    family: str
    library: str
    describes: Callable[[Config], bool]
    numbers: Callable[[Config], Numbers]
    slots: tuple[Slot, ...]
    pooled_with: tuple[str, ...]
    prefix: str = ""
    in_memory: tuple[tuple[str, str], ...] = ()
    biases: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    def disk_key(self, name: str) -> str:
        """Return the canonical key of a parameter by its name in memory, old or new."""
        for pattern, replacement in self.in_memory:
            name = re.sub(pattern, replacement, name)
        return name


@dataclass(frozen=True)
class Network:
    """One network: a layout with a configuration and a head.

    Args:
        layout: its architecture.
        config: its ``config.json``.
        numbers: what the configuration amounts to.
        head: ``pooler`` or ``classifier`` where it has such tensors, else empty.
    """

    layout: Layout
    config: Config
    numbers: Numbers
    head: str

    @property
    def blocks(self) -> int:
        """Number of transformer blocks."""
        return self.numbers.blocks

    @property
    def head_dim(self) -> int:
        """Channels an attention head."""
        return self.numbers.width // self.numbers.heads

    @property
    def registers(self) -> int:
        """Register tokens between the class token and the patches."""
        return self.numbers.registers

    @property
    def prefix(self) -> str:
        """What stands before this network's backbone keys on disk."""
        return self.layout.prefix if self.head == "classifier" else ""

    def tensors(self) -> dict[str, TensorSpec]:
        """Return every tensor that the configuration calls for, by canonical key without prefix."""
        found: dict[str, TensorSpec] = {}
        for slot in self.layout.slots:
            if (slot.when and slot.when not in self.numbers.flags) or slot.head not in ("", self.head):
                continue
            shape = tuple(
                getattr(self.numbers, part) if isinstance(part, str) else part for part in slot.shape
            )
            for block in range(self.blocks) if "{i}" in slot.key else (None,):
                key = slot.key.format(i=block)
                found[key] = TensorSpec(key, slot.role, shape, block, slot.head)
        return found

    def stored_key(self, tensor: TensorSpec) -> str:
        """Return a tensor's key on disk, prefix included."""
        return tensor.key if tensor.head == "classifier" else self.prefix + tensor.key


def norm(name: str, when: str = "") -> tuple[Slot, ...]:
    """List the tensors of a LayerNorm."""
    return (
        Slot(f"{name}.weight", "norm", ("width",), when),
        Slot(f"{name}.bias", "norm_bias", ("width",), when),
    )


def linear(
    name: str, role: str, bias_role: str, shape: tuple[str, str], when: str = "", head: str = ""
) -> tuple[Slot, ...]:
    """List the tensors of a linear layer; its bias is there when the flag ``when`` is on, or always."""
    return (
        Slot(f"{name}.weight", role, shape, head=head),
        Slot(f"{name}.bias", bias_role, shape[:1], when, head),
    )


def patch_embedding(name: str) -> tuple[Slot, ...]:
    """List the tensors of the convolution that makes patches into tokens."""
    return (
        Slot(f"{name}.weight", "patch", ("width", "channels", "patch", "patch")),
        Slot(f"{name}.bias", "patch_bias", ("width",)),
    )
