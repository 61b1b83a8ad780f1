"""Artifacts with one graph for batch, height and width: the graph is right at sizes that nothing traced."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest

import vconv
from vconv.artifact import manifest
from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import Manifest
from vconv.catalog.systems import System
from vconv.cli import render
from vconv.convert.ascend import operators
from vconv.convert.sources.base import Source
from vconv.convert.sources.sizes import SizeRequest
from vconv.convert.sources.table import Request, open_source
from vconv.errors import InputError
from vconv.types import Array
from vconv.validators.accuracy import golden
from vconv.validators.faults import sizes
from vconv.validators.faults.workshop import ArtifactCopy
from vconv.workflows import export as workflows

GRIDS = [(2, 2), (3, 11), (4, 4), (5, 5), (9, 2), (17, 13)]
"""Rows and columns of patches: the least, others that are not square, the network's own, and greater ones."""
AVOIDED = {"Resize", "Range", "If", "Loop", "Scan", "SequenceAt", "SplitToSequence", "SequenceConstruct"}
QUICK: dict[str, Any] = {"quick": True, "budget": 1e-3}


SHALLOW = {"num_hidden_layers": 1}


@pytest.fixture
def shallow(small_system: System) -> System:
    """A shrunk system of one block: what depends on the size comes before the blocks."""
    if small_system.library == "timm":
        args = {**small_system.config["model_args"], "depth": 1}
        return replace(small_system, config={**small_system.config, "model_args": args})
    return replace(small_system, config={**small_system.config, **SHALLOW})


@pytest.fixture
def any_size(
    shallow: System,
    once: Callable[..., Path],
    traced_once: Callable[..., contextlib.AbstractContextManager[None]],
) -> Path:
    """The artifact of a shrunk system with a graph for images of any size; shared, and not to be changed."""
    name = f"any-size-{shallow.name}"

    def make(folder: Path) -> None:
        with traced_once():
            workflows.export(shallow, "synthetic:1", folder / "artifact", size="dynamic", batch=2)

    return once(name, make) / "artifact"


@pytest.fixture
def original(shallow: System, tmp_path: Path) -> Source:
    """The original, run by its own library at any size."""
    (tmp_path / "original").mkdir()
    asked = Request(shallow, "synthetic:1", size=SizeRequest(dynamic=True))
    return open_source(asked, tmp_path / "original")


def relative(actual: Array, expected: Array) -> float:
    difference = actual.astype(np.float64) - expected
    return float(np.linalg.norm(difference) / np.linalg.norm(expected.astype(np.float64)))


def patch_of(made: Manifest) -> int:
    assert made.sides is not None
    return made.sides[0].multiple


