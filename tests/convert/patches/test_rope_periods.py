from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from vconv.catalog import SYSTEMS
from vconv.convert import reference
from vconv.convert.layouts import network
from vconv.convert.patches.base import applied, find_sites
from vconv.convert.patches.rope_periods import PATCH, of, periods
from vconv.convert.sources import Source
from vconv.errors import PatchError

Refused = Callable[..., AbstractContextManager[None]]
Distance = Callable[[Any, Any], float]

ROPE = [name for name, system in SYSTEMS.items() if "rope_theta" in system.config]
with_rope = pytest.mark.parametrize("system", ROPE, indirect=True)


def test_only_networks_with_rope_call_for_it(small_source: Source) -> None:
    family = small_source.config["model_type"]
    assert PATCH.applies(network(small_source.config)) is family.startswith("dinov3")


@with_rope
def test_the_librarys_default_theta_calls_for_it(small_source: Source) -> None:
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


@with_rope
def test_periods_follow_the_configuration(small_source: Source) -> None:
    config = {**small_source.config, "rope_theta": 37.0, "num_attention_heads": 3}
    expected = torch.tensor([37.0 ** (index / 8) for index in range(8)]).bfloat16().float()
    assert torch.equal(of(network(config)), expected)


@with_rope
def test_a_patched_model_is_the_corrected_reference_bit_for_bit(
    small_source: Source,
    stock: Callable[[Path], Any],
    corrected: Callable[[Source], Any],
    pixel_values: Tensor,
    distance: Distance,
) -> None:
    model, net, expected = stock(small_source.folder), network(small_source.config), corrected(small_source)
    with torch.no_grad(), applied(model, net, [PATCH]) as found:
        assert torch.equal(model.rope_embeddings.inv_freq, expected.rope_embeddings.inv_freq)
        assert torch.equal(model(pixel_values)[0], expected(pixel_values)[0])
    assert [(each.sites, each.carried) for each in found] == [(1, 0)]


@with_rope
def test_stock_loading_does_not_carry_it(small_source: Source, stock: Callable[[Path], Any]) -> None:
    sites = find_sites(PATCH, stock(small_source.folder), network(small_source.config))
    assert [(site.name, site.done) for site in sites] == [("rope_embeddings", False)]


@with_rope
def test_a_corrected_model_has_it_already(small_source: Source, corrected: Callable[[Source], Any]) -> None:
    model = corrected(small_source)
    before = model.rope_embeddings.inv_freq
    with applied(model, network(small_source.config), [PATCH]) as found:
        assert model.rope_embeddings.inv_freq is before
    assert [each.carried for each in found] == [1]


@with_rope
def test_the_buffer_stays_a_buffer_and_stays_out_of_the_checkpoint(
    small_source: Source, stock: Callable[[Path], Any]
) -> None:
    model = stock(small_source.folder)
    keys, before = list(model.state_dict()), model.rope_embeddings.inv_freq
    with applied(model, network(small_source.config), [PATCH]):
        assert "rope_embeddings.inv_freq" in dict(model.named_buffers())
        assert list(model.state_dict()) == keys
    assert model.rope_embeddings.inv_freq is before
    assert list(model.state_dict()) == keys


@with_rope
def test_a_model_without_data_gets_real_periods(small_source: Source) -> None:
    net = network(small_source.config)
    with torch.device("meta"):
        model: nn.Module = transformers.AutoModel.from_config(
            transformers.AutoConfig.for_model(**small_source.config)
        )
    with applied(model, net, [PATCH]) as found:
        buffer = model.get_buffer("rope_embeddings.inv_freq")
        assert not buffer.is_meta
        assert torch.equal(buffer, 1 / torch.from_numpy(reference.authors_periods(small_source.config)))
    assert [each.carried for each in found] == [0]
    assert model.get_buffer("rope_embeddings.inv_freq").is_meta


@with_rope
@pytest.mark.parametrize("places", [0, 2])
def test_another_number_of_buffers_is_refused(
    small_source: Source, stock: Callable[[Path], Any], refused: Refused, places: int
) -> None:
    model = stock(small_source.folder)
    if places:
        model.extra = nn.Module()
        model.extra.register_buffer("inv_freq", model.rope_embeddings.inv_freq.clone())
    else:
        del model.rope_embeddings.inv_freq
    with (
        refused(PatchError, "the patch rope-periods does not fit", f"{places} places", "expected 1,"),
        applied(model, network(small_source.config), [PATCH]),
    ):
        pytest.fail("the patch was applied")


@with_rope
def test_a_buffer_of_another_shape_is_refused(
    small_source: Source, stock: Callable[[Path], Any], refused: Refused
) -> None:
    model = stock(small_source.folder)
    model.rope_embeddings.inv_freq = model.rope_embeddings.inv_freq[:-1]
    with (
        refused(PatchError, "the patch rope-periods does not fit", "0 places"),
        applied(model, network(small_source.config), [PATCH]),
    ):
        pytest.fail("the patch was applied")
