"""Other image sizes of backbones beyond the catalog, the whole way through, against the stock libraries."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers
from narrow import PROCESSOR, SMALL, scattered
from timm.models import save_for_hf
from torch import Tensor, nn

import vconv
from vconv.artifact import manifest
from vconv.errors import InputError
from vconv.runtime.inputs.images import natural_images
from vconv.types import CONFIG_FILE, PREPROCESSOR_FILE

Refused = Callable[..., AbstractContextManager[None]]
ASKED = {"interpolate_pos_encoding": True}
VIT: dict[str, Any] = dict(embed_dim=48, depth=2, num_heads=2)
SWIN: dict[str, Any] = dict(embed_dim=16, depths=(2,), num_heads=(2,), img_size=28)
"""One window in each image: at another size there are several, which are shifted if it is built for them."""


@dataclass(frozen=True)
class Kind:
    """A narrow network, and how its own library runs it at another size.

    Args:
        size: (height, width), not square where its processor allows it.
        model_args: timm's, as the weights are saved; None for a model of transformers.
        make: makes the model of transformers.
        stock: timm's options for the size, which the artifact must have; or the arguments of the call of a
            model of transformers.
        processor: further settings of the processor of transformers.
    """

    size: tuple[int, int]
    model_args: Mapping[str, Any] | None = None
    make: Callable[[], nn.Module] | None = None
    stock: Mapping[str, Any] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)


KINDS = {
    "resnet18": Kind((40, 72), dict(layers=(1, 1, 1, 1), channels=(16, 16, 32, 32))),
    "deit3_small_patch16_224": Kind(
        (32, 80), {**VIT, "img_size": 48}, stock=dict(dynamic_img_size=True, img_size=[48, 48])
    ),
    "eva02_tiny_patch14_224": Kind(
        (70, 28), {**VIT, "img_size": 42}, stock=dict(dynamic_img_size=True, img_size=[42, 42])
    ),
    "swin_tiny_patch4_window7_224": Kind((56, 28), SWIN, stock=dict(img_size=[56, 28])),
    "clip": Kind(
        (80, 48),
        make=lambda: transformers.CLIPVisionModel(
            transformers.CLIPVisionConfig(**SMALL)  # type: ignore[arg-type]
        ),
        stock=ASKED,
        processor={
            **{"image_processor_type": "CLIPImageProcessor", "do_center_crop": True},
            **{"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
        },
    ),
    "siglip": Kind(
        (48, 64),
        make=lambda: transformers.SiglipVisionModel(
            transformers.SiglipVisionConfig(**SMALL)  # type: ignore[arg-type]
        ),
        stock=ASKED,
    ),
    "deit": Kind(
        (48, 64), make=lambda: transformers.DeiTModel(transformers.DeiTConfig(**SMALL)), stock=ASKED
    ),
    "beit": Kind(
        (64, 48),
        make=lambda: transformers.BeitForImageClassification(
            transformers.BeitConfig(**SMALL, use_relative_position_bias=True, num_labels=5)
        ),
    ),
    "beit with a position embedding": Kind(
        (64, 48),
        make=lambda: transformers.BeitModel(
            transformers.BeitConfig(**SMALL, use_absolute_position_embeddings=True)
        ),
    ),
    "swin": Kind(
        (80, 40),
        make=lambda: transformers.SwinModel(
            transformers.SwinConfig(image_size=32, embed_dim=16, depths=[2], num_heads=[2], window_size=4)
        ),
    ),
    "convnext": Kind(
        (64, 64),
        make=lambda: transformers.ConvNextModel(
            transformers.ConvNextConfig(hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], image_size=32)
        ),
        processor={
            **{"image_processor_type": "ConvNextImageProcessor", "crop_pct": 0.875},
            "size": {"shortest_edge": 32},
        },
    ),
}
LIKE_OTHERS = ("eva02_tiny_patch14_224", "siglip", "deit", "beit with a position embedding")
"""Networks that take another size in the way of one of the others."""
EACH = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.full] * (kind in LIKE_OTHERS)) for kind in KINDS]
)


def save(kind: str, folder: Path) -> None:
    made = KINDS[kind]
    if made.make is None:
        args = dict(made.model_args or {})
        side = args.get("img_size", 224)
        overlay = {"input_size": (3, side, side)}
        model = scattered(timm.create_model(kind, pretrained_cfg_overlay=overlay, **args))
        save_for_hf(model, folder, model_args=args, safe_serialization=True)
        return
    scattered(made.make()).save_pretrained(folder)  # type: ignore[operator]
    (folder / PREPROCESSOR_FILE).write_text(json.dumps({**PROCESSOR, **made.processor}))


def saved(kind: str, folder: Path) -> Path:
    save(kind, folder / kind)
    return folder / kind


@pytest.fixture
def weights(kind: str, once: Callable[..., Path]) -> Path:
    return once(f"sized-weights-{kind}", lambda path: save(kind, path / kind)) / kind


@pytest.fixture
def artifact(kind: str, weights: Path, once: Callable[..., Path]) -> Path:
    """The artifact of these weights at the other size; it must not be changed."""
    size = KINDS[kind].size
    return once(f"sized-{kind}", lambda path: vconv.export(str(weights), out=path / kind, size=size)) / kind


def loaded(kind: str, folder: Path, sized: bool = False) -> Any:
    """The stock model of a folder; one of timm with the options for the size."""
    if KINDS[kind].make is None:
        options = KINDS[kind].stock if sized else {}
        return timm.create_model(f"local-dir:{folder}", pretrained=True, **options).eval()
    classified = kind == "beit"
    factory = transformers.AutoModelForImageClassification if classified else transformers.AutoModel
    return factory.from_pretrained(folder, attn_implementation="eager").eval()


@torch.no_grad()
def given_by(kind: str, model: Any, pixel_values: Tensor) -> dict[str, Tensor]:
    """What a stock model itself gives for pixel values, by vconv's names."""
    if KINDS[kind].make is None:
        features = model.forward_features(pixel_values)
        logits = {"logits": model.forward_head(features)} if model.num_classes else {}
        return {"last_hidden_state": features, **logits}
    result = model(pixel_values, **KINDS[kind].stock)
    names = {"last_hidden_state": "last_hidden_state", "pooler_output": "pooled", "logits": "logits"}
    found = {ours: getattr(result, theirs, None) for theirs, ours in names.items()}
    return {name: value for name, value in found.items() if value is not None}


