from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import timm
import torch
import transformers

from vconv.catalog.systems import SYSTEMS, miniature
from vconv.convert.architectures.base import Architecture, Part
from vconv.convert.files import safetensors_file
from vconv.convert.files.safetensors_file import read_header
from vconv.convert.layouts.base import Layout, Rule, one
from vconv.convert.libraries.readers import network
from vconv.convert.network import Network
from vconv.convert.sources.recipes.table import LATEST, RECIPES
from vconv.convert.weights import checkpoint, ledger
from vconv.convert.weights.checkpoint import WeightsPlan
from vconv.convert.weights.ledger import Line, match_tensors
from vconv.convert.weights.regroup import UNUSED, regrouped
from vconv.errors import WeightsError
from vconv.types import Status
from vconv.validators.checks.integrity import verify_ledger, verify_tensors

Refused = Callable[..., AbstractContextManager[None]]
Arrays = dict[str, np.ndarray[Any, Any]]

WIDTH, HIDDEN, BLOCKS = 3, 4, 2
_BASE = network(SYSTEMS["dinov3-vits16"].config)
NUMBERS = replace(_BASE.numbers, width=WIDTH, hidden=HIDDEN, blocks=BLOCKS, flags=frozenset())
TOY = Architecture(
    "toy",
    {
        "mask": Part("token", (1, 1, "width"), unused=True),
        "token": Part("token", (1, 1, "width")),
        "blocks.{i}.gate": Part("fc1", ("hidden", "width")),
        "blocks.{i}.up": Part("fc1", ("hidden", "width")),
        "blocks.{i}.qkv": Part("qkv", (6, "width")),
    },
)
GATED = ("blocks.{i}.gate", "blocks.{i}.up")
THIRDS = ("b.{i}.q", "b.{i}.k", "b.{i}.v")


def toy(name: str, *rules: Rule) -> Network:
    return Network(Layout(name, "timm", TOY, rules), "timm", {}, NUMBERS, "")


APART = toy(
    "apart",
    one("t", "token"),
    one("b.{i}.gate", GATED[0]),
    one("b.{i}.up", GATED[1]),
    Rule(THIRDS, ("blocks.{i}.qkv",)),
)
FUSED = toy(
    "fused",
    one("the.token", "token", shape=(1, "width")),
    Rule(("l.{i}.weights_in",), GATED),
    one("l.{i}.qkv", "blocks.{i}.qkv"),
)
SHIFTED = toy(
    "shifted",
    one("t", "token"),
    # Two tensors of equal size hold three parts, so that the boundary of the tensors lies inside a part.
    Rule(("s.{i}.a", "s.{i}.b"), (GATED[1], "blocks.{i}.qkv", GATED[0])),
)
"""Three layouts of one architecture."""


def drawn(net: Network, dtype: Any = np.float32) -> Arrays:
    rng = np.random.default_rng(3)
    return {key: rng.standard_normal(spec.shape).astype(dtype) for key, spec in net.tensors().items()}


def saved(path: Path, arrays: Arrays) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    safetensors.numpy.save_file(arrays, path)
    return path


def carried(path: Path, source: Network, target: Network, out: Path) -> tuple[list[Line], str]:
    """Write a checkpoint in another layout; return the ledger and the SHA-256 of the file."""
    out.parent.mkdir(exist_ok=True, parents=True)
    matches, dropped = regrouped(match_tensors(source, read_header(path)), source, target)
    return WeightsPlan(out, matches, dropped).write()


def loaded(path: Path) -> Arrays:
    return dict(safetensors.numpy.load_file(path))


