from __future__ import annotations

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
import safetensors.torch
import torch
from torch import Tensor

from vconv.catalog.systems import System
from vconv.convert.architectures.outputs import output_shapes
from vconv.convert.ascend import operators as cann
from vconv.convert.conversion import Conversion, image_size
from vconv.convert.files.safetensors_file import read_header
from vconv.convert.graphs import tracing
from vconv.convert.graphs.tracing import DEFAULT_OPSET, GREATEST_OPSET, LEAST_OPSET
from vconv.convert.libraries import models
from vconv.convert.sources.table import Request, open_source
from vconv.types import GRAPHS, INPUT, WEIGHTS_FILE

Distance = Callable[[Any, Any], float]
Named = dict[str, Any]
ExportedAs = Callable[..., dict[str, float]]

(DYNAMIC_GRAPH,) = (graph.path for graph in GRAPHS if not graph.for_npu)
(NPU_GRAPH,) = (graph.path for graph in GRAPHS if graph.for_npu)
BATCHES = [(DYNAMIC_GRAPH, 1), (DYNAMIC_GRAPH, 2), (DYNAMIC_GRAPH, 3), (NPU_GRAPH, 2)]
RESAMPLED = "dinov2-large"
"""The system that resamples its position embedding."""
each_library = pytest.mark.parametrize(
    "system", [RESAMPLED, "vit_small_patch16_dinov3.lvd1689m"], indirect=True
)
"""One system of each library, one with a resampled position embedding and one with RoPE."""
each_graph = pytest.mark.parametrize("graph", [graph.path for graph in GRAPHS])


@pytest.fixture
def expected(
    exported_small: Any,
    corrected: Callable[[Any], Any],
    named: Callable[[Any, Tensor], Named],
    pixel_values: Tensor,
) -> Named:
    """The outputs of the stock library for the source with the authors' periods, without any patch."""
    return named(corrected(exported_small.source), pixel_values)


@pytest.fixture
def exported_as(
    tmp_path: Path,
    corrected: Callable[[Any], Any],
    named: Callable[[Any, Tensor], Named],
    pixel_values: Tensor,
    distance: Distance,
    convert_weights: Callable[..., Conversion],
) -> ExportedAs:
    """Export a system's dynamic graph; return how far each output is from the stock library's."""

    def exported(system: System, weights: str = "synthetic:1", pool: str | None = None) -> dict[str, float]:
        scratch, folder = tmp_path / "scratch", tmp_path / "artifact"
        scratch.mkdir()
        folder.mkdir()
        source = open_source(Request(system, weights, pool=pool), scratch)
        found = convert_weights(folder, source)
        path = folder / DYNAMIC_GRAPH
        export(path, found, image_size(source))
        actual, model = run(path, pixel_values), corrected(source)
        if found.network.head == "classifier":
            with torch.no_grad():
                result = model(pixel_values)
            expected = {"logits": result if isinstance(result, Tensor) else result.logits}
        else:
            expected = named(model, pixel_values)
        return {name: distance(actual[name], value) for name, value in expected.items()}

    return exported


def run(path: Path, images: Tensor) -> Named:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {INPUT: images.numpy()}), strict=True))


def export(
    path: Path,
    found: Conversion,
    size: tuple[int, int],
    batch: int | None = None,
    opset: int = DEFAULT_OPSET,
) -> None:
    """Export one graph beside its checkpoint."""
    entries = read_header(path.parent / WEIGHTS_FILE)
    traced = tracing.trace(path.parent, found.network, found.patches, size, opset, entries)
    tracing.write_graph(path, traced, batch)


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path, load_external_data=False).graph.node}


def dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def copied(folder: Path, to: Path) -> Path:
    """Copy only the files that an export needs."""
    to.mkdir()
    for name in ("config.json", WEIGHTS_FILE):
        shutil.copy(folder / name, to / name)
    return to


def again(exported_small: Any, folder: Path, batch: int | None = None, opset: int = DEFAULT_OPSET) -> Path:
    path, size = folder / "again.onnx", image_size(exported_small.source)
    export(path, exported_small.conversion, size, batch, opset)
    return path


