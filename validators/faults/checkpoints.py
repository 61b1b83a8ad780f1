"""Faults of the checkpoint and its configuration files, which every variant shares."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vconv.convert.architectures.base import Capability
from vconv.convert.network import Network
from vconv.types import CONFIG_FILE, PREPROCESSOR_FILE, Array
from vconv.validators.faults.base import Fault
from vconv.validators.faults.workshop import ArtifactCopy

_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
_HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}
_BICUBIC, _BILINEAR = 3, 2
"""PIL's numbers of the resampling filters."""
_ATTENTION = ("query", "key", "value", "qkv")
"""The roles of the weights of queries, keys and values."""
_PACKED = "gate_up"
"""The role of a gate and an up projection in one tensor."""
CORRUPTED = 16
"""Number of rows and of columns of the part of a weight that is overwritten."""


def _middle(network: Network, *roles: str) -> str:
    found = [tensor for tensor in network.tensors().values() if tensor.role in roles]
    return network.stored_key(found[len(found) // 2])


def _transposed(weight: Array) -> Array:
    """Transpose a square weight, or each square of a fused one."""
    width = weight.shape[1]
    return np.ascontiguousarray(weight.reshape(-1, width, width).swapaxes(1, 2)).reshape(weight.shape)


def _overwritten(weight: Array) -> Array:
    found = weight.copy()
    found[:CORRUPTED, :CORRUPTED] = found[:CORRUPTED, :CORRUPTED][::-1]
    return found


def _in_weight(change: Callable[[Array], Array], *roles: str) -> Callable[[ArtifactCopy], None]:
    return lambda shop: shop.weight(_middle(shop.network, *roles), change)


def _transformers_mean(config: dict[str, Any]) -> dict[str, Any]:
    other = _IMAGENET if config["image_mean"] == _HALF["mean"] else _HALF
    return {**config, "image_mean": other["mean"], "image_std": other["std"]}


def _transformers_filter(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "resample": _BILINEAR if config["resample"] == _BICUBIC else _BICUBIC}


def _timm_mean(config: dict[str, Any]) -> dict[str, Any]:
    given = config["pretrained_cfg"]
    other = _IMAGENET if list(given["mean"]) == _HALF["mean"] else _HALF
    return {**config, "pretrained_cfg": {**given, **other}}


def _timm_filter(config: dict[str, Any]) -> dict[str, Any]:
    given = config["pretrained_cfg"]
    other = "bilinear" if given["interpolation"] == "bicubic" else "bicubic"
    return {**config, "pretrained_cfg": {**given, "interpolation": other}}


def _gate_swapped(shop: ArtifactCopy) -> None:
    """Swap the gate and up projections of the middle block, as a converter does that mistakes their order."""
    if _PACKED in _roles(shop.network):
        shop.weight(_middle(shop.network, _PACKED), lambda weight: np.roll(weight, len(weight) // 2, axis=0))
        return
    keys = [_middle(shop.network, role) for role in ("gate", "up")]
    for key, value in zip(keys, [shop.stored(other) for other in reversed(keys)], strict=True):
        shop.weight(key, lambda _, value=value: value)  # type: ignore[misc]


def _no_gate(shop: ArtifactCopy) -> str:
    return "" if {"gate", _PACKED} & _roles(shop.network) else "its MLPs have no gate"


def _no_attention(shop: ArtifactCopy) -> str:
    return "" if {*_ATTENTION} & _roles(shop.network) else "it has no attention"


def _roles(network: Network) -> set[str]:
    return {tensor.role for tensor in network.tensors().values()}


_Edit = Callable[[dict[str, Any]], dict[str, Any]]
_PROCESSORS: Mapping[str, tuple[str, _Edit, _Edit]] = {
    "transformers": (PREPROCESSOR_FILE, _transformers_mean, _transformers_filter),
    "timm": (CONFIG_FILE, _timm_mean, _timm_filter),
}
"""By library: the file of the image processor, and the changes that set another mean or another filter."""


def _wrong_mean(shop: ArtifactCopy) -> None:
    file, mean, _ = _PROCESSORS[shop.network.library]
    shop.configuration(file, mean)


def _wrong_filter(shop: ArtifactCopy) -> None:
    file, _, another = _PROCESSORS[shop.network.library]
    shop.configuration(file, another)


def _says(shop: ArtifactCopy, *names: str) -> bool:
    """Return whether the image processor's file contains a setting; otherwise the library's default holds."""
    file, _, _ = _PROCESSORS[shop.network.library]
    content = json.loads((shop.folder / file).read_bytes())
    return any(name in content or name in content.get("pretrained_cfg", {}) for name in names)


def _no_mean(shop: ArtifactCopy) -> str:
    return "" if _says(shop, "image_mean", "mean") else "its image processor takes the library's mean"


def _no_filter(shop: ArtifactCopy) -> str:
    return (
        "" if _says(shop, "resample", "interpolation") else "its image processor takes the library's filter"
    )


FAULTS = (
    Fault(
        "a transposed query, key or value weight",
        "transposed weight",
        _in_weight(_transposed, *_ATTENTION),
        _no_attention,
        needs=(Capability.ROLES,),
    ),
    Fault(
        "a corrupted block of one weight",
        "weights",
        _in_weight(_overwritten, "fc1", "gate", "gate_up"),
        needs=(Capability.ROLES,),
    ),
    Fault(
        "a gate in the place of what it gates",
        "weights",
        _gate_swapped,
        _no_gate,
        needs=(Capability.ROLES,),
    ),
    Fault("another mean and deviation", "normalisation", _wrong_mean, _no_mean),
    Fault("another interpolation", "interpolation", _wrong_filter, _no_filter),
)
