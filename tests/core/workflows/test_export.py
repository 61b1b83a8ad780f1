"""The whole way through, for every system, in full size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
import timm
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

import vconv
from vconv.artifact import manifest
from vconv.catalog.systems import SYSTEMS, System
from vconv.convert.architectures.outputs import output_names, output_shapes
from vconv.convert.files.safetensors_file import read_header
from vconv.convert.hubs.base import Snapshot
from vconv.convert.libraries.readers import network
from vconv.convert.sources.table import Request, open_source
from vconv.errors import InputError, UnknownNameError, WeightsError
from vconv.runtime.inputs.images import natural_image
from vconv.runtime.inputs.preprocessing import preprocess
from vconv.types import INPUT, WEIGHTS_FILE, Array
from vconv.validators.accuracy import golden

LIMIT = 1e-5


def relative(actual: Array, expected: Array) -> float:
    difference = actual.astype(np.float64) - expected
    return float(np.linalg.norm(difference) / np.linalg.norm(expected.astype(np.float64)))


def graphs(artifact: Path) -> dict[str, int | None]:
    return {
        record.path: record.batch for record in manifest.load(artifact).variants if record.engine != "torch"
    }


@pytest.mark.every_system
def test_every_graph_keeps_within_its_limit_in_both_runtimes_at_its_batches(either: Path) -> None:
    pixel_values, expected = golden.load(either / golden.GOLDEN_FILE)
    names = list(manifest.load(either).outputs)
    assert set(names) == set(expected)
    for file, fixed in graphs(either).items():
        session = onnxruntime.InferenceSession(str(either / file))
        compiled = openvino.Core().compile_model(
            str(either / file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        for batch in [fixed] if fixed else [1, 2]:
            images = pixel_values[:batch]
            found = session.run(names, {INPUT: images})
            other = compiled([images])
            for place, name in enumerate(names):
                assert relative(found[place], expected[name][:batch]) <= LIMIT, (file, batch, name)
                assert relative(other[place], expected[name][:batch]) <= LIMIT, (
                    file,
                    batch,
                    name,
                    "openvino",
                )


def stock(system: System, folder: Path) -> Any:
    """Load a folder with the stock library alone."""
    if system.library == "timm":
        return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    model, notes = transformers.AutoModel.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert {key: list(found) for key, found in notes.items() if found} == {}
    return model.eval()


def stock_outputs(system: System, model: Any, images: Array) -> dict[str, Array]:
    with torch.inference_mode():
        if system.library == "timm":
            tokens = model.forward_features(torch.from_numpy(images))
            pooled = model.forward_head(tokens, pre_logits=True)
        else:
            found = model(torch.from_numpy(images))
            tokens, pooled = found.last_hidden_state, found.pooler_output
    return {"last_hidden_state": tokens.numpy(), "cls": tokens[:, 0].numpy(), "pooled": pooled.numpy()}


def test_the_recorded_reference_is_the_stock_original_of_the_source(
    artifact: Path, system: System, tmp_path: Path
) -> None:
    source = open_source(Request(system, "synthetic:0"), tmp_path)
    model = stock(system, source.folder)
    periods = (100 ** (2 * torch.arange(16) / 32)).bfloat16().float()
    if hasattr(model, "rope"):
        model.rope.periods = periods
    if hasattr(model, "rope_embeddings"):
        model.rope_embeddings.inv_freq = 1 / periods
    pixel_values, expected = golden.load(artifact / golden.GOLDEN_FILE)
    for name, value in stock_outputs(system, model, pixel_values).items():
        assert relative(value, expected[name]) <= 1e-6, name
    shapes = {name: list(value.shape[1:]) for name, value in expected.items()}
    assert shapes == SHAPES[system.name]


SHAPES = {
    "dinov3-vits16": {
        "pooled": [384],
        "cls": [384],
        "registers": [4, 384],
        "patches": [196, 384],
        "last_hidden_state": [201, 384],
    },
    "vit_small_patch16_dinov3.lvd1689m": {
        "pooled": [384],
        "cls": [384],
        "registers": [4, 384],
        "patches": [256, 384],
        "last_hidden_state": [261, 384],
    },
    "dinov2-large": {
        "pooled": [1024],
        "cls": [1024],
        "patches": [256, 1024],
        "last_hidden_state": [257, 1024],
    },
    "vit_small_patch14_reg4_dinov2.lvd142m": {
        "pooled": [384],
        "cls": [384],
        "registers": [4, 384],
        "patches": [1369, 384],
        "last_hidden_state": [1374, 384],
    },
    "vit-base-patch16-224-in21k": {
        "pooled": [768],
        "cls": [768],
        "patches": [196, 768],
        "last_hidden_state": [197, 768],
    },
}
"""What each system's model page says of its outputs, an image."""


