from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from examples import EXAMPLES
from torch import Tensor, nn

from vconv.catalog.systems import System
from vconv.convert import conversion
from vconv.convert.libraries.readers import family_of, network
from vconv.convert.patches import table
from vconv.convert.patches.base import Patch, Site, Undo, applied, find_sites
from vconv.convert.patches.table import PATCHES, called_for, named
from vconv.convert.sources.base import Source
from vconv.types import silent

Distance = Callable[[Any, Any], float]
Named = Callable[[Any, Tensor], dict[str, Tensor]]

EXPECTED = {
    "dinov3_vit": ["gelu-erf", "rope-periods", "qkv-bias"],
    "timm dinov3": ["gelu-erf", "rope-periods"],
    "dinov2": ["gelu-erf", "qkv-bias"],
    "timm dinov2": ["gelu-erf", "qkv-bias"],
    "vit": ["gelu-erf", "qkv-bias"],
}
"""The patches that the published networks need, by family."""

CASES = [(system.name, name) for system in EXAMPLES.values() for name in EXPECTED[family_of(system.config)]]
COUNTS = {
    "dinov3-vits16": {"gelu-erf": 12, "rope-periods": 1, "qkv-bias": 36},
    "vit_small_patch16_dinov3.lvd1689m": {"gelu-erf": 12, "rope-periods": 1},
    "dinov2-large": {"gelu-erf": 24, "qkv-bias": 72},
    "vit_small_patch14_reg4_dinov2.lvd142m": {"gelu-erf": 12, "qkv-bias": 12},
    "vit-base-patch16-224-in21k": {"gelu-erf": 12, "qkv-bias": 36},
}
"""Number of places that each patch must change in the published networks."""
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "query", "key", "value", "qkv")


def with_zero_biases(model: nn.Module) -> nn.Module:
    """Set every query, key and value bias to zero, as in the released DINOv3 files."""
    for name, parameter in model.named_parameters():
        if name.endswith(tuple(f"{part}.bias" for part in PROJECTIONS)):
            parameter.data.zero_()
    return model


def test_every_patch_is_listed_under_its_own_name() -> None:
    assert {name: patch.name for name, patch in PATCHES.items()} == {name: name for name in PATCHES}


def test_every_patch_has_a_reason_and_carriers(system: System) -> None:
    net = network(system.config)
    for patch in called_for(net):
        assert patch.reason
        assert "graph" in patch.carriers(net)
        assert len(set(patch.carriers(net))) == len(patch.carriers(net))


def test_a_patch_is_carried_by_the_configuration_or_by_loading_with_vconv(system: System) -> None:
    net = network(system.config)
    loaded = {patch.name for patch in called_for(net) if "vconv.load" in patch.carriers(net)}
    configured = {patch.name for patch in called_for(net) if "config" in patch.carriers(net)}
    assert loaded.isdisjoint(configured)
    assert loaded | configured == {patch.name for patch in called_for(net)}
    assert loaded == {
        name for name in EXPECTED[net.layout.family]
        if name == "rope-periods" or (name == "gelu-erf" and system.library == "timm")
    }  # fmt: skip


def test_the_architecture_decides_which_patches_are_needed(system: System) -> None:
    net = network(system.config)
    assert [patch.name for patch in called_for(net)] == EXPECTED[net.layout.family]


def test_the_published_networks_have_a_known_number_of_places(system: System) -> None:
    net = network(system.config)
    assert {patch.name: patch.expected(net) for patch in called_for(net)} == COUNTS[system.name]


def test_every_place_is_found_in_the_full_sized_stock_model(
    system: System, build: Callable[[Any], Any]
) -> None:
    net = network(system.config)
    with torch.device("meta"):
        model = build(system.config)
    assert {patch.name: len(find_sites(patch, model, net)) for patch in called_for(net)} == COUNTS[
        system.name
    ]


def test_every_patch_is_needed_by_a_system() -> None:
    assert {name for names in EXPECTED.values() for name in names} == set(PATCHES)


def test_named_keeps_the_tables_order() -> None:
    assert [patch.name for patch in named(reversed(list(PATCHES)))] == list(PATCHES)
    assert named([]) == []


@pytest.mark.parametrize("name", PATCHES)
def test_one_patch_is_found_by_its_name(name: str) -> None:
    assert named([name]) == [PATCHES[name]]


@pytest.mark.parametrize(("system", "name"), CASES, indirect=["system"])
def test_a_patch_is_counted_changes_its_places_and_is_undone(
    name: str,
    small_source: Source,
    stock: Callable[[Path], Any],
    named: Named,
    pixel_values: Tensor,
    distance: Distance,
    executed: Callable[[nn.Module, Tensor], Counter[str]],
) -> None:
    net, patch = small_source.network, PATCHES[name]
    model = with_zero_biases(stock(small_source.folder))
    state = {key: value.clone() for key, value in (*model.named_parameters(), *model.named_buffers())}
    before = executed(model, pixel_values)
    expected = named(model, pixel_values)["last_hidden_state"]
    with applied(model, net, [patch]) as found:
        moved = distance(named(model, pixel_values)["last_hidden_state"], expected)
    after = named(model, pixel_values)["last_hidden_state"]
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
    named: Named,
    pixel_values: Tensor,
) -> None:
    net, patch = small_source.network, PATCHES[name]
    model = with_zero_biases(stock(small_source.folder))
    modules = list(model.named_modules())
    expected = named(model, pixel_values)["last_hidden_state"]
    with pytest.raises(RuntimeError, match="inside"), applied(model, net, [patch]):
        raise RuntimeError("inside")
    assert torch.equal(named(model, pixel_values)["last_hidden_state"], expected)
    assert [(key, id(module)) for key, module in model.named_modules()] == [
        (key, id(module)) for key, module in modules
    ]


def test_all_patches_together_are_the_corrected_reference(
    small_source: Source,
    stock: Callable[[Path], Any],
    corrected: Callable[[Source], Any],
    named: Named,
    pixel_values: Tensor,
    distance: Distance,
) -> None:
    net = small_source.network
    model, reference = (
        with_zero_biases(make) for make in (stock(small_source.folder), corrected(small_source))
    )
    expected = named(reference, pixel_values)
    with applied(model, net, called_for(net)):
        found = named(model, pixel_values)
    assert list(found) == list(expected)
    assert max(distance(found[name], expected[name]) for name in expected) < 1e-5


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_a_new_patch_needs_one_row_and_is_counted_and_applied_while_graphs_are_traced(
    small_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []

    def apply() -> Undo:
        log.append("on")
        return lambda: log.append("off")

    toy = Patch(
        name="toy",
        reason="a test",
        corrective=False,
        carriers=lambda net: ("graph",),
        applies=lambda net: net.layout.family == "dinov3_vit",
        expected=lambda net: 1,
        sites=lambda model, net: [Site("norm", False, apply)],
    )
    monkeypatch.setattr(table, "PATCHES", {**PATCHES, "toy": toy})
    folder = tmp_path / "artifact"
    folder.mkdir()
    prepared = conversion.prepare(folder, small_source, silent).counted()
    assert [(each.patch.name, each.applied, each.sites) for each in prepared.decisions][-1] == (
        "toy",
        True,
        1,
    )
    conversion.export_graphs(folder, prepared, (64, 64), 1, 18, silent)
    assert log == ["on", "off"]
