from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import Manifest
from vconv.convert.libraries import models
from vconv.convert.network import Network
from vconv.convert.patches import table
from vconv.errors import InputError, UnknownNameError
from vconv.precisions import PRECISIONS, torch_precisions
from vconv.runtime.devices.precisions import find_precisions
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.torch_model import TorchSession, autocast, torch_type
from vconv.types import Array, Arrays

CPU = find_device("cpu")
REDUCED = [name for name in torch_precisions() if name != "fp32"]
CAST = [name for name in REDUCED if not PRECISIONS[name].autocast]
PRODUCTS = ("linear", "addmm", "mm", "bmm", "matmul", "conv2d", "convolution", "scaled_dot_product_attention")
LEAST = {torch.float16: 1e-4, torch.bfloat16: 1e-3}
"""Relative L2 distance from float32 that arithmetic in a type cannot stay under: about its rounding unit."""


class Executed(TorchDispatchMode):
    """Counts what is executed, by operator, and by operator and type of the result."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.types: Counter[tuple[str, torch.dtype]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.operators[name] += 1
        if isinstance(result, torch.Tensor):
            self.types[name, result.dtype] += 1
        return result


@pytest.fixture
def net(small_artifact: Path) -> Network:
    return Artifact.open(small_artifact).network


@pytest.fixture
def opened(small_artifact: Path, made: Manifest, net: Network) -> Iterator[Callable[..., Any]]:
    """Open the patched model in a precision; return the session and the model."""
    sessions: list[TorchSession] = []

    def open_it(precision: str, patched: bool = True) -> tuple[TorchSession, nn.Module]:
        model = models.load(small_artifact, net)
        names = [patch.name for patch in made.patches if patch.applied] if patched else []
        patches = table.named(names)
        sessions.append(
            TorchSession(model, net, CPU, patches, small_artifact, made.size, PRECISIONS[precision])
        )
        return sessions[-1], model

    yield open_it
    for session in sessions:
        session.close()


def relative_l2(actual: Array, expected: Array) -> float:
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    return float(np.linalg.norm(a - e) / np.linalg.norm(e))


def narrow(name: str) -> torch.dtype:
    """Return the type that products are computed in."""
    precision = PRECISIONS[name]
    return torch_type(precision.autocast or precision.dtype)


@pytest.mark.parametrize("name", torch_precisions())
def test_the_weights_are_of_the_precisions_type(name: str, opened: Callable[..., Any]) -> None:
    _, model = opened(name)
    assert {parameter.dtype for parameter in model.parameters()} == {torch_type(PRECISIONS[name].dtype)}


@pytest.mark.parametrize("name", torch_precisions())
def test_every_product_is_computed_in_the_precisions_type(
    name: str, opened: Callable[..., Any], pixel_values: Array
) -> None:
    session, _ = opened(name)
    with Executed() as executed:
        session.run(pixel_values[:1])
    products = {key for key in executed.types if key[0] in PRODUCTS}
    assert {key[0] for key in products} >= {"linear", "conv2d", "scaled_dot_product_attention"}
    assert {key[1] for key in products} == {narrow(name)}


@pytest.mark.parametrize("name", REDUCED)
def test_a_reduced_precision_is_really_used_and_comes_back_as_float32(
    name: str, opened: Callable[..., Any], pixel_values: Array
) -> None:
    full, reduced = (opened(precision)[0] for precision in ("fp32", name))
    expected: Arrays = full.run(pixel_values[:2])
    actual: Arrays = reduced.run(pixel_values[:2])
    assert {place.dtype for place in full.placed.values()} == {"float32"}
    if name in CAST:
        assert {place.dtype for place in reduced.placed.values()} == {str(narrow(name))[len("torch.") :]}
    assert list(actual) == list(expected)
    for key, value in actual.items():
        assert value.dtype == np.float32
        assert relative_l2(value, expected[key]) > LEAST[narrow(name)], key


@pytest.mark.parametrize("name", CAST)
def test_outputs_hold_values_of_the_reduced_type_alone(
    name: str, opened: Callable[..., Any], pixel_values: Array
) -> None:
    for value in opened(name)[0].run(pixel_values[:1]).values():
        rounded = torch.from_numpy(value).to(torch_type(PRECISIONS[name].dtype)).float().numpy()
        assert np.array_equal(rounded, value)


@pytest.mark.parametrize("name", torch_precisions())
def test_no_gelu_kernel_is_run_in_any_precision(
    name: str, opened: Callable[..., Any], pixel_values: Array, net: Network
) -> None:
    session, _ = opened(name)
    with Executed() as executed:
        session.run(pixel_values[:1])
    assert executed.operators["gelu"] == 0
    assert executed.operators["erf"] == net.blocks


def authors_periods(net: Network) -> torch.Tensor:
    """Return the periods as the authors' files hold them: rounded to bfloat16, in float32."""
    quarter = net.head_dim // 4
    exact = torch.tensor([float(net.numbers.rope_base or 0) ** (place / quarter) for place in range(quarter)])
    return exact.to(torch.bfloat16).to(torch.float32)


