"""The configurations beside the weights: read, checked, or replaced by the published ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vconv import documents
from vconv.catalog.systems import System
from vconv.convert.architectures import dinov2
from vconv.convert.architectures.base import GATED_MLP, Numbers
from vconv.convert.libraries.readers import (
    family_of,
    find_reader,
    library_of_config,
    require_encoder,
    require_named,
)
from vconv.convert.libraries.table import LIBRARIES
from vconv.convert.sources.class_names import published_config
from vconv.documents import CONFIGURATION
from vconv.errors import ArtifactError, WeightsError
from vconv.types import ADAPTER_FILE, CONFIG_FILE, PREPROCESSOR_FILE, Config, Say

_CODE = "auto_map"
"""The entry of a configuration that names Python code for transformers to run; it is removed."""
_SIDES = ("image_size", "patch_size")
"""Entries that may be two numbers. Not every version of transformers takes two in every family."""
_WHOLE = ("architecture", "num_classes", "num_features", "global_pool", "model_args")
"""Entries of timm's ``config.json`` beside ``pretrained_cfg``."""
_SILU = ("silu", "swish")
"""Names of the activation of every published gated MLP."""
_ADAPTERS = (ADAPTER_FILE, "adapter_model.safetensors", "adapter_model.bin")
"""Files of an adapter of PEFT, such as LoRA."""


def refuse_adapter(folder: Path) -> None:
    """Refuse a folder that has an adapter: the weights beside it are those of the base model.

    Raises:
        WeightsError: there is an adapter.
    """
    found = next((name for name in _ADAPTERS if os.path.lexists(folder / name)), None)
    if found:
        raise WeightsError(
            f"{folder} has an adapter, which changes the weights",
            got=found,
            expected="weights with the adapter merged into them",
            fix="merge it with PEFT (merge_and_unload, then save_pretrained) and give that folder; "
            "or, for the base model alone, name its weights file with --weights",
        )


def read(
    system: System, path: Path, home: Path, say: Say
) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...], Numbers | None]:
    """Read the configurations beside the weights; the published one stands for each that is not there.

    A name that exists is there, whatever it is: a link to nothing, as in a broken cache of a hub, is refused.

    Args:
        system: the catalog row.
        path: the weights, for messages.
        home: the folder of the configurations.
        say: receives progress lines.

    Returns:
        ``config.json``, the image processor's configuration, the names of those from the catalog, and the
        numbers in a ``config.json`` of another library, in whose place the published one stands.

    Raises:
        WeightsError: a configuration cannot be used, or is of another architecture.
    """
    files = LIBRARIES[library_of_config(system.config)].files
    found = {CONFIG_FILE: published_config(system), PREPROCESSOR_FILE: dict(system.preprocessor)}
    mine = [name for name in files if os.path.lexists(home / name)]
    from_catalog = tuple(name for name in files if name not in mine)
    found |= {name: own(home / name) for name in mine}
    for name in from_catalog:
        if not found[name]:
            raise WeightsError(
                "it is not known how images are prepared for these weights",
                got=f"no {name} beside them",
                expected="the size, mean and deviation that the network was trained with",
                fix=f"put the {name} of these weights beside them",
            )
        say(f"no {name} beside the weights: using {_whose(system)}")
    config = found[CONFIG_FILE]
    require_named(config)
    config = _encoder(config)
    numbers = _numbers_of_counterpart(config, system, say)
    if numbers:
        return published_config(system), dict(system.preprocessor), files, numbers
    if family_of(config) != family_of(system.config):
        raise WeightsError(
            f"{path} has weights of another architecture",
            got=config.get("model_type") or config.get("architecture"),
            expected=family_of(system.config),
            fix="name the system that these weights belong to; `vconv list` shows them",
        )
    if CONFIG_FILE in mine:
        _warn(config, say)
    return config, found[PREPROCESSOR_FILE], from_catalog, None


SAME = (
    "width",
    "hidden",
    "blocks",
    "heads",
    "channels",
    "patch",
    "registers",
    "patch_positions",
    "exact_gelu",
    "stages",
)
"""Numbers that do not depend on the library."""


