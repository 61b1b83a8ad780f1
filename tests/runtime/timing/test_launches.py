from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vconv.convert.libraries import models
from vconv.convert.patches import table
from vconv.convert.patches.gelu_erf import GeluErf
from vconv.convert.sources.base import Source
from vconv.precisions import PRECISIONS
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.torch_model import TorchSession
from vconv.runtime.timing import launches
from vconv.runtime.timing.launches import KERNELS, OPERATORS, Launches
from vconv.types import Array

CPU = find_device("cpu")
SPELLED_OUT = {"mul": 3, "erf": 1, "add": 1}
"""What a block's GELU runs once it is spelled out: five operators for one."""


def counted(run: Callable[[Tensor], object], shape: tuple[int, ...] = (2, 4, 8)) -> Launches:
    images = torch.randn(shape)
    return launches.count(lambda: run(images), CPU)


@pytest.mark.parametrize(
    ("run", "operators"),
    [
        (nn.Linear(8, 8), {"addmm": 1}),
        (nn.Linear(8, 8, bias=False), {"mm": 1}),
        (nn.LayerNorm(8), {"native_layer_norm": 1}),
        (nn.GELU(), {"gelu": 1}),
        (GeluErf(), SPELLED_OUT),
        (nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)), {"addmm": 2, "gelu": 1}),
        (nn.Dropout(0.5).eval(), {}),
        (nn.Identity(), {}),
    ],
    ids=repr,
)
def test_a_module_launches_what_it_is_made_of(run: nn.Module, operators: dict[str, int]) -> None:
    assert counted(run) == Launches(operators, sum(operators.values()), OPERATORS)


def test_a_convolution_launches_one() -> None:
    assert counted(nn.Conv2d(3, 4, 2, 2), (1, 3, 8, 8)).operators == {"convolution": 1}


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.transpose(1, 2),
        lambda x: x.reshape(2, 4, 2, 4).transpose(1, 2),
        lambda x: x[:, 1:3],
        lambda x: x[..., None].expand(2, 4, 8, 5),
        lambda x: x.chunk(2, dim=-1),
        lambda x: x.unbind(0),
        lambda x: x.detach(),
        lambda x: x.to(torch.float32),
        lambda x: x.contiguous(),
        lambda x: x.transpose_(1, 2),
        lambda x: x.squeeze_(),
        lambda x: torch.empty_like(x),
        lambda x: x.new_empty(3),
        lambda x: (x.shape, x.is_contiguous(), x.numel()),
    ],
)
def test_what_only_looks_at_memory_in_another_way_launches_nothing(view: Callable[[Tensor], object]) -> None:
    assert counted(view) == Launches({}, 0, OPERATORS)


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (lambda x: x.transpose(1, 2).contiguous(), "clone"),
        (lambda x: x.transpose(1, 2).reshape(2, 32), "clone"),
        (lambda x: x.to(torch.float16), "_to_copy"),
        (lambda x: x.add_(1), "add_"),
        (lambda x: x[0].copy_(x[1]), "copy_"),
        (lambda x: torch.cat([x, x]), "cat"),
        (lambda x: torch.zeros(3), "zeros"),
        (lambda x: torch.arange(3), "arange"),
        (lambda x: functional.scaled_dot_product_attention(x[None], x[None], x[None]), "_scaled_dot_product"),
    ],
)
def test_what_fills_memory_launches_one(run: Callable[[Tensor], object], name: str) -> None:
    found = counted(run)
    assert found.total == 1
    assert next(iter(found.operators)).startswith(name)


def test_the_most_frequent_operator_comes_first() -> None:
    def run(x: Tensor) -> Tensor:
        return (x + 1).exp() + 1 + 1

    assert list(counted(run).operators.items()) == [("add", 3), ("exp", 1)]


def test_a_tensor_without_data_is_counted_alike() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Flatten())
    with_data = counted(model)
    tokens = torch.empty(2, 4, 8, device="meta")
    assert launches.count(lambda: model.to("meta")(tokens), CPU) == with_data


def test_what_a_model_keeps_from_its_first_run_is_not_counted() -> None:
    kept: list[Tensor] = []

    def run(x: Tensor) -> Tensor:
        if not kept:
            kept.append(x.exp())
        return x + kept[0]

    assert counted(run).operators == {"add": 1}


@pytest.fixture
def original(small_source: Source, size: tuple[int, int]) -> Callable[..., TorchSession]:
    """Open a small system in torch, with these patches of its own by name."""

    def open_it(*names: str, device: Device = CPU, precision: str = "fp32") -> TorchSession:
        net, folder = small_source.network, small_source.folder
        chosen = [patch for patch in table.called_for(net) if patch.name in names]
        model = models.load(folder, net)
        return TorchSession(model, net, device, chosen, folder, size, PRECISIONS[precision])

    return open_it


def images(size: tuple[int, int]) -> Array:
    return np.random.default_rng(0).standard_normal((1, 3, *size), dtype=np.float32)


