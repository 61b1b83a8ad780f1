"""Weights files in float16 and bfloat16, against torch's rounding."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from vconv.convert.files import safetensors_file
from vconv.convert.files.safetensors_file import TensorEntry, read_header, write
from vconv.convert.reduced import narrow_weights
from vconv.errors import WeightsError

Refused = Callable[..., AbstractContextManager[None]]
TYPES = {"fp16": torch.float16, "mixed": torch.float16, "bf16": torch.bfloat16}
GREATEST = {"fp16": 65504.0, "bf16": float(torch.finfo(torch.bfloat16).max)}


def entries_of(folder: Path, **tensors: Tensor) -> dict[str, TensorEntry]:
    safetensors.torch.save_file(tensors, folder / "given.safetensors")
    return read_header(folder / "given.safetensors")


def written(folder: Path, entries: dict[str, TensorEntry], precision: str, *wide: str) -> dict[str, Tensor]:
    made = folder / "made.safetensors"
    made.unlink(missing_ok=True)
    write(made, narrow_weights.planned(entries, wide, precision))
    return safetensors.torch.load_file(made)


def difficult() -> Tensor:
    """Return numbers of every size that both types hold, of both signs, with ties, subnormals and zeros."""
    bits = np.random.default_rng(0).integers(0, 2**32, 20000, np.uint32)
    drawn = torch.from_numpy(bits.view(np.float32))
    ties = torch.arange(1, 4097) * (1 + 2.0**-8) + 2.0**-11
    halves = torch.tensor([1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-11, 1 + 3 * 2.0**-11])
    small = torch.tensor([0.0, -0.0, 2.0**-24, 2.0**-25, 3 * 2.0**-26, -1e-40, 1e-45, 2.0**-134])
    found = torch.cat([drawn, ties, halves, -halves, small])
    return found[torch.isfinite(found) & (found.abs() < 65504)]


@pytest.mark.parametrize("precision", TYPES)
def test_every_weight_is_rounded_as_torch_rounds(precision: str, tmp_path: Path) -> None:
    given = difficult()
    found = written(tmp_path, entries_of(tmp_path, a=given), precision)["a"]
    expected = given.to(TYPES[precision])
    assert found.dtype == TYPES[precision]
    assert torch.equal(found.view(torch.int16), expected.view(torch.int16))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_a_weight_that_is_stored_narrow_is_converted(
    precision: str, stored: torch.dtype, tmp_path: Path
) -> None:
    given = difficult().to(stored)
    given = given[given.isfinite()]
    given = given[given.float().abs() <= 65504]
    found = written(tmp_path, entries_of(tmp_path, a=given, b=given.clone()), precision, "b")
    assert torch.equal(found["a"], given.float().to(TYPES[precision]))
    assert found["b"].dtype == torch.float32 and torch.equal(found["b"], given.float())


def test_wide_weights_and_whole_numbers_stay_as_they_are(tmp_path: Path) -> None:
    given = {
        "a": torch.tensor([1 / 3, 1e9]),
        "place": torch.tensor([2**40, -1]),
        "flag": torch.tensor([True, False]),
        "small": torch.tensor([[3], [-7]], dtype=torch.int32),
    }
    found = written(tmp_path, entries_of(tmp_path, **given), "fp16", "a")
    assert {name: one.dtype for name, one in found.items()} == {
        name: one.dtype for name, one in given.items()
    }
    assert all(torch.equal(found[name], one) for name, one in given.items())


@pytest.mark.parametrize("precision", GREATEST)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_weight_too_large_for_the_type_is_an_error(
    precision: str, sign: int, tmp_path: Path, refused: Refused
) -> None:
    greatest = GREATEST[precision]
    fits = entries_of(tmp_path, a=torch.tensor([1.0, sign * greatest]))
    assert written(tmp_path, fits, precision)["a"][1] == sign * greatest
    beyond = {"fp16": 65520.0, "bf16": float(np.finfo(np.float32).max)}[precision]
    name = {"fp16": "F16", "bf16": "BF16"}[precision]
    entries = entries_of(tmp_path, good=torch.ones(3), large=torch.tensor([1.0, sign * beyond]))
    with refused(WeightsError, f"a weight does not fit {name}", f"{beyond:.3g} in large", "--precision auto"):
        written(tmp_path, entries, precision)
    assert written(tmp_path, entries, precision, "large")["large"][1] == np.float32(sign * beyond)


def test_a_weight_is_converted_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_file, "CHUNK_BYTES", 16)
    given = difficult()[:1001]
    found = written(tmp_path, entries_of(tmp_path, a=given), "bf16")["a"]
    assert torch.equal(found, given.bfloat16())
