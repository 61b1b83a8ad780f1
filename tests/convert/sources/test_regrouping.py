"""Checkpoints in another layout than their system's, against a restatement of the published formulas."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import published_formulas as published
import pytest
import safetensors.torch
import torch
from layout_files import (
    GATED,
    TIMM2,
    TIMM3,
    TIMM_VIT,
    TRANSFORMERS2,
    TRANSFORMERS3,
    VIT,
    distance,
    matching,
    opened,
    pictures,
    stock_folder,
)
from published_formulas import DINOV2, DINOV3, WIDTH, State, drawn, tokens
from torch import Tensor

from vconv.catalog.systems import SYSTEMS, System, miniature
from vconv.convert import conversion
from vconv.convert.conversion import Conversion
from vconv.convert.files.safetensors_file import read_header
from vconv.convert.libraries import models
from vconv.convert.patches import base as patches
from vconv.convert.sources.base import Source
from vconv.convert.sources.counterparts import counterpart
from vconv.convert.sources.table import Request, open_source
from vconv.convert.weights import checkpoint, ledger
from vconv.errors import InputError, WeightsError
from vconv.types import Status, silent
from vconv.validators.accuracy import golden
from vconv.validators.checks.integrity import verify_ledger, verify_tensors

Refused = Callable[..., AbstractContextManager[None]]
CASES = [(DINOV3, TRANSFORMERS3, 4), (DINOV3, TIMM3, 4), (DINOV2, TRANSFORMERS2, 0), (DINOV2, TIMM2, 4)]
"""The family, the system that it is converted for, and the number of registers."""
each = pytest.mark.parametrize(("family", "name", "registers"), CASES)
third = pytest.mark.parametrize("name", [TRANSFORMERS3, TIMM3])


def made(source: Source, folder: Path) -> Conversion:
    """Write the patched checkpoint of a source."""
    folder.mkdir()
    prepared = conversion.prepare(folder, source, silent)
    return prepared.counted().written(*prepared.write())


def outputs(source: Source, folder: Path, images: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the outputs of the reference and of the patched model."""
    converted = made(source, folder)
    with golden.running(source) as run:
        reference = run(images.numpy())
    model = models.load(folder, converted.network)
    with patches.applied(model, converted.network, converted.patches), torch.no_grad():
        found = models.Outputs(model, converted.network)(images)
    return reference, dict(zip(reference, (value.numpy() for value in found), strict=True))


@each
def test_a_file_of_the_authors_gives_the_outputs_of_the_published_formulas(
    family: str, name: str, registers: int, tmp_path: Path
) -> None:
    state, images = drawn(family, registers), pictures(family)
    expected = tokens(family, state, images).numpy()
    for found in outputs(opened(name, state, tmp_path / "a"), tmp_path / "b", images):
        assert distance(found["last_hidden_state"], expected) < 2e-6
        assert distance(found["pooled"], expected[:, 0]) < 2e-6
    assert np.abs(expected).max() > 1


