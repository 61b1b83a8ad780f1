"""torch.compile as an engine: what it compiles, when, and what it leaves behind."""

from __future__ import annotations

import os
import sysconfig
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vconv.artifact.artifact import Artifact
from vconv.convert.patches import gelu_erf
from vconv.errors import UnavailableError
from vconv.precisions import PRECISIONS, torch_precisions
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.arithmetic import arithmetic_of
from vconv.runtime.engines.compiled import CompiledSession
from vconv.runtime.engines.table import ENGINES
from vconv.runtime.engines.variants import open_variant
from vconv.runtime.simulation.device import lack as cannot_simulate
from vconv.runtime.stages.table import COMPILED, in_stages
from vconv.types import Array

CPU = find_device("cpu")
CUDA = replace(CPU, name="cuda:0", kind="cuda", index=0)
NPU = replace(CPU, name="npu:0", kind="npu", index=0)
ONE = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
"""What does not depend on the system is tried with one."""
COMPILES = pytest.mark.skipif(bool(CompiledSession.lack(CPU)), reason=CompiledSession.lack(CPU) or "it does")


def images(count: int, size: tuple[int, int]) -> Array:
    return np.random.default_rng(count).standard_normal((count, 3, *size), dtype=np.float32)


def distance(found: Array, expected: Array) -> float:
    return float(np.linalg.norm(found.astype(np.float64) - expected) / np.linalg.norm(expected))


class Compiler:
    """In place of torch.compile: notes each call, and the folder of each first run; compiles nothing."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.folders: list[Path] = []

    def compile(self, run: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        self.asked.append(options)
        fresh = [True]

        def compiled(*tensors: Tensor) -> Any:
            if fresh:
                fresh.clear()
                self.folders.append(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]))
                assert self.folders[-1].is_dir()
            return run(*tensors)

        return compiled


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    found = Compiler()
    monkeypatch.setattr(torch, "compile", found.compile)
    return found


@ONE
def test_each_shape_is_compiled_once_at_its_first_run_as_one_graph_of_this_shape(
    small: Artifact, size: tuple[int, int], compiler: Compiler
) -> None:
    with open_variant(small, small.variant("patched-torch-fp32"), CPU, "torch-compiled") as session:
        assert (session.engine, compiler.asked) == ("torch-compiled", [])
        for count in (1, 2, 1, 2):
            session.run(images(count, size))
    assert compiler.asked == [{"fullgraph": True, "dynamic": False, "options": {"compile_threads": 1}}] * 2


@ONE
def test_a_compilation_starts_without_earlier_results_and_leaves_no_folder(
    small: Artifact,
    size: tuple[int, int],
    compiler: Compiler,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "the user's"))
    with open_variant(small, small.variant("patched-torch-fp32"), CPU, "torch-compiled") as session:
        for count in (1, 2):
            session.run(images(count, size))
    assert len({*compiler.folders}) == 2
    assert all(tmp_path in folder.parents for folder in compiler.folders)
    assert [*tmp_path.iterdir()] == []
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "the user's")


class Broken(nn.Module):
    """A model that torch cannot take as one graph."""

    def forward(self, tensor: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return tensor + 1


@ONE
def test_a_model_that_is_not_one_graph_is_skipped_and_never_run_in_pieces(
    small: Artifact, size: tuple[int, int]
) -> None:
    with open_variant(small, small.variant("patched-torch-fp32"), CPU, "torch-compiled") as session:
        assert isinstance(session, CompiledSession)
        session.outputs = Broken()  # type: ignore[assignment]
        with pytest.raises(UnavailableError, match="torch.compile does not take this model") as caught:
            session.run(images(1, size))
    assert "\n" not in str(caught.value)


@ONE
def test_what_compiled_code_launches_is_not_counted_and_it_runs_whole(
    small: Artifact, size: tuple[int, int]
) -> None:
    with open_variant(small, small.variant("patched-torch-fp32"), CPU, "torch-compiled") as session:
        assert session.launches(images(1, size)) is None
        assert in_stages(session, CPU, small.network) == COMPILED


@ONE
def test_a_captured_variant_is_not_compiled_too(small: Artifact) -> None:
    record = small.variant("patched-torch-fp32")
    with pytest.raises(UnavailableError, match="what is captured is not compiled too"):
        open_variant(small, record, CPU, "torch-compiled", captured=True)


def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpp_builder, exc

    def search() -> str:
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", search)


def _no_header(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpp_builder

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: "g++")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: "/nowhere")


def _no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: False)


def _triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: True)


def _npu_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch_npu registers it: torch_npu/_inductor/__init__.py calls register_backend_for_device."""
    from torch._inductor.codegen import common

    monkeypatch.setitem(common.device_codegens, "npu", common.DeviceCodegen(object, object))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("device", "machine", "lack"),
    [
        pytest.param(CPU, _no_compiler, "finds no C++ compiler: neither $CXX nor g++ runs", id="no compiler"),
        pytest.param(CPU, _no_header, "needs the header /nowhere/Python.h of Python", id="no header"),
        pytest.param(CUDA, _no_triton, "finds no triton that works with this GPU", id="no triton"),
        pytest.param(CUDA, _triton, "", id="triton"),
        pytest.param(NPU, lambda patch: None, "torch_npu has not registered a backend", id="no backend"),
        pytest.param(NPU, _npu_backend, "", id="a backend"),
        pytest.param(
            replace(CPU, kind="other", name="other"), lambda patch: None, "not compile for other", id="other"
        ),
    ],
)
def test_it_says_what_torch_lacks_to_compile(
    device: Device, machine: Callable[[pytest.MonkeyPatch], None], lack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch)
    found = ENGINES["torch-compiled"].lack(device)
    assert lack in found and bool(found) is bool(lack)


