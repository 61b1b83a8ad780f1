"""What is found of a network whose architecture is not declared, by one run without data."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import transformers
from torch import nn

import vconv
from vconv.convert.libraries import models, widening
from vconv.convert.libraries.derivation import integers_and_tied
from vconv.convert.libraries.readers import network
from vconv.convert.libraries.watch import Watch
from vconv.convert.patches import gelu_calls
from vconv.convert.sources import module_recipe
from vconv.convert.sources.recipes.table import LATEST
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
    drawn = {
        one.name: b"".join(one.chunks())
        for one in module_recipe.planned(net, 0, LATEST)
        if "cpe1" in one.name
    }
    assert drawn
    for one in module_recipe.planned(net, 0, LATEST):
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
class TestATensorThatItsLibraryDivides:
    @pytest.fixture
    def config(self) -> Any:
        numbers = dict(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
        )
        return transformers.CONFIG_MAPPING["tipsv2_vision_model"](**numbers).to_dict()

    def test_is_one_tensor_of_the_layout(self, config: Any) -> None:
        net = network(config)
        assert net.tensors()["blocks.0.attn.qkv.weight"].shape == (96, 32)
        layer = "encoder.layer.0.attention"
        assert net.divided()["blocks.0.attn.qkv.weight"] == {
            f"{layer}.{name}_proj.weight": 32 for name in ("q", "k", "v")
        }

    def test_is_exported_and_agrees_with_the_library(self, config: Any, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.mkdir()
        (source / "config.json").write_text(json.dumps(config))
        vconv.export(str(source), "synthetic", tmp_path / "made")
        assert vconv.validate(tmp_path / "made", quick=True, budget=1.0).status == "passed"

    def test_takes_mapped_weights(self, config: Any, tmp_path: Path, monkeypatch: Any) -> None:
        found = []
        for greatest in (2**40, 0):
            monkeypatch.setattr(widening, "GREATEST_WIDENED", greatest)
            found.append(self._run(config, tmp_path / str(greatest)))
        assert torch.allclose(*found, atol=1e-5)  # one computes attention with a fused operator

    def _run(self, config: Any, folder: Path) -> torch.Tensor:
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        net = network(config)
        drawn = {key: module_recipe.draw(tensor, 0) for key, tensor in net.tensors().items()}
        tensors = {name: torch.from_numpy(value).bfloat16() for name, value in drawn.items()}
        safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        with torch.inference_mode():
            return models.Outputs(models.load(folder, net), net)(torch.ones(1, 3, 28, 28))[0]

    def test_is_refused_if_what_it_becomes_are_not_its_rows(self, config: Any, monkeypatch: Any) -> None:
        from transformers import core_model_loading

        stock = core_model_loading.revert_weight_conversion

        def mixed(model: nn.Module, state: Any) -> Any:
            found = stock(model, state)
            return {
                key: value.repeat_interleave(2, 0) if len(state) > 1 else value
                for key, value in found.items()
            }

        monkeypatch.setattr(core_model_loading, "revert_weight_conversion", mixed)
        with pytest.raises(WeightsError, match="cannot be named one by one.*and not as its rows"):
            network({**config, "num_hidden_layers": 2})
