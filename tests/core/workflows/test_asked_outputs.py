"""Artifacts with outputs of single blocks: asked for once, and there in every variant, check and report."""

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
import pytest
import safetensors.torch
import timm
import torch
import transformers
from PIL import Image
from timm.models import save_for_hf

import vconv
from vconv.artifact import manifest
from vconv.artifact.artifact import Artifact
from vconv.catalog.systems import SYSTEMS, System, miniature
from vconv.convert.sources.table import DEFAULT_HUB, Request, open_source
from vconv.errors import ArtifactError, InputError, WeightsError
from vconv.types import Array
from vconv.validators.accuracy import golden
from vconv.validators.checks.graphs import check_graph
from vconv.validators.checks.inspected_graph import open_graph
from vconv.validators.faults import layers
from vconv.validators.faults.table import FAULTS
from vconv.validators.faults.workshop import ArtifactCopy
from vconv.workflows import export as workflows
from vconv.workflows import originals

Refused = Callable[..., contextlib.AbstractContextManager[None]]
QUICK: dict[str, Any] = {"quick": True, "budget": 1e-3}
ASKED = "cls,feature_map:1,2,raw_feature_map:1,attention:2"
NAMES = ("cls", "feature_map_1", "feature_map_2", "raw_feature_map_1", "attention_2")
DINOV2, TIMM = "dinov2-small", "vit_small_patch14_reg4_dinov2.lvd142m"
both = pytest.mark.parametrize("name", [DINOV2, TIMM])


def shallow(name: str, blocks: int = 2) -> System:
    """Return a miniature of few blocks."""
    system = miniature(SYSTEMS[name])
    if system.library == "timm":
        args = {**system.config["model_args"], "depth": blocks}
        return replace(system, config={**system.config, "model_args": args})
    return replace(system, config={**system.config, "num_hidden_layers": blocks})


@pytest.fixture
def make(
    once: Callable[..., Path], traced_once: Callable[..., contextlib.AbstractContextManager[None]]
) -> Callable[..., Path]:
    """Export a miniature with outputs, once a run; the artifact is shared and must not be changed."""

    def export(name: str, outputs: str = ASKED, blocks: int = 2, **options: Any) -> Path:
        key = hashlib.sha256(f"{name} {outputs} {blocks} {options}".encode()).hexdigest()[:12]

        def run(folder: Path) -> None:
            with traced_once():
                system = shallow(name, blocks)
                workflows.export(system, "synthetic:1", folder / "artifact", outputs=outputs, **options)

        return once(f"asked-{key}", run) / "artifact"

    return export


@pytest.fixture
def artifact(name: str, make: Callable[..., Path]) -> Path:
    return make(name)


def images_of(folder: Path, count: int = 3) -> Array:
    size = manifest.load(folder).size
    return np.random.default_rng(3).standard_normal((count, 3, *size), dtype=np.float32)


def run(path: Path, images: Array) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"pixel_values": images}), strict=True))


def relative(actual: Array, expected: Array) -> float:
    difference = actual.astype(np.float64) - expected
    return float(np.linalg.norm(difference) / np.linalg.norm(expected.astype(np.float64)))


def by_stock_library(folder: Path, images: Array) -> dict[str, Array]:
    """Return the feature maps that the library's own backbone gives, without any code of vconv."""
    pixels = torch.from_numpy(images)
    with torch.no_grad():
        if manifest.load(folder).system.library == "timm":
            model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
            normed = model.get_intermediate_layers(pixels, n=[0, 1], reshape=True, norm=True)
            (raw,) = timm.create_model(
                f"local-dir:{folder}", pretrained=True, features_only=True, out_indices=[0]
            ).eval()(pixels)
        else:
            stock: Any = transformers.Dinov2Backbone
            normed = stock.from_pretrained(folder, out_indices=[1, 2]).eval()(pixels).feature_maps
            plain = stock.from_pretrained(folder, out_indices=[1], apply_layernorm=False)
            (raw,) = plain.eval()(pixels).feature_maps
    named = {"feature_map_1": normed[0], "feature_map_2": normed[1], "raw_feature_map_1": raw}
    return {name: value.numpy() for name, value in named.items()}


