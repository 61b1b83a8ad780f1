from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

from vconv.catalog.systems import System
from vconv.convert.ascend import atc_script, chips, offline_model, operators
from vconv.convert.ascend.atc import CompileOrder
from vconv.errors import ArtifactError, EngineError
from vconv.types import INPUT, silent

BATCH = 2


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def without_atc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_dynamic_graph_uses_only_what_atc_supports(small_artifact: Path) -> None:
    model = ir.load(small_artifact / "model.onnx")
    assert {node.op_type for node in model.graph.all_nodes()} <= operators.SUPPORTED
    assert model.opset_imports[""] <= operators.GREATEST_OPSET
    assert model.ir_version <= operators.GREATEST_IR_VERSION


@pytest.mark.usefixtures("without_atc")
def test_without_atc_the_artifact_gets_graph_settings_and_script_and_the_user_sees_a_message(
    copied: Path, scratch: Path, size: tuple[int, int]
) -> None:
    said: list[str] = []
    order = CompileOrder.of("Ascend910B4", "fp16")
    offline_model.make(copied, scratch, order, size, BATCH, said.append)
    made = copied / "om"
    assert names(made) == ["atc.sh", "fusion_switch.json", "keep_dtype.cfg", "model.onnx"]
    assert os.access(made / "atc.sh", os.X_OK)
    assert (made / "atc.sh").read_text() == atc_script.script(
        order.command(size, BATCH), ["fusion_switch.json", "keep_dtype.cfg"]
    )
    assert said == [
        "om/model.om is not made, because atc is not on PATH: run om/atc.sh on a machine with CANN"
    ]
    assert not any((scratch / "om").iterdir())


@pytest.mark.usefixtures("without_atc")
@pytest.mark.parametrize("gears", [(), (1, 4)], ids=["one batch", "gears"])
def test_the_graph_for_atc_computes_the_same_as_the_artifacts_graph_without_a_weights_file(
    gears: tuple[int, ...], copied: Path, scratch: Path, size: tuple[int, int]
) -> None:
    order = CompileOrder.of("Ascend310P3", gears=gears)
    offline_model.make(copied, scratch, order, size, BATCH, silent)
    images = np.random.default_rng(0).standard_normal((BATCH, 3, *size), np.float32)
    found, expected = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {INPUT: images})
        for path in (copied / "om" / "model.onnx", copied / order.source)
    )
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    graph = onnx.load(copied / "om" / "model.onnx", load_external_data=False).graph
    assert not any(value.external_data for value in graph.initializer)


@pytest.mark.usefixtures("without_atc")
def test_norms_that_are_spelled_out_stay_in_float32_by_their_names(
    copied: Path, scratch: Path, size: tuple[int, int]
) -> None:
    order = CompileOrder.of("Ascend910B4", "fp16", (1, 4))
    compiled = offline_model.make(copied, scratch, order, size, BATCH, silent, npu_opset=13)
    model = onnx.load(copied / "om" / "model.onnx", load_external_data=False)
    names = {node.name: node.op_type for node in model.graph.node}
    kept = (copied / "om" / "keep_dtype.cfg").read_text().splitlines()
    assert kept == [*(f"OpType::{kind}" for kind in chips.SENSITIVE), *compiled.norms]
    held = [names[name] for name in compiled.norms]
    assert held.count("Sqrt") == list(names.values()).count("Sqrt") > 0
    assert (compiled.opset, compiled.ir_version) == (13, 7)


@pytest.mark.usefixtures("atc")
@pytest.mark.parametrize("gears", [(), (1, 4)], ids=["one batch", "gears"])
def test_with_atc_the_artifact_gets_the_model_and_the_settings_and_no_graph(
    gears: tuple[int, ...], copied: Path, scratch: Path, size: tuple[int, int]
) -> None:
    said: list[str] = []
    order = CompileOrder.of("Ascend910B4", "origin", gears)
    offline_model.make(copied, scratch, order, size, BATCH, said.append)
    assert names(copied / "om") == [
        "fusion_result.json",
        "fusion_switch.json",
        "model.om",
        "op_precision.ini",
    ]
    assert said == [f"om/model.om: {' '.join(order.command(size, BATCH))}"]


@pytest.mark.usefixtures("atc")
@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
@pytest.mark.parametrize(
    ("fails", "got"),
    [
        ("code", "EZ3003: No supported Ops kernel and engine are found"),
        ("silent", "exit status 3, last line 'ATC start working now"),
        ("no model", "exit status 0, last line 'ATC run success"),
    ],
)
def test_a_failure_of_atc_gives_one_line_and_leaves_no_folder(
    fails: str,
    got: str,
    system: System,
    copied: Path,
    scratch: Path,
    size: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ATC_FAILS", fails)
    with pytest.raises(EngineError, match=f"atc did not compile the graph .*got {got}") as caught:
        offline_model.make(copied, scratch, CompileOrder.of("Ascend910B4"), size, BATCH, silent)
    assert "\n" not in str(caught.value)
    assert not (copied / "om").exists()


@pytest.mark.parametrize(("operator", "opset", "got"), [("Gelu", 20, "Gelu"), ("Erf", 19, "opset 19")])
def test_a_graph_that_atc_does_not_support_is_refused_before_it_is_written(
    operator: str, opset: int, got: str, tmp_path: Path, scratch: Path
) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in (INPUT, "cls")]
    graph = helper.make_graph([helper.make_node(operator, [INPUT], ["cls"])], "g", values[:1], values[1:])
    imports = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=imports), tmp_path / "model.npu.onnx")
    with pytest.raises(ArtifactError, match=rf"ATC does not support the graph model\.npu\.onnx .*got {got}"):
        offline_model.make(tmp_path, scratch, CompileOrder.of("Ascend910B4"), (4, 4), 1, silent)
    assert not (tmp_path / "om").exists()
    assert not any((scratch / "om").iterdir())
