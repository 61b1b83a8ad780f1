"""Readers turn a library's ``config.json`` into the network that it describes. A family is one row here."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from vconv.convert.architectures.base import BACKBONE, CLASSIFIER, FINAL_NORM, POOLER, Numbers
from vconv.convert.layouts import convnext, dinov2, dinov3_vit, timm_vit, vit
from vconv.convert.layouts.base import Layout
from vconv.convert.libraries import timm_config, timm_features, transformers_config, transformers_options
from vconv.convert.libraries.transformers_backbones import asks_for_backbone, outputs_of
from vconv.convert.network import Network
from vconv.errors import UnknownNameError, WeightsError
from vconv.types import CONFIG_FILE, Config


@dataclass(frozen=True)
class Reader:
    """Reads the configurations of one family of networks.

    Args:
        layout: the layout in which the library stores them.
        library: the library that builds them.
        describes: returns whether a configuration belongs to this family.
        numbers: reads the numbers of a network from its configuration.
    """

    layout: Layout
    library: str
    describes: Callable[[Config], bool]
    numbers: Callable[[Config], Numbers]

    @property
    def family(self) -> str:
        """The name of the family."""
        return self.layout.family

    def asks_for_classifier(self, config: Config) -> bool:
        """Return whether a configuration names the class of transformers that has a classifier."""
        named = self.library == "transformers"
        return named and transformers_options.asks_for_classifier(config, self.family)

    def asks_for_backbone(self, config: Config) -> bool:
        """Return whether a configuration names the class of transformers that returns feature maps."""
        return self.library == "transformers" and asks_for_backbone(config, self.family)


def _transformers(layout: Layout, numbers: Callable[[Config], Numbers]) -> Reader:
    return Reader(layout, "transformers", transformers_config.names(layout.family), numbers)


def _timm(layout: Layout, pattern: str, numbers: Callable[[Config], Numbers] = timm_config.read) -> Reader:
    names = timm_config.names(pattern)
    return Reader(layout, "timm", names, lambda config: numbers(timm_features.whole(config)))


READERS: Mapping[str, Reader] = {
    reader.family: reader
    for reader in (
        _transformers(dinov3_vit.LAYOUT, transformers_config.dinov3_vit),
        _transformers(dinov2.LAYOUT, transformers_config.dinov2),
        _transformers(dinov2.WITH_REGISTERS, transformers_config.dinov2_with_registers),
        _transformers(vit.LAYOUT, transformers_config.vit),
        _timm(timm_vit.DINOV3, r"vit_\w+_dinov3(_qkvb)?"),
        _timm(timm_vit.DINOV2, r"vit_\w+_(reg4_)?dinov2"),
        _transformers(convnext.DINOV3, transformers_config.dinov3_convnext),
        _timm(convnext.TIMM, r"convnext_(tiny|small|base|large)", timm_config.read_convnext),
        _timm(timm_vit.VIT, r"vit_[a-z]+_patch\d+_\d+"),
    )
}
"""Every reader, by family."""

_NEAR = 6
"""Number of near names that are looked at: not all of them are of image encoders."""
_NAMED_BY: Mapping[str, str] = {"transformers": "model_type", "timm": "architecture"}
"""Library -> the entry of its ``config.json`` that names the network. The first that is there counts: a model
of timm in the wrapper of transformers names both, and timm does not read its configuration."""


def find_reader(config: Config) -> Reader | None:
    """Choose the reader of a configuration; None if its architecture is not declared.

    Raises:
        WeightsError: it names no network, or asks for a part of one that only the whole gives correctly.
    """
    require_named(config)
    found = next((reader for reader in READERS.values() if reader.describes(config)), None)
    if not timm_features.is_features_only(config) or timm_features.gives_blocks(config):
        return found
    if found and found.layout is timm_vit.DINOV3:
        raise WeightsError(
            f"{CONFIG_FILE} asks timm for the features of a DINOv3 only",
            got="feature_cls in model_args, by which timm takes it apart in another way",
            expected="none: its RoPE periods are corrected",
            fix="remove feature_cls",
        )
    return None


def library_of_config(config: Config) -> str:
    """Return the name of the library that builds the network of a configuration.

    Raises:
        WeightsError: it names no network.
    """
    reader = find_reader(config)
    return reader.library if reader else next(name for name, key in _NAMED_BY.items() if config.get(key))


def family_of(config: Config) -> str:
    """Return the family of a configuration: the name of its declared or derived layout.

    Raises:
        WeightsError: it names no network.
    """
    reader, library = find_reader(config), library_of_config(config)
    name = str(config.get(_NAMED_BY[library]))
    return reader.family if reader else name if library == "transformers" else f"{library} {name}"


def require_named(config: Config) -> None:
    """Check that a configuration names its network.

    Raises:
        WeightsError: it does not.
    """
    if not any(config.get(key) for key in _NAMED_BY.values()):
        raise WeightsError(
            f"{CONFIG_FILE} does not say which network it describes",
            got=f"no {' and no '.join(_NAMED_BY.values())}",
            expected=" or ".join(f"{key} ({library})" for library, key in _NAMED_BY.items()),
            fix=f"give {CONFIG_FILE} as it was published with the weights",
        )


def network(config: Config, keys: Iterable[str] = ()) -> Network:
    """Return the network that a configuration describes, with the head that a checkpoint has.

    Args:
        config: a ``config.json``.
        keys: the checkpoint's keys; empty for the head of the class that the configuration names, or the
            default head of the layout.

    Raises:
        UnknownNameError: its library has no image encoder of this name.
        WeightsError: the configuration lacks a number, or asks for an option that vconv does not support.
    """
    held = frozenset(keys)
    reader = find_reader(config)
    if reader is None:
        return _derived(config, held)
    heads, numbers = reader.layout.heads, reader.numbers(config)
    if reader.asks_for_backbone(config):
        final = {key for rule in reader.layout.rules if rule.when == FINAL_NORM for key in rule.stored}
        lacks = frozenset() if final and final <= held else {FINAL_NORM}
        numbers = replace(numbers, flags=(numbers.flags | {BACKBONE}) - lacks)
        asked_for = outputs_of(config, reader.family, numbers)
        return Network(reader.layout, reader.library, config, numbers, "", asked=asked_for)
    asked = not held and reader.asks_for_classifier(config)
    if CLASSIFIER in numbers.flags or asked or heads.get(CLASSIFIER) in held:
        head = CLASSIFIER
    else:
        pooler = heads.get(POOLER, "").removesuffix("weight")
        has = any(key.removeprefix(reader.layout.prefix).startswith(pooler) for key in held)
        head = POOLER if pooler and (has or not held) else ""
    maps = timm_config.feature_maps(config) if timm_features.is_features_only(config) else ()
    return Network(reader.layout, reader.library, config, numbers, head, asked=maps)


def _derived(config: Config, keys: frozenset[str]) -> Network:
    """Return a network whose architecture is not declared, from what its library builds."""
    from vconv.convert.libraries import derivation

    require_encoder(config)
    library = library_of_config(config)
    return derivation.derive(config, library, family_of(config), keys)


def require_encoder(config: Config) -> None:
    """Check that a configuration names an image encoder of its library.

    Raises:
        UnknownNameError: its library has no model of this name; the message lists the nearest encoders.
        WeightsError: the model of this name is no image encoder, such as a model of text.
    """
    from vconv.convert.libraries.table import LIBRARIES

    library = library_of_config(config)
    key, beyond = _NAMED_BY[library], LIBRARIES[library].beyond
    name = str(config.get(key))
    if find_reader(config) or beyond.knows(name):
        return
    fix = f"give an image encoder that the installed {library} has, or a checkpoint of a listed family"
    if name in beyond.names():
        raise WeightsError(
            f"{CONFIG_FILE} describes no image encoder",
            got=f"{key} {name!r}, a model of {library} that does not take images alone",
            expected="a network that takes pixel values and nothing else",
            fix=fix,
        )
    near = [one for one in difflib.get_close_matches(name, beyond.names(), n=_NEAR) if beyond.knows(one)]
    raise UnknownNameError("architecture", name, near or READERS, fix=fix)


def refuse_unfit(config: Config, keys: Iterable[str]) -> None:
    """Refuse a configuration that asks for another class than the one that would be exported.

    Args:
        config: a ``config.json``.
        keys: the checkpoint's keys.

    Raises:
        WeightsError: the class is not exported, or the checkpoint does not fit it.
    """
    reader = find_reader(config)
    if reader and reader.library == "transformers":
        classifier = reader.layout.heads.get(CLASSIFIER)
        transformers_options.refuse_class(config, reader.family, classifier in frozenset(keys))
