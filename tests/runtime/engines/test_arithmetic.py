"""What an engine computes in, found by a probe."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from engines_here import ENGINES_HERE
from torch import Tensor

from vconv.disk import SCRATCH
from vconv.errors import EngineError, UnavailableError
from vconv.precisions import PRECISIONS, torch_precisions
from vconv.runtime.devices.base import Device, Settings
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines import arithmetic
from vconv.runtime.engines.arithmetic import CONVOLUTION, KEPT, MATMUL, UNKNOWN, arithmetic_of, read
from vconv.runtime.engines.onnxruntime import OnnxRuntimeSession
from vconv.runtime.engines.openvino import OpenVinoSession
from vconv.runtime.engines.table import ENGINES
from vconv.runtime.engines.torch_model import TorchSession
from vconv.runtime.simulation.arithmetic import ROUNDINGS
from vconv.runtime.simulation.device import lack
from vconv.runtime.simulation.session import SimulatedGraphSession
from vconv.types import Array, Arrays

CPU = find_device("cpu")
Round = Callable[[Tensor], Tensor]


def test_what_a_kill_leaves_of_a_probe_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left: list[str] = []
    monkeypatch.setattr(
        arithmetic, "read", lambda outputs: left.extend(path.name for path in tmp_path.iterdir()) or "fp32"
    )
    assert OnnxRuntimeSession.arithmetic(CPU, "fp32") == "fp32"
    assert [name.startswith(SCRATCH) for name in left] == [True]
    assert list(tmp_path.iterdir()) == []


def tf32(values: Tensor) -> Tensor:
    """Round to 10 bits of fraction, to nearest even, with float32's range."""
    bits = values.contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & -(1 << 13)).view(torch.float32)


def kept(bits: int) -> Round:
    """Round to some bits of fraction, to nearest even, with float32's range."""

    def round_(values: Tensor) -> Tensor:
        mantissa, exponent = torch.frexp(values.double())
        scale = 2.0 ** (bits + 1)
        return torch.ldexp((mantissa * scale).round() / scale, exponent).float()

    return round_


def int8(values: Tensor) -> Tensor:
    """Round what is between the products, 32 columns, to steps of 8-bit whole numbers from 0 to about 2.

    In float32 are the images, and the second weights are exact; the first weights lose their small numbers,
    which this arithmetic does not keep either.
    """
    return (values * 128).round().clamp(0, 255) / 128 if values.shape[-1] == 32 else values


WAYS: dict[str, Round] = {
    **ROUNDINGS,
    "tf32": tf32,
    "bf16": lambda values: values.bfloat16().float(),
    "int8": int8,
}
"""By arithmetic, what it rounds operands to."""


def emulated(matmul: Round, convolution: Round) -> dict[str, Array]:
    """Compute the probe in float64, with the operands of every product rounded."""
    rows = torch.from_numpy(arithmetic.images()).flatten(1)
    first, second = map(torch.from_numpy, arithmetic.weights())

    def chain(round_: Round) -> Array:
        middle = (round_(rows).double() @ round_(first).double()).float()
        return (round_(middle).double() @ round_(second).double()).numpy()

    return {MATMUL: chain(matmul), CONVOLUTION: chain(convolution)}


@pytest.mark.parametrize("name", KEPT)
def test_every_arithmetic_is_told_from_the_others_by_what_it_keeps(name: str) -> None:
    assert set(WAYS) == set(KEPT)
    assert read(emulated(WAYS[name], WAYS[name])) == name


@pytest.mark.parametrize(("matmul", "convolution"), [*itertools.product(KEPT, KEPT)])
def test_what_is_told_is_the_least_of_the_two_products(matmul: str, convolution: str) -> None:
    names = list(KEPT)
    found = read(emulated(WAYS[matmul], WAYS[convolution]))
    assert found == names[max(names.index(matmul), names.index(convolution))]


