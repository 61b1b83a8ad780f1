"""`vconv export --npu-opset N` the whole way: exported, validated, taken apart, predicted, compiled."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
from click.testing import CliRunner
from examples import FURTHER

import vconv
from vconv.artifact import manifest
from vconv.artifact.artifact import Artifact
from vconv.catalog.systems import SYSTEMS, System, miniature
from vconv.cli import main
from vconv.convert.architectures.base import Capability
from vconv.convert.ascend.fusions.table import harmful
from vconv.convert.graphs.layer_norms import layer_norms
from vconv.errors import InputError
from vconv.runtime.simulation.device import lack
from vconv.types import WEIGHTS_FILE
from vconv.validators.checks.final_norm import wrongly_normed
from vconv.validators.checks.inspected_graph import open_graph
from vconv.validators.faults.operators import alter
from vconv.validators.faults.workshop import ArtifactCopy
from vconv.validators.report.card.command import export_options

GRAPH, NAME = "model.npu.onnx", "onnx-fp32-npu"
SYSTEM = "dinov3-vits16"


@pytest.fixture
def system() -> System:
    """One system: what is tested here is the same for all."""
    return SYSTEMS[SYSTEM]


@pytest.fixture
def at_13(small_system: System, once: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of an artifact whose static graph and compiled graph are of opset 13."""

    def make(part: Path) -> None:
        options: dict[str, Any] = {"npu_opset": 13, "format": "om", "soc": "Ascend910B4", "gears": (1, 2)}
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("PATH", "")
            vconv.export(small_system, "synthetic:1", part / "artifact", batch=2, **options)

    return shutil.copytree(once("npu-opset-13", make) / "artifact", tmp_path / "artifact")


def opset_of(path: Path) -> int:
    (entry,) = onnx.load(path, load_external_data=False).opset_import
    return int(entry.version)


def test_only_the_graphs_for_an_npu_are_lowered_and_the_manifest_says_so(at_13: Path) -> None:
    records = {record.path: record.graph for record in manifest.load(at_13).variants if record.graph}
    found = {path: (graph.opset, graph.ir_version) for path, graph in records.items()}
    assert found == {"model.onnx": (18, 8), GRAPH: (13, 7), "om/model.om": (13, 7)}
    for path in (GRAPH, "om/model.onnx"):
        onnx.checker.check_model(str(at_13 / path), full_check=True)
        model = ir.load(at_13 / path)
        assert opset_of(at_13 / path) == 13
        assert harmful(model) == {} and layer_norms(model)
    assert "LayerNormalization" not in records["om/model.om"].operators
    assert records["om/model.om"].operators == Artifact.open(at_13).variant("om-fp32").graph.operators
    assert [name for name in records[GRAPH].passes if name == "lower-opset"] == ["lower-opset"]


def test_it_validates_and_taken_apart_each_stage_keeps_to_its_reference(at_13: Path) -> None:
    report = vconv.validate(at_13, quick=True, budget=1e-3)
    assert (report.status, {row.status for row in report.variants if row.variant == NAME}) == (
        "passed",
        {"passed"},
    )
    document = vconv.bisect(at_13, NAME)
    assert document.status == "passed"
    assert [row.stage for row in document.stages] == ["embeddings", "block 0", "block 1", "block 2", "head"]
    assert all(row.own <= document.bound for row in document.stages)


@pytest.mark.parametrize(
    ("operator", "place", "stage"), [("Softmax", 1, "block 1"), ("Sqrt", 2, "block 1"), ("Sqrt", -1, "head")]
)
def test_a_wrong_operator_is_found_also_inside_a_norm(
    operator: str, place: int, stage: str, at_13: Path, tmp_path: Path
) -> None:
    shop = ArtifactCopy.open(Artifact.open(at_13), tmp_path / "shop")
    model = shop.graph(GRAPH)
    # A block has two norms, and one softmax.
    node = [node.name for node in model.graph.node if node.op_type == operator][place]
    alter(model, node, shop.value_of)
    shop.save_graph(GRAPH, model)
    shop.rehash()
    document = vconv.bisect(shop.folder, NAME)
    assert (document.passed, document.worst_stage) == (False, stage)
    # The reference has the values of whole norms, not of their parts: the norm is named.
    assert document.culprit.node.split("_opset13_")[0] == node.split("_opset13_")[0]


