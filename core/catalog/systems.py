"""The systems in vconv's catalog: every size of every family of :mod:`vconv.catalog.families`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from vconv.catalog.families import FAMILIES
from vconv.catalog.families.base import Family, Size
from vconv.catalog.literature import Mirror, Work
from vconv.catalog.published import PublishedFigures
from vconv.errors import UnknownNameError
from vconv.types import Config


@dataclass(frozen=True)
class System:
    """One system.

    Args:
        name: the short name.
        hub_id: the repository on the Hugging Face hub.
        library: the library that builds the original.
        config: the published ``config.json``, used if the weights come without one.
        licence: the licence of the weights.
        preprocessor: the published ``preprocessor_config.json``, used in the same way; timm's systems have
            none.
        gated: whether the hub asks for consent before a download.
        published: figures that others published for the system.
        works: the authors' publications about the system.
        trained_on: the data that the published weights were trained on.
        mirrors: other places with known copies of its repository.
        family: the system's family; None for a system without a family in the catalog.
        structure: what distinguishes its structure from that of other systems of its family.
    """

    name: str
    hub_id: str
    library: str
    config: Config
    licence: str
    preprocessor: Config = field(default_factory=dict)
    gated: bool = False
    published: tuple[PublishedFigures, ...] = ()
    works: tuple[Work, ...] = ()
    trained_on: str = ""
    mirrors: tuple[Mirror, ...] = ()
    family: Family | None = field(default=None, repr=False)
    structure: str = ""

    @property
    def title(self) -> str:
        """The title of its family; empty without a family in the catalog."""
        return self.family.title if self.family else ""

    @property
    def classes(self) -> str:
        """The set of classes of its classifier; empty if it has none."""
        return self.family.classes if self.family else ""

    @property
    def input(self) -> tuple[int, int]:
        """(height, width) of the images that the published system takes."""
        if self.library == "timm":
            _, height, width = self.config["pretrained_cfg"]["input_size"]
        else:
            size = self.preprocessor.get("crop_size", self.preprocessor["size"])
            height, width = size["height"], size["width"]
        return height, width


def _system(family: Family, size: Size) -> System:
    return System(
        name=family.short.format(size=size.name),
        hub_id=family.repository.format(size=size.name),
        library=family.library,
        config=family.config_of(size),
        licence=family.licence,
        preprocessor=MappingProxyType({**family.preprocessor, **size.preprocessor}),
        gated=family.gated,
        published=size.published,
        works=family.works,
        trained_on=family.trained_on,
        mirrors=size.mirrors,
        family=family,
        structure=f"{family.structure} {size.structure}".strip(),
    )


def expand(families: Iterable[Family]) -> dict[str, System]:
    """Return every size of the families as a system, by short name."""
    systems = [_system(family, size) for family in families for size in family.sizes]
    return {system.name: system for system in systems}


SYSTEMS: Mapping[str, System] = MappingProxyType(expand(FAMILIES))
"""The catalog, by short name."""


def structures() -> dict[str, System]:
    """Return one system of each structure, by short name: the smallest, or the one with published figures.

    Sizes of a family differ in numbers alone, unless their row names a structure; so one of each is enough to
    test what depends on the structure.
    """
    found: dict[tuple[str, str], System] = {}
    for system in sorted(SYSTEMS.values(), key=lambda system: not system.published):
        found.setdefault((system.family.name if system.family else system.name, system.structure), system)
    return {name: system for name, system in SYSTEMS.items() if system in found.values()}


def find(name: str) -> System:
    """Find a system by its short name or its hub id.

    Raises:
        UnknownNameError: there is no such system; the message lists the nearest names.
    """
    for system in SYSTEMS.values():
        if name in (system.name, system.hub_id):
            return system
    raise UnknownNameError("system", name, SYSTEMS, fix="`vconv list` shows every system")


_FREE = (
    *("architectures", "num_classes", "global_pool", "pretrained_cfg", "initializer_range", "drop_path_rate"),
    *("num_labels", "id2label", "label2id"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout"),
)
"""Entries of a configuration that a fine-tuned model may change: head, preprocessing and training."""
_STATED = (
    *("architecture", "num_features", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "patch_size", "image_size", "hidden_sizes", "depths"),
)
"""Entries without which a configuration does not say how large its network is."""
_PATCHED = ("hidden_act", "query_bias", "key_bias", "value_bias", "qkv_bias")
"""Entries that vconv's patches change in an artifact's own configuration."""


def unlike(system: System, config: Config, patched: bool = False) -> dict[str, tuple[Any, Any]]:
    """Return how a network differs from a system, apart from weights; empty if it does not.

    Args:
        system: the system of the catalog.
        config: the network's configuration.
        patched: whether vconv's patches have changed the configuration.

    Returns:
        By entry of the configuration: the network's value, None if it is missing, and the system's.
    """
    free = (*_FREE, *_PATCHED) if patched else _FREE
    keys = [key for key in system.config if key not in free and (key in config or key in _STATED)]
    found = {
        key: (config.get(key), system.config[key]) for key in keys if config.get(key) != system.config[key]
    }
    further = config.get("model_args") or {}
    if further != (system.config.get("model_args") or {}):
        found["model_args"] = (further, system.config.get("model_args") or {})
    return found


def miniature(system: System) -> System:
    """Return a miniature of a system: the same architecture with few, narrow blocks and small images.

    Raises:
        ValueError: the system has no family in the catalog, so that its miniature is unknown.
    """
    if system.family is None:
        raise ValueError(f"{system.name} is of no family of the catalog")
    numbers, side = system.family.miniature.numbers, system.family.miniature.side
    square = {"height": side, "width": side}
    if system.library == "timm":
        preprocessing = {**system.config["pretrained_cfg"], "input_size": [3, side, side]}
        config = {
            "num_features": numbers["embed_dim"] if "embed_dim" in numbers else numbers["dims"][-1],
            "model_args": dict(numbers),
            "pretrained_cfg": preprocessing,
        }
        return replace(system, config={**system.config, **config})
    sizes: dict[str, Any] = {"size": square}
    if system.preprocessor.get("do_center_crop"):
        sizes = {"size": {"shortest_edge": side + 8}, "crop_size": square}
    return replace(system, config={**system.config, **numbers}, preprocessor={**system.preprocessor, **sizes})