@pytest.mark.every_system
def test_the_full_sized_network_of_a_system_has_the_outputs_of_its_model_page(system: System) -> None:
    shapes = output_shapes(network(system.config), 1, system.input)
    assert {name: list(shape[1:]) for name, shape in shapes.items()} == SHAPES[system.name]


def test_the_stock_library_loads_the_artifact_and_runs_the_exact_gelu_where_a_config_can_say_so(
    artifact: Path, system: System
) -> None:
    executed: dict[str, int] = {}

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = func.overloadpacket.__name__
            executed[name] = executed.get(name, 0) + 1
            return func(*args, **(kwargs or {}))

    model, made = stock(system, artifact), manifest.load(artifact)
    with torch.no_grad(), Count():
        model(torch.zeros(1, 3, *made.size))
    blocks = 24 if system.name == "dinov2-large" else 12
    by_config = {"erf": blocks, "gelu": 0} if system.library == "transformers" else {"erf": 0, "gelu": blocks}
    assert {name: executed.get(name, 0) for name in by_config} == by_config
    carriers = {patch.name: patch.carriers for patch in made.patches}
    assert ("config" in carriers["gelu-erf"]) == (system.library == "transformers")


def test_every_tensor_that_the_stock_library_loads_is_bit_by_bit_the_sources(
    artifact: Path, system: System, tmp_path: Path
) -> None:
    source = open_source(Request(system, "synthetic:0"), tmp_path)
    original, patched = stock(system, source.folder).state_dict(), stock(system, artifact).state_dict()
    dropped = original.keys() - patched.keys()
    assert patched.keys() <= original.keys()
    assert all(torch.equal(value, original[name]) for name, value in patched.items())
    assert all(not original[name].any() for name in dropped)
    assert len(dropped) == manifest.load(artifact).ledger["dropped"]


@pytest.mark.every_system
def test_the_artifact_has_one_weights_file_and_every_graph_uses_it(either: Path) -> None:
    weights = [path for path in either.rglob("*.safetensors") if "golden" not in path.parts]
    assert weights == [either / WEIGHTS_FILE]
    assert sum((either / file).stat().st_size for file in graphs(either)) < 1_000_000
    stored = {name: entry for name, entry in read_header(either / WEIGHTS_FILE).items() if "mask" not in name}
    import onnx

    for file in graphs(either):
        graph = onnx.load(either / file, load_external_data=False).graph
        external = {
            value.name: {entry.key: entry.value for entry in value.external_data}
            for value in graph.initializer
            if value.external_data
        }
        assert external.keys() == stored.keys()
        for name, place in external.items():
            assert place["location"] == WEIGHTS_FILE
            assert (int(place["offset"]), int(place["length"])) == (stored[name].offset, stored[name].nbytes)


@pytest.mark.every_system
def test_no_graph_names_the_exporting_machine(either: Path) -> None:
    for file in graphs(either):
        content = (either / file).read_bytes()
        for trace in (b"/tmp", b"/home", b"/root", b"site-packages", b".py", b"pkg.torch"):
            assert trace not in content, (file, trace)


@pytest.mark.every_system
def test_the_npu_graph_is_static_and_plain(either: Path) -> None:
    import onnx

    model = onnx.load(either / "model.npu.onnx", load_external_data=False)
    operators = {node.op_type for node in model.graph.node}
    assert operators.isdisjoint({"If", "Loop", "Scan", "Range", "Gelu"})
    assert model.ir_version <= 8
    assert [entry.version for entry in model.opset_import] == [17]
    dims = [
        dim for value in (*model.graph.input, *model.graph.output) for dim in value.type.tensor_type.shape.dim
    ]
    assert all(dim.dim_value > 0 for dim in dims)
    assert dims[0].dim_value == 2


@pytest.mark.every_system
def test_load_takes_arrays_and_photographs(either: Path, photographs: list[str]) -> None:
    from vconv.runtime.inputs.images import open_images
    from vconv.runtime.inputs.preprocessing import preprocess

    images = open_images(photographs)
    with vconv.load(either) as session, vconv.load(either, variant="patched-torch-fp32") as torch_session:
        found = session(images)
        assert set(found) == set(manifest.load(either).outputs)
        again = session(preprocess(either, images))
        other = torch_session(images)
        for name, value in found.items():
            assert np.array_equal(value, again[name])
            assert relative(other[name], value) <= LIMIT


