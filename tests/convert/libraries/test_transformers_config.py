from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import transformers
from examples import EXAMPLES

from vconv.catalog.systems import SYSTEMS, System
from vconv.convert.architectures.base import ANY_SIZE, CLASSIFIER, GATED_MLP, PLAIN_MLP
from vconv.convert.libraries.readers import network
from vconv.errors import WeightsError

Refused = Callable[..., AbstractContextManager[None]]

TRANSFORMERS = [name for name, system in EXAMPLES.items() if system.library == "transformers"]
each = pytest.mark.parametrize("system", TRANSFORMERS, indirect=True)
NUMBERS = {
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels",
    "patch_size", "image_size",
}  # fmt: skip
CASES = [(name, key) for name in TRANSFORMERS for key in sorted(NUMBERS & set(SYSTEMS[name].config))]


@each
def test_numbers_are_those_of_transformers_own_configuration(small_system: System) -> None:
    stock: Any = transformers.AutoConfig.for_model(**small_system.config)
    numbers = network(small_system.config).numbers
    ratio = getattr(stock, "mlp_ratio", None)
    hidden = int(stock.hidden_size * ratio) if ratio else stock.intermediate_size
    sides = (numbers.channels, numbers.patch, numbers.image)
    assert sides == (stock.num_channels, stock.patch_size, (stock.image_size, stock.image_size))
    assert (numbers.hidden, numbers.width) == (hidden, stock.hidden_size)
    assert numbers.double_width == 2 * stock.hidden_size
    assert (numbers.rope_base, numbers.exact_gelu) == (getattr(stock, "rope_theta", None), True)
    learned = 1 + (stock.image_size // stock.patch_size) ** 2
    assert numbers.positions == (0 if numbers.rope_base else learned)


def test_only_vit_has_a_fixed_image_size_and_a_pooler() -> None:
    fixed = {name for name in TRANSFORMERS if ANY_SIZE not in network(SYSTEMS[name].config).numbers.flags}
    assert fixed == {"vit-base-patch16-224-in21k"}
    pooling = {name: network(SYSTEMS[name].config).numbers.pooling for name in TRANSFORMERS}
    assert pooling == {name: "pooler" if name in fixed else "cls" for name in TRANSFORMERS}


@pytest.mark.parametrize(
    ("act", "exact"), [("gelu", True), ("gelu_python", True), ("gelu_new", False), ("silu", False)]
)
@each
def test_only_the_exact_gelu_is_recognised_as_exact(system: System, act: str, exact: bool) -> None:
    assert network({**system.config, "hidden_act": act}).numbers.exact_gelu is exact


@pytest.mark.parametrize(
    ("name", "hidden"),
    [("dinov3-vits16plus", 1536), ("dinov3-vit7b16", 8192), ("dinov2-giant", 4096)],
)
def test_a_gated_mlp_has_the_published_number_of_hidden_channels(name: str, hidden: int) -> None:
    """Two thirds of 4 x 1536 channels, aligned to eight: 4096 (facebookresearch/dinov2, SwiGLUFFNFused)."""
    numbers = network(SYSTEMS[name].config).numbers
    assert (numbers.hidden, numbers.exact_gelu) == (hidden, False)
    assert {GATED_MLP, PLAIN_MLP} & numbers.flags == {GATED_MLP}


def test_a_gated_dinov2_has_silu_whatever_its_configuration_says() -> None:
    config = SYSTEMS["dinov2-giant"].config
    assert config["hidden_act"] == "gelu"
    assert network({**config, "hidden_act": "gelu_python"}).numbers.exact_gelu is False


def test_no_entry_of_a_configuration_sets_a_flag_of_the_architecture() -> None:
    config = {**SYSTEMS["dinov3-vits16"].config, GATED_MLP: True}
    assert {GATED_MLP, PLAIN_MLP} & network(config).numbers.flags == {PLAIN_MLP}


def test_a_convnext_needs_a_depth_for_every_width(refused: Refused) -> None:
    config = SYSTEMS["dinov3-convnext-tiny"].config
    for depths in ([3, 3, 9], [3, 3, 9, 0], 3, []):
        with refused(WeightsError, "config.json does not make sense", "depths"):
            network({**config, "depths": depths})


@pytest.mark.parametrize(("system", "key"), CASES, indirect=["system"])
def test_a_configuration_that_lacks_a_number_is_refused(system: System, key: str, refused: Refused) -> None:
    config = {name: value for name, value in system.config.items() if name != key}
    with refused(WeightsError, "config.json is incomplete", f"no {key}"):
        network(config)


@each
@pytest.mark.parametrize("value", [None, [16], [16, 16, 16], [16, "16"], "224", 0, True, -3, 16.0, 2_000])
def test_a_number_of_another_type_is_refused(system: System, value: object, refused: Refused) -> None:
    with refused(WeightsError, "config.json does not make sense", f"patch_size = {value!r}"):
        network({**system.config, "patch_size": value})


NONSENSE = [
    *(("dinov2-large", "mlp_ratio", value) for value in (None, "4", 0, -1.0, True, [4], math.nan, math.inf)),
    *(("dinov3-vits16", "rope_theta", value) for value in ("abc", 0, True, [], math.nan)),
    *((name, "num_register_tokens", value) for name in TRANSFORMERS for value in (None, "x", -1, 1.5)),
    *((name, "id2label", value) for name in TRANSFORMERS for value in (5, "x", ["a"])),
    *((name, "num_labels", value) for name in TRANSFORMERS for value in ("x", -1, 2.5)),
    *((name, "hidden_size", value) for name in TRANSFORMERS for value in (10**40, "x")),
]


@pytest.mark.parametrize(("system", "key", "value"), NONSENSE, indirect=["system"])
def test_an_invalid_value_is_refused_with_a_one_line_error(
    system: System, key: str, value: object, refused: Refused
) -> None:
    config = {name: kept for name, kept in system.config.items() if name != "id2label"}
    with refused(WeightsError, "config.json does not make sense", f"{key} = {value!r}"):
        network({**config, key: value})


@each
def test_a_configuration_cannot_set_the_flags_of_vconv(system: System) -> None:
    expected = network(system.config)
    found = network({**system.config, ANY_SIZE: True, CLASSIFIER: True})
    assert (found.head, found.numbers.flags) == (expected.head, expected.numbers.flags)


@each
def test_defaults_for_missing_values_are_those_of_transformers(
    system: System,
) -> None:
    """The numbers must be given; the library has defaults for all other values."""
    needed = {*NUMBERS, "model_type", "mlp_ratio", "num_register_tokens"}
    config = {key: value for key, value in system.config.items() if key in needed}
    spelled_out = transformers.AutoConfig.for_model(**config).to_dict()
    given, full = network(config), network(spelled_out)
    assert given.tensors() == full.tensors()
    assert (given.numbers.exact_gelu, given.numbers.rope_base, given.numbers.labels) == (
        full.numbers.exact_gelu, full.numbers.rope_base, full.numbers.labels,
    )  # fmt: skip


def vit(**more: object) -> dict[str, Any]:
    return {**SYSTEMS["vit-base-patch16-224-in21k"].config, **more}


@each
def test_a_size_may_be_two_numbers(system: System) -> None:
    """Every family takes square pairs; their network is the same as with one number."""
    side, patch = system.config["image_size"], system.config["patch_size"]
    found = network({**system.config, "image_size": [side, side], "patch_size": [patch, patch]})
    assert (found.numbers, found.tensors()) == (
        network(system.config).numbers,
        network(system.config).tensors(),
    )


def test_a_learned_position_embedding_may_be_for_an_image_that_is_not_square() -> None:
    numbers = network(vit(image_size=[64, 96])).numbers
    assert (numbers.image, numbers.positions) == ((64, 96), 1 + 4 * 6)


def test_a_position_embedding_that_is_resampled_must_be_square(refused: Refused) -> None:
    config = {**SYSTEMS["dinov2-large"].config, "image_size": [70, 56]}
    with refused(WeightsError, "image_size that is not square", "got image_size = [70, 56]"):
        network(config)


@each
def test_patches_that_are_not_square_are_refused(system: System, refused: Refused) -> None:
    with refused(WeightsError, "patches that are not square", "got patch_size = [16, 8]"):
        network({**system.config, "patch_size": [16, 8]})


EXCESS = [
    ("num_hidden_layers", 1_001), ("num_hidden_layers", 10**6), ("hidden_size", 65_537),
    ("num_attention_heads", 1_025), ("intermediate_size", 262_145), ("num_channels", 1_025),
    ("image_size", 8_193), ("patch_size", 1_025), ("num_labels", 1_000_001),
]  # fmt: skip
OTHERS = [
    ("dinov2-large", "mlp_ratio", 1_025),
    ("dinov3-vits16", "num_register_tokens", 4_097),
]
"""Excess in families that have such a number."""


@pytest.mark.parametrize(("key", "value"), EXCESS)
def test_a_number_that_no_network_comes_near_is_refused(key: str, value: int, refused: Refused) -> None:
    with refused(WeightsError, "does not make sense", f"got {key} = {value}", "to ", f"fix: give {key} as"):
        network(vit(**{key: value}))


@pytest.mark.parametrize(("name", "key", "value"), OTHERS)
def test_it_is_refused_in_families_that_alone_have_it(
    name: str, key: str, value: int, refused: Refused
) -> None:
    with refused(WeightsError, "does not make sense", f"got {key} = {value}", f"{value - 1}"):
        network({**SYSTEMS[name].config, key: value})