@both
def test_feature_maps_of_a_graph_are_those_of_the_stock_backbone(artifact: Path) -> None:
    images = images_of(artifact)
    expected = by_stock_library(artifact, images)
    found = run(artifact / "model.onnx", images)
    assert tuple(found) == NAMES
    for name, value in expected.items():
        assert relative(found[name], value) < 1e-5, name
    rows = found["attention_2"].sum(axis=-1)
    np.testing.assert_allclose(rows, np.ones_like(rows), rtol=1e-5)


@both
def test_outputs_are_a_part_of_the_artifact_everywhere(artifact: Path, tmp_path: Path) -> None:
    made = manifest.load(artifact)
    assert made.source.outputs == NAMES
    assert tuple(made.outputs) == NAMES
    assert {tuple(record.contract.outputs) for record in made.variants} == {NAMES}
    assert made.meanings["feature_map_2"].endswith("after block 2 of 2, with the final norm")
    assert made.meanings["raw_feature_map_1"].endswith("after block 1 of 2, without the final norm")
    assert vconv.info(artifact)["meanings"] == made.meanings
    card = (artifact / "README.md").read_text()
    assert "the tokens after block 1, without the final norm" in card
    with vconv.load(artifact, variant="onnx-fp32") as session:
        assert tuple(session(images_of(artifact, 1))) == NAMES
    copy = shutil.copytree(artifact, tmp_path / "copy")
    assert vconv.validate(copy, **QUICK).status == "passed"


