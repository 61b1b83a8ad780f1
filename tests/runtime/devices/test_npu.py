from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from vconv.errors import InputError, UnknownNameError
from vconv.runtime.devices import npu_sim
from vconv.runtime.devices.base import Settings
from vconv.runtime.devices.table import KINDS, find_device, find_devices
from vconv.runtime.engines.acl import OfflineSession
from vconv.runtime.simulation.arithmetic import PROFILES, Arithmetic
from vconv.runtime.simulation.device import lack

Machine = Any
SIMULATES = pytest.mark.skipif(bool(lack()), reason=lack() or "it simulates")
"""Tests that need a torch with which the NPU can be simulated."""


@pytest.fixture
def npu(install: Callable[[str, Machine], None], accelerators: type[Machine]) -> Machine:
    """A machine with two NPUs of the chip 910B4."""
    found = accelerators()
    install("npu", found)
    return found


@pytest.mark.parametrize(
    ("hf32", "conv", "matmul", "arithmetic"),
    [
        (None, True, False, "hf32"),
        ((), False, False, "fp32"),
        (("conv",), True, False, "hf32"),
        (("matmul",), False, True, "hf32"),
        (("conv", "matmul"), True, True, "hf32"),
    ],
    ids=["default", "none", "conv", "matmul", "both"],
)
def test_hf32_is_set_as_asked_while_a_model_runs_and_put_back_after(
    npu: Machine, hf32: tuple[str, ...] | None, conv: bool, matmul: bool, arithmetic: str
) -> None:
    npu.conv.allow_hf32, npu.matmul.allow_hf32 = False, True
    device = find_device("npu", Settings(hf32))
    assert device.arithmetic == arithmetic
    assert dict(device.options) == {
        "torch.npu.conv.allow_hf32": conv,
        "torch.npu.matmul.allow_hf32": matmul,
    }
    with device.exact():
        assert (npu.conv.allow_hf32, npu.matmul.allow_hf32) == (conv, matmul)
    assert (npu.conv.allow_hf32, npu.matmul.allow_hf32) == (False, True)
    with pytest.raises(ZeroDivisionError), device.exact():
        raise ZeroDivisionError
    assert (npu.conv.allow_hf32, npu.matmul.allow_hf32) == (False, True)


@pytest.mark.parametrize(
    ("soc", "arithmetic"),
    [(102, "fp16"), (202, "fp16"), (220, "hf32"), (225, "hf32"), (240, "fp16"), (250, "hf32"), (260, "hf32")],
)
def test_a_chip_below_910b_takes_float16_operands(npu: Machine, soc: int, arithmetic: str) -> None:
    npu.soc = soc
    device = find_device("npu:1")
    assert device.arithmetic == arithmetic
    if arithmetic == "fp16":
        assert dict(device.options) == {"cube operands": "fp16"}
        with device.exact():
            assert (npu.conv.allow_hf32, npu.matmul.allow_hf32) == (True, False)
        with pytest.raises(InputError, match=r"npu:1 has no HF32 \| got --hf32 conv"):
            find_device("npu:1", Settings(("conv",)))


@SIMULATES
@pytest.mark.parametrize("name", ["npu", "npu-sim"])
def test_hf32_of_anything_else_is_refused_with_the_choices(npu: Machine, name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"--hf32 \| got 'linear' \| expected one of .*conv"):
        find_device(name, Settings(("conv", "linear")))


@SIMULATES
@pytest.mark.parametrize(
    ("settings", "arithmetic"),
    [
        (Settings(), PROFILES["910b"]),
        (Settings(profile="910b"), PROFILES["910b"]),
        (Settings(profile="310p"), PROFILES["310p"]),
        (Settings(()), Arithmetic("tanh", "fp32", "fp32")),
        (Settings(("conv", "matmul")), Arithmetic("tanh", "hf32", "hf32")),
        (Settings(fusions="on"), Arithmetic("tanh", "hf32", "fp32", fusions="on")),
        (Settings(fusions="off"), PROFILES["910b"]),
    ],
    ids=["default", "910b", "310p", "no hf32", "hf32", "fusions on", "fusions off"],
)
def test_the_simulated_npu_computes_as_its_profile_and_settings_say(
    settings: Settings, arithmetic: Arithmetic
) -> None:
    device = find_device("npu-sim", settings)
    assert device.simulates == arithmetic
    assert device.arithmetic == arithmetic.float32_is
    assert device.options["profile"] == (settings.profile or "910b")
    assert {"fusions": "off", **device.options}.items() >= vars(arithmetic).items()
    assert device.model.endswith("overflow saturates") == (settings.profile == "310p")
    assert f"convolution {arithmetic.convolution}" in device.model


@SIMULATES
def test_a_profile_that_is_none_is_refused_and_so_is_hf32_where_there_is_none() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown profile \| got '910c' .* 910b"):
        find_device("npu-sim", Settings(profile="910c"))
    with pytest.raises(InputError, match="simulated 310p has no HF32"):
        find_device("npu-sim", Settings((), "310p"))


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("cpu", Settings(()), r"--hf32 has no effect on cpu .* expected npu or npu-sim"),
        ("cpu", Settings(profile="310p"), r"--profile has no effect on cpu .* expected npu-sim \|"),
        ("npu", Settings(profile="310p"), "--profile has no effect on npu"),
    ],
)
def test_a_setting_that_a_device_has_not_is_refused(
    npu: Machine, name: str, settings: Settings, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        find_device(name, settings)


def test_all_devices_are_this_machines_own_and_are_set_as_far_as_they_can_be(npu: Machine) -> None:
    found = find_devices("all", Settings(()))
    assert [device.name for device in found if device.kind != "cuda"] == ["cpu", "npu:0", "npu:1"]
    assert {device.name: device.arithmetic for device in found} == dict.fromkeys(
        [device.name for device in found], "fp32"
    )
    assert [device.settings.hf32 for device in found if device.kind == "npu"] == [(), ()]


def test_a_setting_that_no_device_of_this_machine_has_is_refused_of_all_too(npu: Machine) -> None:
    with pytest.raises(InputError, match="--profile has no effect on any device"):
        find_devices("all", Settings(profile="310p"))
    with pytest.raises(UnknownNameError, match="--hf32"):
        find_devices("all", Settings(("cnov",)))


@pytest.mark.parametrize(("soc", "arithmetic"), [(224, "fp32"), (202, "fp16")])
def test_an_offline_model_computes_float32_as_it_is_compiled_to_where_the_chip_can(
    npu: Machine, soc: int, arithmetic: str
) -> None:
    npu.soc = soc
    device = find_device("npu")
    found = [OfflineSession.arithmetic(device, precision) for precision in ("fp32", "fp16")]
    assert found == [arithmetic, "fp16"]


def test_where_the_npu_cannot_be_simulated_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npu_sim, "lack", lambda: "torch 2.9.1; it needs 2.10")
    with pytest.raises(InputError, match=r"there is no npu-sim \| got torch 2.9.1.* fix: use torch 2.10"):
        find_device("npu-sim")


def test_this_torch_can_simulate_where_it_is_late_enough() -> None:
    late = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 10)
    assert KINDS[npu_sim.SIMULATED].count() == int(late)
