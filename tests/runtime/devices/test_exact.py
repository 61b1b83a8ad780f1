from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from vconv.runtime.devices.base import Settings
from vconv.runtime.devices.cuda import without_tf32
from vconv.runtime.devices.table import find_device

Machine = Any
"""What the fixture ``machine`` is."""


PLACES: tuple[Any, ...] = (
    torch.backends.cuda.matmul,
    torch.backends.cudnn.conv,  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn,  # type: ignore[attr-defined]
)
"""Where torch has a setting for how CUDA computes float32."""


def settings() -> list[str]:
    return [place.fp32_precision for place in PLACES]


@pytest.fixture
def _flags() -> Iterator[None]:
    """Give torch its settings back."""
    before = settings()
    yield
    for place, setting in zip(PLACES, before, strict=True):
        place.fp32_precision = setting


@pytest.mark.usefixtures("_flags")
@pytest.mark.parametrize("before", list(itertools.product(["ieee", "tf32"], repeat=3)))
@pytest.mark.parametrize("error", [None, ZeroDivisionError, KeyboardInterrupt])
def test_a_gpu_computes_float32_without_tf32_and_the_settings_come_back(
    machine: Machine, before: tuple[str, ...], error: type[BaseException] | None
) -> None:
    for place, setting in zip(PLACES, before, strict=True):
        place.fp32_precision = setting
    with pytest.raises(error) if error else contextlib.nullcontext(), find_device("cuda:1").exact():
        assert settings() == ["ieee"] * 3
        if error:
            raise error
    assert settings() == list(before)


@pytest.mark.usefixtures("_flags")
def test_contexts_without_tf32_can_be_nested() -> None:
    PLACES[1].fp32_precision = "tf32"
    with without_tf32():
        with without_tf32():
            pass
        assert settings() == ["ieee"] * 3
    assert PLACES[1].fp32_precision == "tf32"


def test_a_setting_that_the_user_made_by_the_older_interface_survives() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with without_tf32():
            pass
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("before", list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("error", [None, ZeroDivisionError, KeyboardInterrupt])
def test_an_npu_that_is_told_so_computes_float32_without_hf32_and_the_flags_come_back(
    machine: Machine, before: tuple[bool, bool], error: type[BaseException] | None
) -> None:
    machine.conv.allow_hf32, machine.matmul.allow_hf32 = before
    with (
        pytest.raises(error) if error else contextlib.nullcontext(),
        find_device("npu:1", Settings(())).exact(),
    ):
        assert (machine.conv.allow_hf32, machine.matmul.allow_hf32) == (False, False)
        if error:
            raise error
    assert (machine.conv.allow_hf32, machine.matmul.allow_hf32) == before


@pytest.mark.usefixtures("_flags")
def test_the_cpu_leaves_the_flags_of_a_gpu_alone() -> None:
    PLACES[1].fp32_precision = "tf32"
    with find_device("cpu").exact():
        assert PLACES[1].fp32_precision == "tf32"
