"""The opset of a graph for NPUs: the one that was asked for, or one that holds the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from vconv.convert.ascend.operators import DEFAULT_NPU_OPSET, GREATEST_OPSET
from vconv.errors import OpsetError
from vconv.types import Say

Made = TypeVar("Made")


def in_npu_opset(write: Callable[[int], Made], asked: int | None, name: str, say: Say) -> Made:
    """Write a graph for NPUs.

    Args:
        write: writes it in an opset.
        asked: the opset that was asked for; None for 17, or 18 if 17 lacks an operator of the network.
        name: the name of the graph, for the line that says why it is 18.
        say: receives this line.

    Raises:
        OpsetError: the network has an operator that the opset that was asked for does not have.
    """
    try:
        return write(DEFAULT_NPU_OPSET if asked is None else asked)
    except OpsetError as error:
        if asked is not None:
            raise
        say(f"{name}: opset {GREATEST_OPSET} in place of {DEFAULT_NPU_OPSET}, because of {error.got}")
        return write(GREATEST_OPSET)