@pytest.mark.parametrize(("family", "name", "options"), GATED)
def test_a_file_with_gated_mlps_gives_the_outputs_of_the_published_formulas(
    family: str, name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    state, images = drawn(family, **options), pictures(family)
    if name == "dinov3-vit7b16":
        state |= {"local_cls_norm.weight": torch.ones(WIDTH), "local_cls_norm.bias": torch.ones(WIDTH)}
    expected = tokens(family, state, images).numpy()
    for found in outputs(opened(name, state, tmp_path / "a"), tmp_path / "b", images):
        assert distance(found["last_hidden_state"], expected) < 2e-6


@pytest.mark.parametrize("name", ["dinov3-convnext-tiny", "convnext_tiny.dinov3_lvd1689m"])
def test_a_convnext_of_the_authors_gives_the_outputs_of_the_published_formulas(
    name: str, tmp_path: Path
) -> None:
    state = published.drawn_convnext()
    images = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    expected = published.convnext_tokens(state, images).numpy()
    for found in outputs(opened(name, state, tmp_path / "a"), tmp_path / "b", images):
        assert distance(found["last_hidden_state"], expected) < 3e-6
    lines = {line.source: line for line in ledger.load(tmp_path / "b" / "ledger.json")}
    assert lines["norms.3.weight"].proof == "the same elements as norm.weight"


def test_a_second_name_with_other_values_is_refused(tmp_path: Path, refused: Refused) -> None:
    state = published.drawn_convnext()
    state["norms.3.weight"] = state["norms.3.weight"] + 1
    with refused(WeightsError, "two names and two values", "got norms.3.weight unlike norm.weight"):
        opened("dinov3-convnext-tiny", state, tmp_path / "a")


@third
def test_the_periods_in_a_file_are_those_of_the_network(name: str, tmp_path: Path) -> None:
    state, images = drawn(DINOV3), pictures(DINOV3)
    state["rope_embed.periods"] = state["rope_embed.periods"].float() * 1.7
    expected = tokens(DINOV3, state, images).numpy()
    source = opened(name, state, tmp_path / "a")
    assert source.periods == "stored"
    for found in outputs(source, tmp_path / "b", images):
        assert distance(found["last_hidden_state"], expected) < 2e-6
    del state["rope_embed.periods"]
    computed, _ = outputs(opened(name, state, tmp_path / "c"), tmp_path / "d", images)
    assert distance(computed["last_hidden_state"], expected) > 1e-3


@pytest.mark.parametrize(
    ("periods", "got"),
    [([float("nan")] + [1.0] * 11, "got nan"), ([0.0] * 12, "got 0.0"), ([1.0] * 11, "[11], not [12]")],
)
def test_periods_that_are_not_usable_are_refused(
    periods: list[float], got: str, tmp_path: Path, refused: Refused
) -> None:
    state = {**drawn(DINOV3), "rope_embed.periods": torch.tensor(periods)}
    with refused(WeightsError, "rope_embed.periods", got):
        opened(TRANSFORMERS3, state, tmp_path / "a")


def test_a_choice_of_periods_beside_those_of_a_file_is_refused(tmp_path: Path, refused: Refused) -> None:
    with refused(InputError, "--periods does not apply to these weights", "the weights store"):
        opened(TRANSFORMERS3, drawn(DINOV3), tmp_path / "a", periods="library")


@third
@pytest.mark.parametrize("value", [float("nan"), 0.5])
def test_a_mask_that_was_not_initialised_is_refused(
    name: str, value: float, tmp_path: Path, refused: Refused
) -> None:
    state = drawn(DINOV3)
    state["blocks.1.attn.qkv.bias_mask"][5] = value
    with refused(WeightsError, "the mask of a bias", repr(value), "blocks.1.attn.qkv.bias_mask", "0 or 1"):
        opened(name, state, tmp_path / "a")


@third
def test_biases_that_are_zero_are_dropped_with_proof(name: str, tmp_path: Path) -> None:
    converted = made(opened(name, drawn(DINOV3, bias=0.0), tmp_path / "a"), tmp_path / "b")
    lines = {line.source: line for line in converted.lines if line.source.endswith("qkv.bias")}
    assert {line.action for line in lines.values()} == {"dropped"}
    assert all("max|b| = 0 over all" in line.proof for line in lines.values())
    assert not [
        key for key in read_header(tmp_path / "b" / "model.safetensors") if "q_" in key and "bias" in key
    ]


@third
@pytest.mark.parametrize("element", [0, 2 * WIDTH + 5])
def test_one_small_element_of_a_bias_keeps_the_biases(name: str, element: int, tmp_path: Path) -> None:
    state, images = drawn(DINOV3, bias=0.0), pictures(DINOV3)
    state["blocks.1.attn.qkv.bias"][element] = 1e-3
    converted = made(opened(name, state, tmp_path / "a"), tmp_path / "b")
    assert "qkv-bias" not in [patch.name for patch in converted.patches]
    stored = safetensors.torch.load_file(tmp_path / "b" / "model.safetensors")
    assert sum(
        value.abs().sum()
        for key, value in stored.items()
        if key.endswith(("v_bias", "q_bias", "v_proj.bias", "q_proj.bias"))
    ) == pytest.approx(1e-3)
    assert distance(
        outputs(opened(name, state, tmp_path / "c"), tmp_path / "d", images)[1]["last_hidden_state"],
        tokens(DINOV3, state, images),
    ) < 2e-6  # fmt: skip


def test_a_mask_that_hides_a_query_bias_is_multiplied_in(tmp_path: Path) -> None:
    state, images = drawn(DINOV3), pictures(DINOV3)
    state["blocks.1.attn.qkv.bias_mask"][:7] = 0
    source = opened(TRANSFORMERS3, state, tmp_path / "a")
    reference, patched = outputs(source, tmp_path / "b", images)
    for found in (reference, patched):
        assert distance(found["last_hidden_state"], tokens(DINOV3, state, images)) < 2e-6
    actions = {line.source: line.action for line in ledger.load(tmp_path / "b" / "ledger.json")}
    assert actions["added:blocks.1.query.bias"] == "added"
    assert "added:blocks.0.query.bias" not in actions


def unmasked() -> State:
    state = drawn(DINOV3)
    for i in range(published.BLOCKS):
        state[f"blocks.{i}.attn.qkv.bias_mask"][:] = 1
    return state


def test_a_key_bias_is_kept_by_the_library_that_has_one(tmp_path: Path) -> None:
    state, images = unmasked(), pictures(DINOV3)
    source = opened(TRANSFORMERS3, state, tmp_path / "a")
    assert source.config["key_bias"] is True
    _, patched = outputs(source, tmp_path / "b", images)
    assert distance(patched["last_hidden_state"], tokens(DINOV3, state, images)) < 2e-6


def test_a_key_bias_is_lost_only_if_the_user_allows_it(tmp_path: Path, refused: Refused) -> None:
    with refused(
        WeightsError, "this conversion changes the outputs", "the key biases, up to", "--allow-lossy"
    ):
        opened(TIMM3, unmasked(), tmp_path / "a")
    source = opened(TIMM3, unmasked(), tmp_path / "b", allow_lossy=True)
    assert [loss for loss in source.losses if "key biases" in loss] == list(source.losses)
    lines = {line.source: line for line in made(source, tmp_path / "c").lines}
    assert lines["blocks.0.attn.qkv.bias"].proof == "lost: timm dinov3 has no key bias"


def test_resampled_positions_are_a_loss_and_the_authors_size_is_none(
    tmp_path: Path, refused: Refused
) -> None:
    system = miniature(SYSTEMS[TRANSFORMERS2])
    torch.save(drawn(DINOV2, 0, grid=5), tmp_path / "weights.pth")
    asked = Request(system, str(tmp_path / "weights.pth"))
    for name in "ab":
        (tmp_path / name).mkdir()
    with refused(WeightsError, "56x56", "resamples the position embedding of 70x70", "--allow-lossy"):
        open_source(asked, tmp_path / "a")
    assert open_source(replace(asked, allow_lossy=True), tmp_path / "b").losses


@each
def test_the_ledger_accounts_for_every_tensor_and_can_make_the_file_again(
    family: str, name: str, registers: int, tmp_path: Path
) -> None:
    state = drawn(family, registers)
    source = opened(name, state, tmp_path / "a")
    converted = made(source, tmp_path / "b")
    lines, artifact = converted.lines, read_header(tmp_path / "b" / "model.safetensors")
    assert {line.source for line in lines if line.action != "added"} == set(state)
    assert all(line.proof for line in lines if line.action in ("dropped", "folded", "added"))
    assert verify_ledger(lines, artifact).status is Status.PASSED
    check = verify_tensors(lines, source.entries, artifact, lambda key: "weights", matches=source.matches)
    assert check.status is Status.PASSED, check.detail
    assert checkpoint.rewrite(tmp_path / "again", lines, source.entries) == converted.sha256


def test_registers_are_converted_with_the_position_of_the_class_token_added_to_it(tmp_path: Path) -> None:
    state = drawn(DINOV2)
    made(opened(TIMM2, state, tmp_path / "a"), tmp_path / "b")
    found = safetensors.torch.load_file(tmp_path / "b" / "model.safetensors")
    assert torch.equal(found["cls_token"], state["cls_token"] + state["pos_embed"][:, :1])
    assert torch.equal(found["pos_embed"], state["pos_embed"][:, 1:])
    lines = {line.source: line for line in ledger.load(tmp_path / "b" / "ledger.json")}
    assert (lines["cls_token"].action, lines["pos_embed"].action) == ("folded", "split")


@pytest.mark.parametrize("name", ["cls_token", "rope_embed.periods", "blocks.0.attn.qkv.bias_mask"])
def test_a_ledger_that_drops_a_tensor_without_proof_is_found(name: str, tmp_path: Path) -> None:
    source = opened(TIMM3, drawn(DINOV3), tmp_path / "a")
    lines = made(source, tmp_path / "b").lines
    artifact = read_header(tmp_path / "b" / "model.safetensors")
    changed = [
        replace(line, target="", action="dropped", proof="nobody needs it") if line.source == name else line
        for line in lines
    ]
    check = verify_tensors(changed, source.entries, artifact, lambda key: "weights", matches=source.matches)
    assert check.status is Status.FAILED
    assert name in check.detail


def test_folded_values_that_are_not_those_of_the_source_are_found(tmp_path: Path) -> None:
    source = opened(TIMM3, drawn(DINOV3), tmp_path / "a")
    lines = made(source, tmp_path / "b").lines
    state = drawn(DINOV3)
    state["rope_embed.periods"][3] *= 2
    other = opened(TIMM3, state, tmp_path / "c")
    artifact = read_header(tmp_path / "b" / "model.safetensors")
    check = verify_tensors(lines, other.entries, artifact, lambda key: "weights", matches=other.matches)
    assert check.status is Status.FAILED
    assert "rope_embed.periods has other values" in check.detail


def test_files_of_three_layouts_become_the_same_original(tmp_path: Path) -> None:
    state = drawn(DINOV3)
    direct = opened(TRANSFORMERS3, state, tmp_path / "a")
    timm = opened(TIMM3, state, tmp_path / "b")
    around = safetensors.torch.load_file(timm.folder / "model.safetensors")
    lines: list[str] = []
    back = opened(TRANSFORMERS3, around, tmp_path / "c", lines, allow_lossy=True)
    assert "converting from the layout of timm dinov3 to that of dinov3_vit" in lines
    expected = safetensors.torch.load_file(direct.folder / "model.safetensors")
    found = safetensors.torch.load_file(back.folder / "model.safetensors")
    assert found.keys() == expected.keys()
    for key in expected.keys() - {"embeddings.mask_token"}:
        assert torch.equal(found[key], expected[key])
    assert not found["embeddings.mask_token"].any()


def test_a_stated_layout_is_the_only_one_that_is_tried(tmp_path: Path, refused: Refused) -> None:
    with refused(WeightsError, "fits no known layout", "is timm dinov3", "6 missing: blocks.0.gamma_1, "):
        opened(TRANSFORMERS3, drawn(DINOV3), tmp_path / "a", weights_layout="timm")


def test_a_file_that_fits_no_layout_is_compared_with_the_nearest(tmp_path: Path, refused: Refused) -> None:
    state = drawn(DINOV3)
    del state["norm.bias"]
    state["blocks.0.mlp.fc1.bias"] = state["blocks.0.mlp.fc1.bias"][:-1]
    state |= {f"dino_head.{i}": torch.ones(1) for i in range(5)}
    with refused(
        WeightsError, "nearest is facebook dinov3", "1 missing: norm.bias", "5 unexpected: dino_head.0, ",
        "and 2 more", "1 of the wrong shape: blocks.0.mlp.fc1.bias [191], not [192]",
    ):  # fmt: skip
        opened(TRANSFORMERS3, state, tmp_path / "a")


FAMILIES = [
    (TRANSFORMERS3, TIMM3),
    (TRANSFORMERS2, "vit_small_patch14_dinov2.lvd142m"),
    (TIMM2, "dinov2-with-registers-small"),
    (VIT, TIMM_VIT),
    ("dinov3-vits16plus", "vit_small_plus_patch16_dinov3.lvd1689m"),
    ("dinov3-convnext-tiny", "convnext_tiny.dinov3_lvd1689m"),
]
"""The same networks in both libraries. timm's registers come first: on the way back, nothing is a sum."""


@pytest.mark.parametrize(("name", "other"), FAMILIES)
def test_the_weights_of_one_library_there_and_back_are_the_same_bits(
    name: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systems = matching(name, other)
    monkeypatch.setattr("vconv.catalog.systems.SYSTEMS", systems)
    expected = stock_folder(systems[name], tmp_path / "stock")
    assert counterpart(systems[name], systems[other].library) is systems[other]
    assert counterpart(systems[other], systems[name].library) is systems[name]
    folders = []
    for there, folder in ((other, "there"), (name, "back")):
        (tmp_path / folder).mkdir()
        given = str(folders[-1] if folders else tmp_path / "stock")
        source = open_source(Request(systems[there], given, allow_lossy=True), tmp_path / folder)
        assert source.regrouped is not None
        folders.append(source.folder)
    found = safetensors.torch.load_file(folders[-1] / "model.safetensors")
    gone = {key for key in expected if key.endswith("mask_token") or key.startswith("pooler")}
    assert found.keys() | gone == expected.keys()
    for key in expected.keys() - gone:
        assert torch.equal(found[key].view(torch.int32), expected[key].view(torch.int32)), key


@pytest.mark.parametrize(("other", "name"), FAMILIES)
def test_both_libraries_compute_the_same_from_converted_weights(
    other: str, name: str, tmp_path: Path
) -> None:
    systems = matching(other, name)
    stock_folder(systems[name], tmp_path / "stock")
    (side,) = {
        row.config["pretrained_cfg"]["input_size"][1] for row in systems.values() if row.library == "timm"
    }
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1)).numpy()
    outputs = []
    for there in (name, other):
        (tmp_path / there).mkdir()
        pool = "cls" if there == name and systems[there].library == "timm" and "vit" in there else None
        asked = Request(systems[there], str(tmp_path / "stock"), pool=pool)
        source = open_source(replace(asked, allow_lossy=True), tmp_path / there)
        with golden.running(source) as run:
            outputs.append(run(images))
    assert distance(outputs[1]["last_hidden_state"], outputs[0]["last_hidden_state"]) < 1e-5
    if other != VIT:
        assert distance(outputs[1]["pooled"], outputs[0]["pooled"]) < 1e-5


