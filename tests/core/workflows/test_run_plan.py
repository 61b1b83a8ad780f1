from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import Manifest
from vconv.convert.sources.base import Source
from vconv.errors import InputError, UnknownNameError
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.capture import CapturedSession
from vconv.runtime.engines.torch_model import TorchSession
from vconv.runtime.processes.peak_memory import peak_of
from vconv.runtime.simulation.device import lack
from vconv.types import Status, silent
from vconv.validators import validation
from vconv.validators.accuracy.golden import Reference
from vconv.validators.accuracy.limits import open_limits
from vconv.validators.validation import Candidate
from vconv.workflows.checks import CheckedArtifact
from vconv.workflows.run_plan import RunPlan

CPU = find_device("cpu")
GPU = replace(CPU, name="cuda:1", kind="cuda", index=1)
ONE = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
"""What does not depend on the system is tried with one."""


@pytest.fixture
def found(small: Artifact, made: Manifest, small_source: Source) -> CheckedArtifact:
    """A small artifact with its original at hand, and a reference without outputs."""
    images = np.zeros((1, 3, *made.size), dtype=np.float32)
    return CheckedArtifact(small, small_source, Reference("original", images, {}, {}, {}), {}, ())


def torch_variants(trial: RunPlan, found: CheckedArtifact) -> list[Candidate]:
    return [candidate for candidate in trial.candidates(found) if candidate.engine == "torch"]


def places(candidates: list[Candidate]) -> list[tuple[str, str, bool]]:
    return [(each.variant, each.device.name, each.subject.captured) for each in candidates]


@ONE
@pytest.mark.parametrize("capture", [False, True])
def test_torch_variants_are_run_captured_too_where_that_is_asked_for_and_the_device_can(
    found: CheckedArtifact, capture: bool
) -> None:
    listed = places(torch_variants(RunPlan((CPU, GPU), (), ("fp32", "bf16"), capture=capture), found))
    names = [f"{kind}-torch-{name}" for kind in ("original", "patched", "fused") for name in ("fp32", "bf16")]
    eager = [(name, device, False) for name in names for device in ("cpu", "cuda:1")]
    captured = [(f"{name}-captured", "cuda:1", True) for name in names]
    assert sorted(listed) == sorted(eager + captured * capture)


@ONE
def test_the_baseline_on_the_cpu_is_not_captured(found: CheckedArtifact) -> None:
    trial = RunPlan((GPU,), (), ("fp32",), capture=True)
    assert places(torch_variants(trial, found))[-1] == ("original-torch-fp32", "cpu", False)


