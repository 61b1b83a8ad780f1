from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional

from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import Manifest
from vconv.convert.libraries import models
from vconv.convert.patches import gelu_erf, table
from vconv.convert.patches.base import applied
from vconv.convert.sources.base import Source
from vconv.runtime.devices.npu_gelu import SPELLED_OUT, NpuGelu, find, on_device
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.variants import open_variant

CPU = find_device("cpu")
NPU = replace(CPU, kind="npu")
"""The CPU where vconv asks for an NPU, so that a stand-in's operators are run on it."""


REAL = functional.gelu


def exact(values: torch.Tensor, approximate: str = "none") -> torch.Tensor:
    return REAL(values, approximate=approximate)


def dropping(values: torch.Tensor, approximate: str = "none") -> torch.Tensor:
    return REAL(values, approximate="tanh")


class Switch:
    """``torch.npu`` with or without the compatible implementation, by which ``F.gelu`` computes exactly."""

    def __init__(self, honours: bool) -> None:
        self.on, self.honours = False, honours

    def use_compatible_impl(self, wanted: bool) -> None:
        self.on = wanted and self.honours


def installation(monkeypatch: pytest.MonkeyPatch, own: Any = None, switch: Switch | None = None) -> None:
    """Put a torch_npu in place that has an ``npu_gelu``, or a switch, or neither.

    ``F.gelu`` of float32 is what a device computes: tanh, until a switch is on. In float64 it is the truth.
    """
    package = SimpleNamespace(**({"npu_gelu": own} if own else {}))
    monkeypatch.setitem(sys.modules, "torch_npu", package)  # type: ignore[arg-type]
    monkeypatch.setattr(torch, "npu", switch or SimpleNamespace(), raising=False)

    def gelu(values: torch.Tensor, approximate: str = "none") -> torch.Tensor:
        honoured = values.dtype == torch.float64 or (switch and switch.on)
        return REAL(values, approximate=approximate if honoured else "tanh")

    monkeypatch.setattr(functional, "gelu", gelu)


def test_its_own_operator_is_the_first_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    switch = Switch(honours=True)
    installation(monkeypatch, exact, switch)
    assert (find(NPU).name, find(NPU).make) == ("npu_gelu", NpuGelu)
    assert not switch.on, "the switch changes other operators too"


@pytest.mark.parametrize("own", [None, dropping], ids=["absent", "not honoured"])
def test_the_compatible_implementation_is_the_second(monkeypatch: pytest.MonkeyPatch, own: Any) -> None:
    installation(monkeypatch, own, Switch(honours=True))
    switch = torch.npu  # type: ignore[attr-defined]
    found = find(NPU)
    assert found.name == "F.gelu, compatible implementation" and found.make is not None
    found.make()(torch.ones(3))
    assert not switch.on, "an original in the same process must not feel it"


@pytest.mark.parametrize("switch", [None, Switch(honours=False)], ids=["absent", "too late"])
def test_where_neither_is_honoured_the_spelling_with_erf_stays(
    monkeypatch: pytest.MonkeyPatch, switch: Switch | None
) -> None:
    installation(monkeypatch, dropping, switch)
    found = find(NPU)
    assert (found.name, found.make) == (SPELLED_OUT, None)
    patches, name = on_device(table.PATCHES.values(), NPU)
    assert name == SPELLED_OUT and patches == list(table.PATCHES.values())


def test_elsewhere_than_on_an_npu_nothing_is_asked_or_changed() -> None:
    assert on_device(table.PATCHES.values(), CPU) == (list(table.PATCHES.values()), SPELLED_OUT)
    others = [patch for name, patch in table.PATCHES.items() if name != gelu_erf.PATCH.name]
    assert on_device(others, NPU) == (others, "")


def test_it_takes_the_place_of_every_gelu_in_every_system_spelled_out_or_not(
    small: Artifact, monkeypatch: pytest.MonkeyPatch, small_source: Source, made: Manifest
) -> None:
    calls: list[int] = []

    def counted(values: torch.Tensor, approximate: str = "none") -> torch.Tensor:
        calls.append(values.numel())
        return exact(values, approximate)

    # transformers asks for torch_npu once, and keeps the answer. The stand-in has no entry for it to find.
    model = models.load(small_source.folder, small_source.network)
    installation(monkeypatch, counted)
    patches, _ = on_device([gelu_erf.PATCH], NPU)
    before = [type(module) for module in model.modules()]
    with applied(model, small_source.network, patches) as found:
        replaced = sum(isinstance(module, NpuGelu) for module in model.modules())
        assert replaced == found[0].sites == small_source.network.blocks
        assert found[0].carried == 0
    assert [type(module) for module in model.modules()] == before
    record = small.variant("patched-torch-fp32")
    images = torch.randn(1, 3, *made.size).numpy()
    with open_variant(small, record, CPU) as session:
        expected = session(images)
    calls.clear()
    with open_variant(small, record, replace(CPU, kind="npu")) as session:
        actual = session(images)
        assert session.gelu == "npu_gelu"
    blocks = small_source.network.blocks
    assert len([size for size in calls if size != 4096]) == blocks, "one for each block, beside the probe's"
    for name, array in expected.items():
        torch.testing.assert_close(
            torch.from_numpy(actual[name]), torch.from_numpy(array), rtol=1e-4, atol=1e-4
        )