def test_fusing_concatenates_the_parts(tmp_path: Path) -> None:
    before = drawn(APART)
    carried(saved(tmp_path / "a", before), APART, FUSED, tmp_path / "b")
    after = loaded(tmp_path / "b")
    assert {name: value.shape for name, value in after.items()} == {
        "the.token": (1, 3),
        **{f"l.{i}.weights_in": (8, 3) for i in range(BLOCKS)},
        **{f"l.{i}.qkv": (6, 3) for i in range(BLOCKS)},
    }
    for i in range(BLOCKS):
        gated = np.concatenate([before[f"b.{i}.gate"], before[f"b.{i}.up"]])
        assert np.array_equal(after[f"l.{i}.weights_in"], gated)
        thirds = np.concatenate([before[f"b.{i}.{name}"] for name in "qkv"])
        assert np.array_equal(after[f"l.{i}.qkv"], thirds)
    assert np.array_equal(after["the.token"], before["t"][0])


def test_splitting_separates_the_parts_again(tmp_path: Path) -> None:
    before = drawn(FUSED)
    carried(saved(tmp_path / "a", before), FUSED, APART, tmp_path / "b")
    after = loaded(tmp_path / "b")
    for i in range(BLOCKS):
        gate, up = np.split(before[f"l.{i}.weights_in"], 2)
        assert np.array_equal(after[f"b.{i}.gate"], gate)
        assert np.array_equal(after[f"b.{i}.up"], up)
        for name, third in zip("qkv", np.split(before[f"l.{i}.qkv"], 3), strict=True):
            assert np.array_equal(after[f"b.{i}.{name}"], third)


PAIRS = [(one_, other) for one_ in (APART, FUSED, SHIFTED) for other in (APART, FUSED, SHIFTED)]


@pytest.mark.parametrize(("there", "back"), PAIRS, ids=lambda net: net.layout.family)
def test_conversion_to_another_layout_and_back_gives_the_same_bits(
    there: Network, back: Network, tmp_path: Path
) -> None:
    before = drawn(there)
    path = saved(tmp_path / "a", before)
    carried(path, there, back, tmp_path / "b")
    carried(tmp_path / "b", back, there, tmp_path / "c")
    after = loaded(tmp_path / "c")
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert after[name].tobytes() == value.tobytes()
        assert after[name].shape == value.shape


def test_the_ledger_has_one_line_per_source_tensor_with_its_action(tmp_path: Path) -> None:
    lines, _ = carried(saved(tmp_path / "a", drawn(APART)), APART, FUSED, tmp_path / "b")
    assert len(lines) == len(APART.tensors())
    assert {line.source: line.action for line in lines if line.source in ("t", "b.0.gate", "b.1.v")} == {
        "t": "renamed", "b.0.gate": "fused", "b.1.v": "fused",
    }  # fmt: skip
    up = next(line for line in lines if line.source == "b.1.up")
    assert up.target == "l.1.weights_in"
    assert [(piece.start, piece.count) for piece in up.pieces] == [(12, 12)]
    lines, _ = carried(tmp_path / "b", FUSED, APART, tmp_path / "c")
    split = next(line for line in lines if line.source == "l.1.qkv")
    assert (split.action, split.target, split.targets) == ("split", "", ("b.1.q", "b.1.k", "b.1.v"))
    assert ledger.summary(lines) == {
        "tensors": 5, "copied": 0, "renamed": 1, "cast": 0, "dropped": 0, "split": 4,
    }  # fmt: skip


