from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vconv.catalog import SYSTEMS, System
from vconv.convert.layouts import network
from vconv.convert.patches.base import applied
from vconv.convert.patches.table import PATCHES, called_for, named
from vconv.convert.sources import Source

Distance = Callable[[Any, Any], float]

EXPECTED = {
    "dinov3_vit": ["gelu-erf", "rope-periods", "qkv-bias"],
    "vit": ["gelu-erf", "qkv-bias"],
}
"""By family, what the published networks call for."""

CASES = [(system.name, name) for system in SYSTEMS.values() for name in EXPECTED[system.config["model_type"]]]


PROJECTIONS = ("q_proj", "k_proj", "v_proj", "query", "key", "value")


def with_zero_biases(model: nn.Module) -> nn.Module:
    """Set every query, key and value bias to zero, as the released DINOv3 files have them."""
    for name, parameter in model.named_parameters():
        if name.endswith(tuple(f"{part}.bias" for part in PROJECTIONS)):
            parameter.data.zero_()
    return model


def test_every_patch_is_listed_under_its_own_name() -> None:
    assert {name: patch.name for name, patch in PATCHES.items()} == {name: name for name in PATCHES}


def test_every_patch_says_why_and_how_it_travels() -> None:
    for patch in PATCHES.values():
        assert patch.reason
        assert patch.carriers
        assert len(set(patch.carriers)) == len(patch.carriers)


def test_only_a_corrective_patch_needs_vconv_to_load_it() -> None:
    for patch in PATCHES.values():
        assert ("vconv.load" in patch.carriers) is patch.corrective
        assert ("config" in patch.carriers) is not patch.corrective


def test_a_patch_is_called_for_by_the_architecture(system: System) -> None:
    names = [patch.name for patch in called_for(network(system.config))]
    assert names == EXPECTED[system.config["model_type"]]


def test_every_patch_is_called_for_by_some_system() -> None:
    assert {name for names in EXPECTED.values() for name in names} == set(PATCHES)


def test_named_keeps_the_tables_order() -> None:
    assert [patch.name for patch in named(reversed(list(PATCHES)))] == list(PATCHES)
    assert named([]) == []


@pytest.mark.parametrize("name", PATCHES)
def test_one_patch_is_found_by_its_name(name: str) -> None:
    assert named([name]) == [PATCHES[name]]


@pytest.mark.parametrize(("system", "name"), CASES, indirect=["system"])
def test_a_patch_is_counted_changes_what_it_says_and_is_undone(
    name: str,
    small_source: Source,
    stock: Callable[[Path], Any],
    pixel_values: Tensor,
    distance: Distance,
    executed: Callable[[nn.Module, Tensor], Counter[str]],
) -> None:
    net, patch = network(small_source.config), PATCHES[name]
    model = with_zero_biases(stock(small_source.folder))
    state = {key: value.clone() for key, value in (*model.named_parameters(), *model.named_buffers())}
    before = executed(model, pixel_values)
    with torch.no_grad():
        expected = model(pixel_values).last_hidden_state
        with applied(model, net, [patch]) as found:
            moved = distance(model(pixel_values).last_hidden_state, expected)
        after = model(pixel_values).last_hidden_state
    assert [(each.patch, each.sites) for each in found] == [(name, patch.expected(net))]
    assert (1e-5 < moved < 0.1) if patch.corrective else moved < 1e-5
    assert torch.equal(after, expected)
    assert executed(model, pixel_values) == before
    again = dict((*model.named_parameters(), *model.named_buffers()))
    assert list(again) == list(state)
    assert [key for key in state if not torch.equal(again[key], state[key])] == []


@pytest.mark.parametrize(("system", "name"), CASES, indirect=["system"])
def test_a_patch_is_undone_when_an_error_is_raised_inside(
    name: str,
    small_source: Source,
    stock: Callable[[Path], Any],
    pixel_values: Tensor,
) -> None:
    net, patch = network(small_source.config), PATCHES[name]
    model = with_zero_biases(stock(small_source.folder))
    modules = list(model.named_modules())
    with torch.no_grad():
        expected = model(pixel_values).last_hidden_state
        with pytest.raises(RuntimeError, match="inside"), applied(model, net, [patch]):
            raise RuntimeError("inside")
        assert torch.equal(model(pixel_values).last_hidden_state, expected)
    assert [(key, id(module)) for key, module in model.named_modules()] == [
        (key, id(module)) for key, module in modules
    ]


def test_all_patches_together_are_the_corrected_reference(
    small_source: Source,
    stock: Callable[[Path], Any],
    corrected: Callable[[Source], Any],
    pixel_values: Tensor,
    distance: Distance,
) -> None:
    net = network(small_source.config)
    model, reference = (
        with_zero_biases(make) for make in (stock(small_source.folder), corrected(small_source))
    )
    with torch.no_grad(), applied(model, net, called_for(net)):
        found, expected = model(pixel_values), reference(pixel_values)
        assert distance(found.last_hidden_state, expected.last_hidden_state) < 1e-5
        assert distance(found.pooler_output, expected.pooler_output) < 1e-5
