"""`vconv validate GRAPH --against WHERE`: graphs that vconv did not export."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from click.testing import CliRunner
from foreign_graphs import (
    bilinear_positions,
    exchanged_blocks,
    nearer_positions,
    reversed_channels,
    script,
    tanh_gelus,
)
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import vconv
from vconv.artifact.artifact import Artifact
from vconv.catalog.systems import SYSTEMS, miniature
from vconv.cli import main
from vconv.convert.sources.base import Source
from vconv.convert.sources.table import Request, open_source
from vconv.errors import InputError, VconvError
from vconv.runtime.inputs.preprocessing import normalisation
from vconv.runtime.processes import child
from vconv.runtime.simulation.process import Bug
from vconv.types import Status
from vconv.validators.report.document import ValidationResult
from vconv.workflows.compare import _judge_of
from vconv.workflows.compare_exporters import _run, _whole

DINOV2, DINOV3 = "dinov2-large", "dinov3-vits16"
Sourced = Callable[[str], Source]


@pytest.fixture(scope="module")
def sourced(tmp_path_factory: pytest.TempPathFactory) -> Sourced:
    """Synthetic weights of a shrunk system."""
    found: dict[str, Source] = {}

    def source(name: str) -> Source:
        if name not in found:
            folder = tmp_path_factory.mktemp("source")
            found[name] = open_source(Request(miniature(SYSTEMS[name]), "synthetic:1"), folder)
        return found[name]

    return source


def judged(path: Path, source: Source, **options: Any) -> ValidationResult:
    """Judge the graphs of a path, by the periods that the stock library has."""
    if source.network.rope_base:
        options.setdefault("periods", "library")
    return vconv.validate(
        *(path,), against=source.folder, quick=True, budget=0.05, reports=path.parent / "r", **options
    )


def row_of(document: ValidationResult) -> Any:
    """Return the row of the only graph."""
    (row,) = (row for row in document.variants if row.engine != "torch")
    return row


@pytest.mark.parametrize("name", [DINOV2, DINOV3, "vit-base-patch16-224"])
def test_a_sound_graph_passes_and_its_contract_is_found_out(
    sourced: Sourced, tmp_path: Path, name: str
) -> None:
    source = sourced(name)
    names = ("last_hidden_state", "pooler_output") if name != "vit-base-patch16-224" else ("logits",)
    document = judged(script(source, tmp_path / "a.onnx", names), source)
    (graph,) = document.graphs
    assert document.passed
    assert row_of(document).status == "passed"
    assert {one.output: one.how for one in graph.outputs} == dict.fromkeys(names, "by value")
    assert (graph.input, graph.layout, graph.dtype, graph.levels) == (
        "images",
        "NCHW",
        "float32",
        "normalised",
    )
    assert (graph.size, graph.batch) == (source.image_size, None)
    assert document.manifest is None
    assert [check.detail for check in document.checks if check.name == "a.onnx: exact GELU"] == [
        f"all {source.network.gelus} GELUs are exact"
    ]


def test_the_outputs_of_a_graph_are_compared_as_vconvs_own_are(sourced: Sourced, tmp_path: Path) -> None:
    source = sourced(DINOV2)
    row = row_of(judged(script(source, tmp_path / "a.onnx", ("a", "b")), source))
    assert set(row.outputs) == {"pooled", "cls", "patches", "last_hidden_state"}
    assert all(one.vector_relative_error < 1e-5 for one in row.outputs.values())


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        (DINOV2, tanh_gelus, "activation"),
        (DINOV3, tanh_gelus, "activation"),
        (DINOV2, reversed_channels, "channel order"),
        (DINOV3, reversed_channels, "channel order"),
        (DINOV2, exchanged_blocks, "weights"),
        (DINOV3, exchanged_blocks, "weights"),
        (DINOV2, bilinear_positions, "position embedding"),
        (DINOV3, nearer_positions, "position embedding"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_broken_graph_fails_and_its_fault_is_named(
    sourced: Sourced, tmp_path: Path, name: str, change: Callable[[nn.Module], None], fault: str
) -> None:
    source = sourced(name)
    # Of images of its own size, a DINOv2 resamples nothing.
    sides = [side + 2 * source.network.numbers.patch for side in source.image_size]
    path = script(source, tmp_path / "a.onnx", change=change, images=torch.randn(1, 3, *sides))
    document = judged(path, source)
    assert (document.status, document.passed) == (Status.FAILED, False)
    assert document.diagnosis[0].fault == fault


def test_positions_that_a_graph_resamples_by_another_filter_are_named(
    sourced: Sourced, tmp_path: Path
) -> None:
    source = sourced(DINOV2)
    sides = [side + 2 * source.network.numbers.patch for side in source.image_size]
    path = script(source, tmp_path / "a.onnx", images=torch.randn(1, 3, *sides))
    model = onnx.load(path)
    (resize,) = (node for node in model.graph.node if node.op_type == "Resize")
    (mode,) = (one for one in resize.attribute if one.name == "mode")
    assert mode.s == b"cubic"
    mode.s = b"linear"
    onnx.save(model, path)
    document = judged(path, source)
    assert document.diagnosis[0].fault == "position embedding"


def test_a_stock_graph_of_dinov3_has_the_librarys_periods(sourced: Sourced, tmp_path: Path) -> None:
    source = sourced(DINOV3)
    document = judged(script(source, tmp_path / "a.onnx"), source, periods="authors")
    assert [row.fault for row in document.diagnosis] == ["rope periods"]


def test_levels_and_channels_last_are_found_out(sourced: Sourced, tmp_path: Path) -> None:
    source = sourced(DINOV2)
    mean, deviation = (torch.tensor(one).view(1, -1, 1, 1) for one in normalisation(source.folder))

    def before(images: Tensor) -> Tensor:
        return (images.permute(0, 3, 1, 2).float() / 255 - mean) / deviation

    images = torch.zeros(1, *source.image_size, 3, dtype=torch.uint8)
    document = judged(script(source, tmp_path / "a.onnx", before=before, images=images), source)
    (graph,) = document.graphs
    assert (graph.layout, graph.dtype, graph.levels) == ("NHWC", "uint8", "0 to 255")
    assert document.passed


def test_a_graph_of_whole_numbers_is_judged_on_rounded_grey_levels(
    sourced: Sourced, tmp_path: Path, photographs: list[str]
) -> None:
    source = sourced(DINOV3)  # its processor rescales before it resizes, so that levels are no whole numbers
    mean, deviation = (torch.tensor(one).view(1, -1, 1, 1) for one in normalisation(source.folder))

    def before(images: Tensor) -> Tensor:
        return (images.float() / 255 - mean) / deviation

    images = torch.zeros(1, 3, *source.image_size, dtype=torch.uint8)
    script(source, tmp_path / "whole.onnx", before=before, images=images)
    script(source, tmp_path / "usual.onnx")
    document = judged(tmp_path, source, images=photographs)
    assert document.passed
    assert {Path(graph.path).stem: graph.rounded for graph in document.graphs} == {
        "whole": True,
        "usual": False,
    }
    text = Path(document.log).read_text()
    assert text.count("its reference ran on images with rounded grey levels") == 1


def test_grey_levels_from_0_to_1_are_found_out(sourced: Sourced, tmp_path: Path) -> None:
    source = sourced(DINOV2)
    mean, deviation = (torch.tensor(one).view(1, -1, 1, 1) for one in normalisation(source.folder))
    path = script(source, tmp_path / "a.onnx", before=lambda images: (images - mean) / deviation)
    document = judged(path, source)
    assert document.graphs[0].levels == "0 to 1"
    assert document.passed


def _before_the_norm(model: nn.Module) -> None:
    norm = getattr(model, "layernorm", None) or model.norm
    norm.forward = lambda tokens: tokens  # type: ignore[union-attr]


def test_tokens_without_the_final_norm_are_told_apart(sourced: Sourced, tmp_path: Path) -> None:
    source = sourced(DINOV2)
    path = script(
        source,
        tmp_path / "a.onnx",
        ("x",),
        change=_before_the_norm,
        read=lambda found: found.last_hidden_state,
    )
    document = judged(path, source)
    assert document.graphs[0].outputs[0].reading == "last_hidden_state, without the final norm"
    assert document.diagnosis[0].fault == "final norm"
    assert not document.passed


def test_another_pooling_is_told_apart_and_accepted_if_it_is_stated(sourced: Sourced, tmp_path: Path) -> None:
    source = sourced(DINOV2)

    def mean(found: Any) -> Tensor:
        return found.last_hidden_state[:, 1:].mean(dim=1)  # type: ignore[no-any-return]

    path = script(source, tmp_path / "a.onnx", ("embedding",), read=mean)
    document = judged(path, source)
    assert document.graphs[0].outputs[0].reading == "mean of the patches"
    assert (document.passed, document.diagnosis[0].fault) == (False, "pooling")
    (tmp_path / "a.vconv.toml").write_text('[outputs]\n"mean of the patches" = "embedding"\n')
    stated = judged(path, source)
    assert (stated.passed, stated.graphs[0].stated) == (True, True)
    assert list(row_of(stated).outputs) == ["mean of the patches"]


def test_patches_as_a_map_are_read(sourced: Sourced, tmp_path: Path) -> None:
    source = sourced(DINOV2)
    rows = source.image_size[0] // source.network.numbers.patch

    def as_map(found: Any) -> Tensor:
        patches = found.last_hidden_state[:, 1:]
        return patches.transpose(1, 2).unflatten(2, (rows, rows))  # type: ignore[no-any-return]

    document = judged(script(source, tmp_path / "a.onnx", ("features",), read=as_map), source)
    assert [(one.reading, one.form) for one in document.graphs[0].outputs] == [("patches", "map")]
    assert document.passed


def test_every_output_is_judged_even_if_two_are_the_same_thing(sourced: Sourced, tmp_path: Path) -> None:
    source = sourced(DINOV2)

    def twice(found: Any) -> tuple[Tensor, Tensor]:
        return found.pooler_output, 1.1 * found.pooler_output

    row = row_of(judged(script(source, tmp_path / "a.onnx", ("a", "b"), read=twice), source))
    assert {name: str(one.status) for name, one in row.outputs.items()} == {
        "pooled": "passed",
        "pooled (b)": "failed",
    }
    assert row.status == "failed"


@pytest.mark.parametrize("fusions", ["off", "on"])
def test_a_graph_is_run_on_a_simulated_npu(sourced: Sourced, tmp_path: Path, fusions: str) -> None:
    source = sourced(DINOV2)
    path = script(source, tmp_path / "a.onnx")
    document = judged(path, source, device="npu-sim", fusions=fusions)
    (row,) = document.variants
    assert row.simulated
    assert (row.prediction is not None) and bool(row.prediction.changed.get("fusions")) == (fusions == "on")
    failed = [check.name for check in document.checks if check.status is Status.FAILED]
    assert failed == ["a.onnx: fusions"]


def test_one_graph_of_a_folder_that_cannot_be_judged_does_not_keep_the_others(
    sourced: Sourced, tmp_path: Path
) -> None:
    source = sourced(DINOV2)
    script(source, tmp_path / "onnx" / "model.onnx")
    (tmp_path / "onnx" / "text_model.onnx").write_text("version https://git-lfs.github.com/spec/v1")
    document = judged(tmp_path, source)
    left = {check.name: str(check.status) for check in document.checks if "text_model" in check.name}
    assert left == {"text_model.onnx: contract": "skipped"}
    assert document.passed


def test_a_fixed_batch_is_kept(sourced: Sourced, tmp_path: Path) -> None:
    source = sourced(DINOV2)
    document = judged(script(source, tmp_path / "a.onnx", batch=False), source)
    assert (document.graphs[0].batch, row_of(document).batches) == (2, (2,))
    assert document.passed


def test_a_graph_of_another_size_is_judged_at_its_size(sourced: Sourced, tmp_path: Path) -> None:
    source = sourced(DINOV2)
    side = source.image_size[0] + 2 * source.network.numbers.patch
    path = script(source, tmp_path / "a.onnx", images=torch.randn(1, 3, side, side))
    document = judged(path, source)
    assert document.graphs[0].size == (side, side)
    assert document.passed


def in_half(path: Path, target: Path) -> Path:
    """Write a copy of a graph whose weights are float16, widened where they are used."""
    model = onnx.load(path)
    widened = []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype("f2"), f"{tensor.name}_half")
            widened.append(helper.make_node("Cast", [half.name], [tensor.name], to=TensorProto.FLOAT))
            tensor.CopyFrom(half)
    nodes = [*widened, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, target)
    return target


def test_a_folder_of_a_hub_is_judged_graph_by_graph(sourced: Sourced, tmp_path: Path) -> None:
    source, hub = sourced(DINOV2), tmp_path / "hub"
    path = script(source, hub / "onnx" / "model.onnx")
    in_half(path, hub / "onnx" / "model_fp16.onnx")
    document = judged(hub, source)
    assert [(graph.path.rpartition("/")[2], graph.precision) for graph in document.graphs] == [
        ("model.onnx", "fp32"),
        ("model_fp16.onnx", "fp16"),
    ]
    rows = {(row.variant, row.engine): row for row in document.variants}
    assert rows["model", "onnxruntime"].status == "passed"
    # ONNX Runtime computes such a graph in float32, which says nothing of float16.
    plain = rows["model_fp16", "onnxruntime"]
    assert (plain.status, plain.reason) == ("skipped", "engine computes fp32")
    rounded = rows["model_fp16", "simulated-rounding"]
    assert (rounded.status, rounded.arithmetic, rounded.simulated) == ("passed", "fp16", True)
    weights = [check.detail for check in document.checks if check.name == "model_fp16.onnx: weights"]
    assert weights[0].startswith("all ")


def refused(path: Path, source: Source, **options: Any) -> str:
    """Return the one line of the error that a graph gives."""
    with pytest.raises(InputError) as caught:
        judged(path, source, **options)
    return str(caught.value)


def test_a_graph_with_a_second_input_is_refused(sourced: Sourced, tmp_path: Path) -> None:
    source = sourced(DINOV2)
    model = onnx.load(script(source, tmp_path / "a.onnx"))
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.BOOL, ["batch", 4]))
    onnx.save(model, tmp_path / "b.onnx")
    assert "does not take images alone | got inputs images" in refused(tmp_path / "b.onnx", source)


def test_weights_outside_of_the_folder_are_not_read(sourced: Sourced, tmp_path: Path) -> None:
    source = sourced(DINOV2)
    model = onnx.load(script(source, tmp_path / "in" / "a.onnx"))
    onnx.save(
        model, tmp_path / "in" / "b.onnx", save_as_external_data=True, location="b.data", size_threshold=0
    )
    assert judged(tmp_path / "in" / "b.onnx", source).passed
    shutil.move(tmp_path / "in" / "b.data", tmp_path / "b.data")
    assert "because of its external data | got b.data cannot be read" in refused(
        tmp_path / "in" / "b.onnx", source
    )
    outside = onnx.load(tmp_path / "in" / "b.onnx", load_external_data=False)
    for tensor in outside.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../b.data"
    onnx.save(outside, tmp_path / "in" / "c.onnx")
    assert "outside of the folder" in refused(tmp_path / "in" / "c.onnx", source)


def test_without_against_a_graph_is_refused(sourced: Sourced, tmp_path: Path) -> None:
    path = script(sourced(DINOV2), tmp_path / "a.onnx")
    with pytest.raises(InputError, match="says nothing of its original .* add --against"):
        vconv.validate(path)


@pytest.mark.parametrize("system", [DINOV3], indirect=True)
def test_an_artifact_is_not_judged_against_another(small_artifact: Path) -> None:
    with pytest.raises(InputError, match="--against is for graphs of other exporters"):
        vconv.validate(small_artifact, against=small_artifact)


@pytest.mark.parametrize("system", [DINOV3], indirect=True)
def test_an_artifacts_own_graph_is_judged_by_the_artifact(small_artifact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "taken"
    folder.mkdir()
    for name in ("model.onnx", "model.safetensors"):
        shutil.copy(small_artifact / name, folder)
    document = vconv.validate(
        folder / "model.onnx", against=small_artifact, quick=True, budget=0.05, reports=tmp_path / "r"
    )
    assert document.passed
    assert document.graphs[0].producer.startswith("vconv")


def test_on_the_command_line_the_report_is_drawn_and_saved(
    sourced: Sourced, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = sourced(DINOV2)
    path = script(source, tmp_path / "a.onnx", change=tanh_gelus)
    monkeypatch.chdir(tmp_path)
    arguments = ["validate", str(path), "--against", str(source.folder), "--quick", "--budget", "0.05"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1, done.output
    for words in ("takes images: NCHW float32, normalised", "diagnosis: activation", "expected 3 exact"):
        assert words in " ".join(done.output.split())
    (saved,) = (tmp_path / "reports").glob("*-validate.json")
    assert json.loads(saved.read_text())["graphs"][0]["outputs"][0]["reading"] == "last_hidden_state"
    assert "The graphs that were judged" in saved.with_suffix(".html").read_text()


@pytest.mark.parametrize("system", [DINOV3], indirect=True)
def test_an_artifact_and_graphs_are_compared_in_one_table(small_artifact: Path, tmp_path: Path) -> None:
    network = Artifact.open(small_artifact)
    folder = tmp_path / "source"
    folder.mkdir()
    system = miniature(SYSTEMS[DINOV3])
    source = open_source(Request(system, f"synthetic:{network.manifest.source.identity}"), folder)
    stock = script(source, tmp_path / "stock.onnx")
    document = vconv.compare([small_artifact, stock], quick=True, budget=0.05, reports=tmp_path / "r")
    statuses = {Path(path).name: str(status) for path, status in document.statuses.items()}
    assert statuses == {small_artifact.name: "passed", "stock.onnx": "failed"}
    assert {row.artifact for row in document.rows} == {str(small_artifact), str(stock)}
    assert [graph.path for graph in document.graphs] == [str(stock)]
    alone = vconv.compare([stock], against=small_artifact, quick=True, budget=0.05, reports=tmp_path / "r")
    assert [row.variant for row in alone.rows] == ["stock"]
    with pytest.raises(InputError, match="it is not known what these graphs are judged by"):
        vconv.compare([stock], reports=tmp_path / "r")


def test_a_comparison_says_which_graphs_of_a_folder_are_left_out(sourced: Sourced, tmp_path: Path) -> None:
    source, hub = sourced(DINOV2), tmp_path / "hub"
    script(source, hub / "onnx" / "model.onnx")
    (hub / "onnx" / "text_model.onnx").write_text("version https://git-lfs.github.com/spec/v1")
    document = vconv.compare([hub], against=source.folder, quick=True, budget=0.05, reports=tmp_path / "r")
    assert [(one.name, str(one.status)) for one in document.left_out] == [
        ("text_model.onnx: contract", "skipped")
    ]
    (log,) = (tmp_path / "r").glob("*-compare.log")
    assert "text_model.onnx: contract" in log.read_text()


def test_a_folder_in_which_no_graph_can_be_judged_is_refused_whatever_is_beside_it(
    sourced: Sourced, tmp_path: Path
) -> None:
    source, bad = sourced(DINOV2), tmp_path / "bad"
    good = script(source, tmp_path / "a.onnx")
    bad.mkdir()
    for name in ("x.onnx", "y.onnx"):
        (bad / name).write_text("version https://git-lfs.github.com/spec/v1")
    for paths in ([bad], [good, bad]):
        with pytest.raises(VconvError, match=r"x\.onnx"):
            vconv.compare(paths, against=source.folder, reports=tmp_path / "r")


@pytest.mark.parametrize(
    ("artifacts", "given", "against", "expected"),
    [
        (["a"], [None], "a", None),
        (["a", "b"], [None, "w"], "a", None),
        (["a", "b"], [None, "w"], "./b", "w"),
        (["a"], ["w"], "checkpoint", None),
        ([], [], "checkpoint", "w"),
        (["a"], ["w"], None, "w"),
    ],
    ids=range(6),
)
def test_weights_of_an_artifact_are_not_those_of_what_judges_graphs(
    artifacts: list[str], given: list[str | None], against: str | None, expected: str | None
) -> None:
    where, weights = _judge_of([Path(name) for name in artifacts], given, ("w",), against)
    assert (str(where), weights) == (against or artifacts[0], expected)


def test_weights_that_are_given_twice_for_graphs_alone_are_refused(sourced: Sourced, tmp_path: Path) -> None:
    source = sourced(DINOV2)
    path = script(source, tmp_path / "a.onnx")
    with pytest.raises(InputError, match="graphs are judged by one original"):
        vconv.compare([path], ["a", "b"], against=source.folder, reports=tmp_path / "r")


def test_weights_are_used_for_graphs_on_the_command_line(sourced: Sourced, tmp_path: Path) -> None:
    source = sourced(DINOV2)
    path = script(source, tmp_path / "a.onnx")
    missing = tmp_path / "nowhere"
    arguments = ["compare", str(path), "--against", str(source.folder), "--weights", str(missing)]
    done = CliRunner().invoke(main, [*arguments, "--reports", str(tmp_path / "r")])
    assert done.exit_code == 2
    assert f"no weights at {missing}" in done.output


def test_exporters_are_compared_in_one_table(sourced: Sourced, tmp_path: Path) -> None:
    source = sourced(DINOV2)
    document = vconv.compare(
        [source.folder],
        exporters=["vconv", "torch-script", "timm"],
        quick=True,
        budget=0.05,
        reports=tmp_path,
    )
    exports = {one.exporter: one for one in document.exports}
    assert [one.exported for one in document.exports] == [True, True, False]
    assert exports["timm"].reason == "it takes no models of transformers"
    assert exports["vconv"].fusions == {}
    assert exports["torch-script"].fusions == {"GeluONNXFusionPass": source.network.gelus}
    for one in (exports["vconv"], exports["torch-script"]):
        assert one.seconds > 0 < one.peak_rss_bytes
        assert (one.nbytes or 0) > 1e5 and (one.nodes or 0) > 50
    assert {row.variant: str(row.status) for row in document.rows} == {
        "original-torch-fp32": "skipped",
        "vconv": "passed",
        "torch-script": "passed",
    }


@pytest.mark.parametrize(
    ("statuses", "names", "whole"),
    [
        ({"vconv": "passed", "timm": "failed"}, ["vconv", "timm"], "passed"),
        ({"vconv": "failed", "timm": "passed"}, ["vconv", "timm"], "failed"),
        ({"timm": "passed"}, ["vconv", "timm"], "failed"),
        ({"timm": "passed"}, ["timm"], "passed"),
        ({"timm": "failed"}, ["timm"], "failed"),
        ({}, ["timm"], "failed"),
        ({"vconv": "incomplete", "timm": "passed"}, ["vconv", "timm"], "incomplete"),
        ({"timm": "incomplete"}, ["timm"], "incomplete"),
    ],
    ids=range(8),
)
def test_a_comparison_of_exporters_is_judged_by_vconvs_own_graph(
    statuses: dict[str, str], names: list[str], whole: str
) -> None:
    found = {name: Status(status) for name, status in statuses.items()}
    assert _whole(found, dict.fromkeys(names)) == whole


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["torch"], "unknown exporter"),
        (["optimum"], "--exporters optimum is not complete"),
        (["timm=x"], "timm needs no folder"),
        (["optimum=/nowhere"], "--exporters optimum names no virtual environment with it"),
    ],
    ids=("unknown", "incomplete", "folder", "nowhere"),
)
def test_wrong_exporters_are_refused(sourced: Sourced, tmp_path: Path, names: list[str], said: str) -> None:
    with pytest.raises(VconvError, match=said):
        vconv.compare([sourced(DINOV2).folder], exporters=names, reports=tmp_path)


@pytest.mark.parametrize(
    "given",
    [["--exporters", "vconv,nothing"], ["--exporters", "vconv", "--exporters", "nothing"]],
    ids=("commas", "repeated"),
)
def test_exporters_are_separated_by_commas_or_repeated(
    sourced: Sourced, tmp_path: Path, given: list[str]
) -> None:
    arguments = ["compare", str(sourced(DINOV2).folder), *given, "--reports", str(tmp_path)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert "unknown exporter | got 'nothing'" in done.output


def test_exporters_of_several_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--exporters compares one model"):
        vconv.compare(["a", "b"], exporters="all", reports=tmp_path)
    with pytest.raises(InputError, match="--exporters compares one model"):
        vconv.compare(["a"], ["v", "w"], exporters="all", reports=tmp_path)
    with pytest.raises(InputError, match="--against is not used with --exporters"):
        vconv.compare(["a"], against="b", exporters="all", reports=tmp_path)


def test_a_bug_of_vconvs_own_export_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = ("-c", "def own_export():\n    raise TypeError('a bug of ours')\nown_export()")
    monkeypatch.setattr(child, "command", lambda module: (sys.executable, *broken))
    with pytest.raises(Bug, match=r"(?s)own_export.*TypeError: a bug of ours"):
        _run("vconv", None, tmp_path, "transformers", None, tmp_path, lambda line: None)
