"""The configurations beside the weights: read, checked, or replaced by the published ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vconv import documents
from vconv.catalog.systems import System
from vconv.convert.architectures.base import Numbers
from vconv.convert.libraries.readers import READERS, Reader, find_reader, require_named
from vconv.convert.libraries.table import LIBRARIES
from vconv.convert.sources.class_names import published_config
from vconv.documents import CONFIGURATION
from vconv.errors import ArtifactError, WeightsError
from vconv.types import ADAPTER_FILE, CONFIG_FILE, PREPROCESSOR_FILE, Config, Say

_CODE = "auto_map"
"""The entry of a configuration that names Python code for transformers to run; it is removed."""
_SIDES = ("image_size", "patch_size")
"""Entries that may be two numbers. Not every version of transformers takes two in every family."""
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
    wanted = find_reader(system.config)
    files = LIBRARIES[wanted.library].files
    found = {CONFIG_FILE: published_config(system), PREPROCESSOR_FILE: dict(system.preprocessor)}
    own = [name for name in files if os.path.lexists(home / name)]
    from_catalog = tuple(name for name in files if name not in own)
    found |= {name: _plain(_object(home / name)) for name in own}
    for name in from_catalog:
        say(f"no {name} beside the weights: using the published one")
    config = found[CONFIG_FILE]
    require_named(config)
    if not wanted.describes(config) and _of_same_architecture(config, wanted):
        published = published_config(system)
        theirs = find_reader(config)
        numbers = theirs.numbers(config)
        _require_same(numbers, wanted.numbers(published), system)
        say(f"{CONFIG_FILE} beside the weights is of {theirs.library}: using the one of {system.name}")
        return published, dict(system.preprocessor), files, numbers
    if not wanted.describes(config):
        raise WeightsError(
            f"{path} has weights of another architecture",
            got=config.get("model_type") or config.get("architecture"),
            expected=wanted.family,
            fix="name the system that these weights belong to; `vconv list` shows them",
        )
    if CONFIG_FILE in own:
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
)
"""Numbers that do not depend on the library."""


def _of_same_architecture(config: Config, wanted: Reader) -> bool:
    known = (reader for reader in READERS.values() if reader.describes(config))
    return any(reader.layout.architecture is wanted.layout.architecture for reader in known)


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


def _plain(content: Config) -> dict[str, Any]:
    """Remove the names of code, and write two equal sides as one number, which means the same."""
    plain = {key: value for key, value in content.items() if key != _CODE}
    for name in _SIDES:
        pair = plain.get(name)
        if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], int) and pair[0] == pair[1]:
            plain[name] = pair[0]
    return plain


def _warn(config: Config, say: Say) -> None:
    reader = find_reader(config)
    if not reader.numbers(config).exact_gelu:
        named = config.get("hidden_act") or config.get("model_args", {}).get("act_layer")
        say(
            f"{CONFIG_FILE} asks for the activation {named!r:.60}, which no published {reader.family} has: "
            "continue only if these weights were trained with it"
        )


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
