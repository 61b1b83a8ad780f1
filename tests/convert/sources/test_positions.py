"""The choice of the kernel that resamples the position embedding."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from published_formulas import DINOV2, drawn, resampled_positions

from vconv.catalog.systems import SYSTEMS, System, miniature
from vconv.convert.conversion import prepare
from vconv.convert.sources import authors
from vconv.convert.sources.base import Source
from vconv.convert.sources.positions import librarys_resampling
from vconv.convert.sources.sizes import SizeRequest
from vconv.convert.sources.table import Request, open_source
from vconv.errors import InputError, WeightsError
from vconv.types import silent

Refused = Callable[..., AbstractContextManager[None]]
TRANSFORMERS, TIMM = "dinov2-small", "vit_small_patch14_dinov2.lvd142m"
KEYS = {TRANSFORMERS: "embeddings.position_embeddings", TIMM: "pos_embed"}
SIDES = {TRANSFORMERS: 5, TIMM: 4}
"""Rows of patches that the position embedding of each miniature is stored for."""
HOW = "by the kernel of the authors: bicubic, without antialias, scale (n + 0.1) / N"
both = pytest.mark.parametrize("name", [TRANSFORMERS, TIMM])


def small(name: str) -> System:
    return miniature(SYSTEMS[name])


def asked(name: str, scratch: Path, positions: str | None = "authors", side: int = 84) -> Source:
    size = SizeRequest((side, side))
    return open_source(Request(small(name), "synthetic:1", size=size, positions=positions), scratch)


@both
def test_the_artifact_stores_the_embedding_for_its_size_and_the_ledger_says_how(
    name: str, scratch: Path, tmp_path: Path
) -> None:
    source = asked(name, scratch)
    (tmp_path / "out").mkdir()
    prepared = prepare(tmp_path / "out", source, silent)
    lines, _ = prepared.write()
    before, after = (
        safetensors.torch.load_file(folder / "model.safetensors")[KEYS[name]]
        for folder in (source.folder, tmp_path / "out")
    )
    torch.testing.assert_close(after, resampled_positions(before, 6, 6), rtol=0, atol=1e-6)
    assert (prepared.network.numbers.image, source.network.numbers.image) == (
        (84, 84),
        (14 * SIDES[name],) * 2,
    )
    found = {line.source: line for line in lines}
    line, added = found[KEYS[name]], found["added:positions"]
    grids = "{0}x{0} to 6x6".format(SIDES[name])
    assert (line.action, line.targets, line.shape) == ("resampled", (), tuple(before.shape))
    assert line.proof == f"from {grids}, {HOW}; it is added:positions"
    assert (added.action, added.targets) == ("added", (KEYS[name],))
    assert added.proof == f"{KEYS[name]} from {grids}, {HOW}"


@both
@pytest.mark.parametrize("positions", [None, "library"])
def test_with_the_librarys_kernel_the_embedding_is_copied_and_the_ledger_names_the_kernel(
    name: str, positions: str | None, scratch: Path, tmp_path: Path
) -> None:
    source = asked(name, scratch, positions)
    (tmp_path / "out").mkdir()
    lines, _ = prepare(tmp_path / "out", source, silent).write()
    (line,) = (line for line in lines if line.source == KEYS[name])
    how = {TRANSFORMERS: "transformers: bicubic, without antialias", TIMM: "timm: bicubic, with antialias"}
    grids = "{0}x{0} to 6x6".format(SIDES[name])
    assert line.action == "copied"
    assert line.proof == f"resampled from {grids}, by the kernel of {how[name]}, whenever the model runs"
    assert (source.positions, source.resampled) == (positions, None)


@both
def test_weights_of_the_authors_lose_nothing_by_their_kernel(
    name: str, tmp_path: Path, refused: Refused
) -> None:
    torch.save(drawn(DINOV2, 0, grid=SIDES[name]), tmp_path / "weights.pth")
    request = Request(small(name), str(tmp_path / "weights.pth"), size=SizeRequest((84, 84)))
    for folder in "abcd":
        (tmp_path / folder).mkdir()
    with refused(WeightsError, "84x84", "resamples the position embedding", "give --positions authors, "):
        open_source(request, tmp_path / "a")
    with refused(WeightsError, "84x84", "choose a system of another library"):
        open_source(replace(request, positions="library"), tmp_path / "b")
    source = open_source(replace(request, positions="authors"), tmp_path / "c")
    assert source.losses == ()
    assert authors.for_authors(source, tmp_path / "d" / "x").losses == ()


@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("dinov3-vits16", "dinov3_vit"),
        ("dinov3-convnext-tiny", "dinov3_convnext"),
        ("vit-base-patch16-224-in21k", "vit"),
        ("vit_base_patch16_224.orig_in21k", "timm vit"),
        ("dinov2-with-registers-small", "dinov2_with_registers with registers"),
        ("vit_small_patch14_reg4_dinov2.lvd142m", "timm dinov2 with registers"),
    ],
)
@pytest.mark.parametrize("positions", ["authors", "library"])
def test_where_there_is_one_kernel_alone_the_choice_is_refused(
    name: str, got: str, positions: str, scratch: Path, refused: Refused
) -> None:
    with refused(
        InputError,
        "--positions does not apply to this system",
        f"got the architecture {got} |",
        "expected a DINOv2 without registers",
        "omit --positions",
    ):
        open_source(Request(small(name), "synthetic", positions=positions), scratch)


def test_an_unknown_kernel_is_refused(scratch: Path, refused: Refused) -> None:
    with refused(InputError, "--positions is not known", "'mine'", "expected authors or library"):
        asked(TIMM, scratch, "mine")


@both
def test_at_the_size_of_the_embedding_nothing_is_resampled(
    name: str, scratch: Path, refused: Refused
) -> None:
    side = 14 * SIDES[name]
    with refused(InputError, "changes nothing at this size", f"{side}x{side}", "omit --positions"):
        asked(name, scratch, side=side)


@both
@pytest.mark.parametrize("size", ["dynamic", "dynamic:84,84"])
def test_for_images_of_any_size_the_authors_kernel_is_refused(
    name: str, size: str, scratch: Path, refused: Refused
) -> None:
    request = Request(small(name), "synthetic", size=SizeRequest.read(size), positions="authors")
    with refused(InputError, "not used with --size dynamic", "give --size H,W, or omit --positions"):
        open_source(request, scratch)


def test_a_size_that_is_not_square_is_refused_where_no_configuration_describes_it(
    scratch: Path, refused: Refused
) -> None:
    request = Request(small(TRANSFORMERS), "synthetic", size=SizeRequest((84, 42)), positions="authors")
    with refused(
        InputError,
        "--positions authors does not apply to this size",
        "84x42 for transformers",
        "give --size 84,84, or --layout timm",
    ):
        open_source(request, scratch)


def test_timm_stores_the_embedding_for_a_size_that_is_not_square(scratch: Path) -> None:
    request = Request(small(TIMM), "synthetic:1", size=SizeRequest((84, 42)), positions="authors")
    source = open_source(request, scratch)
    assert source.artifact_network.numbers.image == (84, 42)
    assert source.entries["added:positions"].shape == (1, 1 + 6 * 3, 96)
    assert source.entries.keys() - source.original.keys() == {"added:positions"}


def test_a_network_whose_positions_are_not_learned_resamples_none(scratch: Path) -> None:
    source = open_source(Request(small("dinov3-vits16"), "synthetic"), scratch)
    assert librarys_resampling(source.network, (224, 224)) is None