def losses(system: System, given: Path, scratch: Path) -> tuple[str, ...]:
    scratch.mkdir()
    return open_source(Request(system, str(given), allow_lossy=True), scratch).losses


def test_what_a_library_cannot_carry_is_named_as_a_loss(tmp_path: Path) -> None:
    systems = matching(VIT, TIMM_VIT)
    stock_folder(systems[VIT], tmp_path / "vit")
    assert losses(systems[TIMM_VIT], tmp_path / "vit", tmp_path / "a") == (
        "the pooler is dropped",
        "the output pooled is cls, not pooler",
        "every LayerNorm adds 1e-06 to the variance, not 1e-12",
    )
    third = matching(TRANSFORMERS3, TIMM3)
    stock_folder(third[TIMM3], tmp_path / "timm")
    assert losses(third[TRANSFORMERS3], tmp_path / "timm", tmp_path / "b") == (
        "the output pooled is cls, not avg",
    )


def test_transformers_takes_the_epsilon_of_timm(tmp_path: Path) -> None:
    systems = matching(VIT, TIMM_VIT)
    stock_folder(systems[TIMM_VIT], tmp_path / "timm")
    (tmp_path / "a").mkdir()
    asked = Request(systems[VIT], str(tmp_path / "timm"), allow_lossy=True)
    source = open_source(asked, tmp_path / "a")
    assert source.config["layer_norm_eps"] == 1e-6
    assert source.losses == ("the output pooled is left out",)


def test_a_configuration_of_another_network_is_refused(tmp_path: Path, refused: Refused) -> None:
    system = miniature(SYSTEMS[TRANSFORMERS3])
    stock_folder(replace(system, config={**system.config, "num_hidden_layers": 2}), tmp_path / "stock")
    with refused(WeightsError, f"another network than {TIMM3}", "got blocks = 2", "expected 3"):
        open_source(Request(miniature(SYSTEMS[TIMM3]), str(tmp_path / "stock")), tmp_path)


def test_a_system_without_a_counterpart_is_refused(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vconv.catalog.systems.SYSTEMS", {TIMM2: SYSTEMS[TIMM2]})
    with refused(InputError, f"{TIMM2} has no counterpart in transformers"):
        counterpart(SYSTEMS[TIMM2], "transformers")
