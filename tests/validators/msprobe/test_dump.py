"""What is written for both sides, read by a stand-in for msprobe: tests/support/msprobe_reader.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from difficult_names import IMAGES, LONG, WEIGHT, graph
from msprobe_reader import pairs
from onnx.reference import ReferenceEvaluator
from torch.nn import functional

from vconv.runtime.devices.base import Settings
from vconv.runtime.devices.table import find_device
from vconv.runtime.simulation.arithmetic import Arithmetic, round_hf32
from vconv.types import Array
from vconv.validators.msprobe import dump, mapping
from vconv.validators.msprobe.dump import Subject, Target

SIMULATED = find_device("npu-sim", Settings())
TIME = 1796036488926994


def written(folder: Path, arithmetic: Arithmetic) -> Target:
    subject = Subject(graph(), Path(), {"images": IMAGES}, TIME)
    for name in ("golden", "target"):
        (folder / name).mkdir()
    golden = dump.write_golden(subject, find_device("cpu"), folder / "golden")
    found = dump.write_target(subject, arithmetic, SIMULATED, golden, folder / "target")
    (folder / "operators.json").write_text(json.dumps(mapping.document(["images"], found.operators)))
    return found


def by_onnx() -> dict[str, Array]:
    """Every value of the graph, by ONNX's own reference."""
    model = graph()
    names = [name for node in model.graph.node for name in node.output]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return dict(zip(names, ReferenceEvaluator(model).run(None, {"images": IMAGES}), strict=True))


GOLDEN = {
    "fold.0": "wt",
    "_blocks_0_fc1_MatMul.0": "fc1",
    "_act_Div.0": "scaled",
    "_act_Erf.0": "erf",
    "_act_Add.0": "added",
    "_act_Mul.0": "product",
    "_act_Mul_1.0": "gelu",
    "split_0.0": "left",
    "split_0.1": "right",
    "a_b.0": "sum",
    "a_b_2.0": "negative",
    "pre_qnt_norm.0": "same",
    "ReduceSum_12.0": "scalar",
}


def test_every_value_has_a_golden_file_with_its_own_type(tmp_path: Path) -> None:
    written(tmp_path, Arithmetic())
    expected = by_onnx()
    table = (tmp_path / "golden" / "mapping.csv").read_text()
    long = LONG.replace(".", "_")
    assert table == f"{TIME}0.npy,{long}.0.{TIME}.npy\n"
    files = {f"{name}.{TIME}.npy": value for name, value in GOLDEN.items()} | {f"{TIME}0.npy": "index"}
    there = {path.name for path in (tmp_path / "golden").iterdir()}
    assert there == {*files, "mapping.csv"}
    for file, name in files.items():
        value = np.load(tmp_path / "golden" / file)
        assert value.dtype == expected[name].dtype
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6)
    assert np.load(tmp_path / "golden" / f"{TIME}0.npy").dtype == np.int64


def test_without_any_change_target_and_golden_are_the_same(tmp_path: Path) -> None:
    found = written(tmp_path, Arithmetic())
    tensors = pairs(tmp_path)
    assert len(tensors) == len(found.operators) == 12
    for target, golden in tensors.values():
        assert target.dtype == golden.dtype
        np.testing.assert_array_equal(target, golden)
    assert [row.figures.values["MaxAbsoluteError"] for row in found.rows] == [0.0] * 13
    assert (found.constants, found.fused) == (("fold",), {})
    assert [row.operator.name for row in found.rows if row.is_output] == ["x" * 120, "ReduceSum_12"]


def test_the_target_is_what_the_simulated_npu_computes(tmp_path: Path) -> None:
    written(tmp_path, Arithmetic(matmul="hf32"))
    operands = [torch.from_numpy(one) for one in (IMAGES, WEIGHT.T.copy())]
    expected = torch.matmul(*map(round_hf32, operands)).numpy()
    target, golden = pairs(tmp_path)["/blocks.0/fc1/MatMul"]
    np.testing.assert_allclose(target, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(golden - expected).max() > 1e-4
    # The error goes on to what is computed from it.
    target, golden = pairs(tmp_path)["/act/Div"]
    np.testing.assert_allclose(target, expected / np.sqrt(np.float32(2)), rtol=1e-5, atol=1e-6)


def test_a_fused_operator_stands_for_the_nodes_that_it_replaced(tmp_path: Path) -> None:
    found = written(tmp_path, Arithmetic(fusions="on"))
    inner = ("/act/Div", "/act/Erf", "/act/Add", "/act/Mul")
    assert found.fused == {"/act/Mul_1": inner}
    tensors = pairs(tmp_path)
    assert len(tensors) == 8
    assert not set(inner) & set(tensors)
    target, golden = tensors["/act/Mul_1"]
    x = torch.from_numpy(np.asarray(by_onnx()["fc1"]))
    np.testing.assert_allclose(target, functional.gelu(x, approximate="tanh").numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(golden, functional.gelu(x).numpy(), rtol=1e-5, atol=1e-6)
    (gelu,) = (one for one in found.operators if one.type == "Gelu")
    assert gelu.ground_truth == ",".join([*inner, "/act/Mul_1"])
    assert gelu.inputs == ("/blocks.0/fc1/MatMul:0",)
    (after,) = (one for one in found.operators if one.type == "Split")
    assert after.inputs == ("/act/Mul_1:0",)


def test_a_node_that_is_disturbed_is_a_precision_error_and_no_other_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = dump.every_value

    def disturbed(model: Any, *rest: Any) -> Iterator[tuple[Any, dict[str, Array]]]:
        """Change what is dumped of one node on the simulated NPU, but not what others read."""
        simulated = rest[1].simulated
        for node, values in real(model, *rest):
            wrong = simulated and node.name == "/act/Add"
            yield node, {name: value * 1.1 if wrong else value for name, value in values.items()}

    monkeypatch.setattr(dump, "every_value", disturbed)
    found = written(tmp_path, Arithmetic(matmul="hf32"))
    assert [row.operator.name for row in found.rows if row.departs] == ["/act/Add"]
    (row,) = (row for row in found.rows if row.departs)
    # msprobe's bound on the relative Euclidean distance is 0.05; its cosine does not see a factor.
    assert row.figures.values["RelativeEuclideanDistance"] == pytest.approx(0.1, abs=1e-2)
    assert row.figures.values["CosineSimilarity"] > 0.9999
