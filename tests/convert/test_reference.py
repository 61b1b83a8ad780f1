from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vconv.convert import reference
from vconv.convert.layouts import network
from vconv.convert.patches import rope_periods
from vconv.convert.sources import Source

Distance = Callable[[Any, Any], float]

KNOWN = [
    1.0, 1.3359375, 1.78125, 2.375, 3.15625, 4.21875, 5.625, 7.5,
    10.0, 13.3125, 17.75, 23.75, 31.625, 42.25, 56.25, 75.0,
]  # fmt: skip
"""Periods of the released networks with heads of 64 channels: 100^(i / 16), eight significant bits each."""


def config_of(head_dim: int, theta: float = 100.0) -> dict[str, Any]:
    return {"hidden_size": 6 * head_dim, "num_attention_heads": 6, "rope_theta": theta}


def has_rope(source: Source) -> bool:
    return "rope_theta" in source.config


def test_periods_of_the_released_networks_are_known() -> None:
    assert reference.authors_periods(config_of(64)).tolist() == KNOWN
    assert rope_periods.periods(100.0, 64).tolist() == KNOWN


@pytest.mark.parametrize("head_dim", [32, 48, 64, 80, 96, 128])
@pytest.mark.parametrize("theta", [10.0, 100.0, 10000.0])
def test_periods_agree_with_the_patch_and_with_torch(head_dim: int, theta: float) -> None:
    found = reference.authors_periods(config_of(head_dim, theta))
    exact = torch.tensor([theta ** (index / (head_dim // 4)) for index in range(head_dim // 4)])
    assert found.dtype == np.float32
    assert found.tolist() == exact.to(torch.bfloat16).tolist()
    assert found.tolist() == rope_periods.periods(theta, head_dim).tolist()


def test_rounding_is_to_nearest_and_ties_to_even() -> None:
    """Two hidden periods: 1 and the square root of theta, chosen to lie halfway between two bfloat16."""
    for value, expected in ((1 + 2**-8, 1.0), (1 + 3 * 2**-8, 1 + 2**-6), (1 + 2**-8 + 2**-20, 1 + 2**-7)):
        assert reference.authors_periods(config_of(8, value**2)).tolist() == [1.0, expected]


def test_a_configuration_without_theta_means_one_hundred() -> None:
    config = config_of(64)
    del config["rope_theta"]
    assert reference.authors_periods(config).tolist() == KNOWN


def test_correcting_changes_one_buffer_and_nothing_else(
    small_source: Source, stock: Callable[[Path], Any]
) -> None:
    original, model = stock(small_source.folder), stock(small_source.folder)
    name = reference.correct(model, small_source.config)
    assert name == ("original + authors' periods" if has_rope(small_source) else "original")
    before, after = dict(original.named_buffers()), dict(model.named_buffers())
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert set(before) == set(after)
    assert changed == (["rope_embeddings.inv_freq"] if has_rope(small_source) else [])
    for key, parameter in original.named_parameters():
        assert torch.equal(parameter, model.get_parameter(key))
    if has_rope(small_source):
        wanted = 1 / torch.from_numpy(reference.authors_periods(small_source.config))
        assert torch.equal(model.rope_embeddings.inv_freq, wanted)
        assert not model.rope_embeddings._buffers.keys() - after.keys() - {"inv_freq", "original_inv_freq"}


def test_correcting_shows_at_the_output_of_a_network_with_rope_and_only_there(
    small_source: Source,
    stock: Callable[[Path], Any],
    corrected: Callable[[Source], Any],
    pixel_values: Tensor,
    distance: Distance,
) -> None:
    with torch.no_grad():
        before = stock(small_source.folder)(pixel_values).last_hidden_state
        after = corrected(small_source)(pixel_values).last_hidden_state
    assert (distance(after, before) > 1e-5) is has_rope(small_source)
    assert torch.equal(after, before) is not has_rope(small_source)


def test_the_reference_shares_no_code_with_the_patches() -> None:
    assert "vconv.convert.patches" not in inspect.getsource(reference)
    assert "bfloat16(" not in inspect.getsource(reference)


def test_every_family_with_a_corrective_patch_has_a_reference(small_source: Source) -> None:
    from vconv.convert.patches import table

    corrective = [patch for patch in table.called_for(network(small_source.config)) if patch.corrective]
    model = torch.nn.Module()
    model.rope_embeddings = torch.nn.Module()
    assert (reference.correct(model, small_source.config) != "original") is bool(corrective)
