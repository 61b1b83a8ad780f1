"""transformers' backbones: classes that return feature maps after the blocks that a configuration names.

A backbone has the weights of the plain model; that of a ConvNeXt lacks the final norm. ``out_features`` or
``out_indices`` name its stages: the stem, which is the tokens before the first block, and a stage for each
block. The stages of a ConvNeXt are its own, and its stem is the image itself, which is no output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vconv.convert.architectures.base import BACKBONE, Numbers
from vconv.convert.architectures.layer_outputs import CLS, FEATURE_MAP, PATCHES, RAW, TOKENS, named
from vconv.convert.network import Network
from vconv.errors import WeightsError
from vconv.types import Config

_STEM, _STAGE = "stem", "stage"


@dataclass(frozen=True)
class Backbone:
    """A class of backbones.

    Args:
        name: its name in transformers.
        last_is_normed: whether its last stage has the final norm even if the configuration asks for none.
        flat: the kind of output that its feature maps are if they are not reshaped into a grid.
        gives_cls: whether it can return the class token of each stage too.
        normed: whether it has the final norm, if the configuration does not refuse it.
    """

    name: str
    last_is_normed: bool = False
    flat: str = TOKENS
    gives_cls: bool = False
    normed: bool = True


BACKBONES: Mapping[str, Backbone] = {
    "dinov2": Backbone("Dinov2Backbone"),
    "dinov2_with_registers": Backbone("Dinov2WithRegistersBackbone"),
    "dinov3_convnext": Backbone("DINOv3ConvNextBackbone", flat=FEATURE_MAP, normed=False),
    "dinov3_vit": Backbone("DINOv3ViTBackbone", last_is_normed=True, flat=PATCHES, gives_cls=True),
}
"""The backbones that are exported, by family."""


def asks_for_backbone(config: Config, family: str) -> bool:
    """Return whether a configuration names the class of a backbone."""
    return family in BACKBONES and config.get("architectures") == [BACKBONES[family].name]


def is_backbone(network: Network) -> bool:
    """Return whether a network is a backbone, whose class returns feature maps."""
    return not network.observed and BACKBONE in network.numbers.flags


def outputs_of(config: Config, family: str, numbers: Numbers) -> tuple[str, ...]:
    """Return the names of the outputs that a backbone's configuration asks for, in the order of all outputs.

    Raises:
        WeightsError: it names a stage that the network has not.
    """
    backbone = BACKBONES[family]
    grid = config.get("reshape_hidden_states", True)
    kinds = [FEATURE_MAP if grid else backbone.flat]
    if backbone.gives_cls and config.get("return_class_token"):
        kinds.append(CLS)
    count = len(numbers.stages) or numbers.blocks
    stages = _stages(config, count, first=min(1, len(numbers.stages)))

    def name(kind: str, stage: int) -> str:
        forced = backbone.last_is_normed and stage == count
        normed = not backbone.normed or config.get("apply_layernorm", True) or forced
        return named(kind if normed else RAW + kind, stage)

    from vconv.convert.architectures.outputs import place_of

    return tuple(sorted((name(kind, stage) for kind in kinds for stage in stages), key=place_of))


def _stages(config: Config, count: int, first: int) -> list[int]:
    """Return the numbers of the stages that a configuration names; the last one if it names none."""
    names = [_STEM, *(f"{_STAGE}{number}" for number in range(1, count + 1))]
    features, indices = config.get("out_features"), config.get("out_indices")
    if features is None and indices is None:
        return [count]
    by_name = None if features is None else _places(features, {name: at for at, name in enumerate(names)})
    places = {at: at % len(names) for at in range(-len(names), len(names))}
    by_index = None if indices is None else _places(indices, places)
    found = by_name if by_index is None else by_index
    if (
        not found
        or found[0] < first
        or (by_name is not None and by_index is not None and by_name != by_index)
    ):
        raise WeightsError(
            "config.json names stages that the backbone has not",
            got=f"out_features = {features!r:.120}, out_indices = {indices!r:.120}",
            expected=f"{', '.join(names[first:2])} to {names[-1]}, or {first} to {count}; the same in both",
            fix="correct out_features, and remove out_indices",
        )
    return found


def _places(given: Any, known: Mapping[Any, int]) -> list[int]:
    """Return the stages of a list in their order; none if it is no list of known ones, each once."""
    if not isinstance(given, list | tuple) or not all(type(one) in (str, int) for one in given):
        return []
    found = sorted({known[one] for one in given if one in known})
    return found if len(found) == len(given) else []


def named_maps(network: Network, result: Any) -> dict[str, Any]:
    """Return the tensors that a backbone returned, by the names of its outputs."""
    of_cls = [name for name in network.asked if name.removeprefix(RAW).startswith(f"{CLS}_")]
    maps = [name for name in network.asked if name not in of_cls]
    by_stage = sorted(maps, key=_stage_of), sorted(of_cls, key=_stage_of)
    found = dict(zip(by_stage[0], result.feature_maps, strict=True))
    return found | dict(zip(by_stage[1], result.cls_tokens if of_cls else (), strict=True))


def _stage_of(name: str) -> int:
    return int(name.rpartition("_")[2])