@ONE
def test_a_captured_variant_is_opened_captured_and_any_other_is_not(
    found: CheckedArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vconv.workflows.run_plan.lack", lambda device: "")
    candidates = torch_variants(RunPlan((CPU,), (), ("fp32",), capture=True), found)
    kinds = {}
    for candidate in candidates:
        with candidate.open() as session:
            kinds[candidate.variant] = type(session)
    eager = {f"{kind}-torch-fp32": TorchSession for kind in ("original", "patched", "fused")}
    assert kinds == {**eager, **{f"{name}-captured": CapturedSession for name in eager}}


@ONE
def test_the_memory_of_a_captured_variant_is_that_of_a_captured_session(
    found: CheckedArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[bool] = []
    monkeypatch.setattr(CapturedSession, "run", lambda session, images: ran.append(True))
    monkeypatch.setattr(TorchSession, "run", lambda session, images: ran.append(False))
    monkeypatch.setattr("vconv.workflows.run_plan.lack", lambda device: "")
    for candidate in torch_variants(RunPlan((CPU,), (), ("fp32",), capture=True), found):
        ran.clear()
        peak_of(candidate.subject)
        assert ran == [candidate.variant.endswith("-captured")]


@pytest.mark.parametrize("devices", [(GPU,), (CPU, GPU)], ids=["a GPU", "a CPU and a GPU"])
def test_a_capture_is_taken_where_one_device_can(devices: tuple[Device, ...]) -> None:
    RunPlan(devices, None, ("fp32",), capture=True).check()


def test_a_capture_is_refused_where_no_device_can() -> None:
    with pytest.raises(InputError) as caught:
        RunPlan((CPU,), None, ("fp32",), capture=True).check()
    message = str(caught.value)
    assert message.startswith("--capture cannot be met here | got cpu, which captures no graphs | expected ")
    assert "leave --capture out" in message and "\n" not in message


@pytest.mark.skipif(bool(lack()), reason=lack())
def test_the_simulated_npu_has_one_engine_for_graphs_and_the_error_names_it() -> None:
    simulated = find_device("npu-sim")
    with pytest.raises(
        InputError,
        match="openvino cannot run here .*name the engine onnxruntime, which runs graphs in float32",
    ):
        RunPlan((simulated,), ("openvino",), ("fp32",)).check()


def engines_of(candidates: list[Candidate], variant: str) -> list[str]:
    return [one.engine for one in candidates if one.variant == variant]


@ONE
@pytest.mark.parametrize(
    ("named", "graphs", "models"),
    [
        (None, ["onnxruntime"], ["torch"]),
        (("torch-compiled",), ["onnxruntime"], ["torch-compiled"]),
        (("openvino",), ["openvino"], ["torch"]),
        (("torch", "openvino", "torch-compiled", "openvino"), ["openvino"], ["torch", "torch-compiled"]),
        (("all",), ["onnxruntime", "onnxruntime-tensorrt", "openvino"], ["torch", "torch-compiled"]),
    ],
    ids=["none", "one of torch", "one of graphs", "both kinds", "all"],
)
def test_an_engine_runs_what_it_can_and_leaves_the_rest_to_the_usual_one(
    found: CheckedArtifact, named: tuple[str, ...] | None, graphs: list[str], models: list[str]
) -> None:
    trial = RunPlan((CPU,), named, ("fp32",))
    trial.check()
    listed = trial.candidates(found)
    assert engines_of(listed, "patched-torch-fp32") == models
    assert engines_of(listed, "onnx-fp32") == engines_of(listed, "onnx-fp32-npu") == graphs
    assert engines_of(listed, "original-torch-fp32") == ["torch"]


@ONE
def test_of_all_engines_one_that_lacks_something_is_listed_and_skipped_with_the_reason(
    found: CheckedArtifact,
) -> None:
    (one, *_) = [
        each
        for each in RunPlan((CPU,), ("all",), ("fp32",)).candidates(found)
        if each.engine == "onnxruntime-tensorrt"
    ]
    (row,) = validation.run([one], open_limits("strict"), None, silent).rows
    assert (row.variant, row.status) == ("onnx-fp32", Status.SKIPPED)
    assert row.reason == "onnxruntime-tensorrt cannot run here: TensorRT runs on NVIDIA's GPUs alone"


def test_an_engine_that_is_named_and_cannot_run_here_is_refused() -> None:
    with pytest.raises(InputError, match="onnxruntime-tensorrt cannot run here .*NVIDIA's GPUs alone"):
        RunPlan((CPU,), ("onnxruntime-tensorrt",), ("fp32",)).check()
    with pytest.raises(UnknownNameError, match="unknown engine .*onnxruntime-tensorrt"):
        RunPlan((CPU,), ("tensorrt",), ("fp32",)).check()


@ONE
def test_the_memory_of_a_compiled_variant_is_that_of_a_compiled_session(
    found: CheckedArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(TorchSession, "run", lambda session, images: ran.append(session.engine))
    (one,) = [
        each
        for each in RunPlan((CPU,), ("torch-compiled",), ("fp32",)).candidates(found)
        if each.variant == "patched-torch-fp32"
    ]
    peak_of(one.subject)
    assert ran == ["torch-compiled"]
