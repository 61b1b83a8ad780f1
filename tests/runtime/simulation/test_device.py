"""The simulated NPU, each time in a separate process: a process has it once and for good."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vconv.convert.sources.base import Source
from vconv.runtime.simulation.arithmetic import MODELLED
from vconv.runtime.simulation.kernels import _OWN, _REFUSED

Child = Callable[..., Any]


def test_tensors_are_on_a_device_named_npu_and_compute_as_on_a_cpu(simulating: Child) -> None:
    found = simulating("""
x = torch.randn(4, 6)
y = x.npu()
view = y[1:3, 2:]
view.add_(1)
expected = x.clone()
expected[1:3, 2:] += 1
made = [torch.zeros(2, device="npu"), torch.arange(3, device="npu:0"), torch.tensor([1, 2], device="npu")]
result = {
    "device": str(y.device), "type": type(y).__name__, "is_npu": y.is_npu,
    "views": torch.equal(y.cpu(), expected),
    "shares": view.untyped_storage().data_ptr() == y.untyped_storage().data_ptr(),
    "product": torch.equal((y @ y.t()).cpu(), expected @ expected.t()),
    "made": [str(tensor.device) for tensor in made],
    "linear": str(torch.nn.Linear(6, 2).npu()(y).device),
    "printed": "device='npu:0'" in repr(y),
}
""")
    assert found == {
        "device": "npu:0",
        "type": "Tensor",
        "is_npu": True,
        "views": True,
        "shares": True,
        "product": True,
        "made": ["npu:0"] * 3,
        "linear": "npu:0",
        "printed": True,
    }


def test_what_a_real_device_refuses_is_refused(simulating: Child) -> None:
    found = simulating("""
import torch_npu
x = torch.randn(2, 3)
def error(run):
    try:
        run()
    except Exception as e:
        return f"{type(e).__name__}: {e}"
result = {
    "mixed": error(lambda: x.npu() + x),
    "numpy": error(lambda: x.npu().numpy()),
    "on the CPU": error(lambda: torch_npu.npu_gelu(x)),
    "mode": error(lambda: torch_npu.npu_gelu(x.npu(), approximate="exact")),
    "setting": error(lambda: setattr(torch.npu.conv, "allow_hf32", 1)),
    "misspelt": error(lambda: torch.npu.syncronize()),
    "unknown setting": error(lambda: setattr(torch.npu.conv, "allow_tf32", True)),
    "unmodelled": error(lambda: torch_npu.npu_fusion_attention(x)),
    "raw": error(lambda: torch.UntypedStorage(8, device="npu")),
    "backward": error(lambda: torch.nn.functional.gelu(x.npu().requires_grad_()).sum().backward()),
}
""")
    assert "at least two devices, npu:0 and cpu!" in found["mixed"]
    assert "can't convert npu:0" in found["numpy"]
    assert "'CPU' backend" in found["on the CPU"]
    assert "must be either none or tanh" in found["mode"]
    assert found["setting"] == "TypeError: allow_hf32 must be a bool"
    assert "AttributeError" in found["misspelt"]
    assert "AttributeError" in found["unknown setting"]
    assert "npu_fusion_attention is not modelled" in found["unmodelled"]
    assert "no raw storage" in found["raw"]
    assert "gelu_backward is not modelled" in found["backward"]


def test_gelu_drops_its_mode_until_the_compatible_implementation_is_chosen_in_time(simulating: Child) -> None:
    found = simulating(
        """
import torch_npu
F = torch.nn.functional
x = torch.linspace(-4, 4, 201)
off = lambda y: float((y.cpu() - F.gelu(x)).abs().max())
result = [off(F.gelu(x.npu())), off(torch_npu.npu_gelu(x.npu()))]
torch.npu.use_compatible_impl(True)
result.append(off(F.gelu(x.npu())))  # too late: the first GELU has settled it
state.configure(PROFILES["910b"])
torch.npu.use_compatible_impl(True)
result += [off(F.gelu(x.npu())), torch.npu.are_compatible_impl_enabled()]
""",
        arithmetic={"gelu": "tanh"},
    )
    tanh, own, late, in_time, enabled = found
    assert tanh == late == pytest.approx(4.73e-4, rel=0.01)
    assert own == in_time == 0.0
    assert enabled is True


def test_settings_change_how_it_computes_where_it_has_hf32_and_do_nothing_where_it_has_not(
    simulating: Child,
) -> None:
    found = simulating("""
