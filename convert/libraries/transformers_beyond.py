"""transformers: image encoders whose architecture is not declared.

A configuration with a ``vision_config`` belongs to a model of images and text. Only its image encoder is
converted, which has another class and another ``model_type``: ``CLIPVisionModel`` and ``clip_vision_model``.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from vconv.convert.architectures.base import CLASSIFIER
from vconv.convert.architectures.outputs import TOKENS
from vconv.convert.architectures.sizes import unasked_size
from vconv.convert.libraries import transformers_sizes
from vconv.convert.libraries.base import Beyond, stock_transformers
from vconv.convert.libraries.transformers_config import sides
from vconv.convert.libraries.transformers_options import EXACT_GELU
from vconv.convert.network import Network
from vconv.errors import WeightsError
from vconv.types import INPUT, Config

AUTO = {"": "AutoModel", CLASSIFIER: "AutoModelForImageClassification"}
"""The class that loads a model in stock transformers, by the head of the network."""
VISION = "vision_config"
"""The entry with the configuration of an image encoder in that of a model of images and text."""
_SIDE = 224
"""The side of images where a configuration names none: that of the default of transformers' processors."""
_VISION_MODEL = "vision_model"
"""The first part of the names of the CLIP-like encoders' tensors in published files. Version 5 leaves it out
when it saves; it loads both, and version 4 only the names with it."""
_OUTPUTS = {
    "last_hidden_state": TOKENS,
    "pooler_output": "pooled",
    "image_embeds": "pooled",
    "logits": "logits",
}
"""vconv's name of each output by the name that transformers gives it."""


def image_encoder(config: Config) -> Config:
    """Return the configuration of the image encoder of a model of images and text; any other as it is."""
    inner = config.get(VISION)
    if not isinstance(inner, Mapping):
        return config
    kind = inner.get("model_type") or _encoder_type(str(config.get("model_type")))
    return {**inner, "model_type": kind} if kind else config


def _encoder_type(model_type: str) -> str:
    with stock_transformers() as transformers:
        try:
            kinds = transformers.AutoConfig.for_model(model_type).sub_configs
        except ValueError:
            return ""
        return str(getattr(kinds.get(VISION), "model_type", ""))


def without_initialising() -> AbstractContextManager[None]:
    """Keep transformers from drawing initial weights, which parameters without data cannot take."""
    try:
        from transformers.initialization import no_init_weights
    except ImportError:  # version 4
        from transformers.modeling_utils import no_init_weights
    found: AbstractContextManager[None] = no_init_weights()
    return found


def _class(model_type: str, head: str) -> Any:
    """Return the class that stock transformers builds; None if it has none for this name."""
    with stock_transformers() as transformers:
        if model_type not in transformers.CONFIG_MAPPING:
            return None
        classes = getattr(transformers, AUTO[head])._model_mapping
        try:
            found = classes.get(transformers.CONFIG_MAPPING[model_type], None)
        except ValueError:  # a name in the table for which transformers has no class
            return None
    return found[0] if isinstance(found, tuple) else found


