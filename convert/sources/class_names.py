"""The names of the classes of a published classifier.

The catalog names the set of classes, such as ``imagenet-1k``. timm has the names of these sets: WordNet's
lemmas, in the order of the classes. Configurations of the hubs have the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vconv.catalog.systems import System


def _transformers(names: Sequence[str], descriptions: Sequence[str]) -> dict[str, Any]:
    return {
        "id2label": {str(index): name for index, name in enumerate(descriptions)},
        "label2id": {name: index for index, name in enumerate(descriptions)},
    }


def _timm(names: Sequence[str], descriptions: Sequence[str]) -> dict[str, Any]:
    return {
        "label_names": list(names),
        "label_descriptions": dict(zip(names, descriptions, strict=True)),
    }


_ENTRIES: Mapping[str, Callable[[Sequence[str], Sequence[str]], dict[str, Any]]] = {
    "transformers": _transformers,
    "timm": _timm,
}
"""By library: the entries of its ``config.json`` that name the classes."""


def published_config(system: System) -> dict[str, Any]:
    """Return the published ``config.json`` of a system, with the names of a classifier's classes."""
    if not system.classes:
        return dict(system.config)
    from timm.data import imagenet_info

    info: Any = imagenet_info.ImageNetInfo(system.classes)
    entries = _ENTRIES[system.library](info.label_names(), info.label_descriptions())
    # transformers counts the names.
    return {name: value for name, value in system.config.items() if name != "num_labels"} | entries