@pytest.mark.parametrize("bits", [4, 8, 9, 13, 15])
def test_an_arithmetic_between_the_known_ones_is_not_called_better_than_it_is(bits: int) -> None:
    found = read(emulated(kept(bits), kept(bits)))
    assert found == UNKNOWN or KEPT[found].bits <= bits


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -1.0])
def test_a_result_that_is_no_products_is_unknown(value: float) -> None:
    right = emulated(WAYS["fp32"], WAYS["fp32"])
    wrong = np.full_like(right[MATMUL], value)
    assert read({**right, MATMUL: wrong}) == UNKNOWN
    assert read({**right, CONVOLUTION: wrong}) == UNKNOWN


def test_one_wrong_value_among_all_is_unknown() -> None:
    outputs = emulated(WAYS["fp32"], WAYS["fp32"])
    outputs[MATMUL][-1, -1] *= 3
    assert read(outputs) == UNKNOWN


@pytest.mark.parametrize("name", torch_precisions())
def test_torch_computes_on_a_cpu_in_what_it_is_asked_for(name: str) -> None:
    assert arithmetic_of("torch", CPU, name) == PRECISIONS[name].limits


@pytest.mark.parametrize("engine", [name for name in ENGINES_HERE if not ENGINES[name].rounds])
def test_every_engine_of_graphs_computes_a_float32_graph_in_float32(engine: str) -> None:
    assert arithmetic_of(engine, CPU, "fp32") == "fp32"


@pytest.mark.parametrize(("name", "found"), {"fp16": "fp16", "bf16": "bf16", "mixed": "fp16"}.items())
def test_the_simulation_of_rounding_computes_in_the_type_of_the_graph(name: str, found: str) -> None:
    assert arithmetic_of("simulated-rounding", CPU, name) == found


@pytest.mark.parametrize("name", ["fp32", "int8", "int8-dynamic"])
def test_the_simulation_of_rounding_takes_no_other_precision(name: str) -> None:
    with pytest.raises(UnavailableError, match=f"does not simulate {name}"):
        arithmetic_of("simulated-rounding", CPU, name)


def test_the_probes_graph_is_sound_and_of_the_precision_that_is_asked_for() -> None:
    for name, precision in PRECISIONS.items():
        if precision.onnx:
            model = onnx.load_from_string(arithmetic.graph(name))
            onnx.checker.check_model(model, full_check=True)
            kinds = {tensor.data_type for tensor in model.graph.initializer} - {onnx.TensorProto.INT64}
            whole = {onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8}
            more = whole if precision.onnx == "INT8" else set()
            assert kinds == {onnx.TensorProto.DataType.Value(precision.onnx), *more}


@pytest.mark.parametrize("name", ["int8", "int8-dynamic"])
def test_onnx_runtime_computes_quantised_products_in_8_bits(name: str) -> None:
    assert arithmetic_of("onnxruntime", CPU, name) == "int8"


def test_onnx_runtime_is_caught_computing_a_float16_graph_in_float32() -> None:
    assert arithmetic_of("onnxruntime", CPU, "fp16") == "fp32"


def test_what_openvino_makes_of_a_hint_is_found_and_is_not_believed(tmp_path: Path) -> None:
    names = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}
    for precision in ("fp32", "fp16", "bf16"):
        path = tmp_path / f"{precision}.onnx"
        path.write_bytes(arithmetic.graph(precision))
        batch = len(arithmetic.images())
        with OpenVinoSession(path, CPU, tmp_path, arithmetic.SIZE, batch, precision) as session:
            said = session._model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        assert arithmetic_of("openvino", CPU, precision) == names[said]


