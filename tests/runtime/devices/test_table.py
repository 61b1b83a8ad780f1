from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from vconv.errors import InputError, UnknownNameError, VconvError
from vconv.precisions import PRECISIONS, torch_precisions
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import KINDS, find_device, find_devices
from vconv.runtime.doctor import diagnosis
from vconv.runtime.engines.providers import PROVIDERS
from vconv.runtime.simulation.device import lack
from vconv.validators.accuracy.limits import STRICT

ACCELERATORS = ("cuda", "npu")
Machine = Any
"""What the fixture ``accelerators`` makes."""


@pytest.fixture(params=["cpu", "cuda:0", "cuda:1", "npu:0", "npu:1", "npu-sim"])
def device(request: pytest.FixtureRequest, machine: Machine) -> Device:
    """Every kind of device, in its place."""
    if request.param == "npu-sim" and lack():
        pytest.skip(lack())
    return find_device(request.param)


def assert_sentence(error: VconvError, *words: str) -> None:
    message = str(error)
    assert "\n" not in message
    assert all(part in message for part in (" | got ", " | expected ", " | fix: "))
    for word in words:
        assert word in message


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("name", "full", "kind", "index"),
    [
        ("cpu", "cpu", "cpu", 0),
        ("cpu:0", "cpu", "cpu", 0),
        ("cuda", "cuda:0", "cuda", 0),
        ("cuda:0", "cuda:0", "cuda", 0),
        ("cuda:1", "cuda:1", "cuda", 1),
        ("npu", "npu:0", "npu", 0),
        ("npu:1", "npu:1", "npu", 1),
        ("npu-sim", "npu-sim", "npu-sim", 0),
    ],
)
def test_a_device_is_found_by_its_name(name: str, full: str, kind: str, index: int) -> None:
    found = find_device(name)
    assert (found.name, found.kind, found.index) == (full, kind, index)


def test_every_kind_is_made_by_these_tests() -> None:
    assert set(KINDS) == {"cpu", *ACCELERATORS, "npu-sim"}


def test_every_device_has_a_name_that_torch_knows(device: Device) -> None:
    if device.kind in ("cpu", "cuda"):
        assert str(torch.device(device.torch_name)) == device.name
    assert device.torch_name == device.name


def test_onnx_runtime_has_a_provider_for_every_kind_of_device(device: Device) -> None:
    assert PROVIDERS[device.kind].name in onnxruntime.get_all_providers()


def test_an_accelerators_provider_is_told_which_device_it_is(machine: Machine) -> None:
    kept = {"precision_mode": "must_keep_origin_dtype", "dump_om_model": 0}
    for index in (0, 1):
        cuda, npu = find_device(f"cuda:{index}"), find_device(f"npu:{index}")
        given = ("CUDAExecutionProvider", {"device_id": index, "use_tf32": 0})
        assert PROVIDERS["cuda"].on(cuda) == given
        assert PROVIDERS["npu"].on(npu) == ("CANNExecutionProvider", {"device_id": index, **kept})
    assert PROVIDERS["cpu"].on(find_device("cpu")) == "CPUExecutionProvider"


def test_onnx_runtime_has_its_own_name_for_the_memory_of_an_npu(device: Device) -> None:
    named = {"npu": "cann", "npu-sim": "cpu"}.get(device.kind, device.kind)
    assert PROVIDERS[device.kind].memory == named


def test_the_simulated_device_says_so_and_no_other_does(device: Device) -> None:
    assert device.simulated is (device.kind == "npu-sim")
    assert ("simulated" in device.model) is device.simulated


def test_every_precision_of_every_device_is_in_the_table_and_has_strict_limits(device: Device) -> None:
    assert device.precisions and set(device.usual) <= set(device.precisions) <= set(torch_precisions())
    for name in device.precisions:
        limits = PRECISIONS[name].limits
        assert (limits, device.arithmetic if name == "fp32" else limits) in STRICT


