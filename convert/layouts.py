"""What tensors an architecture has, what each is for, and what transformers calls it in memory.

A layout is declared, never guessed from a checkpoint: a checkpoint is compared with it, and anything
missing or left over is an error. Canonical keys are those that transformers writes to disk. The names
in memory are older or newer by the version of transformers; :meth:`Layout.disk_key` maps both to disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vconv.errors import UnknownNameError, WeightsError
from vconv.types import Config

Dimensions = Mapping[str, int]


@dataclass(frozen=True)
class Slot:
    """One tensor of an architecture, or one a block where its key has ``{i}``.

    Args:
        key: canonical key.
        role: what it does, by which :mod:`vconv.convert.recipe` draws it.
        shape: dimensions, as numbers or as names from :attr:`Layout.dimensions`.
        when: the configuration flag that must be true for it to exist; empty for always.
        head: the head that it belongs to; empty for the backbone.
    """

    key: str
    role: str
    shape: tuple[str | int, ...]
    when: str = ""
    head: str = ""


@dataclass(frozen=True)
class Tensor:
    """One tensor of one network: a slot with its numbers filled in."""

    key: str
    role: str
    shape: tuple[int, ...]
    block: int | None
    head: str


@dataclass(frozen=True)
class Layout:
    """An architecture as transformers stores it.

    Args:
        family: transformers' ``model_type``.
        slots: every tensor it can have.
        in_memory: pairs of pattern and replacement that turn a name in memory into a canonical key.
        prefix: what stands before backbone keys in a checkpoint that has a classifier.
        biases: the query, key and value biases, each with the flag that says whether it exists.
        defaults: what transformers takes where a configuration leaves a value out.
        dimensions: from a configuration to the numbers that shapes are made of.
    """

    family: str
    slots: tuple[Slot, ...]
    in_memory: tuple[tuple[str, str], ...]
    prefix: str
    biases: Mapping[str, str]
    defaults: Config
    dimensions: Callable[[Config], Dimensions]

    def disk_key(self, name: str) -> str:
        """Return the canonical key of a parameter by its name in memory, old or new."""
        for pattern, replacement in self.in_memory:
            name = re.sub(pattern, replacement, name)
        return name


def _norm(name: str) -> tuple[Slot, ...]:
    return (Slot(f"{name}.weight", "norm", ("D",)), Slot(f"{name}.bias", "norm_bias", ("D",)))


def _linear(
    name: str, role: str, bias_role: str, shape: tuple[str, str], when: str = "", head: str = ""
) -> tuple[Slot, ...]:
    return (
        Slot(f"{name}.weight", role, shape, head=head),
        Slot(f"{name}.bias", bias_role, shape[:1], when, head),
    )


def _patch_embedding(name: str) -> tuple[Slot, ...]:
    return (
        Slot(f"{name}.weight", "patch", ("D", "channels", "patch", "patch")),
        Slot(f"{name}.bias", "patch_bias", ("D",)),
    )


def _dimensions(config: Config) -> Dimensions:
    patches = (config["image_size"] // config["patch_size"]) ** 2
    return {
        "D": config["hidden_size"],
        "hidden": config["intermediate_size"],
        "channels": config["num_channels"],
        "patch": config["patch_size"],
        "registers": config.get("num_register_tokens", 0),
        "positions": 1 + patches,
        "labels": len(config.get("id2label") or ()) or config.get("num_labels", 2),
    }


_DINOV3_BLOCK, _VIT_BLOCK = "layer.{i}", "encoder.layer.{i}"

DINOV3_VIT = Layout(
    family="dinov3_vit",
    prefix="",
    dimensions=_dimensions,
    biases={
        "attention.q_proj.bias": "query_bias",
        "attention.k_proj.bias": "key_bias",
        "attention.v_proj.bias": "value_bias",
    },
    defaults={
        "hidden_act": "gelu",
        "rope_theta": 100.0,
        "query_bias": True,
        "key_bias": False,
        "value_bias": True,
        "proj_bias": True,
        "mlp_bias": True,
        "use_gated_mlp": False,
        "num_register_tokens": 0,
    },
    in_memory=((r"^model\.layer\.", "layer."),),
    slots=(
        Slot("embeddings.cls_token", "token", (1, 1, "D")),
        Slot("embeddings.mask_token", "token", (1, 1, "D")),
        Slot("embeddings.register_tokens", "token", (1, "registers", "D")),
        *_patch_embedding("embeddings.patch_embeddings"),
        *_norm(f"{_DINOV3_BLOCK}.norm1"),
        *_linear(f"{_DINOV3_BLOCK}.attention.q_proj", "query", "zero_bias", ("D", "D"), "query_bias"),
        *_linear(f"{_DINOV3_BLOCK}.attention.k_proj", "key", "attention_bias", ("D", "D"), "key_bias"),
        *_linear(f"{_DINOV3_BLOCK}.attention.v_proj", "value", "zero_bias", ("D", "D"), "value_bias"),
        *_linear(f"{_DINOV3_BLOCK}.attention.o_proj", "proj", "proj_bias", ("D", "D"), "proj_bias"),
        Slot(f"{_DINOV3_BLOCK}.layer_scale1.lambda1", "layer_scale", ("D",)),
        *_norm(f"{_DINOV3_BLOCK}.norm2"),
        *_linear(f"{_DINOV3_BLOCK}.mlp.up_proj", "fc1", "fc1_bias", ("hidden", "D"), "mlp_bias"),
        *_linear(f"{_DINOV3_BLOCK}.mlp.down_proj", "fc2", "fc2_bias", ("D", "hidden"), "mlp_bias"),
        Slot(f"{_DINOV3_BLOCK}.layer_scale2.lambda1", "layer_scale", ("D",)),
        *_norm("norm"),
    ),
)

VIT = Layout(
    family="vit",
    prefix="vit.",
    dimensions=_dimensions,
    biases={
        "attention.attention.query.bias": "qkv_bias",
        "attention.attention.key.bias": "qkv_bias",
        "attention.attention.value.bias": "qkv_bias",
    },
    defaults={"hidden_act": "gelu", "qkv_bias": True},
    in_memory=(
        (r"(^|\.)layers\.(\d+)\.", r"\1encoder.layer.\2."),
        (r"\.attention\.q_proj\.", ".attention.attention.query."),
        (r"\.attention\.k_proj\.", ".attention.attention.key."),
        (r"\.attention\.v_proj\.", ".attention.attention.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    ),
    slots=(
        Slot("embeddings.cls_token", "token", (1, 1, "D")),
        Slot("embeddings.position_embeddings", "position", (1, "positions", "D")),
        *_patch_embedding("embeddings.patch_embeddings.projection"),
        *_norm(f"{_VIT_BLOCK}.layernorm_before"),
        *_linear(
            f"{_VIT_BLOCK}.attention.attention.query", "query", "attention_bias", ("D", "D"), "qkv_bias"
        ),
        *_linear(f"{_VIT_BLOCK}.attention.attention.key", "key", "attention_bias", ("D", "D"), "qkv_bias"),
        *_linear(
            f"{_VIT_BLOCK}.attention.attention.value", "value", "attention_bias", ("D", "D"), "qkv_bias"
        ),
        *_linear(f"{_VIT_BLOCK}.attention.output.dense", "proj", "proj_bias", ("D", "D")),
        *_norm(f"{_VIT_BLOCK}.layernorm_after"),
        *_linear(f"{_VIT_BLOCK}.intermediate.dense", "fc1", "fc1_bias", ("hidden", "D")),
        *_linear(f"{_VIT_BLOCK}.output.dense", "fc2", "fc2_bias", ("D", "hidden")),
        *_norm("layernorm"),
        *_linear("pooler.dense", "head", "head_bias", ("D", "D"), head="pooler"),
        *_linear("classifier", "head", "head_bias", ("labels", "D"), head="classifier"),
    ),
)

LAYOUTS: Mapping[str, Layout] = {layout.family: layout for layout in (DINOV3_VIT, VIT)}
"""Every layout, by transformers' ``model_type``."""


