"""Error against depth: what a variant is off by after each stage, as bisect has it too."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import Manifest
from vconv.errors import ArtifactError
from vconv.precisions import PRECISIONS
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.base import Session
from vconv.runtime.engines.variants import open_variant
from vconv.runtime.stages import table
from vconv.runtime.stages.base import TOKENS, Stages, Step, stage_names
from vconv.runtime.stages.graph import GraphStages
from vconv.runtime.stages.torch_model import TorchStages
from vconv.types import Array, Arrays, silent
from vconv.validators.accuracy import golden
from vconv.validators.bisect import depth
from vconv.validators.bisect.depth import Depths
from vconv.validators.bisect.localisation import localise
from vconv.validators.outcome import Looked

CPU = find_device("cpu")
VARIANTS = ("patched-torch-fp32", "onnx-fp32", "onnx-fp32-npu")


NETWORK: Any = object()
"""Stands for a network that nothing looks at."""


def opened(folder: Path, made: Manifest, name: str, engine: str = "", precision: str = "fp32") -> Session:
    artifact = Artifact(folder, made)
    return open_variant(artifact, artifact.variant(name), CPU, engine, PRECISIONS[precision])


@pytest.fixture
def pixel_values(small_artifact: Path, made: Manifest) -> Array:
    assert made.golden
    recorded: Array = golden.load(small_artifact / made.golden.path)[0]
    return recorded


@pytest.fixture
def reference(small_artifact: Path, made: Manifest) -> Iterator[TorchStages]:
    with opened(small_artifact, made, "patched-torch-fp32") as session:
        yield TorchStages(session, plain=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "engine"), [(name, "") for name in VARIANTS] + [("onnx-fp32", "openvino")])
def test_every_stage_of_a_sound_variant_is_near_the_reference(
    reference: TorchStages, pixel_values: Array, small_artifact: Path, made: Manifest, name: str, engine: str
) -> None:
    depths = Depths.of(reference, pixel_values, Artifact(small_artifact, made).network)
    with opened(small_artifact, made, name, engine) as session:
        found = depths.look(Mock(device=CPU), session, {})
    assert found.reason == ""
    assert tuple(one.stage for one in found.rows or ()) == reference.names
    errors = [one.error for one in found.rows or ()]
    assert all(0 <= error < 1e-5 for error in errors)
    assert name == "patched-torch-fp32" or max(errors) > 0


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_lower_precisions_are_farther_from_the_first_block_on(
    reference: TorchStages, pixel_values: Array, small_artifact: Path, made: Manifest
) -> None:
    depths = Depths.of(reference, pixel_values, Artifact(small_artifact, made).network)
    with opened(small_artifact, made, "patched-torch-fp32", precision="bf16") as session:
        found = depths.look(Mock(device=CPU), session, {})
    assert all(1e-4 < one.error < 3e-2 for one in found.rows or ())


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_errors_are_those_that_a_bisection_finds_in_all(
    reference: TorchStages, pixel_values: Array, small_artifact: Path, made: Manifest
) -> None:
    graph = GraphStages(
        small_artifact / "model.onnx", Artifact.open(small_artifact).network, CPU, "onnxruntime"
    )
    bisected = localise(reference, graph, pixel_values[:1], 1e-5, True, silent)
    with opened(small_artifact, made, "onnx-fp32") as session:
        network = Artifact(small_artifact, made).network
        found = Depths.of(reference, pixel_values, network).look(Mock(device=CPU), session, {})
    assert [(one.stage, one.error) for one in found.rows or ()] == [
        (stage.stage, stage.total) for stage in bisected.stages
    ]


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_measuring_leaves_a_session_as_it_was(
    reference: TorchStages, pixel_values: Array, small_artifact: Path, made: Manifest
) -> None:
    depths = Depths.of(reference, pixel_values, Artifact(small_artifact, made).network)
    with opened(small_artifact, made, "patched-torch-fp32") as session:
        before = session.run(pixel_values)
        depths.look(Mock(device=CPU), session, {})
        after = session.run(pixel_values)
    assert all(np.array_equal(before[name], after[name]) for name in before)


class Adding(Stages):
    """Stages that each add something to what they get; of the second, not what they should."""

    names = stage_names(2)

    def __init__(self, wrong: float = 0.0) -> None:
        self.wrong = wrong

    def run(self, stage: int, given: Arrays) -> dict[str, Array]:
        (value,) = given.values()
        return {TOKENS: value + 1 + (self.wrong if stage == 1 else 0.0)}

    def steps(self, stage: int, given: Arrays) -> list[Step]:
        return []


def test_an_error_of_one_stage_goes_through_all_that_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.zeros((2, 3, 2, 2), np.float32)
    monkeypatch.setattr(depth, "in_stages", lambda session, device, network: Adding(wrong=0.5))
    found = Depths.of(Adding(), images, NETWORK).look(Mock(), Mock(batch=2), {})
    errors = [one.error for one in found.rows or ()]
    assert errors == pytest.approx([0.0, 0.5 / 2, 0.5 / 3, 0.5 / 4])


def test_what_is_no_number_is_none_as_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth, "in_stages", lambda session, device, network: Adding(wrong=math.nan))
    found = Depths.of(Adding(), np.zeros((1, 3, 2, 2), np.float32), NETWORK).look(
        Mock(), Mock(batch=None), {}
    )
    assert [one.error for one in found.rows or ()] == [0.0, None, None, None]


@pytest.mark.parametrize("reason", [depth.QUICK, depth.NO_ORIGINAL])
def test_without_a_reference_in_stages_the_reason_is_given(reason: str) -> None:
    assert Depths(reason=reason).look(Mock(), Mock(), {}) == Looked(None, reason)


@pytest.mark.parametrize("reason", [table.SIMULATED, table.CAPTURED, table.COMPILED])
def test_what_runs_whole_says_so(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    monkeypatch.setattr(depth, "in_stages", lambda session, device, network: reason)
    found = Depths.of(Adding(), np.zeros((1, 3, 2, 2), np.float32), NETWORK).look(Mock(), Mock(), {})
    assert found == Looked(None, reason)


def refuse(session: Session, device: object, network: object) -> Stages:
    raise ArtifactError("the graph cannot be cut into blocks", got="2 values", expected="one", fix="again")


def test_a_graph_that_cannot_be_cut_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth, "in_stages", refuse)
    found = Depths.of(Adding(), np.zeros((1, 3, 2, 2), np.float32), NETWORK).look(Mock(), Mock(), {})
    assert found == Looked(None, "the graph cannot be cut into blocks: 2 values")