def test_load_names_the_variants_that_there_are(artifact: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown variant .*onnx-fp32"):
        vconv.load(artifact, variant="onnx-fp33")


def test_two_exports_are_the_same_bytes(small_name: str, system: System, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        vconv.export(small_name, "synthetic:5", tmp_path / folder)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == (11 if system.library == "timm" else 13)
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


@pytest.mark.parametrize("whole_folder", [True, False])
def test_weights_from_disk_export_like_the_same_weights_from_a_seed(
    small_name: str, small_system: System, tmp_path: Path, photographs: list[str], whole_folder: bool
) -> None:
    (tmp_path / "weights").mkdir()
    folder = open_source(Request(small_system, "synthetic:5"), tmp_path / "weights").folder
    given = folder if whole_folder else folder / WEIGHTS_FILE
    vconv.export(small_name, str(given), tmp_path / "a")
    made = manifest.load(tmp_path / "a")
    assert (
        made.source.label == f"{'folder' if whole_folder else 'file'}:{made.source.files[WEIGHTS_FILE][:12]}"
    )
    assert not made.source.synthetic
    report = vconv.validate(tmp_path / "a", quick=True)
    assert (report.status, report.reference.source) == ("passed", "golden")
    assert report.variants[0].variant != "original-torch-fp32"
    report = vconv.validate(tmp_path / "a", str(given), quick=True)
    assert (report.status, report.reference.source) == ("passed", "live")
    with pytest.raises(InputError, match="cannot judge on these images .*--weights"):
        vconv.validate(tmp_path / "a", images=photographs, quick=True)


def test_a_real_classifier_gives_logits_that_stock_transformers_gives(
    shrink: Callable[[System], System], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = shrink(SYSTEMS["vit-base-patch16-224-in21k"])
    folder = tmp_path / "fine-tune"
    config = transformers.ViTConfig(**system.config, id2label={str(n): f"kind {n}" for n in range(5)})
    torch.manual_seed(0)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    monkeypatch.setattr("vconv.catalog.systems.SYSTEMS", {system.name: system})
    vconv.export(system.name, str(folder), tmp_path / "a")
    pixel_values, expected = golden.load(tmp_path / "a" / golden.GOLDEN_FILE)
    assert "pooled" not in expected
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "a").eval()
    with torch.inference_mode():
        logits = model(torch.from_numpy(pixel_values)).logits.numpy()
    assert logits.shape == (2, 5)
    with vconv.load(tmp_path / "a") as session:
        assert relative(session(pixel_values)["logits"], logits) <= LIMIT
    report = vconv.validate(tmp_path / "a", str(folder), quick=True)
    assert report.passed
    assert report.variants[-1].outputs["logits"].metrics["top1_match"] == 1.0


@pytest.mark.every_system
def test_without_weights_a_systems_own_repository_is_asked_for(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def download(*arguments: Any, **options: Any) -> None:
        asked.append((*arguments, options["gated"], options["licence"]))
        raise WeightsError("no network", got="none", expected="one", fix="fix it")

    monkeypatch.setattr("vconv.convert.hubs.table.download", download)
    for options in ({}, {"hub": "modelscope"}, {"weights": "hub:me/mine@v1"}):
        with pytest.raises(WeightsError, match="no network"):
            vconv.export(system.name, out=tmp_path / "a", **options)
    ours = (system.hub_id, None, system.gated, system.licence)
    mine = ("huggingface", "me/mine", "v1", False, system.licence)
    assert asked == [("huggingface", *ours), ("modelscope", *ours), mine]
    assert list(tmp_path.iterdir()) == []


def test_a_repository_goes_into_the_manifest_with_its_revision_and_licence(
    small_name: str, small_system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hub").mkdir()
    folder = open_source(Request(small_system, "synthetic:5"), tmp_path / "hub").folder
    (folder / "LICENSE.md").write_text("may be used\n")
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: a-licence\n---\n# A model\n")
    commit = "0123456789abcdef" * 2 + "01234567"
    revisions = []

    def download(hub: str, repository: str, revision: str | None, **options: Any) -> Snapshot:
        revisions.append(revision)
        return Snapshot(folder, hub, repository, commit)

    monkeypatch.setattr("vconv.convert.hubs.table.download", download)
    document = vconv.export(small_name, out=tmp_path / "a")
    made = manifest.load(tmp_path / "a").source
    assert made.label == document["weights"] == f"huggingface:{small_system.hub_id}@{commit[:12]}"
    assert (made.kind, made.identity, made.revision) == ("huggingface", small_system.hub_id, commit)
    assert (made.licence, made.synthetic) == ("a-licence", False)
    assert (tmp_path / "a" / "LICENSE.md").read_text() == "may be used\n"
    report = vconv.validate(tmp_path / "a", quick=True, budget=1e-3)
    assert (report.status, report.reference.source) == ("passed", "live")
    assert revisions == [None, commit]


@pytest.mark.parametrize("pool", ["avg", pytest.param("cls", marks=pytest.mark.full)])
def test_a_pooling_is_kept_through_export_validation_and_stock_loading(
    small_name: str, small_system: System, pool: str, tmp_path: Path
) -> None:
    if small_system.library != "timm":
        with pytest.raises(InputError, match="--pool does not apply to this system"):
            vconv.export(small_name, "synthetic", tmp_path / "a", pool=pool)
        assert list(tmp_path.iterdir()) == []
        return
    vconv.export(small_name, "synthetic", tmp_path / "a", pool=pool)
    made = manifest.load(tmp_path / "a")
    assert (made.system.pooling, made.source.pool) == (pool, pool)
    report = vconv.validate(tmp_path / "a", quick=True, budget=1e-3)
    assert (report.status, report.reference.source) == ("passed", "live")
    _, expected = golden.load(tmp_path / "a" / golden.GOLDEN_FILE)
    pooled = {"cls": expected["cls"], "avg": expected["patches"].mean(axis=1)}
    assert relative(expected["pooled"], pooled[pool]) < 1e-6
    assert stock(small_system, tmp_path / "a").global_pool == {"cls": "token", "avg": "avg"}[pool]


def test_a_size_is_that_of_everything_in_the_artifact(
    small_name: str, small_system: System, tmp_path: Path
) -> None:
    patch = 14 if "dinov2" in small_name else 16
    height, width = 6 * patch, 3 * patch
    vconv.export(small_name, "synthetic", tmp_path / "a", size=[height, width])
    made = manifest.load(tmp_path / "a")
    assert made.size == made.source.size == (height, width)
    assert {record.contract.input.shape[2:] for record in made.variants} == {(height, width)}
    assert made.outputs["patches"][1] == 18
    assert preprocess(tmp_path / "a", [natural_image(0)]).shape == (1, 3, height, width)
    assert f"pixel_values [B, 3, {height}, {width}]" in (tmp_path / "a" / "README.md").read_text()
    own = json.loads((tmp_path / "a" / "original" / "config.json").read_text())
    assert own == json.loads(json.dumps(dict(small_system.config)))
    report = vconv.validate(tmp_path / "a", quick=True, budget=1e-3)
    assert (report.status, report.reference.source) == ("passed", "live")
    (tmp_path / "a" / WEIGHTS_FILE).unlink()
    vconv.fill(tmp_path / "a")
    with vconv.load(tmp_path / "a") as session:
        assert session([natural_image(1)])["patches"].shape[1] == 18


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "224"}, "--size is not a size .* such as 336,224"),
        ({"size": [224]}, "--size is not a size .* such as 336,224"),
        ({"batch": 0}, "--batch is out of range"),
        ({"opset": 17}, "opset is not supported .* 18 to"),
        ({"npu_opset": 14}, "opset for the NPU is not supported .*one of 13, 15, 17, 18"),
        ({"npu_opset": 16}, "fix: give --npu-opset 15 or 17, or leave it out"),
        ({"npu_opset": 20}, "fix: give --npu-opset 18, or leave it out"),
        ({"images": ["nowhere.png"]}, "cannot use --images nowhere.png"),
        ({"seed": -1}, "the seed is out of range"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_left(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    lines: list[str] = []
    with pytest.raises(InputError, match=message):
        vconv.export("dinov3-vits16", "synthetic", tmp_path / "a", **options, say=lines.append)
    assert list(tmp_path.iterdir()) == []
    assert lines == []


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_an_older_opset_default_can_be_raised(small_name: str, tmp_path: Path) -> None:
    vconv.export(small_name, "synthetic", tmp_path / "a", opset=20)
    variants = manifest.load(tmp_path / "a").variants
    opsets = {record.variant: record.graph.opset if record.graph else None for record in variants}
    assert opsets == {"patched-torch-fp32": None, "onnx-fp32": 20, "onnx-fp32-npu": 17}
    assert vconv.validate(tmp_path / "a", quick=True).passed


@pytest.mark.every_system
def test_the_network_that_an_artifact_describes_has_the_outputs_that_it_declares(either: Path) -> None:
    config = json.loads((either / "config.json").read_text())
    net = network(config, read_header(either / WEIGHTS_FILE))
    declared = manifest.load(either).outputs
    assert list(declared) == list(output_names(net))
    _, expected = golden.load(either / golden.GOLDEN_FILE)
    assert {name: shape[1:] for name, shape in declared.items()} == {
        name: value.shape[1:] for name, value in expected.items()
    }
