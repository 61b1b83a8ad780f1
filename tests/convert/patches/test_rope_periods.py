from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from vconv.catalog.systems import System
from vconv.convert.libraries import corrections
from vconv.convert.libraries.readers import network
from vconv.convert.patches.base import applied, find_sites
from vconv.convert.patches.rope_periods import PATCH, of, periods
from vconv.convert.sources.base import Source
from vconv.errors import PatchError

Refused = Callable[..., AbstractContextManager[None]]
Distance = Callable[[Any, Any], float]

Named = Callable[[Any, Tensor], dict[str, Tensor]]

PLACES = {"dinov3-vits16": "rope_embeddings.inv_freq", "vit_small_patch16_dinov3.lvd1689m": "rope.periods"}
"""The buffer that holds the periods in each library."""
with_rope = pytest.mark.parametrize("system", PLACES, indirect=True)
in_transformers = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
in_timm = pytest.mark.parametrize("system", ["vit_small_patch16_dinov3.lvd1689m"], indirect=True)


@pytest.fixture
def place(system: System) -> str:
    """Name of the buffer that holds the periods."""
    return PLACES[system.name]


@pytest.fixture
def fixed(small_source: Source) -> Source:
    """A timm network for one image size, which computes its position embedding once and caches it."""
    arguments = {**small_source.config["model_args"], "dynamic_img_size": False}
    config = {**small_source.config, "model_args": arguments}
    (small_source.folder / "config.json").write_text(json.dumps(config))
    return replace(small_source, config=config)


def wanted(place: str, head_dim: int, base: float = 100.0) -> Tensor:
    """The right contents of a buffer, rounded with NumPy."""
    exact = torch.from_numpy(corrections.authors_periods(base, head_dim))
    return 1 / exact if place.endswith("inv_freq") else exact


def test_only_networks_with_rope_need_the_patch(system: System) -> None:
    net = network(system.config)
    assert PATCH.applies(net) is (system.name in PLACES)
    assert PATCH.carriers(net) == ("graph", "vconv.load")


@in_transformers
def test_the_librarys_default_theta_needs_the_patch(small_source: Source) -> None:
    config = {key: value for key, value in small_source.config.items() if key != "rope_theta"}
    assert transformers.AutoConfig.for_model(**config).rope_theta == 100.0
    assert PATCH.applies(network(config))


def test_periods_are_bfloat16_numbers_in_float32() -> None:
    found = periods(100.0, 64)
    assert found.dtype == torch.float32
    assert found.shape == (16,)
    assert torch.equal(found, found.bfloat16().float())
    exact = torch.tensor([100.0 ** (index / 16) for index in range(16)])
    assert float((found / exact - 1).abs().max()) < 2**-8
    assert not torch.equal(found, exact)


@in_transformers
def test_periods_follow_the_configuration(small_source: Source) -> None:
    config = {**small_source.config, "rope_theta": 37.0, "num_attention_heads": 3}
    expected = torch.tensor([37.0 ** (index / 8) for index in range(8)]).bfloat16().float()
    assert torch.equal(of(network(config)), expected)


@in_timm
def test_periods_follow_the_model_arguments(small_source: Source) -> None:
    arguments = {**small_source.config["model_args"], "rope_temperature": 37.0, "num_heads": 3}
    expected = torch.tensor([37.0 ** (index / 8) for index in range(8)]).bfloat16().float()
    assert torch.equal(of(network({**small_source.config, "model_args": arguments})), expected)


@with_rope
def test_a_patched_model_is_the_corrected_reference_bit_for_bit(
    small_source: Source,
    stock: Callable[[Path], Any],
    corrected: Callable[[Source], Any],
    named: Named,
    pixel_values: Tensor,
    place: str,
) -> None:
    model, expected = stock(small_source.folder), corrected(small_source)
    outputs = named(expected, pixel_values)
    with applied(model, small_source.network, [PATCH]) as found:
        assert torch.equal(model.get_buffer(place), expected.get_buffer(place))
        for name, value in named(model, pixel_values).items():
            assert torch.equal(value, outputs[name]), name
    assert [(each.sites, each.carried) for each in found] == [(1, 0)]


@with_rope
def test_stock_loading_does_not_carry_the_patch(
    small_source: Source, stock: Callable[[Path], Any], place: str
) -> None:
    sites = find_sites(PATCH, stock(small_source.folder), small_source.network)
    assert [(site.name, site.done) for site in sites] == [(place.split(".")[0], False)]