def test_a_wrong_epsilon_of_a_norm_that_is_spelled_out_fails_the_check(at_13: Path, tmp_path: Path) -> None:
    model = ir.load(at_13 / GRAPH)
    norm = layer_norms(model)[0]
    (added,) = (node for node in norm.nodes if node.op_type == "Add")
    value = added.inputs[1]
    assert value is not None and value.const_value is not None
    value.const_value = ir.tensor(value.const_value.numpy() * 3, name=value.name)
    shop = ArtifactCopy.open(Artifact.open(at_13), tmp_path / "shop")
    shop.save_graph(GRAPH, ir.to_proto(model))
    shop.rehash()
    (check,) = (
        check
        for check in vconv.validate(shop.folder, quick=True, budget=1e-3).checks
        if check.name == f"{GRAPH}: epsilon"
    )
    assert (check.status, check.fault) == ("failed", "epsilon")
    assert re.match(r"1 of \d+ LayerNorms with ", check.detail)


def test_the_outputs_of_single_blocks_keep_their_final_norm(small_system: System, tmp_path: Path) -> None:
    outputs = "pooled,feature_map:1,3,raw_feature_map:2"
    vconv.export(small_system, "synthetic:1", tmp_path / "a", outputs=outputs, npu_opset=13)
    checks = {check.name: check for check in vconv.validate(tmp_path / "a", quick=True, budget=1e-3).checks}
    assert checks[f"{GRAPH}: final norm"].status == "passed"
    assert vconv.bisect(tmp_path / "a", NAME).status == "passed"
    path = tmp_path / "a" / GRAPH
    model = ir.load(path)
    # Without its norm, the output comes from what the norm would have taken.
    for norm in layer_norms(model):
        if norm.scale is layer_norms(model)[-1].scale and norm.given is not None:
            last = next(iter(norm.nodes[-1].outputs[0].uses())).node.outputs[0]
            last.replace_all_uses_with(norm.given)
    ir.save(model, path)
    subject = open_graph(
        tmp_path / "a", GRAPH, WEIGHTS_FILE, Artifact.open(tmp_path / "a").network, (1, 1), 1
    )
    assert wrongly_normed(subject).startswith("feature_map_1 comes from ")


@pytest.mark.skipif(bool(lack()), reason=lack())
def test_the_simulated_npu_computes_it(at_13: Path) -> None:
    report = vconv.validate(at_13, device="npu-sim", quick=True, budget=1e-3)
    (row,) = (row for row in report.variants if row.variant == NAME)
    assert row.status == "passed" and row.device.startswith("npu")


def test_its_opset_is_shown_and_the_card_names_it_and_the_option(at_13: Path) -> None:
    shown = CliRunner().invoke(main, ["info", str(at_13)]).stdout
    assert "13, 7" in shown
    assert "opset 13, IR 7" in (at_13 / "README.md").read_text()
    options = export_options(manifest.load(at_13))
    assert options.startswith("--batch 2 --npu-opset 13 --format om --soc Ascend910B4")


def test_an_artifact_of_before_whose_graph_has_opset_18_is_still_judged(
    small_system: System, tmp_path: Path
) -> None:
    vconv.export(small_system, "synthetic:1", tmp_path / "a", npu_opset=18, golden=False)
    assert opset_of(tmp_path / "a" / GRAPH) == 18
    assert vconv.validate(tmp_path / "a", quick=True, budget=1e-3).status == "passed"


def test_by_default_the_graph_for_an_npu_has_opset_17(small_artifact: Path) -> None:
    assert opset_of(small_artifact / GRAPH) == 17
    assert export_options(manifest.load(small_artifact)) == "--batch 2"


@pytest.mark.parametrize("wrong", [9, 14, 19])
def test_another_opset_is_refused_in_one_line(wrong: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"the opset for the NPU .*got {wrong} .*one of 13, 15, 17, 18"):
        vconv.export(SYSTEM, "synthetic", tmp_path / "a", npu_opset=wrong)
    assert not (tmp_path / "a").exists()


@pytest.mark.full
@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("name", sorted(FURTHER))
def test_every_further_structure_is_exported_and_agrees_with_its_reference(
    name: str, opset: int, tmp_path: Path
) -> None:
    document = vconv.export(miniature(FURTHER[name]), "synthetic:1", tmp_path / "a", npu_opset=opset)
    (row,) = (row for row in document["variants"] if row["variant"] == NAME)
    assert row["status"] == "passed"
    assert all(output["vector_relative_error"] < 1e-5 for output in row["outputs"].values())
    if not Artifact.open(tmp_path / "a").network.lack(Capability.BLOCKS):
        assert vconv.bisect(tmp_path / "a", NAME).status == "passed"
