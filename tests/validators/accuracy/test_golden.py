from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import timm
import torch
import transformers

from vconv.artifact.records import GoldenRecord
from vconv.convert.patches import base, table
from vconv.convert.sources.base import Source
from vconv.errors import ArtifactError, PatchError, WeightsError
from vconv.types import WEIGHTS_FILE, Array, Status
from vconv.validators.accuracy import golden
from vconv.validators.accuracy.golden import Reference, run_reference


@pytest.fixture
def images(size: tuple[int, int]) -> Array:
    return np.random.default_rng(2).standard_normal((3, 3, *size), dtype=np.float32)


@pytest.fixture
def reference(small_source: Source, images: Array) -> Reference:
    return run_reference(small_source, images)


def rounded_periods(theta: float, head_dim: int) -> torch.Tensor:
    quarter = head_dim // 4
    periods = torch.tensor([theta ** (place / quarter) for place in range(quarter)])
    return periods.to(torch.bfloat16).to(torch.float32)


def by_transformers(source: Source, images: Array, dtype: torch.dtype, corrected: bool) -> dict[str, Array]:
    """Run stock transformers, with the authors' periods put in by hand, and cut the tokens up."""
    model = transformers.AutoModel.from_pretrained(source.folder, dtype=torch.float32).eval()
    theta = source.config.get("rope_theta")
    if theta and corrected:
        head_dim = source.config["hidden_size"] // source.config["num_attention_heads"]
        model.rope_embeddings.inv_freq = 1.0 / rounded_periods(theta, head_dim)
    with torch.inference_mode():
        stock = model.to(dtype)(torch.from_numpy(images).to(dtype))
    first = 1 + source.config.get("num_register_tokens", 0)
    return named(stock.last_hidden_state.numpy(), stock.pooler_output.numpy(), first)


