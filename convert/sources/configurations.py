"""The configurations beside the weights: read, checked, or replaced by the published ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vconv.catalog.systems import System
from vconv.convert.libraries.readers import find_reader, require_named
from vconv.convert.libraries.table import LIBRARIES
from vconv.documents import CONFIGURATION
from vconv.errors import WeightsError
from vconv.types import ADAPTER_FILE, CONFIG_FILE, PREPROCESSOR_FILE, Config, Say

_CODE = "auto_map"
"""The entry of a configuration that names Python code for transformers to run; it is removed."""
_SIDES = ("image_size", "patch_size")
"""Entries that may be two numbers. Not every version of transformers takes two in every family."""
_GREATEST_BYTES = CONFIGURATION.nbytes
"""Greatest size of a configuration, as artifacts have it. The names of 21,843 classes need 2 MB."""
_ADAPTERS = (ADAPTER_FILE, "adapter_model.safetensors", "adapter_model.bin")
"""Files of an adapter of PEFT, such as LoRA."""


def refuse_adapter(folder: Path) -> None:
    """Refuse a folder that has an adapter: the weights beside it are those of the base model.

    Raises:
        WeightsError: there is an adapter.
    """
    found = next((name for name in _ADAPTERS if (folder / name).exists()), None)
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
) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
    """Read the configurations beside the weights; the published one stands for each that is not there.

    Args:
        system: the catalog row.
        path: the weights, for messages.
        home: the folder of the configurations.
        say: receives progress lines.

    Returns:
        ``config.json``, the image processor's configuration, and the names of those from the catalog.

    Raises:
        WeightsError: a configuration cannot be used, or is of another architecture.
    """
    wanted = find_reader(system.config)
    files = LIBRARIES[wanted.library].files
    found = {CONFIG_FILE: dict(system.config), PREPROCESSOR_FILE: dict(system.preprocessor)}
    own = [name for name in files if (home / name).is_file()]
    from_catalog = tuple(name for name in files if name not in own)
    found |= {name: _plain(_object(home / name)) for name in own}
    for name in from_catalog:
        say(f"no {name} beside the weights: using the published one")
    config = found[CONFIG_FILE]
    require_named(config)
    if not wanted.describes(config):
        raise WeightsError(
            f"{path} has weights of another architecture",
            got=config.get("model_type") or config.get("architecture"),
            expected=wanted.family,
            fix="name the system that these weights belong to; `vconv list` shows them",
        )
    if CONFIG_FILE in own:
        _warn(config, say)
    return config, found[PREPROCESSOR_FILE], from_catalog


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
        size = path.stat().st_size
        if size > _GREATEST_BYTES:
            raise WeightsError(
                f"cannot use {path}",
                got=f"{size} bytes",
                expected=f"a JSON object of at most {_GREATEST_BYTES} bytes",
                fix="download the file again",
            )
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"cannot read {path}", got=str(error), expected="a JSON object", fix="download the file again"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(
            f"cannot use {path}",
            got=f"a {type(content).__name__}",
            expected="a JSON object",
            fix="download it again",
        )
    return content