def test_a_precision_that_an_engine_refuses_makes_it_unavailable_and_in_float32_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(device: Device, precision: str) -> str:
        raise EngineError("no", got="nothing", expected="something", fix="else")

    monkeypatch.setattr(OnnxRuntimeSession, "arithmetic", refuse)
    elsewhere = replace(CPU, name="cpu:refusing")
    with pytest.raises(UnavailableError, match="onnxruntime computes nothing in bf16 on cpu:refusing"):
        arithmetic_of("onnxruntime", elsewhere, "bf16")
    with pytest.raises(EngineError, match="no"):
        arithmetic_of("onnxruntime", elsewhere, "fp32")


def test_a_precision_that_no_graph_has_cannot_be_asked_for() -> None:
    with pytest.raises(UnavailableError, match="has no probe of graphs in autocast-fp16 .*fp32, fp16, bf16"):
        arithmetic_of("onnxruntime", CPU, "autocast-fp16")


def test_an_engine_is_asked_once_for_each_device_setting_and_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, str]] = []

    def answer(device: Device, precision: str) -> str:
        asked.append((device.name, precision))
        return "bf16"

    monkeypatch.setattr(TorchSession, "arithmetic", answer)
    one, other = (replace(CPU, name=f"cpu:asked-{number}") for number in (1, 2))
    set_up = replace(one, settings=Settings(("conv",)))
    for device, precision in itertools.product((one, one, other, set_up), ("fp32", "fp16")):
        assert arithmetic_of("torch", device, precision) == "bf16"
    names = ("cpu:asked-1", "cpu:asked-2", "cpu:asked-1")
    assert asked == [(name, precision) for name in names for precision in ("fp32", "fp16")]


def test_float32_is_asked_for_as_the_device_computes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed and judged runs inside the device's own context: so does the probe."""
    import contextlib
    from collections.abc import Iterator

    inside: list[bool] = []

    @contextlib.contextmanager
    def exact() -> Iterator[None]:
        inside.append(True)
        yield
        inside.append(False)

    seen: list[bool] = []

    def read_inside(outputs: Arrays) -> str:
        seen.append(inside == [True])
        return "fp32"

    monkeypatch.setattr(arithmetic, "read", read_inside)
    TorchSession.arithmetic(replace(CPU, exact=exact), "fp32")
    assert (seen, inside) == ([True], [True, False])


SIMULATES = pytest.mark.skipif(bool(lack()), reason=lack() or "it simulates")
SETTINGS = {
    "910b": Settings(),
    "no hf32": Settings(()),
    "matmul": Settings(("matmul",)),
    "310p": Settings(profile="310p"),
}


@SIMULATES
@pytest.mark.parametrize("name", SETTINGS)
def test_a_graph_on_the_simulated_npu_is_probed_to_compute_as_its_device_says(name: str) -> None:
    device = find_device("npu-sim", SETTINGS[name])
    assert SimulatedGraphSession.arithmetic(device, "fp32") == device.arithmetic
    assert arithmetic_of("onnxruntime", device, "fp32") == device.arithmetic


@SIMULATES
def test_torch_on_the_simulated_npu_is_probed_to_compute_as_its_device_says(
    simulating: Callable[..., Any],
) -> None:
    found = simulating("""
import contextlib, dataclasses, itertools
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.torch_model import TorchSession
device = dataclasses.replace(find_device("npu"), exact=contextlib.nullcontext)
result = []
for convolution, matmul in itertools.product(ROUNDINGS, ROUNDINGS):
    arithmetic = Arithmetic("tanh", convolution, matmul)
    state.configure(arithmetic)
    result.append([arithmetic.float32_is, TorchSession.arithmetic(device, "fp32")])
""")
    assert len(found) == 9
    assert [declared for declared, _ in found] == [probed for _, probed in found]


def test_every_engine_that_runs_torch_models_or_graphs_here_is_asked_by_these_tests() -> None:
    elsewhere = {"torch-compiled": "test_compiled.py", "acl": "test_offline.py", "onnxruntime-tensorrt": ""}
    assert {*ENGINES_HERE, "torch", *elsewhere} == set(ENGINES)
    assert all((Path(__file__).parent / file).exists() for file in elsewhere.values())
