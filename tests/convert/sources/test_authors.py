"""Weights written for the authors' own code, against a restatement of the published formulas."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import published_formulas as published
import pytest
import safetensors.torch
import torch
from layout_files import (
    GATED,
    TIMM2,
    TIMM3,
    TRANSFORMERS2,
    TRANSFORMERS3,
    VIT,
    distance,
    matching,
    opened,
    pictures,
    stock_folder,
)
from published_formulas import CONVNEXT, DINOV2, DINOV3, WIDTH, State, drawn, tokens

from vconv.catalog.systems import SYSTEMS, miniature
from vconv.convert.files.safetensors_file import read_header
from vconv.convert.sources import authors
from vconv.convert.sources.base import Source
from vconv.convert.sources.table import Request, open_source
from vconv.convert.weights.ledger import Line
from vconv.errors import InputError
from vconv.validators.accuracy import golden
from vconv.validators.checks.integrity import verify_tensors

Refused = Callable[..., AbstractContextManager[None]]
CONVNEXTS = ["dinov3-convnext-tiny", "convnext_tiny.dinov3_lvd1689m"]
DRAWN: list[tuple[str, str, dict[str, Any]]] = [
    (DINOV3, TRANSFORMERS3, {}),
    (DINOV3, TIMM3, {}),
    (DINOV2, TRANSFORMERS2, {"registers": 0}),
    (DINOV2, TIMM2, {}),
    *GATED,
    *((CONVNEXT, name, {}) for name in CONVNEXTS),
]
"""The family, the system that a file of the authors is opened for, and what is drawn for it."""
each = pytest.mark.parametrize(("family", "name", "options"), DRAWN)


def state_of(family: str, options: dict[str, Any]) -> State:
    """Draw a file of the authors in which, as in theirs, the masked key biases are zero."""
    state = published.drawn_convnext() if family == CONVNEXT else drawn(family, **options)
    if options.get("bias", 1) is None:
        state |= {"local_cls_norm.weight": torch.ones(WIDTH), "local_cls_norm.bias": torch.zeros(WIDTH)}
    for name, value in state.items():
        if family == DINOV3 and name.endswith("qkv.bias"):
            value[WIDTH : 2 * WIDTH] = 0
    return state


def written(source: Source, path: Path, keep_dtype: bool = False) -> tuple[State, list[Line]]:
    """Write a source for the authors' code; return the tensors and the ledger."""
    planned = authors.for_authors(source, path, keep_dtype)
    lines, _ = planned.plan.write()
    check = verify_tensors(
        lines, planned.entries, read_header(path), lambda key: "weights", matches=planned.plan.matches
    )
    assert check.status == "passed", check.detail
    return safetensors.torch.load_file(path), lines