def by_timm(source: Source, images: Array, dtype: torch.dtype, corrected: bool) -> dict[str, Array]:
    """Run stock timm, which is made to compute the authors' periods by itself, and cut the tokens up."""
    model: Any = timm.create_model(f"local-dir:{source.folder}", pretrained=True).eval()
    if corrected and hasattr(model, "rope") and model.rope is not None:
        arguments = source.config["model_args"]
        periods = rounded_periods(100.0, arguments["embed_dim"] // arguments["num_heads"])
        model.rope._compute_periods = lambda device="cpu", dtype=torch.float32: periods.to(device, dtype)
        model.rope.reset_parameters()
    with torch.inference_mode():
        wide = model.to(dtype)
        tokens = wide.forward_features(torch.from_numpy(images).to(dtype))
        pooled = wide(torch.from_numpy(images).to(dtype))
    return named(tokens.numpy(), pooled.numpy(), model.num_prefix_tokens)


def named(tokens: Array, pooled: Array, first: int) -> dict[str, Array]:
    found = {"pooled": pooled, "cls": tokens[:, 0]}
    if first > 1:
        found["registers"] = tokens[:, 1:first]
    return {**found, "patches": tokens[:, first:], "last_hidden_state": tokens}


def by_hand(source: Source, images: Array, dtype: torch.dtype, corrected: bool) -> dict[str, Array]:
    run = by_timm if "architecture" in source.config else by_transformers
    return run(source, images, dtype, corrected)


def has_rope(source: Source) -> bool:
    return "rope_theta" in source.config or "dinov3" in source.config.get("architecture", "")


def distance(actual: Array, expected: Array) -> float:
    """Return the relative L2 distance of the worst image."""
    pairs = zip(actual.astype(np.float64), expected.astype(np.float64), strict=True)
    return max(float(np.sqrt(np.square(a - e).sum() / np.square(e).sum())) for a, e in pairs)


def test_the_reference_is_the_stock_model_with_the_authors_periods(
    reference: Reference, small_source: Source, images: Array
) -> None:
    expected = by_hand(small_source, images, torch.float32, corrected=True)
    assert list(reference.outputs) == list(expected)
    for name, value in expected.items():
        assert reference.outputs[name].dtype == np.float32
        assert distance(reference.outputs[name], value) < 1e-6
    assert reference.pixel_values is images


def test_the_floor_is_the_distance_of_float32_from_float64(
    reference: Reference, small_source: Source, images: Array
) -> None:
    exact = by_hand(small_source, images, torch.float64, corrected=True)
    assert set(reference.floor) == set(exact)
    for name, value in exact.items():
        assert reference.floor[name] == pytest.approx(distance(reference.outputs[name], value), rel=1e-3)
        assert 1e-9 < reference.floor[name] < 1e-5


def test_the_distance_to_the_stock_original_is_there_where_it_is_corrected(
    reference: Reference, small_source: Source, images: Array
) -> None:
    assert reference.name == ("original + authors' periods" if has_rope(small_source) else "original")
    if not has_rope(small_source):
        assert reference.to_stock_original == {}
        return
    stock = by_hand(small_source, images, torch.float32, corrected=False)
    for name, value in stock.items():
        found = distance(value, reference.outputs[name])
        assert reference.to_stock_original[name] == pytest.approx(found, rel=1e-3)
        assert found > 100 * reference.floor[name]


def test_with_its_librarys_periods_the_reference_is_the_stock_original(
    small_source: Source, images: Array
) -> None:
    found = run_reference(replace(small_source, periods="library"), images)
    expected = by_hand(small_source, images, torch.float32, corrected=False)
    assert (found.name, found.to_stock_original) == ("original", {})
    assert all(distance(found.outputs[name], value) < 1e-6 for name, value in expected.items())


def test_many_images_are_run_a_few_at_a_time_and_come_out_in_their_order(
    small_source: Source, images: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = np.concatenate([images, images[::-1] * 0.5])
    whole = run_reference(small_source, many)
    monkeypatch.setattr(golden, "AT_ONCE", 4)
    parts = run_reference(small_source, many)
    for name, value in whole.outputs.items():
        assert parts.outputs[name].shape == value.shape
        assert distance(parts.outputs[name], value) < 1e-5


def test_no_patch_has_a_part_in_the_reference(
    reference: Reference, small_source: Source, images: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a patch was asked for")

    for holder, name in ((base, "applied"), (base, "find_sites"), (table, "called_for"), (table, "named")):
        monkeypatch.setattr(holder, name, refuse)
    again = run_reference(small_source, images)
    assert all(np.array_equal(again.outputs[name], reference.outputs[name]) for name in reference.outputs)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_original_whose_outputs_are_not_numbers_is_refused(
    value: float, small_source: Source, images: Array, tmp_path: Path
) -> None:
    folder = shutil.copytree(small_source.folder, tmp_path / "damaged")
    tensors = safetensors.numpy.load_file(folder / WEIGHTS_FILE)
    key = max(name for name in tensors if "norm" in name and name.endswith("bias"))
    tensors[key][0] = value
    safetensors.numpy.save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"not numbers.*NaN or Inf in .*cls"):
        run_reference(replace(small_source, folder=folder), images)


def test_what_is_recorded_comes_back_bit_by_bit(reference: Reference, tmp_path: Path) -> None:
    path = tmp_path / "golden" / "golden.safetensors"
    golden.save(path, reference)
    pixel_values, outputs = golden.load(path)
    assert pixel_values.tobytes() == reference.pixel_values.tobytes()
    assert set(outputs) == set(reference.outputs)
    for name, value in reference.outputs.items():
        assert outputs[name].shape == value.shape
        assert outputs[name].tobytes() == value.tobytes()


def test_a_recording_that_is_no_regular_file_is_not_opened(
    tmp_path: Path, refused: Callable[..., Any]
) -> None:
    (tmp_path / "golden").symlink_to("/dev/zero")
    with refused(ArtifactError, f"cannot read {tmp_path / 'golden'}", "a device, not a regular file"):
        golden.load(tmp_path / "golden")


def test_one_reference_is_recorded_as_one_set_of_bytes(reference: Reference, tmp_path: Path) -> None:
    paths = [tmp_path / place / "golden.safetensors" for place in ("first", "second")]
    for path in paths:
        golden.save(path, reference)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def simple() -> Reference:
    outputs = {"cls": np.ones((2, 8), np.float32), "patches": np.ones((2, 3, 8), np.float32)}
    floor = {"cls": 2e-7, "patches": 3e-7}
    return Reference("original", np.zeros((2, 3, 4, 4), np.float32), outputs, floor, {})


def record(**changed: object) -> GoldenRecord:
    """Return what the manifest says of the simple reference."""
    told = {
        "path": "golden/golden.safetensors",
        "images": ("one", "two"),
        "reference": "original",
        "floor": dict(simple().floor),
        "to_stock_original": {},
    }
    return GoldenRecord.model_validate(told | changed)


def test_a_reference_that_is_as_recorded_agrees() -> None:
    live = simple()
    check = golden.check_recorded(live, (live.pixel_values, live.outputs), record())
    assert (check.name, check.status) == ("golden", Status.PASSED)
    assert "0.0e+00" in check.detail


@pytest.mark.parametrize(("factor", "status"), [(1 + 5e-6, "passed"), (1 + 2e-5, "failed"), (1.1, "failed")])
def test_a_reference_agrees_within_the_strict_limit_of_float32(factor: float, status: str) -> None:
    live = simple()
    recorded = {**live.outputs, "cls": live.outputs["cls"] * np.float32(factor)}
    check = golden.check_recorded(live, (live.pixel_values, recorded), record())
    assert check.status == status
    assert ("cls: vector_relative_error" in check.detail) == (status == "failed")


FAULTS: dict[str, Callable[[dict[str, Array]], object]] = {
    "an output less": lambda outputs: outputs.pop("cls"),
    "an output more": lambda outputs: outputs.update(logits=np.ones((2, 8), np.float32)),
    "another shape": lambda outputs: outputs.update(cls=np.ones((2, 9), np.float32)),
    "another type": lambda outputs: outputs.update(cls=np.ones((2, 8))),
    "not a number": lambda outputs: outputs.update(cls=np.full((2, 8), np.nan, np.float32)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_recording_that_does_not_fit_disagrees(name: str) -> None:
    live, recorded = simple(), dict(simple().outputs)
    FAULTS[name](recorded)
    assert golden.check_recorded(live, (live.pixel_values, recorded), record()).status is Status.FAILED


CLAIMS: dict[str, tuple[dict[str, object], str]] = {
    "a higher floor": (
        {"floor": {"cls": 2e-5, "patches": 3e-7}},
        "the floor of cls is 2.0e-07, in the manifest 2.0e-05",
    ),
    "a lower floor": (
        {"floor": {"cls": 2e-7, "patches": 1e-9}},
        "the floor of patches is 3.0e-07, in the manifest 1.0e-09",
    ),
    "a floor that is no number": (
        {"floor": {"cls": float("nan"), "patches": 3e-7}},
        "the floor of cls is 2.0e-07, in the manifest nan",
    ),
    "one output": ({"floor": {"cls": 2e-7}}, "the floor is of cls, patches, in the manifest of cls"),
    "another reference": (
        {"reference": "original + rope-periods"},
        "it is original, in the manifest original + rope-periods",
    ),
    "a distance to the stock original": (
        {"to_stock_original": {"cls": 1e-3}},
        "the distance to the stock original is of no output, in the manifest of cls",
    ),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_what_the_manifest_says_of_a_recording_is_held_against_the_live_reference(name: str) -> None:
    live, (changed, reason) = simple(), CLAIMS[name]
    check = golden.check_recorded(live, (live.pixel_values, live.outputs), record(**changed))
    assert (check.status, check.fault) == (Status.FAILED, "recording")
    assert check.detail == f"the live reference differs from the recorded one: {reason}"


@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
def test_a_floor_of_another_machine_is_believed(factor: float) -> None:
    live = simple()
    floor = {name: value * factor for name, value in live.floor.items()}
    check = golden.check_recorded(live, (live.pixel_values, live.outputs), record(floor=floor))
    assert check.status is Status.PASSED


def test_without_a_recording_the_check_is_skipped_with_a_reason() -> None:
    check = golden.check_recorded(simple(), None, None)
    assert check.status is Status.SKIPPED
    assert check.detail


def test_a_correction_that_changes_nothing_is_an_error(
    small_source: Source, images: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden.corrections, "correct", lambda *given: "original + nothing")
    with pytest.raises(PatchError, match="the correction of the reference changes no output"):
        run_reference(small_source, images)
