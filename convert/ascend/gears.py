"""Gears: the batches, or the sizes of images, that an offline model is compiled for, each as a static graph.

Sources, in the repository github.com/mirror-cann/ge: ``docs/zh/user_guides/atc_tools/CLI_options/``,
``--dynamic_batch_size.md`` and ``--dynamic_image_size.md``; the exclusion of the two options and the refusal
of duplicates are in ``api/aclgrph/option_utils.cc`` (E10009, E10039).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vconv.convert.architectures.base import GREATEST_SIDE
from vconv.convert.architectures.sizes import SideBounds
from vconv.convert.ascend.chips import Chip
from vconv.errors import InputError

LEAST_GEARS, GREATEST_GEAR = 2, 1024
"""The least number of gears in ATC, and the greatest batch of one gear.

ATC allows a batch of 2048, but the dynamic graph is traced for at most 1024.
"""
_SIZES = re.compile(r"\d+,\d+(;\d+,\d+)*", re.ASCII)
_MOST_DIGITS = len(str(GREATEST_SIDE))

_SHOWN = 20
"""Greatest number of digits of a wrong number in an error text."""

Size = tuple[int, int]
"""Height and width of images, in pixels."""


def require_one_kind(gears: Sequence[int], sizes: Sequence[Size]) -> None:
    """Check that a model is requested for several batches or for several sizes, not for both.

    Raises:
        InputError: both are given.
    """
    if gears and sizes:
        raise InputError(
            "--gears and --gears-size exclude each other",
            got="both",
            expected="one of them: ATC refuses --dynamic_batch_size beside --dynamic_image_size (E10009)",
            fix="leave --gears out; --batch is then the batch at every size",
        )


def batch_gears(gears: Sequence[int], chip: Chip) -> tuple[int, ...]:
    """Check the batches that a model is requested for; return them in ascending order.

    Raises:
        InputError: ATC does not support them.
    """
    ordered = tuple(sorted(gears))
    count = LEAST_GEARS <= len(ordered) <= chip.greatest_gears
    distinct = len({*gears}) == len(gears)
    if gears and not (count and distinct and 1 <= ordered[0] <= ordered[-1] <= GREATEST_GEAR):
        raise InputError(
            "--gears cannot be used",
            got=",".join(map(str, gears)),
            expected=f"{LEAST_GEARS} to {chip.greatest_gears} different batches from 1 to {GREATEST_GEAR}",
            fix="give several, such as 1,2,4,8, or use --batch instead of --gears",
        )
    return ordered


def read_sizes(given: str | Sequence[Sequence[int]] | None) -> tuple[Size, ...]:
    """Read sizes, ``224,224;448,448`` or pairs of (height, width), in the order in which they are given.

    Raises:
        InputError: they are no sizes, or no network takes a height or width of them.
    """
    if given is None:
        return ()
    text = given if isinstance(given, str) else told(given)
    if not _SIZES.fullmatch(text.replace(" ", "")):
        raise InputError(
            "--gears-size is not a list of sizes",
            got=repr(text),
            expected='pairs of height and width, such as "224,224;448,448"',
            fix="separate height and width by a comma, pairs by a semicolon, and quote the list",
        )
    pairs = [pair.split(",") for pair in text.replace(" ", "").split(";")]
    sides = [side.lstrip("0") or "0" for pair in pairs for side in pair]
    if wrong := [side for side in sides if len(side) > _MOST_DIGITS or not 1 <= int(side) <= GREATEST_SIDE]:
        raise InputError(
            "--gears-size has a height or width that no network takes",
            got=wrong[0][:_SHOWN],
            expected=f"heights and widths from 1 to {GREATEST_SIDE}",
            fix="change this size, or leave it out",
        )
    return tuple((int(height), int(width)) for height, width in pairs)


def told(sizes: Sequence[Sequence[int]]) -> str:
    """Return sizes as ``224,224;448,448``, the form of ATC's --dynamic_image_size."""
    return ";".join(",".join(map(str, size)) for size in sizes)


def size_gears(sizes: Sequence[Size], chip: Chip) -> tuple[Size, ...]:
    """Check the number of the sizes that a model is requested for; return them in ascending order.

    Raises:
        InputError: ATC does not support them.
    """
    distinct = len({*sizes}) == len(sizes)
    if sizes and not (distinct and LEAST_GEARS <= len(sizes) <= chip.greatest_gears):
        raise InputError(
            "--gears-size cannot be used",
            got=told(sizes),
            expected=f"{LEAST_GEARS} to {chip.greatest_gears} sizes, none of them twice",
            fix='give several, such as "224,224;448,448", or give --size instead of --gears-size',
        )
    return tuple(sorted(sizes))


def require_sizes(sizes: Sequence[Size], size: Size, bounds: SideBounds) -> None:
    """Check gears against the network: whole patches, and the size of the recorded images among them.

    Args:
        sizes: the gears; nothing is checked if there are none.
        size: (height, width) of the recorded images, on which the offline model is judged.
        bounds: the heights and widths that the network's graph takes.

    Raises:
        InputError: a gear does not fit the network, or ``size`` is no gear.
    """
    allowed = range(bounds.least, bounds.greatest + 1, bounds.multiple)
    wrong = [one for one in sizes if not {*one} <= {*allowed}]
    if wrong:
        raise InputError(
            "--gears-size does not fit the patches",
            got=told(wrong),
            expected=f"multiples of {bounds.multiple} from {bounds.least} to {bounds.greatest}",
            fix="change these sizes, or leave them out",
        )
    if sizes and size not in sizes:
        raise InputError(
            "--gears-size lacks the size of the recorded images",
            got=told(sizes),
            expected=f"{told([size])} among them: the offline model is judged at that size",
            fix=f"add it, or give --size dynamic:{told(sizes[:1])}",
        )
