"""Definition of an architecture: its numbers, and the role and shape of each of its tensors.

Nothing here depends on a library. A layout describes how a library names and stores the tensors: see
:mod:`vconv.convert.layouts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from vconv.convert.architectures.positions import Kernel

ANY_SIZE = "any size"
"""The flag of a network that takes images of any size."""
ON_REQUEST = "any size on request"
"""The flag of a network that takes images of another size than its own if its library is asked for it."""
GREATEST_SIDE = 8192
"""The greatest height or width of an image, in pixels, that vconv exports a graph for."""
CLASSIFIER = "classifier"
"""The name of the classification head, and the flag of a configuration that asks for this head explicitly."""
BACKBONE = "backbone"
"""The flag of a network whose class returns feature maps of some blocks."""
NO_CLS_POSITION = "no_embed_class"
"""The flag of a network whose class token has no learned position embedding, as timm calls it."""
PLAIN_MLP, GATED_MLP = "plain_mlp", "gated_mlp"
"""The flags of networks whose MLPs are fc2(act(fc1(x))), and down(act(gate(x)) * up(x)) (SwiGLU)."""
POOLER = "pooler"
"""The name of the head that computes the pooled output with a linear layer."""
EMBEDDING_ROLES = frozenset({"patch", "patch_bias", "position", "class_token", "token"})
"""Roles of the tensors that turn an image into tokens, before the first block."""
NORM_ROLES = frozenset({"norm", "patch_norm", "downsample_norm"})
"""Roles of the scales of LayerNorms."""
FINAL_NORM = "norm"
"""The name of the norm that is applied to the tokens after the last block."""
BLOCK = "blocks.{i}"
"""Prefix of the names of the tensors of block ``i``."""
STAGE = "stages.{s}"
"""Prefix of the names of the tensors of stage ``s``; those of its blocks have ``blocks.{i}`` after it."""
MLP_RATIO = 4
"""Number of hidden channels for each channel of a stage."""
QUERY_KEY_VALUE = (f"{BLOCK}.query", f"{BLOCK}.key", f"{BLOCK}.value")
"""The three input projections of attention, in the order in which every library fuses them."""


class Capability(StrEnum):
    """A property that vconv knows of a network. A step that needs an unknown property is skipped."""

    ROLES = "roles"
    """The numbers of the network and the role of each tensor are known."""
    BLOCKS = "blocks"
    """The network is a sequence of blocks, and the block of each weight is known."""
    TOKEN_GRID = "token grid"
    """The tokens are a class token, registers, and a grid of square patches."""

    @property
    def lack(self) -> str:
        """The reason for skipping a step when this capability is missing."""
        return _LACKS[self]


_LACKS: Mapping[Capability, str] = {
    Capability.ROLES: "the roles of its weights are not known",
    Capability.BLOCKS: "its division into blocks is not known",
    Capability.TOKEN_GRID: "the grid of patches in its tokens is not known",
}


@dataclass(frozen=True)
class Stage:
    """A stage of a network: blocks of one width, on a grid of half the height and width of the one before.

    Args:
        width: number of channels.
        blocks: number of blocks.
    """

    width: int
    blocks: int


@dataclass(frozen=True)
class Known:
    """What vconv knows of every network, also of one whose architecture is not declared.

    Args:
        channels: number of channels of an image.
        labels: number of classes of the classifier; 0 without one.
        exact_gelu: whether the network calls the exact GELU, in any form.
    """

    channels: int
    labels: int
    exact_gelu: bool


Shapes = Mapping[str, tuple[int, ...]]
"""The shape of each output, by name."""


@dataclass(frozen=True)
class Observed(Known):
    """What was found by building a network without weights and running it once without data.

    Args:
        outputs: the names of its outputs, in the order of :mod:`vconv.convert.architectures.outputs`.
        gelus: how often one forward pass computes the exact GELU, as a kernel or spelled out with ``erf``.
        kernels: how many of these calls use the kernel.
        shapes_at: returns the shapes of the outputs for one image of (height, width). It raises an InputError
            if the network does not take this size.
        unasked_size: the one (height, width) of images for which the library need not be asked to resample
            the positions; None if it is never asked.
    """

    outputs: tuple[str, ...]
    gelus: int
    kernels: int
    shapes_at: Callable[[tuple[int, int]], Shapes] = field(compare=False, repr=False)
    unasked_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Numbers(Known):
    """The numbers of a network that shapes and passes need, in the same form for every library.

    Args:
        width: number of channels of a token.
        hidden: number of channels inside an MLP.
        blocks: number of transformer blocks.
        heads: number of attention heads.
        patch: side of a patch, in pixels.
        registers: number of register tokens between the class token and the patches.
        positions: number of tokens that have a learned position embedding.
        image: (height, width) that the network is made for.
        flags: options that the configuration switches on; they select the rules of a layout.
        epsilon: the value that every LayerNorm adds to the variance.
        rope_base: base of the RoPE periods; None without RoPE.
        pooling: how ``pooled`` is computed: ``cls``, ``avg``, ``pooler``, or another name of the library.
        stages: the stages of a network whose width changes; empty if it has the same width everywhere.
        before: number of channels of the stage before, in the numbers of one stage.
    """

    width: int
    hidden: int
    blocks: int
    heads: int
    patch: int
    registers: int
    positions: int
    image: tuple[int, int]
    flags: frozenset[str]
    epsilon: float
    rope_base: float | None
    pooling: str
    stages: tuple[Stage, ...] = ()
    before: int = 0

    def at(self, stage: int) -> Numbers:
        """Return the numbers of one stage of a network whose width changes from stage to stage."""
        width = self.stages[stage].width
        before = self.stages[stage - 1].width if stage else 0
        return replace(self, width=width, hidden=MLP_RATIO * width, before=before)

    def first_block(self, stage: int) -> int:
        """Return the number of a stage's first block, counted from the first stage on."""
        return sum(one.blocks for one in self.stages[:stage])

    @property
    def stem_width(self) -> int:
        """Number of channels of the first stage."""
        return self.stages[0].width

    @property
    def cls_positions(self) -> int:
        """Number of learned position embeddings of the class token: 0 or 1."""
        return int(self.positions > 0 and NO_CLS_POSITION not in self.flags)

    @property
    def patch_positions(self) -> int:
        """Number of patches that have a learned position embedding."""
        return self.positions - self.cls_positions

    @property
    def triple_width(self) -> int:
        """Number of outputs of the fused query, key and value projection."""
        return 3 * self.width

    @property
    def periods(self) -> int:
        """Number of RoPE periods: each turns one pair of channels of a head, for height and for width."""
        return self.width // self.heads // 4

    @property
    def double_width(self) -> int:
        """Number of inputs of a classifier on the class token and the mean patch token, concatenated."""
        return 2 * self.width


