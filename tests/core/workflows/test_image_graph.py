"""The graph that preprocesses images itself: exported, loaded, validated, and each fault of it named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import PIL
import pytest
from onnx import numpy_helper
from PIL import Image

import vconv
from vconv.artifact.artifact import Artifact
from vconv.catalog.systems import SYSTEMS, System, miniature
from vconv.cli import render
from vconv.errors import InputError, UnavailableError, UnknownNameError
from vconv.runtime.inputs.images import natural_image
from vconv.types import Array, Check, Status, silent
from vconv.validators.accuracy.limits import open_limits
from vconv.validators.checks.image_input import check_features
from vconv.validators.faults.classes import CLASSES
from vconv.validators.report import sentences
from vconv.workflows import originals
from vconv.workflows.export import export
from vconv.workflows.image_graph import check_image_graphs
from vconv.workflows.validate import validate

NAME = "model.uint8.onnx"
pytestmark = pytest.mark.parametrize("system", ["dinov2-large"], indirect=True)


@pytest.fixture
def exported(small_system: System, once: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of an artifact with preprocessing in a graph."""
    made = once(
        f"images-{small_system.name}",
        lambda part: export(small_system, "synthetic:1", part / "made", with_preprocessing=True),
    )
    return shutil.copytree(made / "made", tmp_path / "exported")


def checked(folder: Path) -> list[Check]:
    """Check the graph by the recorded reference, if there is one."""
    artifact = Artifact.open(folder)
    reference, _, _ = originals.reference(artifact, None, (), 0, silent)
    return check_image_graphs(artifact, reference, open_limits("strict"))


def statuses(folder: Path) -> dict[str, tuple[Status, str]]:
    """Check the graph; return the status and the class of fault of each check."""
    found = checked(folder)
    return {check.name.removeprefix(f"{NAME}: "): (check.status, check.fault) for check in found}


def test_an_artifact_with_preprocessing_passes_and_says_what_it_takes(exported: Path) -> None:
    report = validate(exported, quick=True)
    assert report.passed
    named = {check.name: check.status for check in report.checks}
    assert {named[f"{NAME}: {what}"] for what in ("network", "preprocessing", "features", "contract")} == {
        Status.PASSED
    }
    (record,) = (
        row for row in json.loads((exported / "vconv.json").read_text())["variants"] if row["path"] == NAME
    )
    contract = record["contract"]
    assert (contract["preprocessing"], contract["layout"]) == (True, "NHWC")
    assert contract["input"] == {"name": "images", "dtype": "uint8", "shape": ["batch", "height", "width", 3]}
    assert "mean_chn_0: 123" in (exported / "aipp.cfg").read_text()


