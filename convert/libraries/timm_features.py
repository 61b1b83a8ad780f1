"""timm's ``features_only`` models: the feature maps of some levels of a network, without its final norm.

``features_only`` and ``out_indices`` in ``model_args`` of a ``config.json`` ask for one. timm loads the
checkpoint of the whole network, and then keeps the modules that these levels need. So the checkpoint stays
whole, and the tensors of the other modules are not used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from vconv.convert.architectures.layer_outputs import FEATURE_MAP, RAW, find_layer, named
from vconv.errors import InputError, WeightsError
from vconv.types import CONFIG_FILE, Config

_ARGUMENTS = "model_args"
_ONLY, _INDICES, _CLASS = "features_only", "out_indices", "feature_cls"
_WRAPPED = "model."
"""The first part of the names of tensors in a model that timm wraps, and does not take apart."""


def is_features_only(config: Config) -> bool:
    """Return whether a configuration of timm asks for the features of a network only."""
    given = config.get(_ARGUMENTS)
    return "architecture" in config and isinstance(given, Mapping) and bool(given.get(_ONLY))


def gives_blocks(config: Config) -> bool:
    """Return whether the levels of a declared network are what its blocks, or stages, give.

    timm does so unless ``feature_cls`` asks it for another way to take the network apart.
    """
    return _CLASS not in config[_ARGUMENTS]


def whole(config: Config) -> dict[str, Any]:
    """Return the configuration of the whole network; as it is if it asks for that."""
    if not is_features_only(config):
        return dict(config)
    kept = {key: value for key, value in config[_ARGUMENTS].items() if key not in (_ONLY, _INDICES)}
    return {**config, _ARGUMENTS: kept}


def names_of(model: Any) -> tuple[str, ...]:
    """Return the names of the feature maps of a features_only model.

    Raises:
        WeightsError: the levels are not in order. Some of timm's models then return them as they were asked
            for, most in the order of the network, and nothing tells which.
    """
    indices = [index % len(model.feature_info.info) for index in model.feature_info.out_indices]
    if indices != sorted(set(indices)):
        raise WeightsError(
            f"{CONFIG_FILE} does not name the levels of the network in order",
            got=f"{_INDICES} = {list(model.feature_info.out_indices)} in {_ARGUMENTS}",
            expected="each level once, the first one first",
            fix=f"sort {_INDICES}",
        )
    return tuple(named(RAW + FEATURE_MAP, index + 1) for index in indices)


def asking(config: Config, names: Iterable[str], levels: int) -> dict[str, Any]:
    """Return a configuration that asks timm for these feature maps; the first level has the number 1.

    Raises:
        InputError: the network has fewer levels, or the configuration asks for other feature maps already.
    """
    indices = [layer.block - 1 for layer in map(find_layer, names) if layer]
    if is_features_only(config) and config[_ARGUMENTS].get(_INDICES) != indices:
        raise InputError(
            f"--outputs does not apply where {CONFIG_FILE} asks for features only",
            got=", ".join(names),
            expected=f"the levels of {_INDICES} in {_ARGUMENTS}: {config[_ARGUMENTS].get(_INDICES)}",
            fix=f"leave --outputs out, or change {_INDICES}",
        )
    if max(indices) >= levels:
        raise InputError(
            f"the network has no level {max(indices) + 1}",
            got=", ".join(names),
            expected=f"{RAW}{FEATURE_MAP}:N, N from 1 to {levels}",
            fix="name other levels",
        )
    return {**config, _ARGUMENTS: {**config.get(_ARGUMENTS, {}), _ONLY: True, _INDICES: indices}}


def are_levels(names: Iterable[str]) -> bool:
    """Return whether all of these outputs are such feature maps."""
    layers = [find_layer(name) for name in names]
    return all(layer and layer.kind.name == RAW + FEATURE_MAP and layer.block for layer in layers)


def run(model: Any, pixel_values: Tensor) -> dict[str, Tensor]:
    """Run a model on (B, 3, H, W); return its feature maps by name, in timm's own order of axes.

    Raises:
        WeightsError: the levels are not in order.
    """
    result = model(pixel_values)
    maps = list(result.values()) if isinstance(result, Mapping) else list(result)
    return dict(zip(names_of(model), maps, strict=True))


def stored_names(model: nn.Module, complete: nn.Module) -> dict[str, str]:
    """Return the key in the checkpoint of every tensor of a features_only model.

    Args:
        model: the model.
        complete: the whole network.

    Raises:
        WeightsError: a name is not one of the whole network.
    """
    known = set(complete.state_dict())
    ends = {"_".join(parts): ".".join(parts) for name in known for parts in _beginnings(name)}
    found = {}
    for name in model.state_dict():
        first, _, rest = name.partition(".")
        candidates = (name, name.removeprefix(_WRAPPED), f"{ends.get(first, first)}.{rest}")
        key = next((one for one in candidates if one in known), "")
        if not key:
            raise WeightsError(
                "timm takes this network apart in a way that vconv does not know",
                got=f"{name}, which is no tensor of the whole network",
                expected="the name of a tensor, or that of its module with _ for the first dot",
                fix="remove features_only from model_args, to export the whole network",
            )
        found[name] = key
    return found


def _beginnings(name: str) -> list[list[str]]:
    parts = name.split(".")
    return [parts[:1], parts[:2]]