_NUMBERS = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_channels", "patch_size", "image_size"),
)


@dataclass(frozen=True)
class Network:
    """One network: a layout with a configuration and a head.

    Args:
        layout: its architecture.
        config: its ``config.json``, with the library's defaults filled in.
        head: ``pooler`` or ``classifier`` where its layout has such slots, else empty.
    """

    layout: Layout
    config: Config
    head: str

    @property
    def blocks(self) -> int:
        """Number of transformer blocks."""
        return int(self.config["num_hidden_layers"])

    @property
    def head_dim(self) -> int:
        """Channels an attention head."""
        return int(self.config["hidden_size"]) // int(self.config["num_attention_heads"])

    @property
    def registers(self) -> int:
        """Register tokens between the class token and the patches."""
        return int(self.layout.dimensions(self.config)["registers"])

    @property
    def prefix(self) -> str:
        """What stands before this network's backbone keys on disk."""
        return self.layout.prefix if self.head == "classifier" else ""

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor that the configuration calls for, by canonical key without prefix."""
        numbers = self.layout.dimensions(self.config)
        found: dict[str, Tensor] = {}
        for slot in self.layout.slots:
            if (slot.when and not self.config[slot.when]) or slot.head not in ("", self.head):
                continue
            shape = tuple(numbers[part] if isinstance(part, str) else part for part in slot.shape)
            for block in range(self.blocks) if "{i}" in slot.key else (None,):
                key = slot.key.format(i=block)
                found[key] = Tensor(key, slot.role, shape, block, slot.head)
        return found

    def stored_key(self, key: str) -> str:
        """Return the key on disk, prefix included, of a canonical key."""
        return key if key.startswith("classifier.") else self.prefix + key


def network(config: Config, keys: frozenset[str] | None = None) -> Network:
    """Choose the layout that a configuration names, and the head that a checkpoint has.

    Args:
        config: a ``config.json``.
        keys: the checkpoint's keys; None for the layout's own default head.

    Raises:
        UnknownNameError: vconv has no layout for this ``model_type``.
        WeightsError: the configuration lacks a number, or asks for what the layout does not have.
    """
    family = str(config.get("model_type", ""))
    if family not in LAYOUTS:
        raise UnknownNameError("model_type", family, LAYOUTS, fix="use a checkpoint of a listed system")
    layout = LAYOUTS[family]
    config = {**layout.defaults, **config}
    for name in _NUMBERS:
        number = config.get(name)
        if not isinstance(number, int) or number < 1:
            raise WeightsError(
                "config.json is incomplete" if name not in config else "config.json does not make sense",
                got=f"no {name}" if name not in config else f"{name} = {number!r}",
                expected=f"a full {family} configuration",
                fix="use the config.json that was published with the weights",
            )
    if config.get("use_gated_mlp"):
        raise WeightsError(
            "config.json asks for a gated MLP",
            got="use_gated_mlp = true",
            expected="use_gated_mlp = false",
            fix="use a variant with a plain MLP; gated ones are not supported yet",
        )
    heads = {slot.head for slot in layout.slots if slot.head}
    if keys is not None and "classifier" in heads and "classifier.weight" in keys:
        head = "classifier"
    else:
        head = "pooler" if "pooler" in heads else ""
    return Network(layout, config, head)