def test_every_table_shows_it(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    render.artifact(vconv.info(exported))
    told = " ".join(capsys.readouterr().out.split())
    assert "images [batch, height, width, 3], uint8: images of any size, in onnx-fp32-uint8" in told
    render.validated(validate(exported, quick=True, budget=1e-3))
    told = " ".join(capsys.readouterr().out.split())
    assert "onnx-fp32-uint8: passed, by " in told
    card = (exported / "README.md").read_text()
    assert f"`{NAME}` takes `images [batch, height, width, 3]`, uint8 images in RGB of any size" in card
    assert f"the graphs take no other size, except `{NAME}`" in card


def cosine(one: Array, other: Array) -> float:
    return float((one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other))


def test_a_session_takes_pictures_of_any_size_and_agrees_with_the_librarys_processor(exported: Path) -> None:
    images = [natural_image(seed).resize(size) for seed, size in enumerate([(333, 217), (80, 641), (56, 56)])]
    turned = images[0].transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    with (
        vconv.load(exported, variant="onnx-fp32-uint8") as graph,
        vconv.load(exported, variant="onnx-fp32") as session,
    ):
        found, expected = graph([*images, turned]), session([*images, turned])
        batch = graph(np.stack([np.array(images[0])] * 2))
    for name, value in expected.items():
        assert found[name].shape == value.shape
        assert cosine(found[name], value) > 0.9999, name
        assert np.allclose(batch[name], found[name][[0, 0]], atol=1e-5), name


@pytest.mark.usefixtures("system")
def test_a_bicubic_transform_of_timm_passes_in_whichever_order_its_pillow_resamples(tmp_path: Path) -> None:
    small = miniature(SYSTEMS["convnext_tiny.dinov3_lvd1689m"])
    export(small, "synthetic:1", tmp_path / "made", golden=False, with_preprocessing=True)
    checks = checked(tmp_path / "made")
    found = {check.name.removeprefix(f"{NAME}: "): (check.status, check.detail) for check in checks}
    assert found["network"] == (Status.SKIPPED, "not compared: there is no reference")
    assert {found[name][0] for name in ("preprocessing", "features")} == {Status.PASSED}
    (detail,) = (check.detail for check in checks if check.name == f"{NAME}: preprocessing")
    columns_first = int(PIL.__version__.partition(".")[0]) >= 13
    assert ("where its Pillow resamples the columns first" in detail) == columns_first


NO_IMAGES: dict[str, tuple[object, str]] = {
    "pixel values": (np.zeros((1, 3, 56, 56), np.float32), r"float32 and shape \[1, 3, 56, 56\]"),
    "an empty image": (np.zeros((1, 0, 56, 3), np.uint8), r"shape \[1, 0, 56, 3\]"),
    "an empty list": ([], "no image"),
    "a name": ([natural_image(0), "a name"], "a list with a str"),
}


@pytest.mark.parametrize("kind", sorted(NO_IMAGES))
def test_what_is_no_image_is_refused(exported: Path, kind: str) -> None:
    images, got = NO_IMAGES[kind]
    with vconv.load(exported, variant="onnx-fp32-uint8") as graph, pytest.raises(InputError, match=got):
        graph(images)  # type: ignore[arg-type]


def test_a_simulated_npu_does_not_run_it(exported: Path) -> None:
    with pytest.raises(UnavailableError, match="runs no preprocessing"):
        vconv.load(exported, "npu-sim", "onnx-fp32-uint8")


def test_bisect_does_not_offer_it(exported: Path) -> None:
    with pytest.raises(UnknownNameError, match="variant"):
        vconv.bisect(exported, "onnx-fp32-uint8")


def test_it_is_not_run_after_another_check_failed_and_that_is_said(exported: Path) -> None:
    (exported / "stray.txt").write_text("not in the manifest")
    report = validate(exported, quick=True)
    named = {check.name: check.status for check in report.checks}
    assert named["files"] is Status.FAILED
    assert named[f"{NAME}: preprocessing"] is Status.SKIPPED
    assert f"{NAME}: features" not in named
    told = sentences.from_images(report.checks)
    assert told.startswith(
        "onnx-fp32-uint8: not judged: not run, because the check files failed: it may be of altered files; "
        "its other checks that were made, "
    )


def test_a_fault_of_another_graph_neither_keeps_it_from_running_nor_is_blamed_on_it(exported: Path) -> None:
    """An operator of the dynamic graph is scaled: neither graph is compared with the other."""
    model = onnx.load(exported / "model.onnx", load_external_data=False)
    node = next(node for node in model.graph.node if node.op_type == "Softmax")
    node.op_type = "LogSoftmax"
    onnx.save(model, exported / "model.onnx")
    broken = Check("model.onnx: gelu", Status.FAILED, "a check of another graph", "activation")
    fused = Check("om/model.om: fusions", Status.FAILED, "a check of an offline model", "activation")
    artifact = Artifact.open(exported)
    reference, _, _ = originals.reference(artifact, None, (), 0, silent)
    offline = artifact.manifest.variants[1].model_copy(update={"path": "om/model.om", "variant": "om-fp32"})
    made = artifact.manifest.model_copy(update={"variants": (*artifact.manifest.variants, offline)})
    checks = check_image_graphs(
        replace(artifact, manifest=made), reference, open_limits("strict"), [broken, fused]
    )
    assert [(check.name, check.status) for check in checks] == [
        (f"{NAME}: {what}", Status.PASSED) for what in ("network", "preprocessing", "features")
    ]


@pytest.mark.usefixtures("system")
def test_features_that_differ_have_a_class_of_fault_that_is_known() -> None:
    found, expected = np.array([[1.0, 0.0]]), np.array([[1.0, 0.1]])
    check = check_features(Path(NAME), {"cls": found}, {"cls": expected})
    assert check.status is Status.FAILED
    assert check.fault in CLASSES


def changed(folder: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(folder / NAME, load_external_data=False)
    change(model)
    onnx.save(model, folder / NAME)


def constants(model: onnx.ModelProto, shape: tuple[int, ...]) -> list[onnx.TensorProto]:
    found = [one for one in model.graph.initializer if one.name.startswith("preprocessing_")]
    return [one for one in found if tuple(one.dims) == shape]


def _replace(tensor: onnx.TensorProto, value: Array) -> None:
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def wrong_mean(model: onnx.ModelProto) -> None:
    mean, _ = constants(model, (1, 3, 1, 1))
    _replace(mean, numpy_helper.to_array(mean) + np.float32(0.05))


def bgr(model: onnx.ModelProto) -> None:
    order = numpy_helper.from_array(np.array([2, 1, 0]), "preprocessing_order")
    model.graph.initializer.append(order)
    swap = onnx.helper.make_node(
        "Gather", ["images", order.name], ["preprocessing_bgr"], "preprocessing_bgr", axis=3
    )
    for node in model.graph.node:
        node.input[:] = ["preprocessing_bgr" if name == "images" else name for name in node.input]
    model.graph.node.insert(0, swap)


def bilinear(model: onnx.ModelProto) -> None:
    """Turn the cubic filter into a linear one: 1 - d near, 0 beyond."""
    cubic = {1.5: 0.0, -2.5: 0.0, -0.5: 0.0, 2.5: 0.0, -4.0: 0.0, 2.0: 0.0, 0.0: -1.0}
    for tensor in constants(model, ()):
        value = float(numpy_helper.to_array(tensor))
        used = [node for node in model.graph.node if tensor.name in node.input]
        if tensor.data_type == onnx.TensorProto.FLOAT and all(
            node.op_type in ("Add", "Mul") for node in used
        ):
            _replace(tensor, np.array(cubic.get(value, value), np.float32))


def another_network(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Softmax")
    node.op_type = "LogSoftmax"


FAULTS: dict[str, tuple[Callable[[onnx.ModelProto], None], str, str]] = {
    "a wrong mean": (wrong_mean, "preprocessing", "normalisation"),
    "swapped channels": (bgr, "preprocessing", "channel order"),
    "another filter": (bilinear, "preprocessing", "interpolation"),
    "another network": (another_network, "network", "graph"),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_fault_is_caught_and_named(exported: Path, fault: str) -> None:
    change, check, named = FAULTS[fault]
    changed(exported, change)
    # The number of operators is checked before, by the bounds of graphs: here the checks alone are tried.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("vconv.runtime.engines.variants.require_bounds", lambda *_: None)
        found = statuses(exported)
    assert found[check] == (Status.FAILED, named)
    assert all(found[other][0] is Status.PASSED for other in {"network", "preprocessing"} - {check})