class Kind(StrEnum):
    """What a stored tensor is."""

    PARAMETER = "parameter"
    STATISTIC = "statistic"
    """A buffer of floating type, such as the running mean of a BatchNorm. It is no parameter."""
    INTEGER = "integer"
    """A buffer of whole numbers, such as a table of positions. It is copied as it is."""
    NOT_BUILT = "not built"
    """A tensor of a part of the network that its library leaves out of the model, such as timm's
    ``features_only``. It stays in the checkpoint."""


@dataclass(frozen=True)
class Part:
    """One tensor of an architecture, or one tensor per block if its name contains ``{i}``.

    Args:
        role: the function of the tensor, which decides how :mod:`vconv.convert.sources.recipes` draws
            synthetic weights; empty if it is not known.
        shape: dimensions, as numbers or as names of fields of :class:`Numbers`.
        head: the head that the tensor belongs to; empty for the backbone.
        unused: whether inference does not use the tensor.
        kind: what it is.
    """

    role: str
    shape: tuple[str | int, ...]
    head: str = ""
    unused: bool = False
    kind: Kind = Kind.PARAMETER


@dataclass(frozen=True)
class Architecture:
    """An architecture.

    Args:
        name: its name.
        parts: every tensor that it can have, by name. The layout decides which of them a network has.
        capabilities: the properties that vconv knows of it.
        lacks: why it has not a capability, where there is more to say than that it is not known.
        kernel: the kernel by which the authors resample the learned positions of a network without
            registers, if a library has another one; else None.
    """

    name: str
    parts: Mapping[str, Part]
    capabilities: frozenset[Capability] = frozenset(Capability)
    lacks: Mapping[Capability, str] = field(default_factory=dict)
    kernel: Kernel | None = None