@pytest.mark.parametrize("name", torch_precisions())
def test_the_authors_periods_are_whole_in_every_precision(
    name: str, opened: Callable[..., Any], net: Network
) -> None:
    buffers = {key.rsplit(".")[-1]: value for key, value in opened(name)[1].named_buffers()}
    found = [key for key in ("inv_freq", "periods") if key in buffers]
    assert len(found) == (net.numbers.rope_base is not None)
    for key in found:
        wanted = authors_periods(net) if key == "periods" else 1.0 / authors_periods(net)
        assert buffers[key].dtype is torch.float32
        assert torch.equal(buffers[key], wanted)


@pytest.mark.parametrize("name", CAST)
def test_a_cast_of_the_patched_model_would_lose_the_periods(
    name: str, opened: Callable[..., Any], net: Network
) -> None:
    """What makes the order matter: patches go on after the cast."""
    if net.numbers.rope_base is None:
        assert not [key for key, _ in opened("fp32")[1].named_buffers() if key.endswith("periods")]
        return
    _, model = opened("fp32")
    model.to(torch_type(PRECISIONS[name].dtype))
    buffers = {key.rsplit(".")[-1]: value for key, value in model.named_buffers()}
    key = "periods" if "periods" in buffers else "inv_freq"
    wanted = authors_periods(net) if key == "periods" else 1.0 / authors_periods(net)
    # timm 1.0.27 keeps the values, which 16 bits can hold, but not the type that angles are computed in.
    assert buffers[key].dtype is not torch.float32 or not torch.equal(buffers[key], wanted)


@pytest.mark.parametrize("name", torch_precisions())
def test_every_precision_can_be_named_on_a_cpu(name: str) -> None:
    assert find_precisions([name], CPU) == [PRECISIONS[name]]


def test_precisions_come_in_the_tables_order_and_once() -> None:
    found = find_precisions(["bf16", "fp32", "bf16"], CPU)
    assert [precision.name for precision in found] == ["fp32", "bf16"]


@pytest.mark.parametrize("usual", [("fp32",), ("fp32", "autocast-bf16")])
def test_auto_is_what_the_device_usually_runs(usual: tuple[str, ...]) -> None:
    found = find_precisions(["auto"], replace(CPU, usual=usual))
    assert tuple(precision.name for precision in found) == usual


@pytest.mark.parametrize("names", [["int4"], ["fp32", "int4"], ["int4", "fp32"]])
def test_an_unknown_precision_lists_the_choices(names: list[str]) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown precision .*'int4'.*expected one of "):
        find_precisions(names, CPU)


def test_auto_beside_another_precision_is_not_offered_as_what_to_write() -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_precisions(["auto", "fp32"], CPU)
    assert "auto" not in caught.value.expected.removeprefix("one of ").split(", ")
    assert "auto alone" in caught.value.fix


def test_a_precision_that_a_device_lacks_is_refused_with_those_it_has() -> None:
    device = replace(CPU, name="cuda:1", precisions=("fp32", "fp16"))
    with pytest.raises(InputError, match=r"cuda:1 has no bf16 .*expected one of fp32, fp16 "):
        find_precisions(["fp16", "bf16"], device)


def test_no_precision_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="--precision is empty"):
        find_precisions([], CPU)


@pytest.mark.parametrize("name", torch_precisions())
def test_autocast_is_that_of_the_devices_kind_and_the_precisions_type(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, torch.dtype]] = []

    def noted(kind: str, dtype: torch.dtype) -> Any:
        asked.append((kind, dtype))
        return torch.no_grad()

    monkeypatch.setattr(torch, "autocast", noted)
    kinds, precision = ("cpu", "cuda", "npu"), PRECISIONS[name]
    for kind in kinds:
        with autocast(precision, replace(CPU, kind=kind)):
            pass
    wanted = [(kind, torch_type(precision.autocast)) for kind in kinds] if precision.autocast else []
    assert asked == wanted


@pytest.mark.parametrize("name", torch_precisions())
def test_a_precision_is_named_after_its_limits(name: str) -> None:
    precision = PRECISIONS[name]
    assert precision.name == name
    assert name.removeprefix("autocast-") == precision.limits
    assert bool(precision.autocast) == name.startswith("autocast-")