def pixel_values_of(kind: str) -> Any:
    return np.random.default_rng(0).normal(size=(3, 3, *KINDS[kind].size)).astype(np.float32)


@EACH
@pytest.mark.parametrize("variant", ["onnx-fp32", "patched-torch-fp32"])
def test_a_variant_gives_what_the_stock_library_gives_at_that_size(
    kind: str, variant: str, weights: Path, artifact: Path
) -> None:
    pixel_values = pixel_values_of(kind)
    expected = given_by(kind, loaded(kind, weights, sized=True), torch.from_numpy(pixel_values))
    with vconv.load(artifact, variant=variant) as session:
        assert session.size == KINDS[kind].size
        actual = session(pixel_values)
    assert expected and set(expected) <= set(actual)
    for name, value in expected.items():
        assert actual[name].shape == value.shape
        difference = np.linalg.norm(actual[name].astype(np.float64) - value.numpy())
        assert difference < 1e-5 * np.linalg.norm(value.numpy()), name


@EACH
def test_the_stock_library_runs_the_artifact_at_that_size(kind: str, weights: Path, artifact: Path) -> None:
    pixel_values = torch.from_numpy(pixel_values_of(kind))
    expected = given_by(kind, loaded(kind, weights, sized=True), pixel_values)
    actual = given_by(kind, loaded(kind, artifact), pixel_values)
    for name, value in expected.items():
        assert torch.linalg.vector_norm(actual[name] - value) < 1e-5 * torch.linalg.vector_norm(value)
    if KINDS[kind].make is None:
        args = json.loads((artifact / CONFIG_FILE).read_text())["model_args"]
        assert args.items() >= KINDS[kind].stock.items()


@EACH
def test_the_size_is_recorded_and_the_original_is_found_again(
    kind: str, weights: Path, artifact: Path, tmp_path: Path
) -> None:
    made, size = manifest.load(artifact), KINDS[kind].size
    assert (made.size, made.source.size) == (size, size)
    assert made.source.resampling_asked is (KINDS[kind].stock == ASKED)
    card = (artifact / "README.md").read_text()
    assert ("interpolate_pos_encoding=True" in card) is made.source.resampling_asked
    original = json.loads((artifact / "original" / CONFIG_FILE).read_text())
    assert original == json.loads((weights / CONFIG_FILE).read_text())
    path = shutil.copytree(artifact, tmp_path / "copied")
    assert vconv.validate(path, weights, quick=True).status == "passed"


@EACH
def test_images_are_prepared_at_that_size_and_no_resize_is_left(kind: str, artifact: Path) -> None:
    stock = {record.variant: record.graph for record in manifest.load(artifact).variants if record.graph}
    assert all("Resize" not in graph.operators for graph in stock.values())
    with vconv.load(artifact, variant="onnx-fp32") as session:
        assert np.isfinite(session(natural_images(1, 5))["last_hidden_state"]).all()


