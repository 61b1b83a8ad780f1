"""timm: the model and the preprocessing that it makes of a configuration."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn

from vconv.convert.libraries.base import parameters_without_data, quiet, understood
from vconv.types import CONFIG_FILE, Config


def create(folder: Path, pretrained: bool, **options: Any) -> Any:
    """Make the model of a folder with timm itself, with its weights or without.

    Args:
        folder: the folder.
        pretrained: whether to load its weights.
        options: further arguments of timm's ``create_model``.
    """
    import timm

    with quiet("timm"), understood("timm"):
        return timm.create_model(f"local-dir:{folder}", pretrained=pretrained, **options)


def describe(config: Config) -> nn.Module:
    """Build the model of a configuration without data, to read its numbers from it.

    Raises:
        WeightsError: timm cannot build the model.
    """
    with tempfile.TemporaryDirectory(prefix="vconv-") as name, parameters_without_data():
        folder = Path(name)
        (folder / CONFIG_FILE).write_text(json.dumps(dict(config)))
        return cast("nn.Module", create(folder, pretrained=False))


def preprocessing(config: Config) -> dict[str, Any]:
    """Return the preprocessing that timm uses for the model of a configuration."""
    return dict(_preprocessing(json.dumps(dict(config), sort_keys=True)))


@functools.lru_cache(maxsize=64)
def _preprocessing(text: str) -> Mapping[str, Any]:
    """Return timm's preprocessing for a configuration in JSON text. timm builds the model for this."""
    from timm.data import config as data_config

    resolve: Any = data_config.resolve_model_data_config
    return dict(resolve(describe(json.loads(text))))


def switched(config: Config, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with these arguments of the model."""
    return {**config, "model_args": {**config.get("model_args", {}), **flags}}
