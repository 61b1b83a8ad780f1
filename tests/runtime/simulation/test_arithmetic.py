from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from vconv.runtime.simulation.arithmetic import (
    CAUSES,
    EXACT,
    PROFILES,
    ROUNDINGS,
    Arithmetic,
    adjusted,
    describe,
    round_fp16,
    round_hf32,
    saturate_fp16,
    with_hf32,
)

TANH = Arithmetic(gelu="tanh")
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan]


def to_hf32(value: float) -> float:
    """Round to 12 significant bits, of which 11 are stored, by Python's own rounding of halves to even."""
    if value == 0 or not math.isfinite(value):
        return value
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(math.ldexp(mantissa, 12)), exponent - 12)


def values(count: int = 4096) -> torch.Tensor:
    random = np.random.default_rng(0)
    spread = random.standard_normal(count) * 10.0 ** random.integers(-6, 6, count)
    halves = (1 + np.arange(64) / 2**12) * np.where(np.arange(64) % 2, 1, -1)
    return torch.from_numpy(np.concatenate([spread, halves, SPECIAL]).astype(np.float32))


def same(actual: torch.Tensor, expected: list[float]) -> bool:
    return np.array_equal(actual.double().numpy(), np.array(expected), equal_nan=True)


def test_hf32_keeps_eleven_bits_of_fraction_and_rounds_halves_to_even() -> None:
    given = values()
    assert same(round_hf32(given), [to_hf32(value) for value in given.tolist()])


def test_fp16_is_what_numpy_makes_of_it_and_what_is_too_great_is_infinite() -> None:
    given = torch.cat([values(), torch.tensor([65504.0, 65520.0, -1e5])])
    with np.errstate(over="ignore"):
        expected = given.numpy().astype(np.float16).astype(np.float64)
    assert same(round_fp16(given), expected.tolist())


def test_saturation_gives_the_greatest_number_for_inf_and_zero_for_nan_and_changes_nothing_else() -> None:
    beyond = [1e5, -1e5, 65520.0, math.inf, -math.inf, math.nan, 65504.0, 65519.0, -3.0]
    given = torch.tensor(beyond)
    expected = [65504.0, -65504.0, 65504.0, 65504.0, -65504.0, 0.0, 65504.0, 65504.0, -3.0]
    assert saturate_fp16(given).tolist() == expected
    assert same(given, beyond), "the operand itself is not changed"
    within = values()[values().abs() < 65504]
    assert torch.equal(saturate_fp16(within), round_fp16(within))


@pytest.mark.parametrize(("overflow", "greatest"), [("inf", math.inf), ("saturates", 65504.0)])
def test_an_operand_that_overflows_gives_what_the_device_gives(overflow: str, greatest: float) -> None:
    operands = torch.tensor([[1e6, 1.0]]), torch.eye(2)
    result, cause = run("mm", Arithmetic(matmul="fp16", overflow=overflow), *operands)
    assert (result[0, 0].item() == greatest or math.isnan(result[0, 0].item())) and cause == "matmul"
    assert result.isfinite().all().item() is (overflow == "saturates")


def test_a_float32_device_that_saturates_rounds_nothing_and_one_cause_alone_still_saturates() -> None:
    given = torch.full((2, 2), 1e6)
    assert adjusted("mm", (given, given), {}, Arithmetic(overflow="saturates"))[2] == ""
    assert PROFILES["310p"].only("matmul") == Arithmetic(matmul="fp16", overflow="saturates")


def test_rounding_keeps_shape_and_strided_operands() -> None:
    given = torch.randn(4, 6).t()
    for rounding in ROUNDINGS.values():
        assert torch.equal(rounding(given), rounding(given.contiguous()))


def run(name: str, arithmetic: Arithmetic, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, str]:
    new, named, cause = adjusted(name, args, kwargs, arithmetic)
    return getattr(torch.ops.aten, name)(*new, **named), cause


