"""`eval_accuracy.py --engine torch`: what PyTorch's model gives is compared, and the rest is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
import timm
import transformers

import vconv
from vconv.catalog.systems import SYSTEMS, miniature
from vconv.workflows.export import export

pytestmark = pytest.mark.real_processes
Export = Callable[[Path, Path], object]
Published = Callable[[str], Path]
TOKENS = "last_hidden_state"


def of_catalog(name: str, **options: Any) -> Export:
    """Return what exports a miniature of a system of the catalog."""
    return lambda source, out: export(miniature(SYSTEMS[name]), "synthetic:1", out, **options)


SLICES = of_catalog("dinov3-vits16", outputs="cls,patches")
"""An artifact of which PyTorch's model gives no output itself."""


def backbone(source: Path, out: Path) -> object:
    """Export a backbone of transformers, whose maps have other names there."""
    sizes: dict[str, Any] = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=2)
    sizes |= dict(intermediate_size=64, image_size=64, num_register_tokens=2)
    config = transformers.DINOv3ViTConfig(**sizes, out_features=["stage1", "stage3"])
    stock: Any = transformers.DINOv3ViTBackbone(config)
    stock.save_pretrained(source)
    transformers.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(source)
    return vconv.export(str(source), out=str(out))


def features_only(source: Path, out: Path) -> object:
    """Export a network of timm that gives feature maps only."""
    arguments: dict[str, Any] = {"layers": (1, 1, 1, 1), "channels": (16, 16, 32, 32)}
    model: Any = timm.create_model("resnet18", **arguments)
    timm.models.save_for_hf(model, source, model_args=arguments)
    return vconv.export(str(source), out=str(out), size="64,64", outputs="raw_feature_map:3,5")


CASES: dict[str, tuple[Export, list[str], list[str]]] = {
    "tokens": (of_catalog("dinov3-vits16"), ["pooled", TOKENS], ["cls", "registers", "patches"]),
    "backbone": (backbone, ["feature_map_1", "feature_map_3"], []),
    "timm": (
        of_catalog("vit_small_patch16_dinov3.lvd1689m"),
        ["pooled", TOKENS],
        ["cls", "registers", "patches"],
    ),
    "classifier": (of_catalog("vit-base-patch16-224"), ["logits"], ["cls", "patches", TOKENS]),
    "convnext": (of_catalog("convnext_tiny.dinov3_lvd1689m"), ["pooled"], ["cls", "patches", TOKENS]),
    "feature maps of timm": (features_only, ["raw_feature_map_3", "raw_feature_map_5"], []),
}
"""By name: what exports, the outputs that PyTorch's model gives, and the others that were recorded."""
QUICK = ("tokens",)


@pytest.fixture
def published(once: Callable[..., Path], tmp_path: Path) -> Published:
    """The function that returns a copy of the folder that is published of a case."""

    def copy(case: str) -> Path:
        def make(part: Path) -> None:
            (CASES[case][0] if case in CASES else SLICES)(part / "source", part / "artifact")
            vconv.card(part / "artifact", page="huggingface", out=part / "page")

        return shutil.copytree(once(f"published-torch-{case}", make) / "page", tmp_path / "page")

    return copy


def accuracy(page: Path, status: int = 0) -> str:
    """Run the script with PyTorch, and return what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-B", str(page / "eval" / "eval_accuracy.py"), "--engine", "torch"],
        capture_output=True,
        text=True,
        env={**environment, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        cwd="/",
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "case", [name if name in QUICK else pytest.param(name, marks=pytest.mark.full) for name in CASES]
)
def test_what_pytorch_gives_is_compared_and_the_rest_is_named(case: str, published: Published) -> None:
    _, given, left_out = CASES[case]
    page = published(case)
    printed = accuracy(page)
    recorded = safetensors.numpy.load_file(page / "golden" / "golden.safetensors").keys() - {"pixel_values"}
    assert recorded == {*given, *left_out}
    assert "passed within the limits named strict" in printed
    (entry,) = json.loads((page / "results" / "accuracy_eval.json").read_text())["recomputed"]
    assert {row["output"] for row in entry["figures"]} == {*given}
    assert sorted(entry["left_out"]) == sorted(left_out)
    named = [line for line in printed.splitlines() if line.startswith("not compared, because PyTorch's")]
    assert len(named) == bool(left_out)
    assert all(name in line for line in named for name in left_out)


def test_an_output_of_another_shape_or_that_is_missing_fails(published: Published) -> None:
    page = published("tokens")
    golden, script = page / "golden" / "golden.safetensors", page / "inference.py"
    tensors = safetensors.numpy.load_file(golden)
    safetensors.numpy.save_file({**tensors, TOKENS: tensors[TOKENS][:, :-1].copy()}, golden)
    script.write_text(script.read_text().replace('"pooler_output": "pooled"', '"pooler_output": "other"'))
    printed = accuracy(page, status=1)
    assert f"torch {TOKENS}  shape {[*tensors[TOKENS].shape]}, or NaN or Inf FAILED" in printed
    assert "torch pooled  no such output FAILED" in printed


def test_where_pytorch_gives_none_of_the_outputs_nothing_passes(published: Published) -> None:
    (line,) = accuracy(published("slices"), status=2).splitlines()
    assert line.startswith(
        "nothing to compare with PyTorch | got none of the outputs | expected cls, patches"
    )