result = []
for profile in ("910b", "310p"):
    state.configure(PROFILES[profile])
    seen = [(torch.npu.conv.allow_hf32, torch.npu.matmul.allow_hf32)]
    for conv, matmul in ((False, True), (True, False)):
        torch.npu.conv.allow_hf32, torch.npu.matmul.allow_hf32 = conv, matmul
        seen.append((state.arithmetic.convolution, state.arithmetic.matmul))
    result.append(seen)
""")
    assert found == [
        [[True, False], ["fp32", "hf32"], ["hf32", "fp32"]],
        [[True, False], ["fp16", "fp16"], ["fp16", "fp16"]],
    ]


def test_a_float16_result_that_overflows_saturates_on_a_chip_that_does(simulating: Child) -> None:
    found = simulating("""
result = []
for overflow in OVERFLOWS:
    state.configure(Arithmetic(overflow=overflow))
    twelve, below = torch.tensor([12.0]).half().npu(), torch.tensor([-1.0]).half().npu()
    wide = torch.tensor([1e6]).npu()
    made = [twelve.exp(), below.sqrt(), wide.half(), wide.exp(), twelve.clone().exp_(), twelve * 2]
    result.append([str(one.cpu().item()) for one in made])
""")
    assert found == [
        ["inf", "nan", "inf", "inf", "inf", "24.0"],
        ["65504.0", "0.0", "65504.0", "inf", "65504.0", "24.0"],
    ]


def test_every_operator_is_counted_and_those_that_were_changed_by_cause(simulating: Child) -> None:
    found = simulating(
        """
from torch.nn import GELU, Conv2d, Flatten, Linear, Sequential
net = Sequential(Conv2d(3, 4, 2, 2), GELU(), Flatten(), Linear(16, 2)).npu().eval()
x = torch.randn(1, 3, 4, 4).npu()
state.recount()
with torch.inference_mode():
    net(x)
result = [dict(state.executed), dict(state.changed)]
state.recount()
result.append([dict(state.executed), dict(state.changed)])
""",
        arithmetic={"gelu": "tanh", "convolution": "hf32", "matmul": "fp16"},
    )
    executed, changed, nothing = found
    assert {name: executed.get(name) for name in ("convolution", "gelu", "addmm")} == {
        "convolution": 1,
        "gelu": 1,
        "addmm": 1,
    }
    assert changed == {"convolution": 1, "gelu": 1, "matmul": 1}
    assert nothing == [{}, {}]


def test_memory_is_counted_while_it_is_in_use(simulating: Child) -> None:
    found = simulating("""
import gc
gc.collect()
before = torch.npu.memory_allocated()
torch.npu.reset_peak_memory_stats()
big = torch.zeros(1 << 20, device="npu")
here = torch.npu.memory_allocated() - before
del big
result = [here, torch.npu.memory_allocated() - before, torch.npu.max_memory_allocated() - before]
free, total = torch.npu.mem_get_info()
result.append(total - free == torch.npu.memory_allocated())
""")
    assert found == [1 << 22, 0, 1 << 22, True]


def test_models_go_there_and_back_and_through_files(simulating: Child, tmp_path: Path) -> None:
    found = simulating(
        """
import copy, io
from safetensors.torch import load_file, save_file
net = torch.nn.Linear(3, 2)
own = {name: tensor.clone() for name, tensor in net.state_dict().items()}
net.npu()
same = lambda other: all(torch.equal(other[name].cpu(), own[name]) for name in own)
copied = copy.deepcopy(net)
buffer = io.BytesIO()
torch.save(net.state_dict(), buffer)
buffer.seek(0)
again = torch.load(buffer)
save_file(net.state_dict(), given["file"])
loaded = load_file(given["file"], device="npu:0")
result = [same(copied.state_dict()), same(again), same(loaded), str(copied.weight.device),
          str(again["weight"].device), str(loaded["weight"].device)]
net.cpu()
result.append(same(net.state_dict()))
""",
        file=str(tmp_path / "x.safetensors"),
    )
    assert found == [True, True, True, "npu:0", "npu:0", "npu:0", True]


def test_autocast_computes_products_in_less_and_softmax_in_full(simulating: Child) -> None:
    found = simulating("""
net = torch.nn.Linear(4, 4).npu()
x = torch.randn(2, 4).npu()
result = []
for dtype in (torch.float16, torch.bfloat16):
    with torch.autocast("npu", dtype=dtype), torch.inference_mode():
        y = net(x)
        result.append([str(y.dtype), str(torch.softmax(y, -1).dtype)])
