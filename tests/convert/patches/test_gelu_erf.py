from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from examples import EXAMPLES
from torch import Tensor, nn
from transformers.activations import GELUActivation

from vconv.catalog.systems import System
from vconv.convert.libraries.readers import network
from vconv.convert.libraries.transformers_config import EXACT_GELU
from vconv.convert.patches.base import applied, find_sites
from vconv.convert.patches.gelu_erf import PATCH, GeluErf, gelu_erf
from vconv.convert.sources.base import Source
from vconv.errors import PatchError

Refused = Callable[..., AbstractContextManager[None]]
Executed = Callable[[nn.Module, Tensor], Counter[str]]
Distance = Callable[[Any, Any], float]
Named = Callable[[Any, Tensor], dict[str, Tensor]]

GRID = torch.linspace(-12, 12, 240_001, dtype=torch.float64)
TRANSFORMERS = [name for name, system in EXAMPLES.items() if system.library == "transformers"]
TIMM = [name for name in EXAMPLES if name not in TRANSFORMERS]
by_transformers = pytest.mark.parametrize("system", TRANSFORMERS, indirect=True)
by_timm = pytest.mark.parametrize("system", TIMM, indirect=True)
by_dinov2 = pytest.mark.parametrize("system", ["dinov2-large"], indirect=True)
NEW_NAMES = int(transformers.__version__.split(".")[0]) >= 5


def exact(x: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x, approximate="none")


def tanh_form(x: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x, approximate="tanh")


