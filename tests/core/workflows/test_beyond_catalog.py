"""Backbones beyond the catalog, the whole way through: narrow, shallow ones of several kinds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers
from narrow import PROCESSOR, SMALL, scattered
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from torch import nn

import vconv
from vconv.artifact import manifest
from vconv.convert.weights import ledger
from vconv.errors import InputError, WeightsError
from vconv.runtime.inputs.images import natural_images
from vconv.types import WEIGHTS_FILE
from vconv.validators.faults.table import FAULTS

Refused = Callable[..., AbstractContextManager[None]]
TEXT = dict(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    vocab_size=50,
    bos_token_id=1,
    eos_token_id=2,
)
TIMM: dict[str, dict[str, Any]] = {
    "swin_tiny_patch4_window7_224": dict(embed_dim=16, depths=(1, 1), num_heads=(1, 2), img_size=56),
    "resnet18": dict(layers=(1, 1, 1, 1), channels=(16, 16, 32, 32)),
    "beit_base_patch16_224": dict(embed_dim=48, depth=2, num_heads=2, img_size=64),
}
"""timm: windows and shifts; BatchNorms; a bias by relative positions."""
TRANSFORMERS: dict[str, Callable[[], nn.Module]] = {
    "clip": lambda: transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config=TEXT, vision_config={**SMALL, "hidden_act": "gelu"}, projection_dim=16
        )
    ),
    "beit": lambda: transformers.BeitForImageClassification(
        transformers.BeitConfig(**SMALL, use_relative_position_bias=True, num_labels=5)
    ),
    "convnext": lambda: transformers.ConvNextModel(
        transformers.ConvNextConfig(hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], image_size=32)
    ),
}
"""transformers: an encoder of two; modules that version 5 renames; LayerScale and convolutions."""
GELUS = {
    **{"swin_tiny_patch4_window7_224": 2, "resnet18": 0, "beit_base_patch16_224": 2},
    **{"clip": 2, "beit": 2, "convnext": 4},
}
"""Calls of the exact GELU: one a block, by the papers of these networks; ResNet has ReLU."""
SKIPPED = {f"{graph}: epsilon" for graph in ("model.onnx", "model.npu.onnx")}
EACH = pytest.mark.parametrize("kind", GELUS)
WITH_GELU = pytest.mark.parametrize("kind", [kind for kind, calls in GELUS.items() if calls])


def save(kind: str, folder: Path) -> None:
    if kind in TIMM:
        side = TIMM[kind].get("img_size", 224)
        overlay = {"input_size": (3, side, side)}  # timm 1.0.27 does not take it from img_size
        model = scattered(timm.create_model(kind, pretrained_cfg_overlay=overlay, **TIMM[kind]))
        save_for_hf(model, folder, model_args=TIMM[kind], safe_serialization=True)
    else:
        scattered(TRANSFORMERS[kind]()).save_pretrained(folder)  # type: ignore[operator]
        (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))


@pytest.fixture
def weights(kind: str, once: Callable[..., Path]) -> Path:
    """A folder of weights, as their own library saves them."""
    return once(f"weights-{kind}", lambda path: save(kind, path / kind)) / kind


@pytest.fixture
def artifact(kind: str, weights: Path, once: Callable[..., Path]) -> Path:
    """The artifact of these weights; it must not be changed."""
    return once(f"beyond-{kind}", lambda path: vconv.export(str(weights), out=path / kind)) / kind


def original(kind: str, weights: Path) -> nn.Module:
    if kind in TIMM:
        return timm.create_model(f"local-dir:{weights}", pretrained=True).eval()
    names = {"clip": "CLIPVisionModel", "beit": "BeitForImageClassification", "convnext": "ConvNextModel"}
    return getattr(transformers, names[kind]).from_pretrained(weights).eval()  # type: ignore[no-any-return]


@EACH
def test_a_graph_gives_what_the_library_gives(kind: str, weights: Path, artifact: Path) -> None:
    model, graph = original(kind, weights), vconv.load(artifact, variant="onnx-fp32")
    with graph:
        pixel_values = np.random.default_rng(0).normal(size=(3, 3, *graph.size)).astype(np.float32)
        found = graph(pixel_values)
    with torch.no_grad():
        given = model(torch.from_numpy(pixel_values))
    wanted = {
        "last_hidden_state": getattr(given, "last_hidden_state", None),
        "pooled": getattr(given, "pooler_output", None),
        "logits": given if isinstance(given, torch.Tensor) else getattr(given, "logits", None),
    }
    compared = {name: value.numpy() for name, value in wanted.items() if value is not None}
    assert compared and set(compared) <= set(found)
    for name, value in compared.items():
        difference = np.linalg.norm(found[name].astype(np.float64) - value) / np.linalg.norm(value)
        assert difference < 1e-5, name


@EACH
def test_a_validation_passes_and_skips_only_what_needs_to_know_more(
    kind: str, weights: Path, artifact: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(artifact, tmp_path / "copied")
    document = vconv.validate(path, weights, quick=True)
    assert document.status == "passed"
    skipped = {check.name for check in document.checks if check.status == "skipped"}
    assert skipped == SKIPPED


@EACH
def test_every_tensor_of_the_source_is_in_the_ledger(weights: Path, artifact: Path) -> None:
    lines = ledger.load(artifact / ledger.LEDGER_FILE)
    with safe_open(weights / WEIGHTS_FILE, "pt") as source, safe_open(artifact / WEIGHTS_FILE, "pt") as made:
        assert {line.source for line in lines} == set(source.keys())
        assert {target for line in lines for target in line.targets} == set(made.keys())
        for line in lines:
            if line.action == "dropped":
                assert line.source.startswith(("text_model.", "text_proj", "visual_proj", "logit_scale"))
                assert line.proof == "it is not part of the image encoder"
            else:
                before, after = source.get_tensor(line.source), made.get_tensor(line.target)
                assert before.dtype == after.dtype and torch.equal(before, after)


@EACH
def test_every_gelu_is_patched(kind: str, artifact: Path) -> None:
    made = manifest.load(artifact)
    sites = {patch.name: patch.sites for patch in made.patches}
    assert sites == ({"gelu-erf": GELUS[kind]} if GELUS[kind] else {})
    for record in made.variants:
        if record.graph:
            assert record.graph.operators.get("Erf", 0) == GELUS[kind]
            assert "Gelu" not in record.graph.operators


@WITH_GELU
def test_a_tanh_gelu_is_caught_and_named_as_far_as_it_can_be(
    weights: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tanh = [one for one in FAULTS if one.name.startswith("tanh GELU")]
    monkeypatch.setattr("vconv.workflows.selftest.FAULTS", tanh)
    faults = vconv.selftest(artifact, weights, clean_runs=0)["faults"]
    assert {row["fault"]: (row["caught"], row["class"], row["expected"]) for row in faults} == {
        "tanh GELU in a graph": (True, "activation", "activation"),
        "tanh GELU by a patch": (True, "", ""),
    }


@pytest.mark.parametrize("kind", ["swin_tiny_patch4_window7_224", "convnext"])
def test_synthetic_weights_need_a_configuration_alone_and_show_a_tanh_gelu(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(weights / "config.json", bare)
    document = vconv.export(str(bare), "synthetic:3", tmp_path / "made")
    assert document["synthetic"] and document["weights_found_again"]
    tanh = [one for one in FAULTS if one.name == "tanh GELU by a patch"]
    monkeypatch.setattr("vconv.workflows.selftest.FAULTS", tanh)
    (row,) = vconv.selftest(tmp_path / "made", clean_runs=0)["faults"]
    assert row["caught"]


@pytest.mark.parametrize("kind", ["clip", "beit"])
def test_stock_transformers_loads_the_artifact_completely(kind: str, artifact: Path) -> None:
    factory = transformers.AutoModelForImageClassification if kind == "beit" else transformers.AutoModel
    model, notes = factory.from_pretrained(artifact, output_loading_info=True)
    assert not any(notes.values())
    assert model.config.hidden_act == "gelu_python"


@pytest.mark.parametrize("kind", ["clip"])
def test_an_encoder_is_stored_by_the_names_that_both_versions_load(artifact: Path) -> None:
    with safe_open(artifact / WEIGHTS_FILE, "pt") as file:
        assert {name.partition(".")[0] for name in file.keys()} == {"vision_model"}  # noqa: SIM118


@pytest.mark.parametrize("kind", ["beit"])
def test_a_tensor_that_belongs_to_nothing_is_refused(weights: Path, tmp_path: Path, refused: Refused) -> None:
    path = shutil.copytree(weights, tmp_path / "more")
    tensors = load_file(path / WEIGHTS_FILE)
    save_file({**tensors, "decoder.weight": torch.ones(2)}, path / WEIGHTS_FILE, {"format": "pt"})
    with refused(WeightsError, "does not fit beit", "the unknown tensor decoder.weight"):
        vconv.export(str(path), out=tmp_path / "out")
    del tensors["beit.embeddings.cls_token"]
    save_file(tensors, path / WEIGHTS_FILE, {"format": "pt"})
    with refused(WeightsError, "missing tensor"):
        vconv.export(str(path), out=tmp_path / "out")


@pytest.mark.parametrize("kind", ["convnext"])
def test_weights_without_a_preprocessor_are_refused(weights: Path, tmp_path: Path, refused: Refused) -> None:
    path = shutil.copytree(weights, tmp_path / "bare")
    (path / "preprocessor_config.json").unlink()
    with refused(WeightsError, "it is not known how images are prepared"):
        vconv.export(str(path), out=tmp_path / "out")


@pytest.mark.parametrize("kind", ["resnet18"])
@pytest.mark.parametrize(
    "option", [{"pool": "avg"}, {"periods": "library"}, {"positions": "authors"}, {"size": "dynamic"}]
)
def test_an_option_that_needs_to_know_more_is_refused(
    option: dict[str, str], weights: Path, tmp_path: Path, refused: Refused
) -> None:
    with refused(InputError, "does not apply to this system"):
        vconv.export(str(weights), out=tmp_path / "out", **option)  # type: ignore[arg-type]


def test_a_network_that_draws_random_numbers_is_refused(tmp_path: Path, refused: Refused) -> None:
    transformers.ViTMAEModel(transformers.ViTMAEConfig(**SMALL)).save_pretrained(tmp_path / "mae")
    (tmp_path / "mae" / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    with refused(WeightsError, "draws random numbers", "the operator rand"):
        vconv.export(str(tmp_path / "mae"), out=tmp_path / "out")


@pytest.mark.parametrize("kind", ["clip"])
def test_photographs_are_prepared_by_the_weights_own_processor(weights: Path, artifact: Path) -> None:
    images = natural_images(2, 5)
    stock = transformers.AutoImageProcessor.from_pretrained(weights)
    expected = stock(images=[image.convert("RGB") for image in images], return_tensors="np")["pixel_values"]
    with vconv.load(artifact, variant="onnx-fp32") as session:
        assert np.array_equal(session(images)["pooled"], session(np.asarray(expected))["pooled"])