def same_bits(actual: State, expected: State) -> None:
    """Compare names, types, shapes and every bit."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert (actual[name].dtype, actual[name].shape) == (value.dtype, value.shape), name
        assert actual[name].view(torch.uint8).equal(value.contiguous().view(torch.uint8)), name


def in_float32(state: State) -> State:
    return {name: value.float() for name, value in state.items()}


@each
def test_a_file_of_the_authors_is_written_again_bit_by_bit(
    family: str, name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    state = state_of(family, options)
    source = opened(name, state, tmp_path / "a")
    found, lines = written(source, tmp_path / "b")
    same_bits(found, in_float32(state))
    assert {line.source for line in lines} == set(state)
    same_bits(written(source, tmp_path / "c", keep_dtype=True)[0], state)
    assert authors.for_authors(source, tmp_path / "d").losses == ()


THERE_AND_BACK = [
    *((*case, dtype) for case in DRAWN for dtype in (torch.float32, torch.bfloat16)),
    (*DRAWN[0], torch.float16),
]


@pytest.mark.parametrize(("family", "name", "options", "dtype"), THERE_AND_BACK)
def test_the_authors_layout_to_a_library_and_back_is_the_same_bits(
    family: str,
    name: str,
    options: dict[str, Any],
    dtype: torch.dtype,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name == "dinov3-vit7b16":
        monkeypatch.setattr(authors, "_7B", ("dinov3", WIDTH))
    state = {key: value.to(dtype) for key, value in state_of(family, options).items()}
    if dtype is torch.float16:
        state = {key: value for key, value in state.items() if key != "rope_embed.periods"}
    there = opened(name, state, tmp_path / "a")
    library = safetensors.torch.load_file(there.folder / "model.safetensors")
    narrow = {value.dtype for key, value in library.items() if key != "cls_token"}
    assert narrow == {dtype}
    found, _ = written(opened(name, library, tmp_path / "b", allow_lossy=True), tmp_path / "c", True)
    expected = dict(state)
    if SYSTEMS[name].library == "timm" and family != CONVNEXT:
        expected["mask_token"] = torch.zeros_like(state["mask_token"])  # timm has none
    if name == TIMM2 or "reg4" in name:  # timm stores the sum of the class token and its position
        position = state["pos_embed"][:, :1].float()
        sums = state["cls_token"].float() + position
        assert torch.equal(found["cls_token"].float() + found["pos_embed"][:, :1].float(), sums)
        assert torch.equal(found["pos_embed"][:, 1:].float(), state["pos_embed"][:, 1:].float())
        for key in ("cls_token", "pos_embed"):
            expected[key] = found[key]
    if "rope_embed.periods" in found:
        periods = found.pop("rope_embed.periods")
        assert torch.equal(periods.float(), published.drawn(DINOV3)["rope_embed.periods"].float())
        expected.pop("rope_embed.periods", None)
    for key in (key for key in expected if key.startswith("norms.3") or key.endswith("bias_mask")):
        assert torch.equal(found[key].float(), expected[key].float())
        found[key] = expected[key]
    same_bits(found, expected)


STOCK = [
    (DINOV3, TRANSFORMERS3, TIMM3),
    (DINOV3, TIMM3, TRANSFORMERS3),
    (DINOV3, "dinov3-vits16plus", "vit_small_plus_patch16_dinov3.lvd1689m"),
    (DINOV3, "vit_small_plus_patch16_dinov3.lvd1689m", "dinov3-vits16plus"),
    (DINOV2, TRANSFORMERS2, "vit_small_patch14_dinov2.lvd142m"),
    (DINOV2, "vit_small_patch14_dinov2.lvd142m", TRANSFORMERS2),
    (DINOV2, "dinov2-with-registers-small", TIMM2),
    (DINOV2, TIMM2, "dinov2-with-registers-small"),
    (CONVNEXT, *CONVNEXTS),
    (CONVNEXT, *reversed(CONVNEXTS)),
]
"""A family, a system that a library builds with random values, and its counterpart."""


@pytest.mark.parametrize(("family", "name", "other"), STOCK)
def test_the_published_formulas_compute_what_the_library_does_from_the_written_file(
    family: str, name: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systems = matching(name, other)
    stock_folder(systems[name], tmp_path / "stock")
    (tmp_path / "scratch").mkdir()
    source = open_source(Request(systems[name], str(tmp_path / "stock")), tmp_path / "scratch")
    side = source.network.numbers.image[0]
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    state, _ = written(source, tmp_path / "file")
    compute = published.convnext_tokens if family == CONVNEXT else lambda *given: tokens(family, *given)
    with golden.running(source) as run:
        expected = run(images.numpy())["last_hidden_state"]
    assert distance(compute(state, images), expected) < 5e-6


@pytest.mark.parametrize("width", [4096, WIDTH])
def test_a_vit_7b_has_what_the_authors_code_asks_of_it(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authors, "_7B", ("dinov3", width))
    state = drawn(DINOV3, bias=None, gated=True)
    there = opened("dinov3-vit7b16", state, tmp_path / "a")
    library = safetensors.torch.load_file(there.folder / "model.safetensors")
    found, lines = written(opened("dinov3-vit7b16", library, tmp_path / "b"), tmp_path / "c")
    biases = {f"blocks.{i}.attn.qkv.{kind}" for i in range(3) for kind in ("bias", "bias_mask")}
    training = {"local_cls_norm.weight", "local_cls_norm.bias"}
    assert found.keys() ^ state.keys() == (training if width == WIDTH else biases)
    if width == WIDTH:
        assert found["local_cls_norm.weight"].eq(1).all() and not found["local_cls_norm.bias"].any()
        proofs = {line.target: (line.action, line.proof) for line in lines}
        assert proofs["local_cls_norm.bias"][0] == "added"
        assert "only training uses it" in proofs["local_cls_norm.bias"][1]


def test_a_key_bias_gets_a_mask_that_keeps_it(tmp_path: Path) -> None:
    state, images = drawn(DINOV3), pictures(DINOV3)
    for i in range(published.BLOCKS):
        state[f"blocks.{i}.attn.qkv.bias_mask"][:] = 1
    there = opened(TRANSFORMERS3, state, tmp_path / "a")
    (tmp_path / "stock").mkdir()
    for name in ("model.safetensors", *there.library.files):
        (tmp_path / "stock" / name).write_bytes((there.folder / name).read_bytes())
    (tmp_path / "scratch").mkdir()
    system = replace(miniature(SYSTEMS[TRANSFORMERS3]), config=there.config)
    back = open_source(Request(system, str(tmp_path / "stock")), tmp_path / "scratch")
    assert back.regrouped is None
    found, _ = written(back, tmp_path / "c")
    assert found["blocks.0.attn.qkv.bias_mask"].all()
    assert torch.equal(tokens(DINOV3, found, images), tokens(DINOV3, state, images))


def test_the_periods_of_the_library_are_written_if_the_user_asks_for_them(tmp_path: Path) -> None:
    stock_folder(miniature(SYSTEMS[TRANSFORMERS3]), tmp_path / "stock")
    exact = 100.0 ** (torch.arange(12) / 12)
    for periods, expected in (("authors", exact.bfloat16().float()), ("library", exact)):
        (tmp_path / periods).mkdir()
        asked = Request(miniature(SYSTEMS[TRANSFORMERS3]), str(tmp_path / "stock"), periods=periods)
        found, _ = written(open_source(asked, tmp_path / periods), tmp_path / f"{periods}.safetensors")
        torch.testing.assert_close(found["rope_embed.periods"], expected, rtol=2e-7, atol=0)


def test_periods_that_the_file_does_not_store_are_written(tmp_path: Path) -> None:
    state = drawn(DINOV3)
    expected = state.pop("rope_embed.periods")
    for i in range(published.BLOCKS):
        del state[f"blocks.{i}.attn.qkv.bias_mask"]
        state[f"blocks.{i}.attn.qkv.bias"][WIDTH : 2 * WIDTH] = 0
    found, lines = written(opened(TRANSFORMERS3, state, tmp_path / "a"), tmp_path / "b")
    same_bits(found, in_float32(drawn(DINOV3)) | {key: found[key] for key in state})
    assert torch.equal(found["rope_embed.periods"], expected.float())
    assert {line.action for line in lines if line.source not in state} == {"added"}


def test_what_the_authors_code_computes_otherwise_is_named_as_a_loss(tmp_path: Path) -> None:
    third = matching(TRANSFORMERS3, TIMM3)
    stock_folder(third[TIMM3], tmp_path / "timm")
    second = miniature(SYSTEMS[TRANSFORMERS2])
    classifier = {"architectures": ["Dinov2ForImageClassification"], "num_labels": 5, "layer_norm_eps": 1e-5}
    second = replace(second, config={**second.config, **classifier})
    stock_folder(second, tmp_path / "second")

    def losses(given: Request, name: str) -> tuple[str, ...]:
        (tmp_path / name).mkdir()
        source = open_source(given, tmp_path / name)
        return authors.for_authors(source, tmp_path / f"{name}.safetensors").losses

    timm = Request(third[TIMM3], str(tmp_path / "timm"))
    assert losses(timm, "a") == ("the output pooled is cls, not avg",)
    assert losses(replace(timm, pool="cls"), "b") == ()
    grid = second.config["image_size"]
    assert losses(Request(second, str(tmp_path / "second")), "c") == (
        "the classifier is dropped",
        "every LayerNorm adds 1e-06 to the variance, not 1e-05",
        f"for images of 56x56, facebook resamples the position embedding of {grid}x{grid} in another way "
        "than transformers",
    )


def test_a_network_without_a_layout_of_the_authors_is_refused(tmp_path: Path, refused: Refused) -> None:
    stock_folder(miniature(SYSTEMS[VIT]), tmp_path / "stock")
    (tmp_path / "a").mkdir()
    source = open_source(Request(miniature(SYSTEMS[VIT]), str(tmp_path / "stock")), tmp_path / "a")
    with refused(InputError, "--layout facebook does not apply", "with the layouts of timm and transformers"):
        authors.for_authors(source, tmp_path / "b")
