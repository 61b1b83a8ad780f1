"""Exports with the position embedding of DINOv2 resampled by the authors' kernel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import transformers
from click.testing import CliRunner
from published_formulas import DINOV2, drawn, resampled_positions, tokens

import vconv
from vconv.artifact import manifest
from vconv.catalog.systems import SYSTEMS, miniature
from vconv.cli import main
from vconv.convert.sources import resampled
from vconv.convert.sources.table import Request, open_source

TRANSFORMERS, TIMM = "dinov2-small", "vit_small_patch14_dinov2.lvd142m"
SIDES = {TRANSFORMERS: 5, TIMM: 4}
"""Rows of patches that the position embedding of each miniature is stored for."""
SIZES = {TRANSFORMERS: (56, 56), TIMM: (84, 42)}
REFERENCE = "original + positions by the authors' kernel"
both = pytest.mark.parametrize("name", [TRANSFORMERS, TIMM])


@pytest.fixture
def given(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file as the authors of DINOv2 publish it, for a miniature that stands in the catalog."""
    monkeypatch.setattr("vconv.catalog.systems.SYSTEMS", {name: miniature(SYSTEMS[name])})
    torch.save(drawn(DINOV2, 0, grid=SIDES[name]), tmp_path / "dinov2.pth")
    return tmp_path / "dinov2.pth"


def stock(name: str, folder: Path, images: torch.Tensor) -> torch.Tensor:
    """Run the stock library on an artifact, without vconv."""
    model: Any
    with torch.inference_mode():
        if name == TIMM:
            model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
            return model.forward_features(images)  # type: ignore[no-any-return]
        model = transformers.AutoModel.from_pretrained(folder).eval()
        return model(images).last_hidden_state  # type: ignore[no-any-return]


@both
def test_the_stock_library_and_the_graphs_compute_what_the_authors_formula_says(
    name: str, given: Path, tmp_path: Path
) -> None:
    """From the authors' file to every token, without a loss, and as the published formula has it."""
    out, size = tmp_path / "out", SIZES[name]
    vconv.export(name, given, out, size=size, positions="authors", without_weights=True)
    vconv.fill(out, given)
    made = manifest.load(out)
    assert (made.source.positions, made.source.losses) == ("authors", ())
    assert (made.ledger["resampled"], made.ledger["added"]) == (1, 1)
    assert made.golden is not None
    assert made.golden.reference == REFERENCE
    assert made.positions is not None
    assert made.positions.model_dump() == {
        "by": "authors",
        "kernel": "bicubic, without antialias, scale (n + 0.1) / N",
        "stored": (SIDES[name],) * 2,
        "grid": (size[0] // 14, size[1] // 14),
        "at": "export",
    }
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    expected = tokens(DINOV2, torch.load(given), images).numpy()
    graph = vconv.load(out, variant="onnx-fp32")(images.numpy())["last_hidden_state"]
    for found in (stock(name, out, images).numpy(), graph):
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    report = vconv.validate(out, given, quick=True, budget=1e-3)
    assert (report.status, report.reference.name) == ("passed", REFERENCE)
    rows = {row.variant: row for row in report.variants}
    original = rows["original-torch-fp32"].outputs
    assert max(row.vector_relative_error for row in original.values()) > 1e-3


@both
def test_what_resamples_the_positions_is_told_where_an_artifact_is_described(
    name: str, given: Path, tmp_path: Path
) -> None:
    old, new = (
        SIDES[name],
        SIZES[name][0] // 14,
    )
    for positions, told, card in (
        ("authors", "once, in this artifact, by the kernel of the authors", "once in this artifact"),
        ("library", "whenever the model runs, by the kernel of t", "whenever t"),
    ):
        out = tmp_path / positions
        vconv.export(
            name, given, out, size=SIZES[name], positions=positions, allow_lossy=positions == "library"
        )
        shown = " ".join(CliRunner().invoke(main, ["info", str(out), "--ledger"]).output.split())
        assert f"note: the position embedding is resampled from {old}x{old} to {new}x" in shown
        assert told in shown
        assert f"from {old}x{old} to {new}x" in shown.partition("ledger.json")[2]
        assert card in (out / "README.md").read_text()
        vconv.card(out, lang="zh")
        assert f"来源权重按 {old}x{old} 个图像块保存" in (out / "README.md").read_text()


@both
def test_a_manifest_that_says_another_kernel_fails(name: str, tmp_path: Path, given: Path) -> None:
    for first, then in (("authors", "library"), ("library", "authors")):
        out = tmp_path / first
        vconv.export(name, "synthetic:1", out, size=SIZES[name], positions=first)
        made = manifest.load(out)
        altered = made.source.model_copy(update={"positions": then})
        made.model_copy(update={"source": altered}).save(out)
        report = vconv.validate(out, quick=True, budget=1e-3)
        assert report.status == "failed"
        failed = {check.name for check in report.checks if check.status == "failed"}
        assert {"manifest: positions", "architecture", "golden"} <= failed
        assert ("tensors" in failed) is (first == "authors")


@both
def test_an_embedding_by_another_kernel_is_found_by_the_reference(
    name: str, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our matrices and torch share no code: if one forgets the offset, the export fails."""
    whole = resampled.resampled
    monkeypatch.setattr(resampled, "resampled", lambda value, grid, offset: whole(value, grid, 0.0))
    with pytest.raises(vconv.errors.ExportCheckError, match="does not agree with its reference"):
        vconv.export(name, given, tmp_path / "out", size=SIZES[name], positions="authors")


def test_the_weights_for_the_authors_own_code_keep_the_embedding_that_their_code_resamples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vconv.catalog.systems.SYSTEMS", {TIMM: miniature(SYSTEMS[TIMM])})
    out = tmp_path / "out"
    vconv.export(TIMM, "synthetic:1", out, size=(84, 42), positions="authors", layout="facebook")
    found = safetensors.torch.load_file(out / "facebook" / "model.safetensors")
    assert found["pos_embed"].shape == (1, 1 + 4 * 4, 96)
    assert manifest.load(out).authors.losses == ()  # type: ignore[union-attr]
    assert vconv.validate(out, quick=True, budget=1e-3).status == "passed"
    assert json.loads((out / "config.json").read_text())["model_args"]["img_size"] == [84, 42]


@pytest.mark.parametrize("name", [TRANSFORMERS])
def test_narrow_weights_with_a_classifier_keep_their_type_beside_the_embedding(
    name: str, given: Path, tmp_path: Path
) -> None:
    (tmp_path / "source").mkdir()
    folder = open_source(Request(miniature(SYSTEMS[name]), "synthetic:2"), tmp_path / "source").folder
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    weights = {f"dinov2.{key}": value.bfloat16().clone() for key, value in tensors.items()}
    weights |= {"classifier.weight": torch.randn(7, 192).bfloat16(), "classifier.bias": torch.ones(7)}
    safetensors.torch.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_labels": 7, "architectures": ["Dinov2ForImageClassification"]}
    (folder / "config.json").write_text(json.dumps(config))
    vconv.export(name, folder, tmp_path / "out", size=(84, 84), positions="authors", keep_dtype=True)
    found = safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")
    position = found["dinov2.embeddings.position_embeddings"]
    expected = resampled_positions(weights["dinov2.embeddings.position_embeddings"].float(), 6, 6)
    torch.testing.assert_close(position, expected, rtol=0, atol=1e-6)
    assert found["dinov2.embeddings.cls_token"].dtype is torch.bfloat16
    assert vconv.validate(tmp_path / "out", folder, quick=True, budget=1e-3).status == "passed"