def _knows(name: str) -> bool:
    """Return whether a name is that of a model that takes one tensor of pixel values, and needs no more."""
    known = _class(name, "")
    try:
        takes = getattr(known, "main_input_name", "")
    except ImportError:  # a class that stands for one of a package that is not installed
        return False
    if takes != INPUT:
        return False
    needed = [
        parameter.name
        for parameter in inspect.signature(known.forward).parameters.values()
        if parameter.default is inspect.Parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    return set(needed) <= {"self", INPUT}


def _names() -> Collection[str]:
    with stock_transformers() as transformers:
        return tuple(transformers.CONFIG_MAPPING.keys())


def _head(config: Config) -> str:
    named = config.get("architectures")
    asked = [str(name) for name in named] if isinstance(named, list) else []
    classified = any("ForImageClassification" in name for name in asked)
    known = classified and _class(str(config.get("model_type")), CLASSIFIER) is not None
    return CLASSIFIER if known else ""


def _images(config: Config) -> tuple[int, int, int]:
    height, width = sides(config, "image_size") if config.get("image_size") else (_SIDE, _SIDE)
    return int(config.get("num_channels", 3)), height, width


def _stored(model: Any, config: Config) -> Mapping[str, str]:
    """Return the stored key of each tensor, by which versions 4.57 and 5 load it.

    Version 5 renames modules in memory, and has the names on disk in its table of conversions.
    """
    on_disk = _on_disk(model)
    under = (
        f"{_VISION_MODEL}." if _is_one_of_several(model) and _dropped_prefix(model) == _VISION_MODEL else ""
    )
    return {name: key if key.startswith(under) else under + key for name, key in on_disk.items()}


def _on_disk(model: Any) -> dict[str, str]:
    """Return the name on disk of each tensor in memory; tensors of one name are in the order of its rows."""
    state = model.state_dict()
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # version 4 has the same names in memory and on disk
        return {name: name for name in state}
    held: dict[str, list[str]] = {}
    for name, tensor in state.items():
        found = list(revert_weight_conversion(model, {name: tensor.to("meta")}))
        if len(found) != 1:
            raise _refused(model, f"{name} is stored as {len(found)} tensors")
        held.setdefault(found[0], []).append(name)
    for key, names in held.items():
        if len(names) > 1:
            # Each stands for itself as one row that holds its place among the names.
            rows = {name: torch.full((1,) * state[name].ndim, place) for place, name in enumerate(names)}
            whole = revert_weight_conversion(model, rows)
            if list(whole) != [key] or whole[key].shape != (len(names), *(1,) * (state[names[0]].ndim - 1)):
                raise _refused(model, f"{key} holds several tensors of the model, and not as its rows")
            held[key] = [names[place] for place in whole[key].flatten().tolist()]
    return {name: key for key, names in held.items() for name in names}


def _refused(model: Any, got: str) -> WeightsError:
    return WeightsError(
        f"the tensors of {model.config.model_type} cannot be named one by one",
        got=got,
        expected="one stored tensor for each tensor of the model in memory",
        fix="none in this version: a graph refers to whole tensors of the weights file",
    )


def _is_one_of_several(model: Any) -> bool:
    return getattr(type(model.config), "base_config_key", "") == VISION


def _dropped_prefix(model: Any) -> str:
    """Return the first part of published names that version 5 leaves out in memory; empty without one."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import PrefixChange
    except ImportError:
        return ""
    changes = get_model_conversion_mapping(model, add_legacy=False)
    found = [change.prefix_to_remove for change in changes if isinstance(change, PrefixChange)]
    return next((name for name in found if name), str(getattr(model, "base_model_prefix", "")))


def _spelled_out(config: Config) -> Config:
    return {**config, "hidden_act": EXACT_GELU[1]} if config.get("hidden_act", "gelu") == "gelu" else config


def classified(model: Any, pixel_values: Tensor, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """Run a stock classifier with these further arguments; return the output of its backbone, and its own."""
    seen: list[Any] = []

    def see(module: nn.Module, given: Any, result: Any) -> None:
        seen.append(result)

    backbone: nn.Module = model.base_model
    handle = backbone.register_forward_hook(see)
    try:
        result = model(pixel_values, **options)
    finally:
        handle.remove()
    return seen[0], result


def run(model: Any, network: Network, pixel_values: Tensor) -> Mapping[str, Tensor]:
    """Run a model whose architecture is not declared; return what it gives as single tensors."""
    options = transformers_sizes.asking(unasked_size(network), pixel_values)
    if network.head == CLASSIFIER:
        results: tuple[Any, ...] = classified(model, pixel_values, options)
    else:
        results = (model(pixel_values, **options),)
    found: dict[str, Tensor] = {}
    for result in results:
        for theirs, ours in _OUTPUTS.items():
            value = getattr(result, theirs, None)
            if isinstance(value, Tensor):
                found.setdefault(ours, value)
    return found


BEYOND = Beyond(
    knows=_knows,
    names=_names,
    head=_head,
    images=_images,
    stored=_stored,
    whole=lambda config: None,
    is_one_of_several=_is_one_of_several,
    spelled_out=_spelled_out,
    resized=transformers_sizes.resized_beyond,
    unasked_size=transformers_sizes.unasked_size,
)