def test_one_graph_is_the_reference_at_every_size_in_both_runtimes(any_size: Path, original: Source) -> None:
    patch = original.network.numbers.patch
    path = str(any_size / "model.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    compiled: Any = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [output.name for output in session.get_outputs()]
    with golden.running(original) as reference:
        for place, (rows, columns) in enumerate(GRIDS):
            shape = (1 + 2 * (place % 2), 3, patch * rows, patch * columns)
            images = np.random.default_rng(place).standard_normal(shape, dtype=np.float32)
            expected = reference(images)
            by_onnxruntime = dict(zip(names, session.run(names, {"pixel_values": images}), strict=True))
            by_openvino = compiled([images])
            for name in names:
                assert relative(by_onnxruntime[name], expected[name]) < 1e-5
                assert relative(by_openvino[compiled.output(name)], expected[name]) < 1e-5


def test_no_operator_is_left_that_engines_compute_differently(any_size: Path) -> None:
    model = onnx.load(any_size / "model.onnx", load_external_data=False)
    assert not AVOIDED & {node.op_type for node in model.graph.node}
    assert {node.op_type for node in model.graph.node} <= operators.SUPPORTED, "ATC compiles it with gears"
    (given,) = model.graph.input
    assert [dim.dim_param for dim in given.type.tensor_type.shape.dim] == ["batch", "", "height", "width"]


def test_the_contract_says_which_sizes_are_taken(any_size: Path) -> None:
    made = manifest.load(any_size)
    patch, prefix = patch_of(made), 1 + (4 if "registers" in made.outputs else 0)
    greatest = 8192 // patch
    side = {"least": 2 * patch, "greatest": greatest * patch, "multiple": patch}
    for name, batch in (("onnx-fp32", 1024), ("patched-torch-fp32", None)):
        contract = next(one for one in made.variants if one.variant == name).contract
        assert contract.input.shape == ("batch", 3, "height", "width")
        assert contract.outputs["patches"].shape == ("batch", "patches", 96)
        assert contract.outputs["last_hidden_state"].shape == ("batch", "tokens", 96)
        assert {axis: bounds.model_dump() for axis, bounds in contract.axes.items()} == {
            "batch": {"least": 1, "greatest": batch, "multiple": 1},
            "height": side,
            "width": side,
            "patches": {"least": 4, "greatest": greatest**2, "multiple": 1},
            "tokens": {"least": 4 + prefix, "greatest": greatest**2 + prefix, "multiple": 1},
        }
    static = next(one for one in made.variants if one.variant == "onnx-fp32-npu").contract
    assert static.input.shape == (2, 3, *made.size)
    assert (made.source.size, made.source.dynamic_size) == (None, True)
    assert made.outputs["patches"] == ("batch", 16, 96)


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_the_static_graph_is_that_of_an_artifact_for_one_size(
    any_size: Path, shallow: System, tmp_path: Path
) -> None:
    workflows.export(shallow, "synthetic:1", tmp_path / "a", batch=2, golden=False)
    static = [(folder / "model.npu.onnx").read_bytes() for folder in (any_size, tmp_path / "a")]
    assert static[0] == static[1]


@pytest.mark.parametrize(
    ("variant", "engine"),
    [("onnx-fp32", None), ("onnx-fp32", "openvino"), ("patched-torch-fp32", None)],
)
def test_a_session_takes_every_allowed_size_and_no_other(
    any_size: Path, variant: str, engine: str | None
) -> None:
    patch = patch_of(manifest.load(any_size))
    with vconv.load(any_size, variant=variant, engine=engine) as session:
        for rows, columns in ((2, 2), (3, 8), (4, 4)):
            images = np.zeros((2, 3, patch * rows, patch * columns), np.float32)
            assert session(images)["patches"].shape == (2, rows * columns, 96)
        for height, width in ((patch, 4 * patch), (2 * patch + 1, 2 * patch), (2 * patch, 2 * patch - 2)):
            with pytest.raises(InputError, match=rf"multiples of {patch} from {2 * patch} to 81\d\d"):
                session(np.zeros((1, 3, height, width), np.float32))


def test_a_simulated_session_takes_every_allowed_size(any_size: Path) -> None:
    patch = patch_of(manifest.load(any_size))
    with vconv.load(any_size, "npu-sim", "onnx-fp32") as session:
        images = np.zeros((1, 3, 3 * patch, 8 * patch), np.float32)
        assert session(images)["patches"].shape == (1, 24, 96)


def test_a_static_graph_takes_its_one_size(any_size: Path) -> None:
    made = manifest.load(any_size)
    with (
        vconv.load(any_size, variant="onnx-fp32-npu") as session,
        pytest.raises(InputError, match=f"3, {made.size[0]}, {made.size[1]}"),
    ):
        session(np.zeros((1, 3, 2 * made.size[0], made.size[1]), np.float32))


@pytest.fixture
def copy(any_size: Path, tmp_path: Path) -> Path:
    return shutil.copytree(any_size, tmp_path / "copy")


@pytest.mark.parametrize("source", ["live", "golden"])
def test_a_validation_judges_other_sizes_in_each_engine(copy: Path, source: str) -> None:
    if source == "golden":
        content = json.loads((copy / "vconv.json").read_text())
        content["source"].update(label="folder:elsewhere", kind="folder", synthetic=False)
        text = json.dumps(content)
        (copy / "vconv.json").write_text(text)
        (copy / "vconv.json.sha256").write_text(hashlib.sha256(text.encode()).hexdigest())
    report = vconv.validate(copy, engines=["onnxruntime", "openvino"], **QUICK)
    assert (report.status, report.reference.source) == ("passed", source)
    patch = patch_of(manifest.load(copy))
    sizes = {
        (row.variant, row.engine): {
            (one.size[0] // patch, one.size[1] // patch): one.batch for one in row.sizes
        }
        for row in report.variants
    }
    judged = {(2, 5): 2, (6, 2): 1, (6, 7): 1}
    expected = {
        ("patched-torch-fp32", "torch"): judged,
        ("fused-torch-fp32", "torch"): judged,
        ("onnx-fp32", "onnxruntime"): judged,
        ("onnx-fp32", "openvino"): judged,
        ("onnx-fp32-npu", "onnxruntime"): {},
        ("onnx-fp32-npu", "openvino"): {},
    }
    assert sizes == expected | ({("original-torch-fp32", "torch"): {}} if source == "live" else {})
    errors = [one.vector_relative_error for row in report.variants for one in row.sizes]
    assert all(error is not None and 0 < error < 1e-5 for error in errors)
    at = f"at {2 * patch}x{5 * patch}, batch 2: vector_relative_error"
    assert Path(report.log).read_text().count(at) == 4


def test_a_recording_of_another_size_that_was_altered_is_found(copy: Path) -> None:
    made = manifest.load(copy)
    assert made.golden is not None
    recorded = copy / made.golden.elsewhere[1].path
    content = bytearray(recorded.read_bytes())
    content[-4:] = np.float32(9).tobytes()
    recorded.write_bytes(content)
    shop = ArtifactCopy.open(Artifact.open(copy), copy.parent / "shop")
    shop.rehash()
    report = vconv.validate(shop.folder, **QUICK)
    assert report.status == "failed"
    failed = {check.name: check.detail for check in report.checks if check.status == "failed"}
    height, width = made.golden.elsewhere[1].size
    assert list(failed) == ["golden"]
    assert f"at {height}x{width}" in failed["golden"]


@pytest.mark.parametrize("fault", sizes.FAULTS, ids=lambda fault: fault.name)
def test_faults_of_size_are_caught_and_named(
    any_size: Path, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vconv.workflows.selftest.FAULTS", (fault,))
    document = vconv.selftest(any_size, clean_runs=0)
    found = [(row["class"], row["caught"]) for row in document["faults"]]
    if document["lacking"]:
        assert "position embedding is not resampled" in document["lacking"][0]["reason"]
        return
    assert found == [(fault.kind, True)]


@pytest.mark.parametrize("system", ["vit_small_patch14_reg4_dinov2.lvd142m"], indirect=True)
def test_a_graph_for_one_size_cannot_have_a_fault_of_sizes(small_artifact: Path, tmp_path: Path) -> None:
    shop = ArtifactCopy.open(Artifact.open(small_artifact), tmp_path / "shop")
    assert {fault.skipped(shop) for fault in sizes.FAULTS} == {"its graphs take one size"}


def test_a_graph_for_any_size_is_bisected_and_described(any_size: Path, tmp_path: Path) -> None:
    found = vconv.bisect(any_size, reports=tmp_path)
    assert (found.passed, len(found.stages)) == (True, 3)
    sides = vconv.info(any_size)["sides"]
    assert sides is not None
    text = f"multiples of {sides[0]['multiple']} pixels from {sides[0]['least']} to {sides[0]['greatest']}"
    card = (any_size / "README.md").read_text()
    assert text in card
    assert "the graphs take no other size, except `model.onnx`" in card
    assert "|  |" not in card


def test_the_description_shows_no_fixed_shape(any_size: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = vconv.info(any_size)
    render.artifact(document)
    told = " ".join(capsys.readouterr().out.split())
    assert "pixel_values [batch, 3, height, width]" in told
    height, width = document["size"]
    assert f"{document['sides'][0]['greatest']}; {height} and {width} in the static graph" in told
    assert "patches [batch, patches, " in told
    assert "last_hidden_state [batch, tokens, " in told


def test_gears_are_refused_beside_any_size(tmp_path: Path) -> None:
    options: dict[str, Any] = {"size": "dynamic", "format": "om", "soc": "Ascend910B4", "gears": [1, 2]}
    with pytest.raises(InputError, match="--gears is not used with --size dynamic"):
        vconv.export("dinov3-vits16", "synthetic", tmp_path / "a", **options)


@pytest.mark.parametrize("system", ["vit-base-patch16-224-in21k"], indirect=True)
def test_the_size_of_the_static_graph_can_be_chosen_beside_any_size(shallow: System, tmp_path: Path) -> None:
    workflows.export(shallow, "synthetic:1", tmp_path / "a", size="dynamic:96,48")
    made = manifest.load(tmp_path / "a")
    assert (made.size, made.source.size, made.source.dynamic_size) == ((96, 48), (96, 48), True)
    inputs = {record.variant: record.contract.input.shape for record in made.variants}
    assert inputs["onnx-fp32"] == ("batch", 3, "height", "width")
    assert inputs["onnx-fp32-npu"] == (1, 3, 96, 48)
    assert vconv.validate(tmp_path / "a", **QUICK).passed