@ONE
def test_a_variant_without_a_compiler_is_unavailable_with_what_to_do(
    small: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_compiler(monkeypatch)
    with pytest.raises(UnavailableError, match=r"no C\+\+ compiler.*or name the engine torch"):
        open_variant(small, small.variant("patched-torch-fp32"), CPU, "torch-compiled")


@ONE
@pytest.mark.skipif(bool(cannot_simulate()), reason=cannot_simulate() or "it simulates")
def test_a_simulated_npu_runs_torch_uncompiled_alone(small: Artifact) -> None:
    simulated = find_device("npu-sim")
    with pytest.raises(UnavailableError, match="does not compile for npu-sim.*name the engine torch"):
        open_variant(small, small.variant("patched-torch-fp32"), simulated, "torch-compiled")


@COMPILES
@pytest.mark.full
@pytest.mark.parametrize("name", torch_precisions())
def test_compiled_products_are_computed_in_what_is_asked_for(name: str) -> None:
    assert arithmetic_of("torch-compiled", CPU, name) == PRECISIONS[name].limits


class TanhGelu(nn.Module):
    def forward(self, tensor: Tensor) -> Tensor:
        return nn.functional.gelu(tensor, approximate="tanh")


@COMPILES
@pytest.mark.full
def test_the_patched_model_is_compiled_within_the_strict_limit_and_a_tanh_gelu_in_it_shows(
    small: Artifact, size: tuple[int, int]
) -> None:
    record, feed = small.variant("patched-torch-fp32"), images(2, size)
    tanh = {"gelu-erf": gelu_erf.realised_by(TanhGelu)}
    with open_variant(small, record, CPU) as eager:
        expected = eager.run(feed)
    with open_variant(small, record, CPU, "torch-compiled") as compiled:
        found, again = compiled.run(feed), compiled.run(feed)
    with open_variant(small, record, CPU, "torch-compiled", patches=tanh) as other:
        wrong = other.run(feed)
    for name, value in expected.items():
        assert distance(found[name], value) < 1e-5, name
        np.testing.assert_array_equal(again[name], found[name])
    assert max(distance(wrong[name], value) for name, value in expected.items()) > 1e-5