def test_what_float32_is_computed_in_is_said_by_the_devices_settings(device: Device) -> None:
    assert device.arithmetic == {"npu": "hf32", "npu-sim": "hf32"}.get(device.kind, "fp32")


def test_every_device_has_the_makers_name_of_its_model(machine: Machine) -> None:
    assert [find_device(name).model for name in ("cuda:1", "npu")] == ["Stand-in 1", "Stand-in 0"]
    assert find_device("cpu").model


@pytest.mark.parametrize(
    ("text", "model"),
    [
        (
            "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\nflags\t: fpu\nmodel name\t: X\n",
            "Some CPU @ 2.0GHz",
        ),
        ("processor\t: 0\nBogoMIPS\t: 100.00\n\nModel\t\t: Some board\n", "Some board"),
        ("processor\t: 0\n", "unknown"),
        (None, "unknown"),
    ],
    ids=["x86", "arm", "unnamed", "no file"],
)
def test_the_model_of_the_cpu_is_what_linux_says(
    text: str | None, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_file", lambda self: text is not None)
    monkeypatch.setattr(Path, "read_text", lambda self: text)
    assert find_device("cpu").model == model


def test_a_cpu_runs_float32_alone_unless_asked_and_an_accelerator_everything(machine: Machine) -> None:
    assert find_device("cpu").usual == ("fp32",)
    for kind in ACCELERATORS:
        assert find_device(kind).usual == find_device(kind).precisions == tuple(torch_precisions())


def test_a_gpu_without_bfloat16_is_not_offered_it(
    accelerators: type[Machine], install: Callable[[str, Machine], None]
) -> None:
    install("cuda", accelerators(bf16=False))
    assert find_device("cuda").precisions == find_device("cuda").usual == ("fp32", "fp16", "autocast-fp16")


def test_waiting_asks_for_the_right_device(machine: Machine, kind: str) -> None:
    for index in (0, 1):
        device = find_device(f"{kind}:{index}")
        machine.asked.clear()
        device.synchronize()
        assert machine.asked == [("synchronize", index)]


def test_waiting_for_the_cpu_returns() -> None:
    find_device("cpu").synchronize()


def test_free_memory_is_that_of_the_right_device(machine: Machine, kind: str) -> None:
    machine.use(0, kept=300)
    machine.use(1, other=50)
    assert [find_device(f"{kind}:{index}").free_bytes() for index in (0, 1)] == [700, 950]


def test_the_free_memory_of_the_cpu_is_some_and_not_more_than_there_is() -> None:
    lines = Path("/proc/meminfo").read_text().splitlines()
    total = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemTotal"))
    assert 0 < find_device("cpu").free_bytes() <= total


GROWTHS = {
    "what torch took for a moment": ({"passing": 120}, 120),
    "what torch took and kept": ({"kept": 80}, 80),
    "both": ({"passing": 30, "kept": 80}, 110),
    "what another allocator took": ({"other": 200}, 200),
    "the greater of the two": ({"passing": 500, "other": 200}, 500),
    "nothing": ({}, 0),
    "less than nothing": ({"other": -40}, 0),
}
"""What a run takes of a device, and the growth that it must be."""


@pytest.mark.parametrize("name", GROWTHS)
def test_growth_is_what_a_run_takes_beyond_what_was_held(machine: Machine, kind: str, name: str) -> None:
    takes, expected = GROWTHS[name]
    machine.use(1, passing=400, kept=100, other=50)
    device = find_device(f"{kind}:1")
    machine.asked.clear()
    assert device.growth(lambda: machine.use(1, **takes)) == expected
    assert {index for _, index in machine.asked} == {1}
    assert ("synchronize", 1) in machine.asked[machine.asked.index(("allocated", 1)) :]


def test_growth_does_not_see_what_another_device_takes(machine: Machine, kind: str) -> None:
    assert find_device(f"{kind}:1").growth(lambda: machine.use(0, passing=500, kept=9, other=9)) == 0


@pytest.mark.parametrize(
    "name", ["gpu", "CPU", "", "cuda:", "cuda:x", "cuda:-1", "cuda:1234", "npu_sim", "cpu "]
)
def test_an_unknown_device_is_refused_with_the_choices(name: str) -> None:
    for find in (find_device, find_devices):
        with pytest.raises(UnknownNameError, match="unknown device") as caught:
            find(name)
        assert_sentence(caught.value, repr(name))
        assert set(caught.value.expected.removeprefix("one of ").split(", ")) <= {*KINDS, "all"}


def test_an_index_beyond_the_last_device_is_refused_with_the_range(machine: Machine, kind: str) -> None:
    for name in (f"{kind}:2", f"{kind}:3", f"{kind}:999"):
        with pytest.raises(InputError, match=f"there is no {name}") as caught:
            find_device(name)
        assert_sentence(caught.value, "got 2 of them", f"expected {kind}:0 to {kind}:1")


def test_a_second_cpu_is_refused() -> None:
    with pytest.raises(InputError, match="there is no cpu:1") as caught:
        find_device("cpu:1")
    assert_sentence(caught.value, "got 1 of them", "expected cpu", "there is one cpu")


def test_the_only_device_of_a_kind_has_no_range(
    accelerators: type[Machine], install: Callable[[str, Machine], None], kind: str
) -> None:
    install(kind, accelerators(count=1))
    with pytest.raises(InputError, match=f"got 1 of them .* expected {kind} "):
        find_device(f"{kind}:1")


@pytest.mark.parametrize(
    ("version", "found"), [("13.0", "for CUDA 13.0, but no GPU"), (None, "without CUDA")], ids=["cuda", "cpu"]
)
def test_without_a_gpu_the_build_of_torch_is_told(
    accelerators: type[Machine],
    install: Callable[[str, Machine], None],
    monkeypatch: pytest.MonkeyPatch,
    version: str | None,
    found: str,
) -> None:
    install("cuda", accelerators(count=0))
    monkeypatch.setattr(torch.version, "cuda", version)
    for name in ("cuda", "cuda:0", "cuda:1"):
        with pytest.raises(InputError, match="there is no cuda ") as caught:
            find_device(name)
        assert_sentence(caught.value, f"torch {torch.__version__} {found}", "expected cuda", "--device cpu")


@pytest.mark.parametrize("state", ["no package", "package that finds none"])
def test_without_an_npu_it_is_told_whether_torch_npu_is_there(
    accelerators: type[Machine],
    install: Callable[[str, Machine], None],
    monkeypatch: pytest.MonkeyPatch,
    state: str,
) -> None:
    monkeypatch.delattr(torch, "npu", raising=False)
    found = "got torch_npu: not installed"
    if state == "package that finds none":
        install("npu", accelerators(count=0))
        monkeypatch.setattr(diagnosis, "npu_problem", lambda: None)
        found = "got torch_npu, but no NPU that it can use"
    with pytest.raises(InputError, match="there is no npu ") as caught:
        find_device("npu")
    assert_sentence(caught.value, found, "expected npu", "--device npu-sim or cpu", "npu")


@pytest.mark.parametrize(
    ("gpus", "npus", "names"),
    [
        (0, 0, ["cpu"]),
        (1, 0, ["cpu", "cuda:0"]),
        (0, 1, ["cpu", "npu:0"]),
        (2, 3, ["cpu", "cuda:0", "cuda:1", "npu:0", "npu:1", "npu:2"]),
    ],
)
def test_all_is_every_device_that_is_there(
    accelerators: type[Machine],
    install: Callable[[str, Machine], None],
    gpus: int,
    npus: int,
    names: list[str],
) -> None:
    install("cuda", accelerators(count=gpus))
    install("npu", accelerators(count=npus))
    assert [device.name for device in find_devices("all")] == names


def test_one_device_is_a_list_of_one(machine: Machine) -> None:
    assert [device.name for device in find_devices("cuda:1")] == ["cuda:1"]


def test_all_is_no_name_of_one_device() -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_device("all")
    assert "all" not in caught.value.expected.removeprefix("one of ").split(", ")
