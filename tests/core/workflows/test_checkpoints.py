"""Checkpoints that differ from the published ones, exported and compared with their stock models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import timm
import torch
import transformers
from timm.models import _hub

from vconv.artifact import manifest
from vconv.workflows import export as workflows

SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TIMM = {"embed_dim": 64, "depth": 2, "num_heads": 2, "img_size": 64}


@dataclass(frozen=True)
class Case:
    """A checkpoint: its system, its stock model, the size of its images, and how it is laid on disk."""

    system: str
    make: Callable[[], Any]
    outputs: tuple[str, ...]
    size: tuple[int, int] = (64, 64)
    lay: Callable[[Any, Path], None] = lambda model, folder: model.save_pretrained(folder)


def vit(**more: Any) -> Any:
    config = transformers.ViTConfig(**{**SMALL, "intermediate_size": 128, "image_size": 64, **more})
    return transformers.ViTModel(config, add_pooling_layer=False)


def dinov2(**more: Any) -> Any:
    return transformers.Dinov2Model(
        transformers.Dinov2Config(**{**SMALL, "patch_size": 16, "image_size": 64, **more})
    )


def dinov3(**more: Any) -> Any:
    return transformers.DINOv3ViTModel(
        transformers.DINOv3ViTConfig(**SMALL, intermediate_size=128, image_size=64, **more)
    )


def compiled_and_wide(model: Any, folder: Path) -> None:
    """Save what torch.compile and DataParallel make of the names, in float64."""
    model.config.save_pretrained(folder)
    state = {f"module._orig_mod.{name}": value.double() for name, value in model.state_dict().items()}
    torch.save({"model": state}, folder / "pytorch_model.bin")


def by_timm(model: Any, folder: Path) -> None:
    _hub.save_for_hf(model, folder, model_args=TIMM, safe_serialization=True)
    content = json.loads((folder / "config.json").read_text())
    content["pretrained_cfg"]["input_size"] = [3, 64, 64]
    (folder / "config.json").write_text(json.dumps(content))


PLAIN = ("cls", "patches", "last_hidden_state")
CASES = {
    "a ViT without a pooler": Case("vit-base-patch16-224-in21k", vit, PLAIN),
    "a ViT for images that are not square": Case(
        "vit-base-patch16-224-in21k", lambda: vit(image_size=[64, 96], patch_size=[16, 16]), PLAIN, (64, 96)
    ),
    "a DINOv3 without registers": Case(
        "dinov3-vits16", lambda: dinov3(num_register_tokens=0), ("pooled", *PLAIN)
    ),
    "a DINOv2 of a training run, in float64, without a mask token": Case(
        "dinov2-large", lambda: dinov2(use_mask_token=False), ("pooled", *PLAIN), lay=compiled_and_wide
    ),
    "timm's DINOv3 with its biases": Case(
        "vit_small_patch16_dinov3.lvd1689m",
        lambda: timm.create_model("vit_small_patch16_dinov3_qkvb", **TIMM),
        ("pooled", "cls", "registers", "patches", "last_hidden_state"),
        lay=by_timm,
    ),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    """Every checkpoint in turn."""
    return CASES[request.param]


@pytest.fixture
def model(case: Case) -> Any:
    """Its stock model, without zero weights."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = case.make().eval().requires_grad_(False)
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return made


@pytest.fixture
def given(case: Case, model: Any, tmp_path: Path) -> Path:
    """Its folder."""
    folder = tmp_path / "given"
    folder.mkdir()
    case.lay(model, folder)
    height, width = case.size
    size = {"height": height, "width": width}
    transformers.ViTImageProcessor(size=size).save_pretrained(folder)
    return folder


def outputs_of(model: Any, images: Any) -> tuple[Any, int]:
    """Return a stock model's tokens, and the number of tokens before the patches."""
    with torch.no_grad():
        if isinstance(model, transformers.PreTrainedModel):
            first = 1 + getattr(model.config, "num_register_tokens", 0)
            return model(images).last_hidden_state.numpy(), first
        return model.forward_features(images).numpy(), model.num_prefix_tokens


def test_its_export_computes_what_the_stock_model_computes(
    case: Case, model: Any, given: Path, tmp_path: Path
) -> None:
    out, said = tmp_path / "out", list[str]()
    # DINOv3's graphs hold the authors' periods otherwise, which the stock model has not.
    periods = {"periods": "library"} if "dinov3" in case.system else {}
    workflows.export(case.system, given, out, say=said.append, **periods)
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    images = torch.randn(2, 3, *case.size, generator=torch.Generator().manual_seed(5))
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"pixel_values": images.numpy()}), strict=True))
    assert tuple(names) == case.outputs
    tokens, first = outputs_of(model, images)
    patches = tokens[:, first:]
    for name, expected in {"cls": tokens[:, 0], "patches": patches, "last_hidden_state": tokens}.items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=2e-4)
    removed = ("module.", "_orig_mod.") if case.lay is compiled_and_wide else ()
    assert manifest.load(out).source.prefixes == removed
    words = f"removed {' and '.join(removed)} from the names of the tensors: training tools add them"
    assert (words in said) is bool(removed)
    assert any("rounded to float32" in line for line in said) is bool(removed)