@with_rope
def test_a_corrected_model_has_the_change_already(
    small_source: Source, corrected: Callable[[Source], Any], place: str
) -> None:
    model = corrected(small_source)
    before = model.get_buffer(place)
    with applied(model, small_source.network, [PATCH]) as found:
        assert model.get_buffer(place) is before
    assert [each.carried for each in found] == [1]


@with_rope
def test_the_buffer_stays_a_buffer_and_stays_out_of_the_checkpoint(
    small_source: Source, stock: Callable[[Path], Any], place: str
) -> None:
    model = stock(small_source.folder)
    keys, before = list(model.state_dict()), model.get_buffer(place)
    with applied(model, small_source.network, [PATCH]):
        assert place in dict(model.named_buffers())
        assert not torch.equal(model.get_buffer(place), before)
        assert list(model.state_dict()) == keys
    assert model.get_buffer(place) is before
    assert list(model.state_dict()) == keys


@with_rope
def test_a_model_without_data_gets_real_periods(
    small_source: Source, build: Callable[[Any], Any], place: str
) -> None:
    net = small_source.network
    with torch.device("meta"):
        model = build(small_source.config)
    with applied(model, net, [PATCH]) as found:
        buffer = model.get_buffer(place)
        assert not buffer.is_meta
        assert torch.equal(buffer, wanted(place, net.head_dim))
    assert [each.carried for each in found] == [0]
    assert model.get_buffer(place).is_meta


@in_timm
def test_the_cache_of_a_network_with_fixed_size_is_recomputed_and_restored(
    fixed: Source,
    small_source: Source,
    stock: Callable[[Path], Any],
    corrected: Callable[[Source], Any],
    named: Named,
    pixel_values: Tensor,
    distance: Distance,
) -> None:
    model, expected = stock(fixed.folder), corrected(fixed)
    kept, before = model.rope.pos_embed_cached.clone(), named(model, pixel_values)
    with applied(model, fixed.network, [PATCH]) as found:
        inside = model.rope.pos_embed_cached.clone()
        patched = named(model, pixel_values)
    assert [(each.sites, each.carried) for each in found] == [(1, 0)]
    assert 1e-4 < distance(inside, kept) < 0.1
    assert torch.equal(inside, expected.rope.pos_embed_cached)
    assert 1e-5 < distance(patched["patches"], before["patches"]) < 0.1
    outputs = named(expected, pixel_values)
    assert max(distance(patched[name], outputs[name]) for name in outputs) < 1e-6
    assert torch.equal(model.rope.pos_embed_cached, kept)
    assert "rope.pos_embed_cached" not in model.state_dict()
    for name, value in named(model, pixel_values).items():
        assert torch.equal(value, before[name]), name


@in_timm
def test_patched_networks_with_fixed_and_dynamic_size_agree(
    small_source: Source, stock: Callable[[Path], Any], named: Named, pixel_values: Tensor, tmp_path: Path
) -> None:
    arguments = {**small_source.config["model_args"], "dynamic_img_size": False}
    config = {**small_source.config, "model_args": arguments}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(small_source.folder / "model.safetensors")
    outputs = []
    for folder, net in ((small_source.folder, small_source.network), (tmp_path, network(config))):
        model = stock(folder)
        with applied(model, net, [PATCH]):
            outputs.append(named(model, pixel_values)["last_hidden_state"])
    assert torch.equal(*outputs)


@with_rope
@pytest.mark.parametrize("places", [0, 2])
def test_another_number_of_buffers_is_refused(
    small_source: Source, stock: Callable[[Path], Any], refused: Refused, place: str, places: int
) -> None:
    model, (module, key) = stock(small_source.folder), place.split(".")
    if places:
        model.extra = nn.Module()
        model.extra.register_buffer(key, model.get_buffer(place).clone())
    else:
        delattr(model.get_submodule(module), key)
    with (
        refused(PatchError, "the patch rope-periods does not fit", f"{places} places", "expected 1,"),
        applied(model, small_source.network, [PATCH]),
    ):
        pytest.fail("the patch was applied")


@with_rope
def test_a_buffer_of_another_shape_is_refused(
    small_source: Source, stock: Callable[[Path], Any], refused: Refused, place: str
) -> None:
    model, (module, key) = stock(small_source.folder), place.split(".")
    setattr(model.get_submodule(module), key, model.get_buffer(place)[:-1])
    with (
        refused(PatchError, "the patch rope-periods does not fit", "0 places"),
        applied(model, small_source.network, [PATCH]),
    ):
        pytest.fail("the patch was applied")
