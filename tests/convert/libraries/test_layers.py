"""Outputs of single blocks are those that the stock libraries themselves give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from examples import EXAMPLES
from timm.utils import AttentionExtract
from torch import Tensor

from vconv.catalog.systems import SYSTEMS, System, miniature
from vconv.convert.architectures.outputs import meanings, output_names
from vconv.convert.libraries import models
from vconv.convert.libraries.readers import network
from vconv.convert.sources.asked_outputs import asking
from vconv.convert.sources.base import Source
from vconv.convert.sources.table import Request, open_source

WITH_BLOCKS = [name for name, system in EXAMPLES.items() if not network(system.config).stages]
with_blocks = pytest.mark.parametrize("system", WITH_BLOCKS, indirect=True)
KINDS = ("feature_map", "cls", "patches", "tokens", "raw_feature_map", "raw_tokens", "attention")
BACKBONES = {
    "dinov2": "Dinov2Backbone",
    "dinov2_with_registers": "Dinov2WithRegistersBackbone",
    "dinov3_vit": "DINOv3ViTBackbone",
}


def ours(source: Source, asked: tuple[str, ...], images: Tensor) -> dict[str, Tensor]:
    net = asking(source.network, asked)
    outputs = models.Outputs(models.load(source.folder, net), net)
    with torch.no_grad():
        return dict(zip(output_names(net), outputs(images), strict=True))


def by_timm(folder: Path, images: Tensor, blocks: list[int]) -> dict[str, Tensor]:
    """Return what timm's own functions give, without any code of vconv."""
    model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    places, found = [block - 1 for block in blocks], {}
    with torch.no_grad():
        for norm, raw in ((True, ""), (False, "raw_")):
            options: dict[str, Any] = {"indices": places, "norm": norm, "intermediates_only": True}
            grids = model.forward_intermediates(images, output_fmt="NCHW", **options)
            tokens = model.forward_intermediates(
                images, output_fmt="NLC", return_prefix_tokens=True, **options
            )
            for block, grid, (patches, prefix) in zip(blocks, grids, tokens, strict=True):
                found |= {f"{raw}feature_map_{block}": grid, f"{raw}patches_{block}": patches}
                found |= {f"{raw}cls_{block}": prefix[:, 0]}
                found |= {f"{raw}tokens_{block}": torch.cat([prefix, patches], dim=1)}
        for block in model.blocks:
            block.attn.fused_attn = False  # as TIMM_FUSED_ATTN=0 does
        extract: Any = AttentionExtract(model, method="hook")
        maps = extract(images)
    return found | {f"attention_{block}": maps[f"blocks.{block - 1}.attn.attn_drop"] for block in blocks}


def by_transformers(folder: Path, images: Tensor, blocks: list[int]) -> dict[str, Tensor]:
    """Return what transformers itself gives for hidden states and eager attention."""
    model: Any = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        result = model(images, output_hidden_states=True, output_attentions=True)
        norm = next(getattr(model, name) for name in ("layernorm", "norm") if hasattr(model, name))
        first = 1 + getattr(model.config, "num_register_tokens", 0)
        side = model.config.patch_size
        rows, columns = images.shape[2] // side, images.shape[3] // side
        found = {}
        for block in blocks:
            for raw, tokens in (
                ("", norm(result.hidden_states[block])),
                ("raw_", result.hidden_states[block]),
            ):
                patches = tokens[:, first:]
                grid = patches.reshape(len(images), rows, columns, -1).permute(0, 3, 1, 2)
                found |= {f"{raw}feature_map_{block}": grid, f"{raw}patches_{block}": patches}
                found |= {f"{raw}cls_{block}": tokens[:, 0], f"{raw}tokens_{block}": tokens}
    return found | {f"attention_{block}": result.attentions[block - 1] for block in blocks}


@with_blocks
def test_every_kind_of_output_is_the_librarys(
    small_source: Source, pixel_values: Tensor, distance: Any
) -> None:
    blocks = [1, small_source.network.blocks]
    library = {"timm": by_timm, "transformers": by_transformers}[small_source.network.library]
    expected = library(small_source.folder, pixel_values, blocks)
    asked = tuple(f"{kind}_{block}" for kind in KINDS for block in blocks)
    found = ours(small_source, asked, pixel_values)
    assert tuple(found) == asked
    for name in asked:
        assert distance(found[name], expected[name]) < 1e-5, name


@pytest.mark.parametrize(
    "system", [name for name in WITH_BLOCKS if "model_type" in EXAMPLES[name].config], indirect=True
)
def test_feature_maps_are_those_of_the_stock_backbone(
    system: System, small_source: Source, pixel_values: Tensor, distance: Any
) -> None:
    factory = getattr(transformers, BACKBONES.get(system.config["model_type"], ""), None)
    if factory is None:
        pytest.skip("this version of transformers has no backbone of this family")
    stages = list(range(small_source.network.blocks + 1))
    for norm, raw in ((True, ""), (False, "raw_")):
        stock = factory.from_pretrained(small_source.folder, out_indices=stages, apply_layernorm=norm).eval()
        with torch.no_grad():
            expected = stock(pixel_values).feature_maps
        asked = tuple(f"{raw}feature_map_{stage}" for stage in stages)
        found = ours(small_source, asked, pixel_values)
        for name, one in zip(asked[: -1 if raw else None], expected, strict=False):
            # DINOv3's backbone normalises the last stage in either case.
            assert distance(found[name], one) < 1e-5, name


@with_blocks
def test_a_network_that_is_asked_for_nothing_has_no_hook(small_source: Source, pixel_values: Tensor) -> None:
    outputs = models.Outputs(models.load(small_source.folder, small_source.network), small_source.network)
    assert outputs.layers is None
    asked = replace(small_source.network, asked=("cls", "feature_map_1", "attention_1"))
    read = models.Outputs(models.load(small_source.folder, asked), asked)
    with torch.no_grad():
        read(pixel_values)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in read.model.modules())


@pytest.mark.parametrize(
    "name",
    ["dinov3-convnext-tiny", "convnext_tiny.dinov3_lvd1689m"],
)
def test_stages_of_a_convnext_are_those_of_the_stock_library(
    name: str, tmp_path: Path, distance: Any
) -> None:
    source = open_source(Request(miniature(SYSTEMS[name]), "synthetic:1"), tmp_path)
    side = 2 * source.network.numbers.patch
    images = torch.randn(2, 3, side, side + 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        if source.network.library == "timm":
            options: dict[str, Any] = dict(features_only=True, out_indices=[0, 1, 2, 3], pretrained=True)
            expected = timm.create_model(f"local-dir:{source.folder}", **options).eval()(images)
        else:
            whole: Any = transformers.AutoModel.from_pretrained(source.folder).eval()
            expected = whole(images, output_hidden_states=True).hidden_states[-4:]
    for kind in ("feature_map", "raw_feature_map"):
        asked = tuple(f"{kind}_{number}" for number in (1, 2, 3, 4))
        found = ours(source, asked, images)
        for output, value in zip(asked, expected, strict=True):
            assert found[output].shape == value.shape
            assert distance(found[output], value) < 1e-5, output
    assert set(meanings(asking(source.network, ("feature_map_2",))).values()) == {
        "the feature map after stage 2 of 4, without the final norm"
    }
