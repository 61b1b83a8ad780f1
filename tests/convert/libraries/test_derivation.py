"""What is found of a network whose architecture is not declared, by one run without data."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import transformers
from torch import nn

from vconv.convert.libraries.derivation import Watch, integers_and_tied
from vconv.convert.libraries.readers import network
from vconv.convert.patches import gelu_calls
from vconv.convert.sources import module_recipe
from vconv.errors import WeightsError
from vconv.validators.checks import claims


class TwoBranches(nn.Module):
    """A network with a branch whose result nobody gets."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.kept, self.left = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.first(x)
        kept = self.kept(x)
        kept[:, :2].mul_(self.scale[:2])  # through a view
        return kept, self.left(x)


def test_only_tensors_that_a_result_depends_on_are_used() -> None:
    model = TwoBranches().requires_grad_(False)
    with Watch(dict(model.named_parameters())) as watch:
        kept, left = model(torch.ones(2, 4))
    main = {"first.weight", "first.bias", "kept.weight", "kept.bias", "scale"}
    assert watch.used_by([kept]) == main
    assert watch.used_by({"all": [kept, left]}) == main | {"left.weight", "left.bias"}


COAT: dict[str, Any] = dict(
    embed_dims=(64, 64, 64, 64),
    serial_depths=(1, 1, 1, 1),
    parallel_depth=1,
    num_heads=8,
    mlp_ratios=(1, 1, 1, 1),
)
"""A CoaT shares its position encodings between two kinds of block: two names, one tensor."""


@pytest.fixture
def coat() -> tuple[nn.Module, Any]:
    model = timm.create_model("coat_tiny", **COAT).eval().requires_grad_(False)
    settings = {"input_size": [3, 224, 224]}
    return model, network({"architecture": "coat_tiny", "model_args": COAT, "pretrained_cfg": settings})


def test_names_of_one_tensor_are_found_and_get_the_same_values(coat: tuple[nn.Module, Any]) -> None:
    model, net = coat
    state = model.state_dict(keep_vars=True)
    _, tied = integers_and_tied(net)
    assert tied
    assert all(state[name] is state[first] and name != first for name, first in tied.items())
    assert len({id(tensor) for tensor in state.values()}) == len(state) - len(tied)
    drawn = {one.name: b"".join(one.chunks()) for one in module_recipe.planned(net, 0) if "cpe1" in one.name}
    assert drawn
    for one in module_recipe.planned(net, 0):
        if tied.get(one.name) in drawn:
            assert b"".join(one.chunks()) == drawn[tied[one.name]]


def test_a_tensor_with_several_names_counts_as_one_parameter(coat: tuple[nn.Module, Any]) -> None:
    model, net = coat
    lines = [SimpleNamespace(target=key, proof="", shape=one.shape) for key, one in net.tensors().items()]
    evidence: Any = SimpleNamespace(artifact=SimpleNamespace(network=net, ledger=lines))
    counted = sum(math.prod(line.shape) for line in claims._of_parameters(evidence))
    assert counted == sum(parameter.numel() for parameter in model.parameters())
    assert counted < sum(math.prod(line.shape) for line in lines)


def test_a_search_for_gelus_leaves_a_module_with_two_names_its_tensors(coat: tuple[nn.Module, Any]) -> None:
    model, net = coat
    before = model.state_dict(keep_vars=True)
    assert sum(site.calls for site in gelu_calls.sites(model, net, nn.GELU(), False)) == net.gelus
    after = model.state_dict(keep_vars=True)
    assert all(after[name] is tensor for name, tensor in before.items())


def test_a_model_of_timm_in_the_wrapper_of_transformers_is_built_by_transformers() -> None:
    config = transformers.TimmWrapperConfig(architecture="resnet18", num_labels=2).to_dict()
    net = network(config)
    assert (net.library, net.layout.family) == ("transformers", "timm_wrapper")
    assert "timm_model.conv1.weight" in net.tensors()
    assert net.observed and net.observed.outputs == ("pooled", "last_hidden_state")


@pytest.mark.skipif("tipsv2_vision_model" not in transformers.CONFIG_MAPPING, reason="an older transformers")
def test_a_network_whose_stored_tensors_hold_several_is_refused() -> None:
    numbers = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    config = transformers.CONFIG_MAPPING["tipsv2_vision_model"](**numbers).to_dict()
    with pytest.raises(WeightsError, match="cannot be named one by one.*holds several tensors"):
        network(config)
