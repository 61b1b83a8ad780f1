"""Weights of another system are refused with the name of the system that they are of."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace

import pytest

from vconv.catalog.systems import SYSTEMS
from vconv.convert.libraries.readers import network
from vconv.convert.sources.nearest import nearest
from vconv.convert.sources.recognised import recognised
from vconv.convert.weights.recognition import Fit, Shapes
from vconv.errors import WeightsError

Refused = Callable[..., AbstractContextManager[None]]
TABLE = [
    ("dinov2-small", "dinov3-vits16", "dinov2-small in the layout of transformers"),
    ("vit_small_patch16_dinov3.lvd1689m", "dinov2-small", "dinov3-vits16 in the layout of timm"),
    ("dinov2-base", "dinov2-small", "dinov2-base in the layout of transformers"),
    ("dinov2-small", "dinov2-with-registers-small", "dinov2-small in the layout of transformers"),
    ("vit-large-patch16-224", "dinov2-small", "vit-large-patch16-224 in the layout of transformers"),
    ("dinov3-convnext-tiny", "dinov3-vits16", "dinov3-convnext-tiny in the layout of transformers"),
]
"""The system that weights are of, the one that they are given for, and what is said."""


def shapes_of(name: str) -> Shapes:
    net = network(SYSTEMS[name].config)
    return {net.stored_key(tensor): tensor.shape for tensor in net.tensors().values()}


def open_as(asked: str, shapes: Shapes) -> Fit | None:
    """Recognise weights without a configuration beside them, given for a system."""
    entries = {key: SimpleNamespace(shape=shape) for key, shape in shapes.items()}
    config = dict(SYSTEMS[asked].config)
    return recognised(config, entries, None, True, None)[1]  # type: ignore[arg-type]


@pytest.mark.parametrize(("given", "asked", "told"), TABLE)
def test_the_system_that_weights_are_of_is_named_with_their_layout(
    given: str, asked: str, told: str, refused: Refused
) -> None:
    with refused(
        WeightsError, "of another system", f"nearest is {told} |", f"fix: export {told.split()[0]} "
    ):
        open_as(asked, shapes_of(given))


def test_a_few_tensors_that_differ_are_counted(refused: Refused) -> None:
    shapes = dict(shapes_of("dinov2-small"))
    del shapes["layernorm.weight"]
    with refused(WeightsError, "nearest is dinov2-small", "transformers; 1 tensor of it differs"):
        open_as("dinov3-vits16", shapes)


def test_what_is_near_to_no_system_is_refused_by_the_layouts_of_its_own(refused: Refused) -> None:
    shapes = {f"a.name.{number}": (2, 3) for number in range(9)}
    assert nearest(shapes) is None
    with refused(WeightsError, "fits no known layout of this network"):
        open_as("vit-base-patch16-224", shapes)


def test_weights_without_the_registers_of_their_configuration_are_refused_by_that(refused: Refused) -> None:
    sizes = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    without = network({**SYSTEMS["dinov2-small"].config, **sizes})
    shapes = {without.stored_key(tensor): tensor.shape for tensor in without.tensors().values()}
    entries = {key: SimpleNamespace(shape=shape) for key, shape in shapes.items()}
    config = {**SYSTEMS["dinov2-with-registers-small"].config, **sizes}
    with refused(WeightsError, "differs in its registers", "no registers", "the 4 registers of config.json"):
        recognised(config, entries, None, False, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["dinov2-small", "dinov3-vits16"])
def test_its_own_weights_are_not_of_another_system(name: str) -> None:
    assert open_as(name, shapes_of(name)) is None
