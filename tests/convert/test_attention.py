from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from vconv.convert import attention
from vconv.convert.sources import Source

Distance = Callable[[Any, Any], float]
FUSED = "scaled_dot_product"


def heads(seed: int) -> Tensor:
    return torch.randn(2, 3, 11, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_plain_attention_is_that_of_torch(distance: Distance) -> None:
    query, key, value = map(heads, range(3))
    found, weights = attention.plain_attention(nn.Module(), query, key, value, None, 0.7)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=0.7)
    assert found.shape == (2, 11, 3, 8)
    assert weights.shape == (2, 3, 11, 11)
    assert distance(found, expected.transpose(1, 2)) < 1e-14
    assert distance(weights.sum(-1), torch.ones(2, 3, 11)) < 1e-14


@pytest.mark.parametrize(("mask", "dropout"), [(torch.zeros(1), 0.0), (None, 0.1), (torch.zeros(1), 0.1)])
def test_a_mask_or_dropout_is_refused(mask: Tensor | None, dropout: float) -> None:
    with pytest.raises(ValueError, match="plain attention takes neither a mask nor dropout"):
        attention.plain_attention(nn.Module(), heads(0), heads(1), heads(2), mask, 1.0, dropout)


def test_a_model_computes_the_same_with_plain_attention(
    small_source: Source,
    stock: Callable[[Path], Any],
    pixel_values: Tensor,
    distance: Distance,
    executed: Callable[[nn.Module, Tensor], Counter[str]],
) -> None:
    model = stock(small_source.folder)
    with torch.no_grad():
        expected = model(pixel_values).last_hidden_state
        with attention.plain(model):
            found = model(pixel_values).last_hidden_state
            inside = executed(model, pixel_values)
        after = model(pixel_values).last_hidden_state
    assert 0 < distance(found, expected) < 1e-5
    assert torch.equal(after, expected)
    assert inside["_softmax"] == model.config.num_hidden_layers
    assert [name for name in inside if FUSED in name] == []


def test_a_model_gets_its_own_attention_back_after_an_error(
    small_source: Source,
    stock: Callable[[Path], Any],
    pixel_values: Tensor,
    executed: Callable[[nn.Module, Tensor], Counter[str]],
) -> None:
    model = stock(small_source.folder)
    before = executed(model, pixel_values)
    assert any(FUSED in name for name in before)
    with pytest.raises(RuntimeError, match="inside"), attention.plain(model):
        raise RuntimeError("inside")
    assert executed(model, pixel_values) == before
    assert attention.NAME not in ALL_ATTENTION_FUNCTIONS


def test_the_registry_is_left_as_it_was(small_source: Source, stock: Callable[[Path], Any]) -> None:
    before = dict(ALL_ATTENTION_FUNCTIONS)
    model = stock(small_source.folder)
    with attention.plain(model):
        assert ALL_ATTENTION_FUNCTIONS[attention.NAME] is attention.plain_attention
        assert model.config._attn_implementation == attention.NAME
    assert dict(ALL_ATTENTION_FUNCTIONS) == before