@pytest.mark.parametrize(("source", "target"), [(APART, FUSED), (FUSED, APART), (SHIFTED, FUSED)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_saved_ledger_proves_the_file_and_can_rewrite_it(
    source: Network, target: Network, dtype: Any, tmp_path: Path
) -> None:
    path = saved(tmp_path / "a", drawn(source, dtype))
    lines, sha256 = carried(path, source, target, tmp_path / "b")
    ledger.save(tmp_path / "ledger.json", lines)
    read = ledger.load(tmp_path / "ledger.json")
    assert read == lines
    entries, artifact = read_header(path), read_header(tmp_path / "b")
    assert verify_ledger(read, artifact).status is Status.PASSED
    assert verify_tensors(read, entries, artifact, lambda key: "weights").status is Status.PASSED
    assert checkpoint.rewrite(tmp_path / "again", read, entries) == sha256
    assert sha256 == hashlib.sha256((tmp_path / "again").read_bytes()).hexdigest()


def spoiled(path: Path, name: str) -> None:
    """Turn one bit of the last element of a tensor."""
    entry = read_header(path)[name]
    with path.open("r+b") as file:
        file.seek(entry.offset + entry.nbytes - 1)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize(
    ("source", "target", "name"), [(APART, FUSED, "l.1.weights_in"), (FUSED, APART, "b.1.v")]
)
def test_one_changed_bit_of_a_regrouped_tensor_is_found(
    source: Network, target: Network, name: str, tmp_path: Path
) -> None:
    path = saved(tmp_path / "a", drawn(source))
    lines, _ = carried(path, source, target, tmp_path / "b")
    spoiled(tmp_path / "b", name)
    artifact = read_header(tmp_path / "b")
    assert verify_ledger(lines, artifact).status is Status.FAILED
    found = verify_tensors(lines, read_header(path), artifact, lambda key: "weights")
    assert found.status is Status.FAILED
    assert name in found.detail


def test_a_file_is_not_rewritten_from_other_weights(tmp_path: Path, refused: Refused) -> None:
    path = saved(tmp_path / "a", drawn(FUSED))
    lines, _ = carried(path, FUSED, APART, tmp_path / "b")
    spoiled(path, "l.0.qkv")
    with refused(WeightsError, "not the weights", "other values in l.0.qkv"):
        checkpoint.rewrite(tmp_path / "again", lines, read_header(path))


def with_mask(net: Network) -> Network:
    layout = net.layout
    return replace(net, layout=replace(layout, rules=(*layout.rules, one("mask", "mask"))))


def test_a_tensor_that_inference_does_not_use_is_dropped_with_proof(tmp_path: Path) -> None:
    source = with_mask(APART)
    lines, _ = carried(saved(tmp_path / "a", drawn(source)), source, FUSED, tmp_path / "b")
    assert [(line.source, line.proof) for line in lines if line.action == "dropped"] == [("mask", UNUSED)]


def test_a_tensor_that_inference_uses_is_never_lost(tmp_path: Path, refused: Refused) -> None:
    poor = replace(FUSED, layout=replace(FUSED.layout, rules=FUSED.layout.rules[:-1]))
    path = saved(tmp_path / "a", drawn(APART))
    with refused(WeightsError, "do not fit the layout fused", "no place for b.0.q"):
        carried(path, APART, poor, tmp_path / "b")


def test_a_tensor_that_the_source_lacks_is_never_invented(tmp_path: Path, refused: Refused) -> None:
    path = saved(tmp_path / "a", drawn(APART))
    with refused(WeightsError, "do not fit the layout fused", "no mask in the source"):
        carried(path, APART, with_mask(FUSED), tmp_path / "b")


def test_networks_with_other_numbers_are_refused(tmp_path: Path, refused: Refused) -> None:
    path = saved(tmp_path / "a", drawn(APART))
    wider = replace(FUSED, known=replace(NUMBERS, hidden=5))
    with refused(
        WeightsError, "a blocks.0.gate of 12 elements", "15 elements, by the numbers of the configuration"
    ):
        carried(path, APART, wider, tmp_path / "b")


SIDE = 56
TRANSFORMERS = {
    **SYSTEMS["dinov2-large"].config,
    **{"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2, "mlp_ratio": 2},
    **{"image_size": SIDE, "use_mask_token": False},
}
TIMM = {
    "architecture": "vit_small_patch14_dinov2",
    "num_classes": 0,
    "pretrained_cfg": {},
    "model_args": {"embed_dim": 96, "depth": 3, "num_heads": 2, "mlp_ratio": 2, "img_size": SIDE},
}
"""Configurations of a small DINOv2 without registers, for both libraries."""


def test_a_dinov2_is_fused_from_transformers_to_timm_and_split_again(tmp_path: Path) -> None:
    theirs, ours = network(TRANSFORMERS), network(TIMM)
    folders = [tmp_path / name for name in ("transformers", "timm", "back")]
    for folder, config in zip(folders, (TRANSFORMERS, TIMM, TRANSFORMERS), strict=True):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(dict(config)))
    files = [folder / "model.safetensors" for folder in folders]
    digest = safetensors_file.write(files[0], RECIPES[LATEST].planned(theirs, 5))
    lines, _ = carried(files[0], theirs, ours, files[1])
    assert {line.action for line in lines} == {"renamed", "fused"}
    _, again = carried(files[1], ours, theirs, files[2])
    assert again == digest
    one_, other = (
        transformers.AutoModel.from_pretrained(folders[0]).eval(),
        timm.create_model(f"local-dir:{folders[1]}", pretrained=True),
    )
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = one_(images).last_hidden_state
        actual = other.eval().forward_features(images)
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-4)
    assert expected.abs().max() > 1


def test_a_dinov3_is_split_from_timm_to_transformers_and_fused_again(tmp_path: Path) -> None:
    """transformers stores a mask token that timm does not have, so that the test begins with transformers."""
    config = {**SYSTEMS["dinov3-vits16"].config, "num_hidden_layers": 2}
    bare = network({**config, "query_bias": False, "value_bias": False})
    arguments = {"num_classes": 0, "model_args": {"depth": 2}, "pretrained_cfg": {}}
    ours = network({"architecture": "vit_small_patch16_dinov3", **arguments})
    safetensors_file.write(tmp_path / "a", RECIPES[LATEST].planned(bare, 5))
    first, _ = carried(tmp_path / "a", bare, ours, tmp_path / "b")
    assert [line.source for line in first if line.action == "dropped"] == ["embeddings.mask_token"]
    model = timm.create_model("vit_small_patch16_dinov3", num_classes=0, depth=2)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in loaded(tmp_path / "b").items()})
    without = replace(bare, layout=replace(bare.layout, rules=tuple(
        rule for rule in bare.layout.rules if rule.parts != ("mask_token",)
    )))  # fmt: skip
    second, _ = carried(tmp_path / "b", ours, without, tmp_path / "c")
    assert sum(line.action == "split" for line in second) == 2
    before, after = loaded(tmp_path / "a"), loaded(tmp_path / "c")
    assert before.keys() - after.keys() == {"embeddings.mask_token"}
    assert all(after[name].tobytes() == before[name].tobytes() for name in after)


