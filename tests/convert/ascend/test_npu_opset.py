"""The opset of a graph for NPUs, where nobody asks for one and where somebody does."""

from __future__ import annotations

import pytest

from vconv.convert.ascend.npu_opset import in_npu_opset
from vconv.errors import OpsetError


def lacking(opset: int) -> int:
    """Write a graph with an operator that begins with opset 18."""
    if opset < 18:
        raise OpsetError(
            "cannot be written", got="BitwiseAnd (node), which has no older form", expected="", fix=""
        )
    return opset


def test_the_default_is_17_and_nothing_is_said_of_it() -> None:
    said: list[str] = []
    assert in_npu_opset(lambda opset: opset, None, "model.npu.onnx", said.append) == 17
    assert said == []


@pytest.mark.parametrize("asked", [13, 15, 17, 18])
def test_what_is_asked_for_is_written(asked: int) -> None:
    assert in_npu_opset(lambda opset: opset, asked, "model.npu.onnx", print) == asked


def test_by_default_a_network_that_17_does_not_hold_is_written_in_18_and_that_is_said() -> None:
    said: list[str] = []
    assert in_npu_opset(lacking, None, "model.npu.onnx", said.append) == 18
    assert said == [
        "model.npu.onnx: opset 18 in place of 17, because of BitwiseAnd (node), which has no older form"
    ]


def test_an_opset_that_was_asked_for_is_never_another() -> None:
    with pytest.raises(OpsetError):
        in_npu_opset(lacking, 17, "model.npu.onnx", print)
