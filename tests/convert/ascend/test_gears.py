"""Gears by batch and by size: what ATC's documents allow, and what its command gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from vconv.convert.architectures.sizes import SideBounds
from vconv.convert.ascend.atc import CompileOrder
from vconv.convert.ascend.chips import CHIPS
from vconv.convert.ascend.gears import Size, batch_gears, read_sizes, require_sizes, size_gears
from vconv.errors import InputError

A2, A5 = CHIPS["910B"], CHIPS["950"]
PATCHES = SideBounds(32, 8192, 16)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ()),
        ("224,224;448,448", ((224, 224), (448, 448))),
        (" 448, 224 ; 224,448 ", ((448, 224), (224, 448))),
        ([(224, 224), (64, 96)], ((224, 224), (64, 96))),
        ([[32, 32]], ((32, 32),)),
    ],
)
def test_sizes_are_read_as_pairs_of_height_and_width(given: Any, expected: tuple[Size, ...]) -> None:
    assert read_sizes(given) == expected


@pytest.mark.parametrize(
    "given", ["", "224", "224,224;", "224x224;448x448", "224,224,3;448,448,3", "-1,-1;224,224", [], [(224,)]]
)
def test_anything_else_is_refused_in_one_line(given: Any) -> None:
    with pytest.raises(InputError, match="--gears-size is not a list of sizes .*semicolon, and quote"):
        read_sizes(given)


@pytest.mark.parametrize(
    "given", ["224,224;99999984,99999984", "224,224;0,16", "224,8193;32,32", "9" * 5000 + ",9"]
)
def test_a_side_out_of_bounds_is_refused_with_the_bounds(given: str) -> None:
    with pytest.raises(
        InputError, match="height or width .*expected heights and widths from 1 to 8192"
    ) as caught:
        read_sizes(given)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("gears", [(1, 1, 2), (4, 2, 4)])
def test_a_batch_that_is_given_twice_is_refused(gears: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"--gears cannot be used .*different batches"):
        batch_gears(gears, A2)


def many(count: int) -> list[Size]:
    return [(16 * number, 32) for number in range(1, count + 1)]


@pytest.mark.parametrize(
    ("sizes", "chip", "allowed"),
    [
        ([], A2, True),
        (many(2), A2, True),
        (many(100), A2, True),
        (many(101), A2, False),
        (many(256), A5, True),
        (many(257), A5, False),
        (many(1), A2, False),
        ([*many(2), *many(1)], A2, False),
    ],
    ids=["none", "2", "100", "101", "256 on a 950", "257 on a 950", "1", "twice"],
)
def test_atc_takes_2_to_100_sizes_none_of_them_twice(sizes: list[Size], chip: Any, allowed: bool) -> None:
    if allowed:
        assert size_gears([*reversed(sizes)], chip) == tuple(sizes)
        return
    with pytest.raises(InputError, match=f"2 to {chip.greatest_gears} sizes, none of them twice") as caught:
        size_gears(sizes, chip)
    assert "\n" not in str(caught.value)


def test_a_950_takes_more_batches_too() -> None:
    assert len(batch_gears(range(1, 257), A5)) == 256
    with pytest.raises(InputError, match="2 to 100 different batches"):
        batch_gears(range(1, 257), A2)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ([(224, 224), (448, 448)], ""),
        ([(224, 224), (448, 440)], "--gears-size does not fit the patches .*got 448,440 .*multiples of 16"),
        ([(224, 224), (16, 448)], "got 16,448 .*from 32 to 8192"),
        ([(224, 224), (8208, 448)], "got 8208,448 .*from 32 to 8192"),
        ([(448, 448), (448, 224)], "lacks the size of the recorded images .*expected 224,224 among them"),
    ],
)
def test_gears_are_whole_patches_and_the_size_of_the_recorded_images_is_one(
    sizes: Sequence[Size], said: str
) -> None:
    if not said:
        require_sizes(sizes, (224, 224), PATCHES)
        return
    with pytest.raises(InputError, match=said):
        require_sizes(sizes, (224, 224), PATCHES)


def test_the_command_with_gears_by_size_has_one_batch_and_leaves_height_and_width_open() -> None:
    order = CompileOrder.of("Ascend910B4", gears_size=((448, 448), (224, 196)))
    command = order.command((224, 196), 2)
    assert order.source == "model.onnx"
    assert "--input_shape=pixel_values:2,3,-1,-1" in command
    assert "--dynamic_image_size=224,196;448,448" in command
    assert "--input_format=NCHW" in command
    assert not any(argument.startswith("--dynamic_batch_size") for argument in command)


def test_gears_of_both_kinds_are_refused_because_atc_refuses_them() -> None:
    with pytest.raises(InputError, match="--gears and --gears-size exclude each other .*E10009") as caught:
        CompileOrder.of("Ascend910B4", gears=(1, 2), gears_size=((224, 224), (448, 448)))
    assert "\n" not in str(caught.value)