def found_in(session: TorchSession, size: tuple[int, int]) -> Launches:
    with session:
        found = session.launches(images(size))
    assert found is not None
    return found


def test_the_spelled_out_gelu_launches_four_more_a_block_and_nothing_else_changes(
    original: Callable[..., TorchSession], small_source: Source, size: tuple[int, int]
) -> None:
    stock, patched = (found_in(original(*names), size) for names in ((), ("gelu-erf",)))
    blocks = small_source.network.blocks
    assert (stock.operators["gelu"], patched.operators["erf"]) == (blocks, blocks)
    expected = {name: stock.operators.get(name, 0) + blocks * n for name, n in SPELLED_OUT.items()}
    kept = {name: number for name, number in stock.operators.items() if name != "gelu"}
    assert patched.operators == {**kept, **expected}
    assert patched.total == stock.total + 4 * blocks


def test_two_counts_of_one_session_are_equal_and_leave_its_outputs_alone(
    original: Callable[..., TorchSession], size: tuple[int, int]
) -> None:
    with original() as session:
        before = session.run(images(size))
        first = session.launches(images(size))
        assert first == session.launches(images(size))
        after = session.run(images(size))
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_a_session_that_has_run_counts_in_one_pass(
    original: Callable[..., TorchSession], size: tuple[int, int]
) -> None:
    with original() as session:
        passes: list[object] = []
        session.outputs.register_forward_hook(lambda *_: passes.append(None))
        first = session.launches(images(size))
        assert len(passes) == 2
        assert session.launches(images(size)) == first
        assert len(passes) == 3


def test_a_linear_layer_of_a_session_is_taken_apart_as_on_a_device(
    original: Callable[..., TorchSession], size: tuple[int, int]
) -> None:
    operators = found_in(original(), size).operators
    assert operators["addmm"] > 0
    assert not {"linear", "matmul", "layer_norm", "conv2d"} & operators.keys()


@pytest.mark.parametrize("system", ["dinov2-large"], indirect=True)
def test_autocast_launches_the_casts_that_it_makes(
    original: Callable[..., TorchSession], size: tuple[int, int]
) -> None:
    plain, cast = (found_in(original(precision=name), size) for name in ("fp32", "autocast-bf16"))
    assert "_to_copy" not in plain.operators
    assert cast.operators["_to_copy"] > 0


@pytest.mark.parametrize("system", ["dinov2-large"], indirect=True)
def test_the_devices_exact_arithmetic_is_on_while_launches_are_counted(
    original: Callable[..., TorchSession], size: tuple[int, int]
) -> None:
    states: list[str] = []

    @contextlib.contextmanager
    def exact() -> Iterator[None]:
        states.append("exact")
        yield
        states.append("as before")

    found_in(original(device=replace(CPU, exact=exact)), size)
    assert states == ["exact", "as before"] * 2


def event(name: str, kind: str) -> Any:
    return SimpleNamespace(name=name, device_type=SimpleNamespace(name=kind))


EVENTS = [
    event("aten::addmm", "CPU"),
    event("sm90_xmma_gemm_f32f32", "CUDA"),
    event("void at::native::elementwise_kernel", "CUDA"),
    event("Memcpy HtoD (Pageable -> Device)", "CUDA"),
    event("Memset (Device)", "CUDA"),
    event("cudaLaunchKernel", "CPU"),
]


def test_kernels_are_the_devices_events_that_are_no_copies() -> None:
    assert launches.count_kernels(EVENTS) == 2


WAITED: list[str] = []


@dataclass
class Profile:
    """Stands in for torch's profiler on a machine with a GPU."""

    activities: Any
    seen: Sequence[Any] = ()

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *_: object) -> None:
        assert WAITED == ["waited"], "the kernels had not ended when the profile did"

    def events(self) -> Sequence[Any]:
        return self.seen


@pytest.mark.parametrize(
    ("seen", "total", "how"), [(EVENTS, 2, KERNELS), ([], 3, OPERATORS)], ids=["seen", "not seen"]
)
def test_on_a_gpu_the_total_is_of_kernels_where_they_can_be_seen(
    seen: Sequence[Any], total: int, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    WAITED.clear()
    monkeypatch.setattr(torch.profiler, "profile", partial(Profile, seen=seen))
    x = torch.randn(3)
    gpu = replace(CPU, kind="cuda", name="cuda:0", synchronize=lambda: WAITED.append("waited"))
    found = launches.count(lambda: (x + 1).exp() + 1, gpu)
    assert found == Launches({"add": 2, "exp": 1}, total, how)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_real_gpu_runs_a_kernel_for_each_of_these_operators() -> None:
    gpu = find_device("cuda")
    x = torch.randn(64, 64, device=gpu.torch_name)
    assert launches.count(lambda: (x + 1).exp(), gpu) == Launches({"add": 1, "exp": 1}, 2, KERNELS)