@pytest.mark.parametrize("name", [DINOV2])
def test_an_artifact_without_weights_is_completed_with_its_outputs(artifact: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    made = manifest.load(copy).model_copy(update={"without_weights": True})
    (copy / "model.safetensors").unlink()
    made.save(copy)
    vconv.fill(copy)
    assert (copy / "model.safetensors").read_bytes() == (artifact / "model.safetensors").read_bytes()
    assert run(copy / "model.onnx", images_of(copy)).keys() == set(NAMES)


@pytest.mark.parametrize("name", [DINOV2])
@pytest.mark.parametrize("fault", layers.FAULTS, ids=lambda fault: fault.name)
def test_a_missing_norm_is_named_by_the_self_test(
    fault: Any, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vconv.workflows.selftest.FAULTS", (fault,))
    document = vconv.selftest(artifact, clean_runs=1)
    assert document["alarms"] == []
    (row,) = document["faults"]
    assert (row["caught"], row["class"], row["failed_checks"]) == (
        True,
        "final norm",
        ["model.onnx: final norm"],
    )


@pytest.mark.parametrize("name", [DINOV2])
def test_a_norm_is_missed_by_its_effect_too(artifact: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    (fault,) = layers.FAULTS
    shop = ArtifactCopy.open(Artifact.open(copy), tmp_path / "shop")
    fault.inject(shop)
    shop.rehash()
    result = vconv.validate(shop.folder, **QUICK)
    (row,) = [row for row in result.variants if row.variant == "onnx-fp32"]
    assert {name for name, one in row.outputs.items() if one.status == "failed"} == {"feature_map_1"}
    assert [one.fault for one in row.diagnosis] == ["final norm"]


@pytest.mark.parametrize("name", [DINOV2])
def test_a_norm_that_should_not_be_there_is_caught(artifact: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    model = onnx.load(copy / "model.onnx", load_external_data=False)
    swap = {"feature_map_1": "raw_feature_map_1", "raw_feature_map_1": "feature_map_1"}
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, one in enumerate(names):
                names[place] = swap.get(one, one)
    onnx.save(model, copy / "model.onnx")
    made = Artifact.open(copy)
    record = made.variant("onnx-fp32")
    graph = open_graph(copy, record.path, record.weights, made.network, made.manifest.size, None)
    (wrong,) = [check for check in check_graph(graph) if check.fault]
    assert wrong.name == "model.onnx: final norm"
    assert "feature_map_1 comes from" in wrong.detail


@pytest.mark.parametrize("name", [DINOV2])
def test_a_false_meaning_is_caught(artifact: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    text = (copy / "vconv.json").read_text().replace("without the final norm", "with the final norm")
    (copy / "vconv.json").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (copy / "vconv.json.sha256").write_text(f"{digest}  vconv.json\n")
    result = vconv.validate(copy, **QUICK)
    assert [check.name for check in result.checks if check.status == "failed"] == ["manifest: meanings"]


@pytest.mark.parametrize("name", [DINOV2])
@pytest.mark.parametrize("said", [["nonsense"], ["cls", "cls"], ["feature_map_01"]], ids=str)
def test_a_manifest_that_names_no_output_is_an_error_in_one_line(
    said: list[str], artifact: Path, tmp_path: Path, refused: Refused
) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    document = json.loads((copy / "vconv.json").read_text())
    document["source"]["outputs"] = said
    text = json.dumps(document)
    (copy / "vconv.json").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (copy / "vconv.json.sha256").write_text(f"{digest}  vconv.json\n")
    with refused(ArtifactError, "the manifest does not name outputs", said[-1]):
        vconv.validate(copy, **QUICK)


def test_weights_that_stay_narrow_have_a_final_norm_too(tmp_path: Path) -> None:
    system = shallow(DINOV2)
    source = tmp_path / "source"
    source.mkdir()
    open_source(Request(system, "synthetic:1"), source)
    tensors = safetensors.torch.load_file(source / "model.safetensors")
    narrow = {key: value.bfloat16() for key, value in tensors.items()}
    (source / "model.safetensors").unlink()
    safetensors.torch.save_file(narrow, source / "model.safetensors", metadata={"format": "pt"})
    made = workflows.export(system, source, tmp_path / "out", keep_dtype=True, outputs=ASKED)
    checks = {check["name"]: check["status"] for check in made["checks"]}
    assert checks["model.onnx: final norm"] == checks["model.npu.onnx: final norm"] == "passed"


@pytest.mark.parametrize("name", [DINOV2])
def test_stages_of_a_graph_with_such_outputs_keep_to_the_reference(artifact: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    found = vconv.bisect(copy, "onnx-fp32")
    assert [row.stage for row in found.stages] == ["embeddings", "block 0", "block 1", "head"]
    assert found.passed
    assert max(max(row.own, row.total) for row in found.stages) < 1e-5


def test_a_graph_computes_only_the_blocks_that_its_outputs_need(make: Callable[..., Path]) -> None:
    whole, first = make(DINOV2), make(DINOV2, "feature_map:1,attention:2")
    counts = [
        json.loads((folder / "vconv.json").read_text())["variants"][1]["graph"]["operators"]
        for folder in (whole, first)
    ]
    assert [count["Erf"] for count in counts] == [2, 1]
    assert [count["Softmax"] for count in counts] == [2, 2]
    images = images_of(first)
    everything, part = run(whole / "model.onnx", images), run(first / "model.onnx", images)
    for name, value in part.items():
        assert relative(value, everything[name]) < 1e-6
    assert (first / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", [DINOV2])
def test_a_graph_for_any_size_has_these_outputs_at_any_size(
    name: str, make: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make(name, "feature_map:1,attention:1,tokens:1", 1, size="dynamic")
    made = Artifact.open(folder)
    contract = made.variant("onnx-fp32").contract
    assert contract.outputs["feature_map_1"].shape[2:] == ("rows", "columns")
    assert contract.outputs["attention_1"].shape[2:] == ("tokens", "tokens")
    patch = made.network.numbers.patch
    source = open_source(originals.request(made, "synthetic:1", DEFAULT_HUB, True), tmp_path)
    with golden.running(source) as reference:
        for rows, columns in ((2, 3), (9, 4)):
            shape = (2, 3, rows * patch, columns * patch)
            images = np.random.default_rng(rows).standard_normal(shape, dtype=np.float32)
            expected, found = reference(images), run(folder / "model.onnx", images)
            assert found["feature_map_1"].shape[2:] == (rows, columns)
            for output, value in expected.items():
                assert relative(found[output], value) < 1e-5


def test_a_backbone_of_transformers_is_exported_as_what_it_is(tmp_path: Path) -> None:
    config = transformers.Dinov2Config(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=56,
        patch_size=14,
        out_features=["stage1"],
    )
    stock: Any = transformers.Dinov2Backbone(config).eval()
    stock.save_pretrained(tmp_path / "backbone")
    transformers.ViTImageProcessor(size={"height": 56, "width": 56}).save_pretrained(tmp_path / "backbone")
    made = vconv.export(str(tmp_path / "backbone"), out=str(tmp_path / "out"))
    assert {row["status"] for row in made["variants"]} == {"passed"}
    images = images_of(tmp_path / "out")
    with torch.no_grad():
        (expected,) = stock(torch.from_numpy(images)).feature_maps
    found = run(tmp_path / "out" / "model.onnx", images)
    assert list(found) == ["feature_map_1"]
    assert relative(found["feature_map_1"], expected.numpy()) < 1e-5
    loaded: Any = transformers.Dinov2Backbone.from_pretrained(tmp_path / "out")
    assert list(loaded.out_features) == ["stage1"]
    assert vconv.bisect(tmp_path / "out", "onnx-fp32").passed
    assert "import AutoImageProcessor, Dinov2Backbone" in (tmp_path / "out" / "README.md").read_text()
    assert made["weights_given"] == str(tmp_path / "backbone")
    document = json.loads((tmp_path / "backbone" / "config.json").read_text())
    plain = {**document, "architectures": ["Dinov2Model"]}
    (tmp_path / "backbone" / "config.json").write_text(json.dumps(plain))
    with pytest.raises(WeightsError, match="of another network"):
        vconv.validate(tmp_path / "out", weights=str(tmp_path / "backbone"), quick=True)


def test_a_dinov3_backbone_is_exported_with_the_feature_maps_of_the_stock_class(tmp_path: Path) -> None:
    folder, out = tmp_path / "backbone", tmp_path / "out"
    config = transformers.DINOv3ViTConfig(
        **dict(
            hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, image_size=64
        ),
        **dict(num_register_tokens=2, out_features=["stage1", "stage3"]),
    )
    torch.manual_seed(0)
    stock: Any = transformers.DINOv3ViTBackbone(config).eval()
    stock.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    made = vconv.export(str(folder), out=out, periods="library")
    assert {row["status"] for row in made["variants"]} == {"passed"}
    images = images_of(out)
    with torch.no_grad():
        expected = stock(torch.from_numpy(images)).feature_maps
    found = run(out / "model.onnx", images)
    assert list(found) == ["feature_map_1", "feature_map_3"]
    for value, wanted in zip(found.values(), expected, strict=True):
        assert relative(value, wanted.numpy()) < 1e-5
    assert relative(found["feature_map_1"], found["feature_map_3"]) > 0.01


def test_feature_maps_of_any_network_of_timm_are_asked_for_by_level(tmp_path: Path) -> None:
    args: dict[str, Any] = dict(layers=(1, 1, 1, 1), channels=(8, 8, 16, 16))
    save_for_hf(timm.create_model("resnet18", **args), str(tmp_path / "whole"), model_args=args)
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    config["pretrained_cfg"]["input_size"] = [3, 64, 64]
    (tmp_path / "whole" / "config.json").write_text(json.dumps(config))
    out = tmp_path / "out"
    made = vconv.export(str(tmp_path / "whole"), out=str(out), outputs="raw_feature_map:2,4")
    assert {row["status"] for row in made["variants"]} == {"passed"}
    images = images_of(out)
    options: dict[str, Any] = dict(features_only=True, out_indices=[1, 3], pretrained=True)
    stock: Any = timm.create_model(f"local-dir:{tmp_path / 'whole'}", **options).eval()
    loaded: Any = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    found = run(out / "model.onnx", images)
    assert list(found) == ["raw_feature_map_2", "raw_feature_map_4"]
    with torch.no_grad():
        pairs = zip(stock(torch.from_numpy(images)), loaded(torch.from_numpy(images)), strict=True)
        for value, (expected, again) in zip(found.values(), pairs, strict=True):
            assert relative(value, expected.numpy()) < 1e-5
            assert torch.equal(expected, again)
    made_of = manifest.load(out)
    assert made_of.meanings["raw_feature_map_2"].endswith("of its library, without the final norm")
    assert made_of.source.outputs == tuple(found)
    assert vconv.validate(out, tmp_path / "whole", **QUICK).status == "passed"


def test_an_output_that_is_not_there_leaves_no_artifact(tmp_path: Path, refused: Refused) -> None:
    with refused(InputError, "no output feature_map_3", "block 3 of a network with the blocks 0 to 2"):
        workflows.export(shallow(DINOV2), "synthetic:1", tmp_path / "out", outputs="feature_map:3")
    assert not (tmp_path / "out").exists()


STAGED = "pooled,cls,patches,feature_map:1,2,3,4"


def stages_of_stock(folder: Path, images: Array) -> list[Array]:
    """Return the feature maps of all four stages that the stock library gives."""
    with torch.no_grad():
        if manifest.load(folder).system.library == "timm":
            options: dict[str, Any] = dict(features_only=True, out_indices=[0, 1, 2, 3], pretrained=True)
            found = timm.create_model(f"local-dir:{folder}", **options).eval()(torch.from_numpy(images))
        else:
            whole: Any = transformers.AutoModel.from_pretrained(folder).eval()
            found = whole(torch.from_numpy(images), output_hidden_states=True).hidden_states[-4:]
    return [one.numpy() for one in found]


@pytest.mark.parametrize(
    "name", ["dinov3-convnext-tiny", pytest.param("convnext_tiny.dinov3_lvd1689m", marks=pytest.mark.full)]
)
def test_stages_of_a_convnext_are_outputs_at_any_size(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = workflows.export(miniature(SYSTEMS[name]), "synthetic:1", out, outputs=STAGED, size="dynamic")
    assert {row["status"] for row in made["variants"]} == {"passed"}
    document = manifest.load(out)
    contract = Artifact.open(out).variant("onnx-fp32").contract
    assert contract.outputs["feature_map_1"].shape[2:] == ("rows_x8", "columns_x8")
    assert contract.outputs["feature_map_4"].shape[2:] == ("rows", "columns")
    assert contract.axes["rows_x8"].multiple == 8
    images = images_of(out)
    for given in (images, np.concatenate([images, images[..., :32]], axis=-1)):
        found = run(out / "model.onnx", given)
        for number, expected in enumerate(stages_of_stock(out, given), 1):
            assert found[f"feature_map_{number}"].shape == expected.shape
            assert relative(found[f"feature_map_{number}"], expected) < 1e-5
    told = "the feature map after stage 2 of 4, without the final norm"
    assert document.meanings["feature_map_2"] == vconv.info(out)["meanings"]["feature_map_2"] == told
    assert "(the feature map after stage 2, without the final norm)" in (out / "README.md").read_text()
    assert vconv.validate(out, **QUICK).status == "passed"


@pytest.mark.parametrize("name", ["dinov3-convnext-tiny"])
def test_a_graph_computes_only_the_stages_that_its_outputs_need(name: str, tmp_path: Path) -> None:
    system = miniature(SYSTEMS[name])
    workflows.export(system, "synthetic:1", tmp_path / "out", outputs="raw_feature_map:2")
    blocks = sum(system.config["depths"][:2])
    document = json.loads((tmp_path / "out" / "vconv.json").read_text())
    assert document["variants"][1]["graph"]["operators"]["Erf"] == blocks
    assert vconv.validate(tmp_path / "out", **QUICK).status == "passed"


@pytest.mark.skipif(not hasattr(transformers, "DINOv3ConvNextBackbone"), reason="transformers 4.57")
def test_a_convnext_backbone_is_exported_as_what_it_is(tmp_path: Path) -> None:
    folder, out = tmp_path / "backbone", tmp_path / "out"
    numbers: dict[str, Any] = dict(hidden_sizes=[8, 8, 16, 24], depths=[1, 2, 1, 1], image_size=64)
    config = transformers.DINOv3ConvNextConfig(**numbers, out_features=["stage1", "stage3"])
    torch.manual_seed(0)
    stock: Any = transformers.DINOv3ConvNextBackbone(config).eval()
    stock.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    made = vconv.export(str(folder), out=out)
    assert {row["status"] for row in made["variants"]} == {"passed"}
    images = images_of(out)
    with torch.no_grad():
        expected = stock(torch.from_numpy(images)).feature_maps
    found = run(out / "model.onnx", images)
    assert list(found) == ["feature_map_1", "feature_map_3"]
    for value, wanted in zip(found.values(), expected, strict=True):
        assert relative(value, wanted.numpy()) < 1e-5
    assert "import AutoImageProcessor, DINOv3ConvNextBackbone" in (out / "README.md").read_text()
    assert vconv.validate(out, folder, **QUICK).status == "passed"


@pytest.mark.parametrize(
    "name",
    [
        "vit_small_patch16_dinov3.lvd1689m",
        pytest.param(TIMM, marks=pytest.mark.full),
        "convnext_tiny.dinov3_lvd1689m",
    ],
)
def test_features_only_of_a_declared_network_is_exported_as_what_it_is(name: str, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    convolutional = name.startswith("convnext")
    system = miniature(SYSTEMS[name]) if convolutional else shallow(name, 3)
    open_source(Request(system, "synthetic:1"), source)
    config = json.loads((source / "config.json").read_text())
    config["model_args"] |= {"features_only": True, "out_indices": [0, 1]}
    (source / "config.json").write_text(json.dumps(config))
    asked: dict[str, Any] = {"periods": "library"} if "dinov3" in name and not convolutional else {}
    made = vconv.export(str(source), out=out, **asked)
    assert {row["status"] for row in made["variants"]} == {"passed"}
    images = images_of(out)
    found = run(out / "model.onnx", images)
    assert list(found) == ["raw_feature_map_1", "raw_feature_map_2"]
    for folder in (source, out):
        stock: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        with torch.no_grad():
            for value, wanted in zip(found.values(), stock(torch.from_numpy(images)), strict=True):
                assert relative(value, wanted.numpy()) < 1e-5
    assert (source / "model.safetensors").stat().st_size == (out / "model.safetensors").stat().st_size
    assert vconv.validate(out, source, **QUICK).status == "passed"
    if not convolutional:
        assert vconv.bisect(out, "onnx-fp32").passed


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        pytest.param(DINOV2, "pooled,cls,patches,feature_map:1", id="blocks"),
        pytest.param("dinov3-convnext-tiny", STAGED, id="stages", marks=pytest.mark.full),
    ],
)
def test_outputs_of_blocks_pass_on_a_simulated_npu_and_on_a_data_set_at_any_size_from_images(
    name: str, outputs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, photographs = tmp_path / "out", tmp_path / "photographs"
    system = shallow(name) if name == DINOV2 else miniature(SYSTEMS[name])
    options: dict[str, Any] = dict(outputs=outputs, size="dynamic", with_preprocessing=True)
    workflows.export(system, "synthetic:1", out, **options)
    names = tuple(manifest.load(out).outputs)
    photographs.mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (90, 120 + number, 3), dtype=np.uint8)
        Image.fromarray(noise).save(photographs / f"{number}.png")
    simulated = vconv.validate(out, device="npu-sim", **QUICK)
    assert simulated.status == "passed"
    assert {tuple(row.outputs) for row in simulated.variants} == {names}
    assert {row.status for row in simulated.variants if row.variant.startswith("onnx")} == {"passed"}
    measured = vconv.validate(out, dataset=photographs, **QUICK)
    assert measured.status == "passed"
    assert measured.dataset is not None
    assert vconv.compare([out], **QUICK).as_json()["status"] == "passed"
    swapped = next(fault for fault in FAULTS if fault.name == "two output names swapped in a graph")
    monkeypatch.setattr("vconv.workflows.selftest.FAULTS", (swapped,))
    document = vconv.selftest(out, clean_runs=1)
    assert document["alarms"] == []
    assert [row["class"] for row in document["faults"]] == ["output names"]


def test_attention_of_the_first_block_alone_is_judged_but_not_taken_apart(
    make: Callable[..., Path], tmp_path: Path, refused: Refused
) -> None:
    copy = shutil.copytree(make(DINOV2, "attention:1"), tmp_path / "copy")
    with refused(ArtifactError, "its outputs need no whole block"):
        vconv.bisect(copy, "onnx-fp32")
    assert vconv.validate(copy, **QUICK).status == "passed"
    made = Artifact.open(copy)
    shop = ArtifactCopy.open(made, tmp_path / "shop")
    lacking = {fault.name: fault.skipped(shop) for fault in FAULTS}
    assert lacking["tanh GELU by a patch"] == "no output of it needs an exact GELU"
    assert lacking["two output names swapped in a graph"] == "it has one output"


def test_a_graph_for_any_size_whose_outputs_have_no_tokens_is_taken_apart(tmp_path: Path) -> None:
    system, out = shallow("vit_small_patch16_dinov3.lvd1689m"), tmp_path / "out"
    workflows.export(system, "synthetic:1", out, outputs="raw_feature_map:1,2", size="dynamic")
    assert vconv.bisect(out, "onnx-fp32").passed
