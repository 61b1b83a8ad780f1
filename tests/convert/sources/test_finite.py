"""Weights that are not finite are refused when they are read, by the user's own file and name."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from layout_files import TIMM3, TRANSFORMERS3, matching, stock_folder

import vconv
from vconv.catalog.systems import System
from vconv.convert.sources.local import open_local
from vconv.convert.sources.table import Request, open_source
from vconv.convert.weights.finite import is_finite
from vconv.errors import WeightsError
from vconv.types import silent

Refused = Callable[..., AbstractContextManager[None]]


def test_weights_of_another_layout_are_refused_before_they_are_converted(
    tmp_path: Path, refused: Refused
) -> None:
    systems = matching(TRANSFORMERS3, TIMM3)
    tensors = stock_folder(systems[TIMM3], tmp_path / "given")
    tensors["norm.weight"][0] = math.nan
    safetensors.torch.save_file(tensors, tmp_path / "given" / "mine.safetensors")
    (tmp_path / "scratch").mkdir()
    asked = Request(systems[TRANSFORMERS3], str(tmp_path / "given" / "mine.safetensors"))
    with refused(WeightsError, "not finite in mine.safetensors", "in norm.weight"):
        open_source(asked, tmp_path / "scratch")


def test_what_the_network_does_not_have_may_be_infinite(tmp_path: Path) -> None:
    tiny = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    vision = transformers.CLIPVisionConfig(**tiny, image_size=32, patch_size=8, hidden_act="gelu")
    text = transformers.CLIPTextConfig(**tiny, vocab_size=99)
    both = transformers.CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    transformers.CLIPModel(both).save_pretrained(tmp_path / "clip")
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    processor.save_pretrained(tmp_path / "clip")
    tensors = safetensors.torch.load_file(tmp_path / "clip" / "model.safetensors")
    tensors["text_model.final_layer_norm.weight"][0] = -math.inf
    safetensors.torch.save_file(tensors, tmp_path / "clip" / "model.safetensors", {"format": "pt"})
    vconv.export(str(tmp_path / "clip"), out=tmp_path / "made", golden=False)


def test_files_are_hashed_as_they_are(given: Path, small_system: System, scratch: Path) -> None:
    mine = shutil.copy(given / "model.safetensors", given / "mine.safetensors")
    source = open_local(small_system, Path(mine), scratch, silent, "FIX")
    assert source.files == {"mine.safetensors": hashlib.sha256(Path(mine).read_bytes()).hexdigest()}


@pytest.mark.parametrize(
    ("dtype", "values", "kind", "finite"),
    [
        ("BF16", [0x7F7F, 0x8000, 0x0001], "<u2", True),
        ("BF16", [0, 0x7F80], "<u2", False),
        ("BF16", [0, 0xFFC0], "<u2", False),
        ("F16", [65504, -0.0, 6e-8], "<f2", True),
        ("F16", [0, -math.inf], "<f2", False),
        ("F16", [0, math.nan], "<f2", False),
        ("F32", [3.4e38, 0], "<f4", True),
        ("F32", [math.nan, 0], "<f4", False),
        ("F64", [1e38, 0], "<f8", True),
        ("F64", [1e39, 0], "<f8", False),
        ("I64", [-1], "<i8", True),
        ("F8_E4M3", [0x7F], "u1", True),
    ],
)
def test_what_is_finite_in_float32_is_finite(
    dtype: str, values: list[float], kind: str, finite: bool
) -> None:
    array = np.array(values, kind)
    assert is_finite(array.tobytes(), dtype) is finite
    if dtype == "BF16":
        stored = torch.from_numpy(array.view("<i2")).view(torch.bfloat16)
        assert bool(torch.isfinite(stored).all()) is finite