COUNTERPARTS = [
    ("vit_base_patch16_224.orig_in21k_ft_in1k", "vit-base-patch16-224", {}),
    ("vit_small_patch14_dinov2.lvd142m", "dinov2-small", {"use_mask_token": False, "image_size": 56}),
    (
        "vit_giant_patch14_dinov2.lvd142m",
        "dinov2-giant",
        {"use_mask_token": False, "image_size": 56, "mlp_ratio": 1.5},
    ),
]
"""A system of timm, its counterpart in transformers, and what the counterpart lacks in timm."""


@pytest.mark.parametrize(("name", "counterpart", "more"), COUNTERPARTS)
def test_timm_to_transformers_and_back_gives_the_same_bits(
    name: str, counterpart: str, more: dict[str, Any], tmp_path: Path
) -> None:
    ours = network(miniature(SYSTEMS[name]).config)
    theirs = network({**miniature(SYSTEMS[counterpart]).config, **more})
    digest = safetensors_file.write(tmp_path / "timm", RECIPES[LATEST].planned(ours, 5))
    lines, _ = carried(tmp_path / "timm", ours, theirs, tmp_path / "transformers")
    assert "dropped" not in {line.action for line in lines}
    names = set(read_header(tmp_path / "transformers"))
    assert names == {theirs.stored_key(tensor) for tensor in theirs.tensors().values()}
    _, again = carried(tmp_path / "transformers", theirs, ours, tmp_path / "again")
    assert again == digest
