"""The rule that draws image encoders, so that nobody picks them.

The modules of timm and the model types of transformers are put in the order of the hashes of their names,
and gone through until enough have given an encoder:

- a module of timm gives its smallest network; networks that only timm's own tests use are left out.
- a model type of transformers gives its model at the default size of its configuration, if it is an image
  encoder by transformers' own tables: it has a backbone or a head for image classification, or it is the
  image encoder of a model of images and text.

Each takes one tensor ``pixel_values`` of images in RGB: its library runs it on that alone. Each has at most
400 million parameters. Those whose architecture vconv declares are left out: the catalog has them.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from vconv.convert.libraries.readers import find_reader
from vconv.convert.libraries.transformers_beyond import BEYOND, VISION

COUNT = 80
MOST_PARAMETERS = 400_000_000
REFUSALS = (
    *(RuntimeError, NotImplementedError, AssertionError, ImportError),
    *(ValueError, TypeError, AttributeError, LookupError),
)
"""The exceptions of libraries that lack a package or cannot build a model from its defaults."""


def order(name: str) -> str:
    """Return a key that puts names in an order that nobody chose."""
    return hashlib.sha256(name.encode()).hexdigest()


def draw(count: int = COUNT) -> list[str]:
    """Return the names of the encoders: ``timm/NAME``, or ``transformers/TYPE``."""
    import timm
    import transformers

    kinds = [
        *((f"timm/{module}", partial(of_module, module)) for module in timm.list_modules()),
        *((f"transformers/{kind}", partial(of_type, kind)) for kind in transformers.CONFIG_MAPPING),
    ]
    found: list[str] = []
    for _, find in sorted(kinds, key=lambda kind: order(kind[0])):
        if len(found) < count and (name := find()):
            found.append(name)
    return found


def of_module(module: str) -> str | None:
    """Return the smallest network of a module of timm; None if none can be drawn."""
    import timm

    sizes = {}
    for name in timm.list_models(module=module):
        if name.startswith("test_") or find_reader({"architecture": name}):
            continue
        model = built(name, partial(timm.create_model, name))
        if model and takes_rgb(model):
            sizes[name] = parameters(model)
    smallest = min(sizes, key=lambda name: (sizes[name], name), default=None)
    return f"timm/{smallest}" if smallest and sizes[smallest] <= MOST_PARAMETERS else None


def of_type(kind: str) -> str | None:
    """Return the name of a model type of transformers; None if it cannot be drawn."""
    import transformers

    if find_reader({"model_type": kind}) or not BEYOND.knows(kind) or not encodes_images(kind):
        return None
    config = transformers.CONFIG_MAPPING[kind]
    model = built(kind, lambda: transformers.AutoModel.from_config(config()))
    drawn = model and parameters(model) <= MOST_PARAMETERS and runs(config())
    return f"transformers/{kind}" if drawn else None


def runs(config: Any) -> bool:
    """Return whether transformers runs the model of a configuration on an image alone."""
    import transformers

    image = torch.zeros(1, *BEYOND.images(config.to_dict()))
    try:
        with torch.inference_mode():
            transformers.AutoModel.from_config(config).eval()(pixel_values=image)
    except REFUSALS as error:
        print(f"{config.model_type}: not drawn, it does not run on an image: {error}", file=sys.stderr)
        return False
    return True


def encodes_images(kind: str) -> bool:
    """Return whether transformers says that a model type is an image encoder."""
    import transformers
    from transformers.models.auto import modeling_auto as tables

    listed = (tables.MODEL_FOR_BACKBONE_MAPPING_NAMES, tables.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)
    part = getattr(transformers.CONFIG_MAPPING[kind], "base_config_key", "")
    return part == VISION or any(kind in names for names in listed)


def built(name: str, make: Callable[[], nn.Module]) -> nn.Module | None:
    """Build a model without data; None if its library cannot, for example without a further package."""
    try:
        with torch.device("meta"):
            return make()
    except REFUSALS as error:
        print(f"{name}: not drawn, its library does not build it: {error}", file=sys.stderr)
        return None


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def takes_rgb(model: Any) -> bool:
    return tuple((model.pretrained_cfg or {}).get("input_size", (3,)))[:1] == (3,)