@pytest.mark.parametrize("kind", ["deit3_small_patch16_224", "clip"])
def test_weights_that_were_left_out_are_filled_in_again(kind: str, weights: Path, tmp_path: Path) -> None:
    vconv.export(str(weights), out=tmp_path / "made", size=KINDS[kind].size, without_weights=True)
    vconv.fill(tmp_path / "made", weights)
    with vconv.load(tmp_path / "made", variant="onnx-fp32") as session:
        assert session.size == KINDS[kind].size


@pytest.mark.parametrize(
    ("kind", "size", "fragments"),
    [
        ("resnet18", "dynamic", ("the grid of patches in its tokens is not known", "fix: give one size")),
        ("resnet18", "9000,64", ("--size is out of range", "1 to 8192")),
        ("deit3_small_patch16_224", "50,48", ("Input height (50) should be divisible by patch size (16)",)),
        ("swin", "0,8", ("--size is out of range",)),
        ("clip", "33,32", ("--size does not fit the patches", "multiples of 16", "give --size 32,32")),
        ("siglip", "48,63", ("--size does not fit the patches", "multiples of 16", "give --size 48,64")),
        ("convnext", "64,32", ("got 64,32", "expected a square", "give --size 64,64 or --size 32,32")),
    ],
)
def test_a_size_that_the_library_does_not_run_is_refused(
    kind: str, size: str, fragments: tuple[str, ...], weights: Path, tmp_path: Path, refused: Refused
) -> None:
    with refused(InputError, *fragments):
        vconv.export(str(weights), out=tmp_path / "out", size=size)
    assert not (tmp_path / "out").exists()


BARE: dict[str, tuple[dict[str, Any], str, str]] = {
    "timm": (
        {
            "architecture": "beit_base_patch16_224",
            "model_args": {**VIT, "img_size": 48},
            "pretrained_cfg": {"input_size": [3, 48, 48], "fixed_input_size": True},
        },
        "96,64",
        "built for one size, which decides the shape of its tensors",
    ),
    "timm, a table with as many rows": (
        {
            "architecture": "cait_xxs24_224",
            "model_args": {**VIT, "depth_token_only": 1, "img_size": 48},
            "pretrained_cfg": {"input_size": [3, 48, 48], "fixed_input_size": True},
        },
        "16,144",
        "built for one size, which decides the shape of its tensors",
    ),
    "transformers": (
        transformers.LevitConfig(
            image_size=64, hidden_sizes=[16, 16, 16], num_attention_heads=[1, 1, 1], depths=[1, 1, 1]
        ).to_dict(),
        "96,64",
        "got 96x64: RuntimeError",
    ),
}
"""Configurations of networks that the library runs with the same weights at one size only."""


@pytest.mark.parametrize("kind", BARE)
def test_a_network_for_one_size_is_refused_in_one_line_and_nothing_else_is_said(
    kind: str, tmp_path: Path, refused: Refused, capfd: pytest.CaptureFixture[str]
) -> None:
    config, size, reason = BARE[kind]
    library = "timm" if "architecture" in config else "transformers"
    folder = tmp_path / "bare"
    folder.mkdir()
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    (folder / PREPROCESSOR_FILE).write_text(json.dumps({**PROCESSOR, "size": {"height": 64, "width": 64}}))
    said = f"{library} does not run this network at this size"
    with refused(InputError, said, reason, f"{library} runs it", "omit"):
        vconv.export(str(folder), "synthetic:0", tmp_path / "out", size=size)
    assert "Traceback" not in capfd.readouterr().err


def test_feature_maps_of_timm_are_those_of_the_size(tmp_path: Path) -> None:
    """Both options are in the artifact's configuration."""
    args = {"layers": (1, 1, 1, 1), "channels": (16, 16, 32, 32)}
    vconv.export(
        str(saved("resnet18", tmp_path)), out=tmp_path / "out", size="40,72", outputs="raw_feature_map:3,5"
    )
    model = timm.create_model("resnet18", features_only=True, out_indices=(2, 4), **args)
    shapes = [tuple(one.shape[1:]) for one in model(torch.zeros(1, 3, 40, 72))]
    with vconv.load(tmp_path / "out", variant="onnx-fp32") as session:
        found = session(np.zeros((1, 3, 40, 72), np.float32))
    assert [one.shape[1:] for one in found.values()] == shapes


@pytest.mark.parametrize("kind", ["clip"])
def test_without_the_option_a_size_that_needs_to_be_asked_for_is_refused(
    weights: Path, tmp_path: Path, refused: Refused
) -> None:
    path = shutil.copytree(weights, tmp_path / "other")
    settings = {**PROCESSOR, "size": {"height": 48, "width": 64}}
    (path / PREPROCESSOR_FILE).write_text(json.dumps(settings))
    with refused(InputError, "does not fit the position embedding", "or give --size 48,64"):
        vconv.export(str(path), out=tmp_path / "out")