@pytest.mark.parametrize(("graph", "batch"), BATCHES)
def test_onnxruntime_agrees_with_the_stock_library(
    exported_small: Any, expected: Named, pixel_values: Tensor, distance: Distance, graph: str, batch: int
) -> None:
    found = run(exported_small.folder / graph, pixel_values[:batch])
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == np.float32
        assert distance(found[name], value[:batch]) < 1e-5, name


@pytest.mark.parametrize(("graph", "batch"), BATCHES)
def test_openvino_agrees_with_the_stock_library(
    exported_small: Any, expected: Named, pixel_values: Tensor, distance: Distance, graph: str, batch: int
) -> None:
    core = openvino.Core()
    model = core.compile_model(
        exported_small.folder / graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    results = model(pixel_values[:batch].numpy())
    assert len(model.outputs) == len(expected)
    for name, value in expected.items():
        assert distance(results[model.output(name)], value[:batch]) < 1e-5, name


@each_graph
def test_the_checker_takes_the_graph(exported_small: Any, graph: str) -> None:
    onnx.checker.check_model(exported_small.folder / graph, full_check=True)


@each_graph
def test_every_weight_refers_to_its_tensor_in_the_checkpoint(exported_small: Any, graph: str) -> None:
    folder = exported_small.folder
    stored = safetensors.torch.load_file(folder / WEIGHTS_FILE)
    content = (folder / WEIGHTS_FILE).read_bytes()
    model = onnx.load(folder / graph, load_external_data=False)
    external = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in model.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }
    for name, place in external.items():
        assert place["location"] == WEIGHTS_FILE
        begin, length = int(place["offset"]), int(place["length"])
        assert content[begin : begin + length] == stored[name].numpy().tobytes(), name
    assert set(stored) - set(external) == set(exported_small.conversion.network.unused)


@each_graph
def test_the_graph_file_contains_no_weights(exported_small: Any, graph: str) -> None:
    model = onnx.load(exported_small.folder / graph, load_external_data=False)
    largest = max(
        int(np.prod(tensor.dims))
        for tensor in model.graph.initializer
        if tensor.data_location != onnx.TensorProto.EXTERNAL
    )
    assert largest <= 16 * 96, "no more than timm's RoPE table of 16 patches, sine and cosine, of 48 channels"
    assert (exported_small.folder / graph).stat().st_size < 100_000
    assert sorted(path.name for path in exported_small.folder.glob("model*")) == sorted(
        [*(graph.path for graph in GRAPHS), WEIGHTS_FILE]
    )


@each_graph
def test_the_graph_has_no_gelu_operator_and_no_guard_around_the_softmax(
    exported_small: Any, graph: str
) -> None:
    found = operators(exported_small.folder / graph)
    assert {"Erf", "Softmax", "MatMul"} <= found
    assert not found & {"Gelu", "IsNaN", "Where", "If", "Loop", "Sin", "Cos", "Resize"}
    assert ("Tanh" in found) is (exported_small.conversion.network.head == "pooler")


@each_graph
def test_the_gelu_of_a_graph_multiplies_before_each_erf(exported_small: Any, graph: str) -> None:
    nodes = onnx.load(exported_small.folder / graph, load_external_data=False).graph.node
    made = {name: node.op_type for node in nodes for name in node.output}
    before = [made[node.input[0]] for node in nodes if node.op_type == "Erf"]
    assert before == ["Mul"] * exported_small.conversion.network.blocks
    assert "Div" not in made.values()


@each_graph
def test_onnx_runtime_loads_the_graph_without_a_word(
    exported_small: Any, graph: str, capfd: pytest.CaptureFixture[str]
) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 2  # warnings
    path = exported_small.folder / graph
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    assert capfd.readouterr() == ("", "")


def test_the_npu_graph_uses_only_what_cann_supports(exported_small: Any) -> None:
    path = exported_small.folder / NPU_GRAPH
    model = onnx.load(path, load_external_data=False)
    assert operators(path) - cann.SUPPORTED == set()
    assert [(entry.domain, entry.version <= cann.GREATEST_OPSET) for entry in model.opset_import] == [
        ("", True)
    ]
    assert model.ir_version <= cann.GREATEST_IR_VERSION


