from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import safetensors.torch
import torch

from vconv.convert.files import safetensors_file
from vconv.convert.files.safetensors_file import TensorEntry, read_header
from vconv.convert.sources.base import Source
from vconv.convert.weights import checkpoint, ledger
from vconv.convert.weights.ledger import Line, MatchedTensor, match_tensors, summary
from vconv.convert.weights.pieces import Piece
from vconv.errors import WeightsError

Refused = Callable[..., AbstractContextManager[None]]

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


def entry_of(folder: Path, tensor: torch.Tensor) -> TensorEntry:
    path = folder / "source.safetensors"
    safetensors.torch.save_file({"the.weight": tensor.contiguous()}, path)
    return read_header(path)["the.weight"]


def matches_of(source: Source) -> list[MatchedTensor]:
    return match_tensors(source.network, source.entries)


def written(path: Path, matches: list[MatchedTensor], dropped: dict[str, str]) -> tuple[list[Line], str]:
    return checkpoint.WeightsPlan(path, matches, dropped).write()


def sha256(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_every_sixteen_bit_number_is_widened_as_torch_does_it(dtype: str) -> None:
    bits = torch.from_numpy(np.arange(2**16, dtype=np.uint16).view(np.int16))
    widened = checkpoint.values(bits.numpy().tobytes(), dtype)
    expected = bits.view(DTYPES[dtype]).float().numpy()
    assert widened.dtype == np.float32
    np.testing.assert_array_equal(widened, expected)
    np.testing.assert_array_equal(np.signbit(widened), np.signbit(expected))


def test_float32_stays_as_it_is() -> None:
    numbers = np.array([0.0, -0.0, 1e-45, -3.4e38, np.pi, np.inf, np.nan], np.float32)
    assert checkpoint.values(numbers.tobytes(), "F32").tobytes() == numbers.tobytes()


def test_float64_is_rounded_as_torch_rounds_it() -> None:
    numbers = torch.randn(1000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rounded = checkpoint.values(numbers.numpy().tobytes(), "F64")
    np.testing.assert_array_equal(rounded, numbers.float().numpy())


def test_a_float64_that_float32_cannot_hold_is_refused(tmp_path: Path, refused: Refused) -> None:
    entry = entry_of(tmp_path, torch.tensor([1.0, 1e300], dtype=torch.float64))
    with (
        refused(WeightsError, "not finite", "NaN or Inf in the.weight, as float32"),
        warnings.catch_warnings(action="error"),
    ):
        list(checkpoint.widened(entry))


@pytest.mark.parametrize("dtype", DTYPES)
def test_widened_bytes_are_those_of_torch_over_several_chunks(
    tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = torch.randn(7, 5, generator=torch.Generator().manual_seed(1)).to(DTYPES[dtype])
    monkeypatch.setattr(safetensors_file, "CHUNK_BYTES", 16)
    chunks = list(checkpoint.widened(entry_of(tmp_path, tensor)))
    assert len(chunks) > 1
    assert b"".join(chunks) == tensor.float().numpy().tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_is_refused(
    tmp_path: Path, dtype: str, bad: float, refused: Refused
) -> None:
    tensor = torch.zeros(3, 4).to(DTYPES[dtype])
    tensor[2, 3] = bad
    with refused(WeightsError, "source.safetensors", "NaN or Inf in the.weight", "finite weights"):
        list(checkpoint.widened(entry_of(tmp_path, tensor)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_greatest_is_the_greatest_magnitude(
    tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safetensors_file, "CHUNK_BYTES", 16)
    tensor = torch.linspace(-2, 1.5, 41).to(DTYPES[dtype])
    assert checkpoint.greatest(entry_of(tmp_path, tensor)) == 2.0


@pytest.mark.parametrize("tensor", [torch.zeros(9), -torch.zeros(9), torch.zeros(0)])
def test_greatest_of_zeros_is_exactly_zero(tmp_path: Path, tensor: torch.Tensor) -> None:
    assert checkpoint.greatest(entry_of(tmp_path, tensor)) == 0.0


def test_greatest_finds_the_smallest_positive_number(tmp_path: Path) -> None:
    tensor = torch.zeros(9)
    tensor[4] = 1e-45
    assert checkpoint.greatest(entry_of(tmp_path, tensor)) > 0.0


def test_a_copy_holds_every_tensor_bit_for_bit(small_source: Source, tmp_path: Path) -> None:
    path = tmp_path / "copy.safetensors"
    lines, digest = written(path, matches_of(small_source), {})
    source = safetensors.torch.load_file(small_source.folder / "model.safetensors")
    copy = safetensors.torch.load_file(path)
    assert set(copy) == set(source)
    assert [name for name in source if sha256(copy[name]) != sha256(source[name])] == []
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert small_source.files == {"model.safetensors": digest}
    assert summary(lines)["copied"] == summary(lines)["tensors"] == len(source)
    assert {line.source: line.sha256 for line in lines} == {
        name: sha256(tensor) for name, tensor in source.items()
    }


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_a_cast_keeps_every_value(small_source: Source, tmp_path: Path, dtype: str) -> None:
    source = {
        name: tensor.to(DTYPES[dtype])
        for name, tensor in safetensors.torch.load_file(small_source.folder / "model.safetensors").items()
    }
    safetensors.torch.save_file(source, tmp_path / "half.safetensors")
    net = small_source.network
    lines, _ = written(
        tmp_path / "copy.safetensors", match_tensors(net, read_header(tmp_path / "half.safetensors")), {}
    )
    copy = safetensors.torch.load_file(tmp_path / "copy.safetensors")
    assert set(copy) == set(source)
    for name, tensor in source.items():
        assert copy[name].dtype == torch.float32
        assert torch.equal(copy[name], tensor.float())
    assert {(line.action, line.dtype) for line in lines} == {("cast", dtype)}
    assert {line.sha256 for line in lines} == {sha256(tensor) for tensor in copy.values()}


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_narrow_weights_are_kept_as_they_are_and_float64_is_not(
    small_source: Source, tmp_path: Path, dtype: str
) -> None:
    source = safetensors.torch.load_file(small_source.folder / "model.safetensors")
    source = {name: tensor.to(DTYPES[dtype]) for name, tensor in source.items()}
    first, second = list(source)[:2]
    source |= {first: source[first].double(), second: source[second].float()}
    safetensors.torch.save_file(source, tmp_path / "mixed.safetensors")
    matches = match_tensors(small_source.network, read_header(tmp_path / "mixed.safetensors"))
    plan = checkpoint.WeightsPlan(tmp_path / "kept.safetensors", matches, {}, keep=True)
    lines, digest = plan.write()
    kept = safetensors.torch.load_file(tmp_path / "kept.safetensors")
    expected = {**source, first: source[first].float()}
    assert kept.keys() == expected.keys()
    for name, tensor in expected.items():
        assert kept[name].dtype == tensor.dtype, name
        assert torch.equal(kept[name], tensor), name
    actions = {line.source: (line.action, line.dtype, line.stored) for line in lines}
    assert actions.pop(first) == ("cast", "F64", "F32")
    assert actions.pop(second) == ("copied", "F32", "F32")
    assert {*actions.values()} == {("copied", dtype, dtype)}
    ledger.save(tmp_path / "ledger.json", lines)
    again = checkpoint.rewrite(tmp_path / "again", ledger.load(tmp_path / "ledger.json"), by_name(matches))
    assert again == digest


def by_name(matches: list[MatchedTensor]) -> dict[str, TensorEntry]:
    return {pair.source: pair.entry for pair in matches}


def test_a_tensor_of_two_types_becomes_float32_as_a_whole(tmp_path: Path) -> None:
    parts = {"q": torch.tensor([1.0, 2.0]).bfloat16(), "k": torch.tensor([3.0, 4.5])}
    safetensors.torch.save_file(parts, tmp_path / "parts")
    entries = read_header(tmp_path / "parts")
    matches = [
        MatchedTensor(name, "", name, entries[name], (Piece("qk", (4,), start, 2),))
        for name, start in (("q", 0), ("k", 2))
    ]
    lines, _ = checkpoint.WeightsPlan(tmp_path / "out", matches, {}, keep=True).write()
    assert torch.equal(
        safetensors.torch.load_file(tmp_path / "out")["qk"], torch.tensor([1.0, 2.0, 3.0, 4.5])
    )
    assert {line.stored for line in lines} == {"F32"}


def test_a_tensor_with_another_name_in_the_artifact_is_called_renamed(tmp_path: Path) -> None:
    entry = entry_of(tmp_path, torch.ones(2))
    lines, _ = written(tmp_path / "out", [MatchedTensor("the.weight", "new", "new", entry)], {})
    assert [(line.source, line.target, line.action) for line in lines] == [("the.weight", "new", "renamed")]
    assert list(safetensors.torch.load_file(tmp_path / "out")) == ["new"]


def test_a_dropped_tensor_is_in_the_ledger_with_its_proof_and_not_in_the_file(
    small_source: Source, tmp_path: Path
) -> None:
    matches = matches_of(small_source)
    gone = matches[3].canonical
    lines, _ = written(tmp_path / "out", matches, {gone: "it is all zero"})
    source = safetensors.torch.load_file(small_source.folder / "model.safetensors")
    assert set(safetensors.torch.load_file(tmp_path / "out")) == set(source) - {gone}
    assert [line.source for line in lines] == [pair.source for pair in matches]
    dropped = [line for line in lines if line.action == "dropped"]
    assert [(line.source, line.target, line.proof) for line in dropped] == [(gone, "", "it is all zero")]
    assert dropped[0].sha256 == sha256(source[gone])
    assert [line for line in lines if line.action != "dropped" and line.proof] == []


def test_a_bad_weight_in_the_middle_stops_the_writing(
    small_source: Source, tmp_path: Path, refused: Refused
) -> None:
    tensors = safetensors.torch.load_file(small_source.folder / "model.safetensors")
    name = sorted(tensors)[len(tensors) // 2]
    tensors[name].view(-1)[-1] = float("nan")
    safetensors.torch.save_file(tensors, tmp_path / "bad.safetensors")
    matches = match_tensors(small_source.network, read_header(tmp_path / "bad.safetensors"))
    with refused(WeightsError, "bad.safetensors", f"NaN or Inf in {name}"):
        written(tmp_path / "out", matches, {})


def test_a_plan_knows_the_position_of_every_tensor_before_it_is_written(
    small_source: Source, tmp_path: Path
) -> None:
    matches = matches_of(small_source)
    plan = checkpoint.WeightsPlan(tmp_path / "out", matches, {matches[3].canonical: "it is all zero"})
    planned = plan.entries
    assert not plan.path.exists()
    plan.write()
    assert planned == read_header(plan.path)
    assert plan.nbytes == sum(entry.nbytes for entry in planned.values())
    assert plan.kept == [*matches[:3], *matches[4:]]


def test_writing_can_be_cancelled(small_source: Source, tmp_path: Path) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(InterruptedError):
        checkpoint.WeightsPlan(tmp_path / "out", matches_of(small_source), {}).write(stop)


def test_a_file_can_be_rewritten_from_its_ledger_byte_by_byte(small_source: Source, tmp_path: Path) -> None:
    matches = matches_of(small_source)
    lines, digest = written(tmp_path / "first", matches, {matches[3].canonical: "it is all zero"})
    again = checkpoint.rewrite(tmp_path / "second", lines, small_source.entries)
    assert again == digest
    assert (tmp_path / "second").read_bytes() == (tmp_path / "first").read_bytes()


@pytest.mark.parametrize("change", ["a value", "a shape", "a type", "a name"])
def test_weights_that_differ_from_the_ledger_are_refused(
    small_source: Source, tmp_path: Path, refused: Refused, change: str
) -> None:
    lines, _ = written(tmp_path / "first", matches_of(small_source), {})
    tensors = safetensors.torch.load_file(small_source.folder / "model.safetensors")
    chosen = sorted(tensors)[5]
    tensor = tensors.pop(chosen)
    if change == "a value":
        tensor.view(-1)[-1] += 1
    elif change == "a shape":
        tensor = tensor[None]
    elif change == "a type":
        tensor = tensor.half()
    tensors["another" if change == "a name" else chosen] = tensor.contiguous()
    safetensors.torch.save_file(tensors, tmp_path / "other.safetensors")
    entries = read_header(tmp_path / "other.safetensors")
    with refused(WeightsError, "not the weights that the artifact was made from", chosen):
        checkpoint.rewrite(tmp_path / "second", lines, entries)