def gelus(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """Find the activations of a stock model, under the names of any version of the library."""
    return [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, (GELUActivation, nn.GELU))
    ]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_it_is_the_exact_gelu_on_a_grid(dtype: torch.dtype) -> None:
    x = GRID.to(dtype)
    found = gelu_erf(x)
    limit = 4 * torch.finfo(dtype).eps * x.abs().clamp(min=1.0)
    assert found.dtype == dtype
    assert bool(((found - exact(x)).abs() <= limit).all())
    assert bool(((found.double() - exact(x.double())).abs() <= limit).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    x = GRID.to(dtype)
    found = gelu_erf(x)
    assert found.dtype == dtype
    assert torch.equal(found, gelu_erf(x.float()).to(dtype))
    step = torch.finfo(dtype).eps
    difference = (found.float() - exact(x.float())).abs()
    assert bool((difference <= step * exact(x.float()).abs() + 1e-6).all())


def test_it_is_not_the_tanh_form() -> None:
    difference = (gelu_erf(GRID) - tanh_form(GRID)).abs()
    assert float(difference.max()) == pytest.approx(4.73e-4, rel=2e-3)
    assert float(GRID[difference.argmax()].abs()) == pytest.approx(2.70, abs=0.02)


def test_the_module_runs_erf_and_no_gelu(executed: Executed) -> None:
    x = torch.randn(2, 3, 4)
    assert torch.equal(GeluErf()(x), gelu_erf(x))
    counts = executed(GeluErf(), x)
    assert counts["erf"] == 1
    assert counts["gelu"] == 0


def test_the_module_multiplies_by_the_inverse_root_and_does_not_divide(executed: Executed) -> None:
    counts = executed(GeluErf(), torch.randn(2, 3, 4))
    assert (counts["div"], counts["mul"]) == (0, 3)


def test_a_graph_is_traced_from_the_module_even_if_the_configuration_carries_the_patch(
    small_source: Source, stock: Callable[[Path], Any], pixel_values: Tensor, executed: Executed
) -> None:
    net, path = small_source.network, small_source.folder / "config.json"
    path.write_text(json.dumps(PATCH.edit_config(net, dict(small_source.config))))
    model = stock(small_source.folder)
    with applied(model, net, [PATCH.traced()]) as found:
        assert sum(isinstance(module, GeluErf) for module in model.modules()) == net.blocks
        assert executed(model, pixel_values)["erf"] == net.blocks
    assert [(each.sites, each.carried) for each in found] == [(net.blocks, 0)]
    assert not any(isinstance(module, GeluErf) for module in model.modules())


def test_a_patched_model_runs_erf_in_every_block_and_no_gelu(
    small_source: Source, stock: Callable[[Path], Any], pixel_values: Tensor, executed: Executed
) -> None:
    model, net = stock(small_source.folder), small_source.network
    assert executed(model, pixel_values)["gelu"] == net.blocks
    with applied(model, net, [PATCH]) as found:
        counts = executed(model, pixel_values)
    assert (counts["gelu"], counts["erf"]) == (0, net.blocks)
    assert [(each.sites, each.carried) for each in found] == [(net.blocks, 0)]


@by_transformers
@pytest.mark.parametrize("act", EXACT_GELU)
def test_the_configuration_alone_makes_stock_transformers_run_erf(
    small_source: Source, stock: Callable[[Path], Any], pixel_values: Tensor, executed: Executed,
    distance: Distance, act: str,
) -> None:  # fmt: skip
    path = small_source.folder / "config.json"
    with torch.no_grad():
        expected = stock(small_source.folder)(pixel_values).last_hidden_state
    net = small_source.network
    path.write_text(json.dumps(PATCH.edit_config(net, {**small_source.config, "hidden_act": act})))
    model = stock(small_source.folder)
    counts = executed(model, pixel_values)
    assert (counts["gelu"], counts["erf"]) == (0, net.blocks)
    with torch.no_grad():
        assert distance(model(pixel_values).last_hidden_state, expected) < 1e-5
    assert [site.done for site in find_sites(PATCH, model, net)] == [True] * net.blocks


def test_the_tanh_form_changes_the_output(
    small_source: Source, stock: Callable[[Path], Any], named: Named, pixel_values: Tensor, distance: Distance
) -> None:
    model = stock(small_source.folder)
    expected = named(model, pixel_values)["last_hidden_state"]
    for parent, name in gelus(model):
        setattr(parent, name, nn.GELU(approximate="tanh"))
    assert distance(named(model, pixel_values)["last_hidden_state"], expected) > 3e-5


@pytest.mark.skipif(not NEW_NAMES, reason="transformers 4 still has the old names")
@pytest.mark.parametrize("system", ["vit-base-patch16-224-in21k"], indirect=True)
@pytest.mark.parametrize("remembered", ["activation", "intermediate_act_fn", "act"])
def test_assigning_an_outdated_attribute_name_has_no_effect(
    small_source: Source,
    stock: Callable[[Path], Any],
    pixel_values: Tensor,
    executed: Executed,
    remembered: str,
) -> None:
    model, net = stock(small_source.folder), small_source.network
    for layer in model.layers:
        setattr(layer.mlp, remembered, GeluErf())
    counts = executed(model, pixel_values)
    assert (counts["gelu"], counts["erf"]) == (net.blocks, 0)
    with applied(model, net, [PATCH]):
        assert executed(model, pixel_values)["gelu"] == 0


class OneOperator(nn.Module):
    """Replaces ``torch_npu.npu_gelu(x, approximate="none")``: an operator that no other code runs."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * torch.erfc(-x / math.sqrt(2.0))


def published_change(model: Any, replacement: Callable[[], nn.Module]) -> None:
    """Change a model in the same way as a published adaptation of dinov2-large to Ascend NPUs."""
    for layer in model.encoder.layer:
        layer.mlp.activation = replacement()


@by_dinov2
@pytest.mark.skipif(not NEW_NAMES, reason="transformers 4 still has the old names")
@pytest.mark.parametrize("replacement", [OneOperator, GeluErf])
def test_the_published_change_of_dinov2_does_nothing_in_transformers_5_and_the_patch_changes_every_block(
    small_source: Source,
    stock: Callable[[Path], Any],
    pixel_values: Tensor,
    executed: Executed,
    replacement: Callable[[], nn.Module],
) -> None:
    model, net = stock(small_source.folder), small_source.network
    before = executed(model, pixel_values)
    published_change(model, replacement)
    assert executed(model, pixel_values) == before
    assert (before["gelu"], before["erf"], before["erfc"]) == (net.blocks, 0, 0)
    with applied(model, net, [PATCH]):
        patched = executed(model, pixel_values)
    assert (patched["gelu"], patched["erf"]) == (0, net.blocks)


@by_dinov2
@pytest.mark.skipif(NEW_NAMES, reason="transformers 5 reads another name")
def test_the_published_change_of_dinov2_reached_every_block_in_transformers_4(
    small_source: Source, stock: Callable[[Path], Any], pixel_values: Tensor, executed: Executed
) -> None:
    model, net = stock(small_source.folder), small_source.network
    published_change(model, OneOperator)
    changed = executed(model, pixel_values)
    assert (changed["gelu"], changed["erfc"]) == (0, net.blocks)


def test_a_model_with_one_activation_replaced_is_refused(
    small_source: Source, stock: Callable[[Path], Any], refused: Refused
) -> None:
    model, net = stock(small_source.folder), small_source.network
    parent, name = gelus(model)[1]
    setattr(parent, name, nn.ReLU())
    fragments = ("the patch gelu-erf does not fit", f"{net.blocks - 1} places", f"expected {net.blocks},")
    with refused(PatchError, *fragments, type(model).__name__), applied(model, net, [PATCH]):
        pytest.fail("the patch was applied")
    assert len(gelus(model)) == net.blocks - 1


def test_a_model_with_an_additional_activation_is_refused(
    small_source: Source, stock: Callable[[Path], Any], refused: Refused
) -> None:
    model, net = stock(small_source.folder), small_source.network
    model.extra = nn.GELU()
    with refused(PatchError, f"{net.blocks + 1} places"), applied(model, net, [PATCH]):
        pytest.fail("the patch was applied")


def test_a_tanh_gelu_in_the_model_is_not_taken_for_an_exact_one(
    small_source: Source, stock: Callable[[Path], Any], refused: Refused
) -> None:
    model, net = stock(small_source.folder), small_source.network
    parent, name = gelus(model)[0]
    setattr(parent, name, nn.GELU(approximate="tanh"))
    with refused(PatchError, "gelu-erf"), applied(model, net, [PATCH]):
        pytest.fail("an equivalent patch changed the form of a GELU")


@by_transformers
@pytest.mark.parametrize("act", ["silu", "relu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu"])
def test_another_activation_does_not_need_the_patch(small_source: Source, act: str) -> None:
    assert not PATCH.applies(network({**small_source.config, "hidden_act": act}))


@by_transformers
def test_the_librarys_default_activation_needs_the_patch(small_source: Source) -> None:
    config = {key: value for key, value in small_source.config.items() if key != "hidden_act"}
    assert transformers.AutoConfig.for_model(**config).hidden_act == "gelu"
    assert PATCH.applies(network(config))


@by_transformers
def test_in_transformers_the_configuration_carries_the_patch(system: System) -> None:
    net = network(system.config)
    assert PATCH.carriers(net) == ("config", "graph")
    before = dict(system.config)
    assert PATCH.edit_config(net, before) == {**system.config, "hidden_act": "gelu_python"}
    assert before == dict(system.config)


@by_timm
def test_in_timm_the_graphs_and_loading_carry_the_patch_and_the_configuration_stays(system: System) -> None:
    net = network(system.config)
    assert PATCH.carriers(net) == ("graph", "vconv.load")
    assert PATCH.edit_config(net, dict(system.config)) == dict(system.config)


@by_timm
def test_a_full_sized_timm_model_runs_twelve_patched_gelus_and_is_restored(
    system: System, build: Callable[[Any], Any], executed: Executed
) -> None:
    net, size = network(system.config), (2 * network(system.config).numbers.patch,) * 2
    arguments = {"img_size": size, **system.config.get("model_args", {})}
    model = build({**system.config, "model_args": arguments})
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    own = [module for module in model.modules() if isinstance(module, nn.GELU)]
    with applied(model, net, [PATCH]) as found:
        counts = executed(model, images)
        assert [module for module in model.modules() if isinstance(module, nn.GELU)] == []
    assert [(each.sites, each.carried) for each in found] == [(12, 0)]
    assert (counts["gelu"], counts["erf"]) == (0, 12)
    after = executed(model, images)
    assert (after["gelu"], after["erf"]) == (12, 0)
    again = [module for module in model.modules() if isinstance(module, nn.GELU)]
    assert list(map(id, again)) == list(map(id, own))


@pytest.mark.parametrize("system", ["vit_small_patch14_reg4_dinov2.lvd142m"], indirect=True)
@pytest.mark.parametrize("act", ["gelu_tanh", "silu"])
def test_another_activation_in_timm_does_not_need_the_patch(system: System, act: str) -> None:
    config = {**system.config, "model_args": {"act_layer": act, "depth": 1}}
    assert not PATCH.applies(network(config))


def test_a_network_that_cannot_be_built_from_the_edited_configuration_is_patched_elsewhere() -> None:
    numbers = dict(depths=[1, 1, 1, 1], embed_dims=[8, 16, 16, 16], image_size=64)
    net = network(transformers.SwiftFormerConfig(**numbers).to_dict())
    assert PATCH.applies(net)
    assert PATCH.carriers(net) == ("graph", "vconv.load")