def test_the_npu_graph_is_static_throughout(exported_small: Any, size: tuple[int, int]) -> None:
    graph = onnx.load(exported_small.folder / NPU_GRAPH, load_external_data=False).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    assert [value.name for value in values if not all(isinstance(dim, int) for dim in dims(value))] == []
    assert dims(graph.input[0]) == [2, 3, *size]


@each_graph
def test_inputs_and_outputs_have_their_names_and_shapes(
    exported_small: Any, graph: str, size: tuple[int, int]
) -> None:
    found = onnx.load(exported_small.folder / graph, load_external_data=False).graph
    batch: int | str = "batch" if graph == DYNAMIC_GRAPH else 2
    shapes = output_shapes(exported_small.conversion.network, 2, size)
    assert {value.name: dims(value) for value in found.input} == {INPUT: [batch, 3, *size]}
    assert {value.name: dims(value) for value in found.output} == {
        name: [batch, *shape[1:]] for name, shape in shapes.items()
    }


@each_graph
def test_the_graph_contains_nothing_about_the_exporting_machine(exported_small: Any, graph: str) -> None:
    content = (exported_small.folder / graph).read_bytes()
    words = (str(exported_small.folder), "site-packages", ".py", "stack_trace", "pytorch", "FakeTensor")
    assert [word for word in words if word.encode() in content] == []
    model = onnx.load(exported_small.folder / graph, load_external_data=False)
    assert model.producer_name == "vconv"
    assert not any(message.doc_string or message.metadata_props for message in model.graph.node)


def test_the_periods_in_the_graph_are_the_authors(
    exported_small: Any,
    stock: Callable[[Path], Any],
    named: Callable[[Any, Tensor], Named],
    pixel_values: Tensor,
    distance: Distance,
) -> None:
    has_rope = any(patch.corrective for patch in exported_small.conversion.patches)
    found = run(exported_small.folder / DYNAMIC_GRAPH, pixel_values)["last_hidden_state"]
    uncorrected = named(stock(exported_small.source.folder), pixel_values)["last_hidden_state"]
    assert (distance(found, uncorrected) > 1e-4) is has_rope


