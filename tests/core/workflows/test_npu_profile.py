"""Profiles of what a validation runs on an NPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vconv
from vconv.errors import InputError
from vconv.runtime.devices.table import find_device
from vconv.runtime.timing.npu_profile import OperatorCost
from vconv.workflows import npu_profile
from vconv.workflows.npu_profile import Profiler, profiler

Refused = Callable[..., AbstractContextManager[None]]
COST = OperatorCost("Conv2D", "AI_CORE", "FLOAT", "YES", 1.0, 40.0, 1.0)


class Model:
    """A session that notes the images that it runs."""

    batch = None

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.bound: list[int] = []

    def bind(self, images: Any) -> Callable[[], None]:
        self.bound.append(len(images))
        return lambda: None


class Subject:
    """A variant on a device, with three recorded images."""

    def __init__(self, kind: str, number: int = 0) -> None:
        self.variant = "patched-torch-fp32"
        self.device = replace(find_device("cpu"), kind=kind, name=f"{kind}:{number}")
        self.reference = type("Reference", (), {"pixel_values": np.zeros((3, 3, 4, 4), np.float32)})


@pytest.mark.parametrize(
    ("kind", "engine", "profiled"),
    [("npu", "torch", True), ("npu", "onnxruntime", False), ("cpu", "torch", False)],
)
def test_only_a_torch_variant_on_an_npu_is_profiled(
    kind: str, engine: str, profiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(npu_profile, "record", lambda forward, wait, folder: [COST])
    session: Any = Model(engine)
    Profiler(tmp_path / "profiles", said.append).look(Subject(kind), session)  # type: ignore[arg-type]
    assert session.bound == [1] * profiled
    assert (tmp_path / "profiles").exists() == profiled
    if profiled:
        (found,) = json.loads((tmp_path / "profiles" / "npu_0_patched_torch_fp32.json").read_text())
        assert found["operator"] == "Conv2D" and found["hf32"] == "YES"
        assert said[-1] == "  Conv2D (AI_CORE, FLOAT, HF32 YES): 1 kernels, 40 us, 100.0 %"


def test_a_variant_is_profiled_on_each_of_two_npus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(npu_profile, "record", lambda forward, wait, folder: [COST])
    session: Any = Model("torch")
    profiles = Profiler(tmp_path / "profiles", said.append)
    for number in (0, 1):
        profiles.look(Subject("npu", number), session)  # type: ignore[arg-type]
    assert sorted(path.name for path in (tmp_path / "profiles").glob("*.json")) == [
        "npu_0_patched_torch_fp32.json",
        "npu_1_patched_torch_fp32.json",
    ]
    assert [line[:28] for line in said if "kinds" in line] == [
        "patched-torch-fp32 on npu:0:",
        "patched-torch-fp32 on npu:1:",
    ]


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_without_an_npu_a_profile_is_refused(small_artifact: Path, tmp_path: Path, refused: Refused) -> None:
    with refused(InputError, "--profile-npu has no effect here", "got --device cpu"):
        vconv.validate(small_artifact, quick=True, profile_npu=tmp_path / "profiles")


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "file").touch()
    npu = replace(find_device("cpu"), kind="npu", name="npu:0")
    for path in (tmp_path, tmp_path / "file"):
        with refused(InputError, "is in the way"):
            profiler(path, [npu], print)
    assert profiler(tmp_path / "new", [npu], print) is not None
    assert profiler(None, [npu], print) is None