@pytest.mark.parametrize("how", ["fp32", "hf32", "fp16"])
@pytest.mark.parametrize("name", ["mm", "bmm", "addmm", "baddbmm", "mv", "dot"])
def test_a_product_sees_rounded_operands_and_adds_its_bias_in_full(name: str, how: str) -> None:
    shapes = {
        "mm": ((3, 5), (5, 4)),
        "bmm": ((2, 3, 5), (2, 5, 4)),
        "addmm": ((4,), (3, 5), (5, 4)),
        "baddbmm": ((2, 3, 4), (2, 3, 5), (2, 5, 4)),
        "mv": ((3, 5), (5,)),
        "dot": ((5,), (5,)),
    }
    tensors = [torch.randn(shape) for shape in shapes[name]]
    actual, cause = run(name, Arithmetic(matmul=how, convolution="fp16"), *tensors)
    left, right = (ROUNDINGS[how](tensor) for tensor in tensors[-2:])
    expected = torch.matmul(left, right) + (tensors[0] if len(tensors) == 3 else 0)
    assert torch.allclose(actual, expected, rtol=1e-6, atol=1e-6)
    assert cause == ("" if how == "fp32" else "matmul")


@pytest.mark.parametrize("how", ["fp32", "hf32", "fp16"])
def test_a_convolution_sees_rounded_images_and_kernels(how: str) -> None:
    images, kernels, bias = torch.randn(1, 3, 8, 8), torch.randn(4, 3, 4, 4), torch.randn(4)
    rest = ((4, 4), (0, 0), (1, 1), False, (0, 0), 1)
    actual, cause = run(
        "convolution", Arithmetic(convolution=how, matmul="fp16"), images, kernels, bias, *rest
    )
    expected = functional.conv2d(ROUNDINGS[how](images), ROUNDINGS[how](kernels), bias, stride=4)
    assert torch.equal(actual, expected)
    assert cause == ("" if how == "fp32" else "convolution")


@pytest.mark.parametrize("mode", ["none", "tanh"])
def test_the_tanh_form_takes_the_place_of_the_exact_gelu_whatever_is_asked_for(mode: str) -> None:
    given = torch.linspace(-4, 4, 101)
    actual, cause = run("gelu", TANH, given, approximate=mode)
    assert torch.equal(actual, functional.gelu(given, approximate="tanh"))
    assert cause == ("gelu" if mode == "none" else ""), "what was meant as tanh is not changed"


def test_the_exact_device_changes_nothing() -> None:
    given = torch.randn(4, 4)
    for name, args in (("gelu", (given,)), ("mm", (given, given)), ("add", (given, given))):
        assert adjusted(name, args, {}, EXACT) == (args, {}, "")
    assert EXACT.causes == () and EXACT.float32_is == "fp32"


def test_operands_in_half_precision_are_left_as_they_are() -> None:
    given = torch.randn(4, 4).bfloat16()
    assert adjusted("mm", (given, given), {}, Arithmetic(matmul="hf32"))[2] == ""


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("cause", CAUSES)
def test_one_cause_alone_is_that_one_and_no_other(profile: str, cause: str) -> None:
    own = PROFILES[profile]
    alone = own.only(cause)
    assert getattr(alone, cause) == getattr(own, cause)
    assert set(alone.causes) == {cause} & set(own.causes)


def test_the_profiles_are_the_documented_devices() -> None:
    assert describe(PROFILES["910b"]) == {"gelu": "tanh", "convolution": "hf32", "matmul": "fp32"}
    assert describe(PROFILES["310p"]) == {"gelu": "tanh", "convolution": "fp16", "matmul": "fp16"}
    assert [PROFILES[name].float32_is for name in ("910b", "310p")] == ["hf32", "fp16"]
    assert [PROFILES[name].overflow for name in ("910b", "310p")] == ["inf", "saturates"]


@pytest.mark.parametrize(
    ("allowed", "convolution", "matmul"),
    [
        ((), "fp32", "fp32"),
        (("conv",), "hf32", "fp32"),
        (("matmul",), "fp32", "hf32"),
        (("conv", "matmul"), "hf32", "hf32"),
    ],
)
def test_hf32_is_allowed_just_where_it_is_named(
    allowed: tuple[str, ...], convolution: str, matmul: str
) -> None:
    assert with_hf32("910b", frozenset(allowed)) == Arithmetic("tanh", convolution, matmul)


def test_a_cube_of_float16_has_no_hf32() -> None:
    with pytest.raises(ValueError, match="310p has no HF32"):
        with_hf32("310p", frozenset({"conv"}))


@pytest.mark.parametrize(
    "wrong", [{"gelu": "fp32"}, {"matmul": "tanh"}, {"convolution": "bf16"}, {"overflow": "wraps"}]
)
def test_an_arithmetic_that_is_none_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="no such arithmetic"):
        Arithmetic(**wrong)