""")
    assert found == [["torch.float16", "torch.float32"], ["torch.bfloat16", "torch.float32"]]


def test_events_and_streams_have_nothing_to_wait_for(simulating: Child) -> None:
    found = simulating("""
first, last = torch.npu.Event(enable_timing=True), torch.npu.Event(enable_timing=True)
first.record()
torch.randn(64, 64).npu() @ torch.randn(64, 64).npu()
last.record()
torch.npu.synchronize()
torch.npu.current_stream().synchronize()
with torch.npu.stream(torch.npu.Stream()):
    pass
try:
    torch.npu.Event().elapsed_time(last)
except RuntimeError as error:
    result = [first.elapsed_time(last) >= 0, last.query(), str(error)]
""")
    assert found == [True, True, "both events must be made with enable_timing=True"]


def test_a_process_has_one_npu_for_good(simulating: Child) -> None:
    found = simulating("""
from vconv.errors import UnavailableError
try:
    simulate(EXACT)
except UnavailableError as error:
    result = str(error)
""")
    assert "taken: npu" in found and "\n" not in found


def test_an_older_torch_is_refused_in_a_sentence() -> None:
    source = """
import torch
torch.__version__ = "2.9.1"
from vconv.errors import UnavailableError
from vconv.runtime.simulation.arithmetic import EXACT
from vconv.runtime.simulation.device import lack, simulate
try:
    simulate(EXACT)
except UnavailableError as error:
    print(lack(), error, sep="\\n")
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    lack, sentence = done.stdout.splitlines()
    assert lack == "torch 2.9.1; the simulated NPU needs 2.10"
    assert "cannot be simulated" in sentence and "upgrade torch" in sentence


def test_in_exact_mode_every_system_agrees_with_the_cpu(simulating: Child, small_source: Source) -> None:
    found = simulating(
        """
from pathlib import Path
from torch.nn.attention import SDPBackend, sdpa_kernel
from vconv.convert.libraries import models
from vconv.convert.libraries.readers import network
from vconv.runtime.inputs.preprocessing import read_config
from dataclasses import replace
folder = Path(given["folder"])
net = replace(network(read_config(folder)), head=given["head"])
model = models.Outputs(models.load(folder, net), net).eval()
torch.manual_seed(0)
x = torch.randn(2, 3, *given["size"])
with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
    expected = model(x)
    model.to("npu")
    state.recount()
    actual = model(x.npu())
pairs = [(a.cpu().double(), e.double()) for a, e in zip(actual, expected)]
result = {
    "errors": [float((a - e).norm() / e.norm()) for a, e in pairs],
    "devices": sorted({str(a.device) for a in actual} | {str(p.device) for p in model.parameters()}),
    "executed": sum(state.executed.values()),
    "changed": dict(state.changed),
}
""",
        folder=str(small_source.folder),
        head=small_source.network.head,
        size=small_source.network.numbers.image,
    )
    assert max(found["errors"]) < 1e-6
    assert found["devices"] == ["npu:0"]
    assert found["executed"] > 50 and found["changed"] == {}


def test_every_product_and_gelu_of_this_torch_is_modelled_or_refused() -> None:
    registered = torch._C._dispatch_get_registrations_for_dispatch_key("CPU")
    names = {full.partition("::")[2].partition(".")[0] for full in registered if full.startswith("aten::")}
    innocent = re.compile(r"gamma|convert|cumm|linear1d|combination")
    suspects = {
        name
        for name in names
        if re.search(r"mm|mv|dot|conv|gelu|dist_|addr", name) and not innocent.search(name)
    }
    known = {*MODELLED, *_REFUSED, *_OWN}
    assert {"mm", "gelu_", "addmm_", "vdot"} <= suspects
    assert {name for name in suspects if name.rstrip("_") not in known} == set()


def test_what_is_done_in_place_is_changed_too(simulating: Child) -> None:
    found = simulating(
        """
x = torch.linspace(-4, 4, 201)
y = x.npu()
torch.ops.aten.gelu_(y)
left, right = torch.randn(3, 5), torch.randn(5, 4)
total = torch.zeros(3, 4).npu()
total.addmm_(left.npu(), right.npu())
rounded = round_fp16(left) @ round_fp16(right)
result = [
    float((y.cpu() - torch.nn.functional.gelu(x, approximate="tanh")).abs().max()),
    float((total.cpu() - rounded).abs().max()),
    dict(state.changed),
]
""",
        arithmetic={"gelu": "tanh", "matmul": "fp16"},
    )
    assert found[0] == 0.0 and found[1] < 1e-6
    assert found[2] == {"gelu": 1, "matmul": 1}
