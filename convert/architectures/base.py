"""What an architecture is: its numbers, the role and shape of each of its tensors, its tokens.

Nothing here depends on a library. How a library names and stores the tensors is a layout's matter:
see :mod:`vconv.convert.layouts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

ANY_SIZE = "any size"
"""The flag of a network that takes images of any size."""
CLASSIFIER = "classifier"
"""The head that tells classes apart, and the flag of a configuration that asks for it in so many words."""
EMBEDDING_ROLES = frozenset({"patch", "patch_bias", "position", "token"})
"""Roles of the tensors by which an image becomes tokens, before the first block."""
BLOCK = "blocks.{i}"
"""What the names of the tensors of block ``i`` begin with."""
QUERY_KEY_VALUE = (f"{BLOCK}.query", f"{BLOCK}.key", f"{BLOCK}.value")
"""The three projections of attention, in the order in which every library fuses them."""


class Capability(StrEnum):
    """What is known of a network. What needs to know it asks first, and is skipped where it is not known."""

    ROLES = "roles"
    """Its numbers, and what each of its tensors is for."""
    BLOCKS = "blocks"
    """It is a row of blocks, and each weight's block is known."""
    TOKEN_GRID = "token grid"
    """Its tokens are a class token, registers, and a grid of square patches."""

    @property
    def lack(self) -> str:
        """Why something that needs it is skipped."""
        return _LACKS[self]


_LACKS: Mapping[Capability, str] = {
    Capability.ROLES: "what each of its weights is for is not known",
    Capability.BLOCKS: "it is not known to be a row of blocks",
    Capability.TOKEN_GRID: "its tokens are not known to be a grid of patches",
}


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
        flags: what the configuration switches on, by which a layout's rules are chosen.
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
    def double_width(self) -> int:
        """Inputs of a classifier that sees the class token beside the mean patch."""
        return 2 * self.width


@dataclass(frozen=True)
class Part:
    """One tensor of an architecture, or one a block where its name has ``{i}``.

    Args:
        role: what it does, by which :mod:`vconv.convert.sources.recipe` draws it; empty where not known.
        shape: dimensions, as numbers or as names of :class:`Numbers`.
        head: the head that it belongs to; empty for the backbone.
        unused: whether inference makes no use of it.
    """

    role: str
    shape: tuple[str | int, ...]
    head: str = ""
    unused: bool = False


@dataclass(frozen=True)
class Architecture:
    """What a network is.

    Args:
        name: its name.
        parts: every tensor that it can have, by name. Which of them a network has is its layout's matter.
        capabilities: what is known of it.
    """

    name: str
    parts: Mapping[str, Part]
    capabilities: frozenset[Capability] = frozenset(Capability)


def sized(shape: tuple[str | int, ...], numbers: Numbers) -> tuple[int, ...]:
    """Return dimensions in a network with these numbers."""
    return tuple(getattr(numbers, side) if isinstance(side, str) else side for side in shape)


def norm(name: str) -> dict[str, Part]:
    """List the tensors of a LayerNorm."""
    return {f"{name}.weight": Part("norm", ("width",)), f"{name}.bias": Part("norm_bias", ("width",))}


def linear(
    name: str, role: str, bias_role: str, shape: tuple[str, str] = ("width", "width"), head: str = ""
) -> dict[str, Part]:
    """List the tensors of a linear layer."""
    return {
        f"{name}.weight": Part(role, shape, head),
        f"{name}.bias": Part(bias_role, shape[:1], head),
    }


def embeddings(learned_positions: bool = False, registers: bool = True) -> dict[str, Part]:
    """List the tensors by which an image becomes tokens."""
    parts = {
        "cls_token": Part("token", (1, 1, "width")),
        "mask_token": Part("token", (1, 1, "width"), unused=True),
        "patch.weight": Part("patch", ("width", "channels", "patch", "patch")),
        "patch.bias": Part("patch_bias", ("width",)),
    }
    if registers:
        parts["registers"] = Part("token", (1, "registers", "width"))
    if learned_positions:
        parts["positions"] = Part("position", (1, "positions", "width"))
    return parts


def block(
    query_bias: str = "attention_bias", value_bias: str = "attention_bias", layer_scale: bool = True
) -> dict[str, Part]:
    """List the tensors of a transformer block that norms first.

    Args:
        query_bias: role of the bias that queries get.
        value_bias: role of the bias that values get.
        layer_scale: whether what it adds to the tokens is scaled channel by channel.
    """
    parts = {
        **norm(f"{BLOCK}.norm1"),
        **linear(f"{BLOCK}.query", "query", query_bias),
        **linear(f"{BLOCK}.key", "key", "attention_bias"),
        **linear(f"{BLOCK}.value", "value", value_bias),
        **linear(f"{BLOCK}.proj", "proj", "proj_bias"),
        **norm(f"{BLOCK}.norm2"),
        **linear(f"{BLOCK}.fc1", "fc1", "fc1_bias", ("hidden", "width")),
        **linear(f"{BLOCK}.fc2", "fc2", "fc2_bias", ("width", "hidden")),
    }
    if layer_scale:
        parts |= {f"{BLOCK}.scale{place}": Part("layer_scale", ("width",)) for place in (1, 2)}
    return parts


def heads(pooler: bool = False) -> dict[str, Part]:
    """List the tensors behind the last block: norms, and the heads that a library may put on them.

    The wide classifier sees the class token beside the mean patch; the pooled norm stands behind the pooling.
    """
    parts = {
        **norm("norm"),
        **norm("pooled_norm"),
        **linear(CLASSIFIER, "head", "head_bias", ("labels", "width"), CLASSIFIER),
        **linear("wide_classifier", "head", "head_bias", ("labels", "double_width"), CLASSIFIER),
    }
    return {**parts, **linear("pooler", "head", "head_bias", head="pooler")} if pooler else parts
