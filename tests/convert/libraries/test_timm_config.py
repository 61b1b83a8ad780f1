from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import timm
import torch
from examples import EXAMPLES
from timm.layers import GluMlp
from torch._subclasses.fake_tensor import FakeTensor

from vconv.catalog.systems import SYSTEMS, System
from vconv.convert.architectures.base import ANY_SIZE, GATED_MLP, PLAIN_MLP
from vconv.convert.libraries import timm_config, timm_described
from vconv.convert.libraries.readers import network
from vconv.errors import WeightsError

Refused = Callable[..., AbstractContextManager[None]]

TIMM = [name for name, system in EXAMPLES.items() if system.library == "timm"]
each = pytest.mark.parametrize("system", TIMM, indirect=True)
DINOV2 = "vit_small_patch14_reg4_dinov2"


def with_arguments(system: System, **arguments: Any) -> dict[str, Any]:
    return {**system.config, "model_args": {**system.config.get("model_args", {}), **arguments}}


@each
def test_numbers_are_those_of_the_published_network(system: System) -> None:
    numbers = network(system.config).numbers
    third = "dinov3" in system.name
    assert (numbers.width, numbers.hidden, numbers.blocks, numbers.heads) == (384, 1536, 12, 6)
    assert (numbers.channels, numbers.registers, numbers.labels) == (3, 4, 0)
    assert (numbers.patch, numbers.image) == ((16, (256, 256)) if third else (14, (518, 518)))
    assert numbers.positions == (0 if third else 37 * 37)
    assert (numbers.rope_base, numbers.pooling) == ((100.0, "avg") if third else (None, "cls"))
    assert numbers.exact_gelu
    assert (ANY_SIZE in numbers.flags) is third


@each
def test_numbers_follow_the_model_arguments(system: System) -> None:
    config = with_arguments(system, embed_dim=96, depth=3, num_heads=2, mlp_ratio=2, img_size=112)
    numbers = network(config).numbers
    assert (numbers.width, numbers.hidden, numbers.blocks, numbers.heads) == (96, 192, 3, 2)
    assert numbers.image == (112, 112)


@each
@pytest.mark.parametrize(
    ("pool", "expected"), [("token", "cls"), ("avg", "avg"), ("max", "max"), ("avgmax", "avgmax")]
)
def test_poolings_have_vconvs_names_or_timms_names(system: System, pool: str, expected: str) -> None:
    assert network(with_arguments(system, global_pool=pool)).numbers.pooling == expected


def test_another_rope_base_is_read_from_the_model() -> None:
    system = SYSTEMS["vit_small_patch16_dinov3.lvd1689m"]
    assert network(with_arguments(system, rope_temperature=37.0)).numbers.rope_base == 37.0


@pytest.mark.parametrize(
    ("architecture", "hidden"),
    [
        ("vit_small_plus_patch16_dinov3", 1536),
        ("vit_huge_plus_patch16_dinov3", 5120),
        ("vit_7b_patch16_dinov3", 8192),
        ("vit_giant_patch14_dinov2", 4096),
        ("vit_giant_patch14_reg4_dinov2", 4096),
    ],
)
def test_the_hidden_channels_of_a_gated_mlp_are_those_of_its_gate(architecture: str, hidden: int) -> None:
    config = {"architecture": architecture, "pretrained_cfg": {}, "model_args": {"depth": 1}}
    numbers = network(config).numbers
    assert (numbers.hidden, numbers.exact_gelu) == (hidden, False)
    assert {GATED_MLP, PLAIN_MLP} & numbers.flags == {GATED_MLP}


def test_a_gated_mlp_with_the_gate_last_is_refused(refused: Refused) -> None:
    with refused(WeightsError, "config.json asks for an MLP that vconv does not know", "GluMlp"):
        timm_config._mlp(GluMlp(8, 16))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"conv_mlp": True}, "MLPs of linear layers"),
        ({"use_grn": True}, "no response norm"),
        ({"kernel_sizes": 5}, "depthwise convolutions of 7x7"),
        ({"ls_init_value": None}, "LayerScale"),
        ({"head_norm_first": True}, "a norm after the pooling"),
        ({"stem_type": "overlap"}, "a stem of patches"),
        ({"global_pool": "max"}, "pooling by the mean"),
        ({"head_hidden_size": 8}, "no layer before the classifier"),
        ({"output_stride": 16}, "a stride of 32"),
    ],
)
def test_a_convnext_of_another_form_is_refused(
    arguments: dict[str, Any], expected: str, refused: Refused
) -> None:
    small = {"dims": [16, 24, 48, 96], "depths": [1, 1, 1, 1]}
    config = {"architecture": "convnext_tiny", "pretrained_cfg": {}, "model_args": {**small, **arguments}}
    config["num_classes"] = 5
    with refused(WeightsError, "asks for a ConvNeXt of another form", expected):
        network(config)


