"""Exports of weights in another layout than their system's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from published_formulas import DINOV3, GRID, drawn, tokens

import vconv
from vconv.artifact.artifact import Artifact
from vconv.catalog.systems import SYSTEMS, miniature
from vconv.types import Check, silent
from vconv.validators.checks.claims import Evidence, check_claims
from vconv.validators.checks.integrity import verify_source
from vconv.workflows import originals
from vconv.workflows.checks import compare_with_original

NAME, OTHER = "dinov3-vits16", "vit_small_patch16_dinov3.lvd1689m"


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file as the authors of DINOv3 publish it, for the miniatures that stand in the catalog."""
    systems = {name: miniature(SYSTEMS[name]) for name in (NAME, OTHER)}
    monkeypatch.setattr("vconv.catalog.systems.SYSTEMS", systems)
    path = tmp_path / "dinov3.pth"
    state = drawn(DINOV3)
    state["rope_embed.periods"] = state["rope_embed.periods"] * 1.5
    torch.save({"model": {**state, "norm.bias": state["norm.bias"] + 1}, "model_ema": state}, path)
    return path


def test_a_file_of_the_authors_becomes_an_artifact_of_timm_that_is_checked_against_it(
    given: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    document = vconv.export(NAME, given, out, layout="timm", state_dict="model_ema", without_weights=True)
    assert [check for check in document["checks"] if check["status"] != "passed"] == []
    vconv.fill(out, given)
    artifact = Artifact.open(out)
    made = artifact.manifest
    assert (made.system.name, made.system.pooling) == (OTHER, "cls")
    assert (made.source.layout, made.source.periods, made.source.losses) == ("facebook", "stored", ())
    assert made.source.state_dict == "model_ema"
    assert made.rope_periods == tuple((drawn(DINOV3)["rope_embed.periods"] * 1.5).float().tolist())
    assert [check.detail for check in checked(artifact, given, tmp_path / "a") if check.fault] == []
    assert "Converted from the layout of facebook to that of timm" in (out / "README.md").read_text()
    vconv.card(out, lang="zh")
    assert "由 facebook 的布局逐张量转换为 timm 的布局" in (out / "README.md").read_text()
    images = torch.randn(1, 3, GRID * 16, GRID * 16, generator=torch.Generator().manual_seed(1))
    expected = tokens(DINOV3, torch.load(given)["model_ema"], images).numpy()
    found = vconv.load(out, variant="onnx-fp32")(images.numpy())["last_hidden_state"]
    assert abs(found - expected).max() < 1e-5 * abs(expected).max()
    other = tmp_path / "other.pth"
    torch.save(
        {**torch.load(given)["model_ema"], "rope_embed.periods": drawn(DINOV3)["rope_embed.periods"]}, other
    )
    assert [check.name for check in checked(artifact, other, tmp_path / "b") if check.fault] == ["tensors"]
    periods = made.rope_periods
    changed = made.model_copy(update={"rope_periods": (*periods[:-1], 2 * periods[-1])})
    (claim,) = check_claims(Evidence(replace(artifact, manifest=changed), {}))
    assert "the ledger says the checkpoint stores" in claim.detail


def checked(artifact: Artifact, weights: Path, scratch: Path) -> list[Check]:
    """Compare an artifact with weights that are given to a validation, and its manifest with its files."""
    scratch.mkdir()
    source, _ = originals.live_source(artifact, weights, "huggingface", True, scratch, silent)
    assert source is not None
    source_check = verify_source(artifact.manifest, source)
    return [source_check, *compare_with_original(artifact, source), *check_claims(Evidence(artifact, {}))]