def _numbers_of_counterpart(config: Config, system: System, say: Say) -> Numbers | None:
    """Return the numbers in a configuration of another library for a system's network; None if it is not one.

    Raises:
        WeightsError: it describes a network of the same architecture, but with other numbers.
    """
    theirs, ours = find_reader(config), find_reader(system.config)
    if not theirs or not ours or theirs is ours:
        return None
    if theirs.layout.architecture is not ours.layout.architecture:
        return None
    numbers = theirs.numbers(config)
    _require_same(numbers, ours.numbers(published_config(system)), system)
    say(f"{CONFIG_FILE} beside the weights is of {theirs.library}: using the one of {system.name}")
    return numbers


def _require_same(theirs: Numbers, ours: Numbers, system: System) -> None:
    """Check that a configuration of another library describes the network of a system."""
    differing = [name for name in SAME if getattr(theirs, name) != getattr(ours, name)]
    if differing:
        first = differing[0]
        raise WeightsError(
            f"{CONFIG_FILE} beside the weights describes another network than {system.name}",
            got=f"{first} = {getattr(theirs, first)}",
            expected=f"{getattr(ours, first)}",
            fix="name the system that these weights belong to; `vconv list` shows them",
        )


def own(path: Path) -> dict[str, Any]:
    """Return a configuration that came with weights, without the names of code.

    Raises:
        WeightsError: the file is missing, or is not a JSON object.
    """
    return _plain(_object(path))


def encoder_of(path: Path) -> dict[str, Any]:
    """Return a ``config.json``; of a model of images and text, the part of its image encoder.

    Raises:
        WeightsError: the file cannot be used, or does not name a network.
    """
    config = own(path)
    require_named(config)
    return _encoder(config)


def _encoder(config: Config) -> dict[str, Any]:
    encoder = dict(LIBRARIES[library_of_config(config)].encoder(config))
    require_encoder(encoder)
    return encoder


def _whose(system: System) -> str:
    return "the published one" if system.family else "that of the library"


def _plain(content: Config) -> dict[str, Any]:
    """Remove the names of code; of a declared family, write two equal sides as one number, the same there."""
    plain = _in_parts({key: value for key, value in content.items() if key != _CODE})
    named = plain.get("model_type") or plain.get("architecture")
    for name in _SIDES if named and find_reader(plain) else ():
        pair = plain.get(name)
        if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], int) and pair[0] == pair[1]:
            plain[name] = pair[0]
    return plain


def _in_parts(content: dict[str, Any]) -> dict[str, Any]:
    """Write a flat configuration of timm in the form with ``pretrained_cfg``, as timm itself reads it."""
    if "architecture" not in content or content.keys() & {"pretrained_cfg", "model_type"}:
        return content
    settings = {key: value for key, value in content.items() if key not in _WHOLE}
    if "labels" in settings:
        settings["label_names"] = settings.pop("labels")
    return {key: content[key] for key in _WHOLE if key in content} | {"pretrained_cfg": settings}


def _warn(config: Config, say: Say) -> None:
    reader = find_reader(config)
    if reader is None:
        return
    numbers, named = reader.numbers(config), _named_activation(config)
    if GATED_MLP in numbers.flags:
        # DINOv2 of transformers ignores hidden_act then.
        usual = named is None or named.lower() in _SILU or reader.layout.architecture is dinov2.ARCHITECTURE
    else:
        usual = numbers.exact_gelu
    if not usual:
        say(
            f"{CONFIG_FILE} asks for the activation {named!r:.60}, which no published {reader.family} has: "
            "continue only if these weights were trained with it"
        )


def _named_activation(config: Config) -> str | None:
    named = config.get("hidden_act") or config.get("model_args", {}).get("act_layer")
    return None if named is None else str(named)


def _object(path: Path) -> dict[str, Any]:
    try:
        content = documents.load(path, CONFIGURATION)
        if not isinstance(content, dict):
            raise documents.refusal(path, CONFIGURATION, f"a {type(content).__name__}")
    except ArtifactError as error:
        raise WeightsError(
            f"cannot use {path}",
            got=error.got,
            expected=error.expected,
            fix="download the file again; if it was written by hand, correct it",
        ) from error
    return content