def sized(shape: tuple[str | int, ...], numbers: Known) -> tuple[int, ...]:
    """Return a shape with every name replaced by its value in ``numbers``."""
    return tuple(getattr(numbers, side) if isinstance(side, str) else side for side in shape)


def norm(name: str, width: str = "width", role: str = "norm") -> dict[str, Part]:
    """List the tensors of a LayerNorm."""
    return {f"{name}.weight": Part(role, (width,)), f"{name}.bias": Part("norm_bias", (width,))}


def linear(
    name: str, role: str, bias_role: str, shape: tuple[str, str] = ("width", "width"), head: str = ""
) -> dict[str, Part]:
    """List the tensors of a linear layer."""
    return {
        f"{name}.weight": Part(role, shape, head),
        f"{name}.bias": Part(bias_role, shape[:1], head),
    }


def embeddings(learned_positions: bool = False, registers: bool = True) -> dict[str, Part]:
    """List the tensors that turn an image into tokens."""
    parts = {
        "cls_token": Part("class_token", (1, 1, "width")),
        "mask_token": Part("token", (1, 1, "width"), unused=True),
        "patch.weight": Part("patch", ("width", "channels", "patch", "patch")),
        "patch.bias": Part("patch_bias", ("width",)),
    }
    if registers:
        parts["registers"] = Part("token", (1, "registers", "width"))
    if learned_positions:
        parts["cls_position"] = Part("position", (1, "cls_positions", "width"))
        parts["positions"] = Part("position", (1, "patch_positions", "width"))
    return parts


def block(
    query_bias: str = "attention_bias", value_bias: str = "attention_bias", layer_scale: bool = True
) -> dict[str, Part]:
    """List the tensors of a pre-norm transformer block.

    Args:
        query_bias: role of the query bias.
        value_bias: role of the value bias.
        layer_scale: whether the block has LayerScale, one factor per channel on each residual branch.
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
        parts |= {
            f"{BLOCK}.scale1": Part("attention_scale", ("width",)),
            f"{BLOCK}.scale2": Part("mlp_scale", ("width",)),
        }
    return parts


def gated_mlp() -> dict[str, Part]:
    """List the tensors of a gated MLP, down(act(gate(x)) * up(x)), which some sizes have instead of fc1, fc2.

    With SiLU as the activation it is SwiGLU (Shazeer, 2020, arXiv:2002.05202).
    """
    return {
        **linear(f"{BLOCK}.gate", "gate", "gate_bias", ("hidden", "width")),
        **linear(f"{BLOCK}.up", "up", "up_bias", ("hidden", "width")),
        **linear(f"{BLOCK}.down", "down", "down_bias", ("width", "hidden")),
    }


def heads(pooler: bool = False) -> dict[str, Part]:
    """List the tensors after the last block: the norms, and the heads that a library may add.

    The wide classifier takes the class token and the mean patch token, concatenated. The pooled norm is
    applied after the pooling.
    """
    parts = {
        **norm(FINAL_NORM),
        **norm("pooled_norm"),
        **linear(CLASSIFIER, "head", "head_bias", ("labels", "width"), CLASSIFIER),
        **linear("wide_classifier", "head", "head_bias", ("labels", "double_width"), CLASSIFIER),
    }
    return {**parts, **linear(POOLER, "head", "head_bias", head=POOLER)} if pooler else parts