@each_library
def test_a_second_export_that_has_no_weights_gives_the_same_bytes_and_prints_nothing(
    exported_small: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    folder = copied(exported_small.folder, tmp_path / "blank")
    weights = safetensors.torch.load_file(folder / WEIGHTS_FILE)
    blank = {name: torch.full_like(tensor, float("nan")) for name, tensor in weights.items()}
    safetensors.torch.save_file(blank, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    path = again(exported_small, folder)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert [str(warning.message) for warning in recwarn] == []
    assert path.read_bytes() == (exported_small.folder / DYNAMIC_GRAPH).read_bytes()


@pytest.mark.parametrize("system", [RESAMPLED], indirect=True)
def test_a_graph_whose_weight_is_not_in_the_file_is_an_error(exported_small: Any, tmp_path: Path) -> None:
    folder = copied(exported_small.folder, tmp_path / "short")
    weights = safetensors.torch.load_file(folder / WEIGHTS_FILE)
    missing = next(name for name in sorted(weights) if name.endswith(("norm2.weight", "after.weight")))
    del weights[missing]
    safetensors.torch.save_file(weights, folder / WEIGHTS_FILE)
    with pytest.raises(ValueError, match=f"is not in the weights file as {missing}"):
        again(exported_small, folder, batch=2)
    assert not (folder / "again.onnx").exists()


def test_the_opsets_are_in_order_and_the_npu_supports_the_default() -> None:
    assert (
        LEAST_OPSET
        <= DEFAULT_OPSET
        <= cann.GREATEST_OPSET
        <= GREATEST_OPSET
        <= onnx.defs.onnx_opset_version()
    )


@pytest.mark.parametrize("system", [RESAMPLED], indirect=True)
def test_a_resampled_position_embedding_is_two_products_of_the_stored_one(exported_small: Any) -> None:
    numbers = exported_small.conversion.network.numbers
    assert (numbers.positions, numbers.image, image_size(exported_small.source)) == (26, (70, 70), (56, 56))
    for graph in GRAPHS:
        found = onnx.load(exported_small.folder / graph.path, load_external_data=False).graph
        small = {tensor.name: tuple(tensor.dims) for tensor in found.initializer}
        assert (small["resample_0_rows"], small["resample_0_columns"]) == ((4, 5), (5, 4))
        assert small["embeddings.position_embeddings"] == (1, 26, 96)


@pytest.mark.parametrize(
    ("system", "arguments"),
    [
        ("vit_small_patch14_reg4_dinov2.lvd142m", {"img_size": 70, "dynamic_img_size": True}),
        ("vit_small_patch16_dinov3.lvd1689m", {"dynamic_img_size": False}),
    ],
    indirect=["system"],
)
def test_timm_networks_with_other_rules_for_image_sizes_are_exported_correctly(
    small_system: System, arguments: dict[str, Any], exported_as: ExportedAs
) -> None:
    """One network resamples its position embedding by timm's rule; the other caches its RoPE table."""
    given = {**small_system.config["model_args"], **arguments}
    worst = exported_as(replace(small_system, config={**small_system.config, "model_args": given}))
    assert max(worst.values()) < 1e-5


@each_library
def test_a_classifiers_graph_returns_its_logits(
    small_system: System, classifier_folder: Path, exported_as: ExportedAs
) -> None:
    worst = exported_as(small_system, str(classifier_folder))
    assert worst["logits"] < 1e-5


@pytest.mark.parametrize("system", ["vit_small_patch16_dinov3.lvd1689m"], indirect=True)
def test_a_chosen_pooling_is_in_the_graph(small_system: System, exported_as: ExportedAs) -> None:
    worst = exported_as(small_system, pool="cls")
    assert max(worst["pooled"], worst["cls"]) < 1e-5


@each_library
@pytest.mark.parametrize("opset", sorted({LEAST_OPSET, GREATEST_OPSET} - {DEFAULT_OPSET}))
def test_every_opset_gives_the_same_outputs_and_spells_gelu_out(
    exported_small: Any, expected: Named, pixel_values: Tensor, tmp_path: Path, distance: Distance, opset: int
) -> None:
    path = again(exported_small, copied(exported_small.folder, tmp_path / "opset"), opset=opset)
    model = onnx.load(path, load_external_data=False)
    wanted = onnx.helper.make_opsetid("", opset)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert model.ir_version == onnx.helper.find_min_ir_version_for([wanted])
    assert "Gelu" not in operators(path)
    found = run(path, pixel_values)
    assert max(distance(found[name], value) for name, value in expected.items()) < 1e-5


@pytest.mark.parametrize("system", [RESAMPLED], indirect=True)
def test_without_the_patch_a_late_opset_would_write_a_gelu(
    exported_small: Any, stock: Callable[[Path], Any], pixel_values: Tensor
) -> None:
    model = models.Outputs(stock(exported_small.source.folder), exported_small.conversion.network).eval()
    program = torch.onnx.export(model, (pixel_values,), dynamo=True, opset_version=20, verbose=False)
    assert program is not None
    assert "Gelu" in {node.op_type for node in program.model.graph}


@pytest.mark.parametrize("system", [RESAMPLED], indirect=True)
def test_an_export_that_returns_no_program_is_an_error(
    exported_small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing.torch.onnx, "export", lambda *_, **__: None)
    with pytest.raises(RuntimeError, match=r"torch\.onnx\.export returned no program"):
        again(exported_small, copied(exported_small.folder, tmp_path / "none"))


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("axes", [1, 2], ids=["rows", "images"])
def test_pooling_to_one_value_is_a_mean_and_any_other_pooling_stays(length: int, axes: int) -> None:
    pooling = {1: torch.nn.AdaptiveAvgPool1d, 2: torch.nn.AdaptiveAvgPool2d}[axes](length)
    values = torch.randn(3, 5, *[8] * axes, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(pooling, (values,), strict=False)
    tracing.write_poolings_as_means(program)
    pooled = program.run_decompositions()
    targets = {node.target for node in pooled.graph.nodes}
    assert torch.ops.aten.as_strided.default not in targets
    assert (torch.ops.aten.mean.dim in targets) == (length == 1)
    parts = values.reshape(3, 5, *[length, 8 // length] * axes)
    expected = parts.mean([3 + 2 * axis for axis in range(axes)])
    torch.testing.assert_close(pooled.module()(values), expected, rtol=0, atol=1e-6)
