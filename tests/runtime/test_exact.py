from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from vconv.runtime.devices import find_device, without_tf32

Machine = Any
"""What the fixture ``machine`` is."""


@pytest.fixture
def _flags() -> Iterator[None]:
    """Give torch its flags back."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def tf32() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.usefixtures("_flags")
@pytest.mark.parametrize("before", list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("error", [None, ZeroDivisionError, KeyboardInterrupt])
def test_a_gpu_computes_float32_without_tf32_and_the_flags_come_back(
    machine: Machine, before: tuple[bool, bool], error: type[BaseException] | None
) -> None:
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    with pytest.raises(error) if error else contextlib.nullcontext(), find_device("cuda:1").exact():
        assert tf32() == (False, False)
        assert torch.backends.cuda.matmul.fp32_precision != "tf32"
        assert torch.backends.cudnn.conv.fp32_precision != "tf32"
        if error:
            raise error
    assert tf32() == before


@pytest.mark.usefixtures("_flags")
def test_contexts_without_tf32_can_be_nested() -> None:
    torch.backends.cudnn.allow_tf32 = True
    with without_tf32():
        with without_tf32():
            pass
        assert torch.backends.cudnn.allow_tf32 is False
    assert torch.backends.cudnn.allow_tf32 is True


@pytest.mark.parametrize("before", list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("error", [None, ZeroDivisionError, KeyboardInterrupt])
def test_an_npu_computes_float32_without_hf32_and_the_flags_come_back(
    machine: Machine, before: tuple[bool, bool], error: type[BaseException] | None
) -> None:
    machine.conv.allow_hf32, machine.matmul.allow_hf32 = before
    with pytest.raises(error) if error else contextlib.nullcontext(), find_device("npu:1").exact():
        assert (machine.conv.allow_hf32, machine.matmul.allow_hf32) == (False, False)
        if error:
            raise error
    assert (machine.conv.allow_hf32, machine.matmul.allow_hf32) == before


@pytest.mark.usefixtures("_flags")
def test_the_cpu_leaves_the_flags_of_a_gpu_alone() -> None:
    torch.backends.cudnn.allow_tf32 = True
    with find_device("cpu").exact():
        assert torch.backends.cudnn.allow_tf32 is True
