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
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

import vconv
from vconv import manifest
from vconv.catalog import SYSTEMS, System
from vconv.convert import models
from vconv.convert.layouts import network
from vconv.convert.safetensors_file import read_header
from vconv.errors import InputError, UnknownNameError, WeightsError
from vconv.types import INPUT, WEIGHTS_FILE, Array
from vconv.validators import golden

LIMIT = 1e-5


def relative(actual: Array, expected: Array) -> float:
    difference = actual.astype(np.float64) - expected
    return float(np.linalg.norm(difference) / np.linalg.norm(expected.astype(np.float64)))


def graphs(artifact: Path) -> dict[str, int | None]:
    return {
        record.file: record.batch for record in manifest.load(artifact).variants if record.engine != "torch"
    }


def test_every_graph_keeps_within_its_limit_in_both_runtimes_at_its_batches(artifact: Path) -> None:
    pixel_values, expected = golden.load(artifact / golden.GOLDEN_FILE)
    names = list(manifest.load(artifact).outputs)
    assert set(names) == set(expected)
    for file, fixed in graphs(artifact).items():
        session = onnxruntime.InferenceSession(str(artifact / file))
        compiled = openvino.Core().compile_model(
            str(artifact / file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
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


def test_the_recorded_reference_is_the_stock_original_of_the_source(
    artifact: Path, system: System, tmp_path: Path
) -> None:
    from vconv.convert.sources import open_source

    source = open_source(system, "synthetic:0", tmp_path)
    model = transformers.AutoModel.from_pretrained(source.folder, dtype=torch.float32).eval()
    if system.config["model_type"] == "dinov3_vit":
        exponents = 2 * torch.arange(16) / 32
        model.rope_embeddings.inv_freq = 1 / (100**exponents).bfloat16().float()
    pixel_values, expected = golden.load(artifact / golden.GOLDEN_FILE)
    with torch.inference_mode():
        tokens = model(torch.from_numpy(pixel_values)).last_hidden_state.numpy()
    assert relative(tokens, expected["last_hidden_state"]) <= 1e-6
    assert relative(tokens[:, 0], expected["cls"]) <= 1e-6
    assert relative(tokens[:, -196:], expected["patches"]) <= 1e-6


def test_stock_transformers_loads_the_artifact_and_runs_the_exact_gelu(artifact: Path) -> None:
    executed: dict[str, int] = {}

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = func.overloadpacket.__name__
            executed[name] = executed.get(name, 0) + 1
            return func(*args, **(kwargs or {}))

    model, notes = transformers.AutoModel.from_pretrained(artifact, output_loading_info=True)
    assert {key: list(found) for key, found in notes.items() if found} == {}
    with torch.no_grad(), Count():
        model.eval()(torch.zeros(1, 3, 224, 224))
    assert executed["erf"] == 12
    assert "gelu" not in executed


def test_the_artifact_has_one_weights_file_and_every_graph_uses_it(artifact: Path) -> None:
    weights = [path for path in artifact.rglob("*.safetensors") if "golden" not in path.parts]
    assert weights == [artifact / WEIGHTS_FILE]
    assert sum((artifact / file).stat().st_size for file in graphs(artifact)) < 1_000_000
    stored = {
        name: entry for name, entry in read_header(artifact / WEIGHTS_FILE).items() if "mask" not in name
    }
    import onnx

    for file in graphs(artifact):
        graph = onnx.load(artifact / file, load_external_data=False).graph
        external = {
            value.name: {entry.key: entry.value for entry in value.external_data}
            for value in graph.initializer
            if value.external_data
        }
        assert external.keys() == stored.keys()
        for name, place in external.items():
            assert place["location"] == WEIGHTS_FILE
            assert (int(place["offset"]), int(place["length"])) == (stored[name].offset, stored[name].nbytes)


def test_no_graph_names_the_exporting_machine(artifact: Path) -> None:
    for file in graphs(artifact):
        content = (artifact / file).read_bytes()
        for trace in (b"/tmp", b"/home", b"/root", b"site-packages", b".py", b"pkg.torch"):
            assert trace not in content, (file, trace)


def test_the_npu_graph_is_static_and_plain(artifact: Path) -> None:
    import onnx

    model = onnx.load(artifact / "model.npu.onnx", load_external_data=False)
    operators = {node.op_type for node in model.graph.node}
    assert operators.isdisjoint({"If", "Loop", "Scan", "Range", "Gelu"})
    assert model.ir_version <= 8
    assert max(entry.version for entry in model.opset_import) <= 18
    dims = [
        dim for value in (*model.graph.input, *model.graph.output) for dim in value.type.tensor_type.shape.dim
    ]
    assert all(dim.dim_value > 0 for dim in dims)
    assert dims[0].dim_value == 2


def test_load_takes_arrays_and_photographs(artifact: Path, photographs: list[str]) -> None:
    from vconv.runtime.images import open_images
    from vconv.runtime.preprocessing import preprocess

    images = open_images(photographs)
    with vconv.load(artifact) as session, vconv.load(artifact, variant="patched-torch-fp32") as torch_session:
        found = session(images)
        assert set(found) == set(manifest.load(artifact).outputs)
        again = session(preprocess(artifact, images))
        other = torch_session(images)
        for name, value in found.items():
            assert np.array_equal(value, again[name])
            assert relative(other[name], value) <= LIMIT


def test_load_names_the_variants_that_there_are(artifact: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown variant .*onnx-fp32"):
        vconv.load(artifact, variant="onnx-fp33")


def test_two_exports_are_the_same_bytes(small_name: str, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        vconv.export(small_name, "synthetic:5", tmp_path / folder)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 9
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


@pytest.mark.parametrize("whole_folder", [True, False])
def test_weights_from_disk_export_like_the_same_weights_from_a_seed(
    small_name: str, small_system: System, tmp_path: Path, photographs: list[str], whole_folder: bool
) -> None:
    from vconv.convert.sources import open_source

    (tmp_path / "weights").mkdir()
    folder = open_source(small_system, "synthetic:5", tmp_path / "weights").folder
    given = folder if whole_folder else folder / WEIGHTS_FILE
    vconv.export(small_name, str(given), tmp_path / "a")
    made = manifest.load(tmp_path / "a")
    assert made.source.label == f"{'folder' if whole_folder else 'file'}:{made.source.sha256[:12]}"
    assert not made.source.synthetic
    report = vconv.validate(tmp_path / "a", quick=True)
    assert (report["status"], report["reference"]["source"]) == ("passed", "golden")
    assert report["variants"][0]["variant"] != "original-torch-fp32"
    report = vconv.validate(tmp_path / "a", str(given), quick=True)
    assert (report["status"], report["reference"]["source"]) == ("passed", "live")
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
    monkeypatch.setattr("vconv.catalog.SYSTEMS", {system.name: system})
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
    assert report["passed"]
    assert report["variants"][-1]["outputs"]["logits"]["top1_match"] == 1.0


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_without_weights_the_error_says_which_ways_there_are(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"--weights FOLDER.*hf download.*synthetic\[:SEED\]"):
        vconv.export(name, out=tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "--batch is out of range"),
        ({"opset": 17}, "opset is not supported .* 18 to"),
        ({"images": ["nowhere.png"]}, "cannot read the image nowhere.png"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_left(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        vconv.export("dinov3-vits16", "synthetic", tmp_path / "a", **options)
    assert list(tmp_path.iterdir()) == []


def test_an_older_opset_default_can_be_raised(small_name: str, tmp_path: Path) -> None:
    vconv.export(small_name, "synthetic", tmp_path / "a", opset=20)
    opsets = {record.variant: record.opset for record in manifest.load(tmp_path / "a").variants}
    assert opsets == {"patched-torch-fp32": None, "onnx-fp32": 20, "onnx-fp32-npu": 18}
    assert vconv.validate(tmp_path / "a", quick=True)["passed"]


def test_the_network_that_an_artifact_describes_has_the_outputs_that_it_declares(artifact: Path) -> None:
    config = json.loads((artifact / "config.json").read_text())
    net = network(config, frozenset(read_header(artifact / WEIGHTS_FILE)))
    declared = manifest.load(artifact).outputs
    assert list(declared) == list(models.output_names(net))
    _, expected = golden.load(artifact / golden.GOLDEN_FILE)
    assert {name: shape[1:] for name, shape in declared.items()} == {
        name: value.shape[1:] for name, value in expected.items()
    }