@pytest.mark.parametrize("act", ["gelu_tanh", "quick_gelu", "silu", "relu"])
def test_only_the_exact_gelu_is_recognised_as_exact(act: str) -> None:
    system = SYSTEMS[f"{DINOV2}.lvd142m"]
    assert not network(with_arguments(system, act_layer=act, depth=1)).numbers.exact_gelu


def test_an_exact_gelu_that_the_configuration_names_is_recognised() -> None:
    system = SYSTEMS[f"{DINOV2}.lvd142m"]
    assert network(with_arguments(system, act_layer="gelu", depth=1)).numbers.exact_gelu


@each
@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [({"nonsense": 1}, "TypeError"), ({"img_size": "x"}, "Error")],
)
def test_a_configuration_that_timm_cannot_build_is_refused(
    system: System, arguments: dict[str, Any], fragment: str, refused: Refused
) -> None:
    with refused(WeightsError, "timm cannot make the model", fragment, "the cause is not known", "timm"):
        network(with_arguments(system, **arguments))


@each
@pytest.mark.parametrize(
    ("arguments", "got"),
    [({"depth": 10**6}, "depth = 1000000"), ({"embed_dim": 10**7}, "embed_dim = 10000000"),
     ({"img_size": [64, 10**6]}, "img_size = [64, 1000000]"), ({"depth": 1001}, "depth = 1001"),
     ({"embed_dim": -(10**7)}, "embed_dim = -10000000")],
)  # fmt: skip
def test_a_number_that_no_network_comes_near_is_refused_before_timm_sees_it(
    system: System, arguments: dict[str, Any], got: str, refused: Refused
) -> None:
    with refused(WeightsError, "does not make sense", f"got {got}", "expected at most"):
        network(with_arguments(system, **arguments))


@each
def test_as_many_classes_as_a_large_data_set_has_are_read(system: System, refused: Refused) -> None:
    assert network({**system.config, "num_classes": 100_000}).numbers.labels == 100_000
    with refused(WeightsError, "does not make sense", "got num_classes = 1000001", "at most 1000000"):
        network({**system.config, "num_classes": 1_000_001})


@pytest.mark.parametrize("act", ["mish", "prelu", "hard_mish"])
def test_an_activation_that_cannot_be_exported_is_refused(act: str, refused: Refused) -> None:
    with refused(WeightsError, "activation that cannot be exported", "in the MLP", "GELUTanh"):
        network(with_arguments(SYSTEMS[f"{DINOV2}.lvd142m"], act_layer=act, depth=1))


def test_an_architecture_that_timm_does_not_have_is_refused(refused: Refused) -> None:
    with refused(WeightsError, "timm cannot make the model", "vit_odd_dinov3"):
        network({"architecture": "vit_odd_dinov3", "pretrained_cfg": {}})


def test_reading_a_configuration_draws_no_random_numbers_and_allocates_no_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Any] = []
    stock = timm.create_model
    timm_config._read.cache_clear()
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: made.append(stock(*a, **k)) or made[-1])  # type: ignore[func-returns-value]
    state = torch.random.get_rng_state()
    network({"architecture": "vit_large_patch16_dinov3", "pretrained_cfg": {}})
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(isinstance(value.data, FakeTensor) for value in made[0].parameters())


def test_timm_builds_one_model_per_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: list[int] = []
    stock = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: built.append(1) or stock(*a, **k))  # type: ignore[func-returns-value]
    timm_config._read.cache_clear()
    config = {"architecture": "vit_small_patch16_dinov3", "model_args": {"depth": 2}, "pretrained_cfg": {}}
    first = network(config).numbers
    assert network(dict(reversed(config.items()))).numbers == first
    assert len(built) == 1
    assert network({**config, "model_args": {"depth": 3}}).numbers.blocks == 3 != first.blocks
    assert len(built) == 2


def test_a_caller_may_change_the_returned_preprocessing() -> None:
    config = {"architecture": "vit_small_patch16_dinov3", "pretrained_cfg": {}}
    timm_described.preprocessing(config)["mean"] = "changed"
    assert timm_described.preprocessing(config)["mean"] != "changed"


@each
def test_reading_a_configuration_leaves_it_as_it_was(system: System) -> None:
    before = repr(system.config)
    network(system.config)
    assert repr(system.config) == before


def test_a_legacy_configuration_in_one_dictionary_is_read(refused: Refused) -> None:
    """timm before 0.9 wrote the entries of ``pretrained_cfg`` at the top level."""
    system = SYSTEMS[f"{DINOV2}.lvd142m"]
    legacy = {"architecture": DINOV2, **system.config["pretrained_cfg"]}
    assert network(legacy).tensors() == network(system.config).tensors()
