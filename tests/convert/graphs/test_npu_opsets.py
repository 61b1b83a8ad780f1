"""The graphs for an NPU in every opset compute what the stock library does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from examples import EXAMPLES
from onnx import defs
from torch import Tensor

from vconv.convert.ascend.fusions.table import harmful
from vconv.convert.ascend.operators import DEFAULT_NPU_OPSET, GREATEST_OPSET, NPU_OPSETS, SUPPORTED
from vconv.convert.conversion import image_size
from vconv.convert.files.safetensors_file import read_header
from vconv.convert.graphs import tracing
from vconv.convert.graphs.layer_norms import layer_norms
from vconv.convert.graphs.tracing import TracedGraph
from vconv.types import INPUT, WEIGHTS_FILE

LOWERED = [opset for opset in NPU_OPSETS if opset < GREATEST_OPSET]
IR_VERSIONS = {13: 7, 15: 8, 17: 8}
"""The IR version that was released with each opset: https://onnx.ai/onnx/api/helper.html."""


@pytest.fixture
def traced(exported_small: Any) -> TracedGraph:
    """The graph of a shrunk system for all batches, in the opset of the exporter."""
    found, folder = exported_small.conversion, exported_small.folder
    size, entries = image_size(exported_small.source), read_header(folder / WEIGHTS_FILE)
    return tracing.trace(folder, found.network, found.patches, size, tracing.DEFAULT_OPSET, entries, False)


@pytest.fixture
def place(exported_small: Any, tmp_path: Path) -> Path:
    """A folder with the weights."""
    shutil.copyfile(exported_small.folder / WEIGHTS_FILE, tmp_path / WEIGHTS_FILE)
    return tmp_path


@pytest.mark.parametrize("system", EXAMPLES, indirect=True)
def test_a_graph_in_every_opset_agrees_with_the_stock_library_and_fits_its_schemas(
    exported_small: Any,
    traced: TracedGraph,
    place: Path,
    pixel_values: Tensor,
    corrected: Callable[[Any], Any],
    named: Callable[[Any, Tensor], dict[str, Any]],
    distance: Callable[[Any, Any], float],
) -> None:
    expected = named(corrected(exported_small.source), pixel_values)
    for opset in LOWERED:
        path = place / f"opset-{opset}.onnx"
        tracing.write_graph(path, traced, len(pixel_values), npu_opset=opset)
        assert_fits(path, opset, exported_small.conversion.network.numbers.epsilon)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = session.run(None, {INPUT: pixel_values.numpy()})
        for actual, (name, wanted) in zip(found, expected.items(), strict=True):
            assert actual.dtype == np.float32
            assert distance(actual, wanted) < 1e-5, (opset, name)


def assert_fits(path: Path, opset: int, epsilon: float) -> None:
    """Assert that a file declares an opset, and that ONNX's own schemas of it have all that it uses."""
    onnx.checker.check_model(str(path), full_check=True)
    proto = onnx.load(path, load_external_data=False)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", opset)]
    assert proto.ir_version == IR_VERSIONS[opset]
    assert {node.op_type for node in proto.graph.node} <= SUPPORTED
    assert len({node.name for node in proto.graph.node}) == len(proto.graph.node)
    for node in proto.graph.node:
        schema = defs.get_schema(node.op_type, opset)
        assert {attribute.name for attribute in node.attribute} <= set(schema.attributes)
        assert schema.min_input <= len(node.input) <= schema.max_input
    model = ir.from_proto(proto)
    norms = layer_norms(model)
    assert {len(norm.nodes) for norm in norms} == {1 if opset >= DEFAULT_NPU_OPSET else 8}
    assert {round(norm.epsilon / epsilon, 5) for norm in norms} == {1}
    assert harmful(model) == {}


def test_the_default_is_the_least_opset_that_has_a_norm() -> None:
    assert defs.get_schema("LayerNormalization").since_version == DEFAULT_NPU_OPSET
    assert (*sorted(NPU_OPSETS),) == NPU_OPSETS


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_a_lowered_graph_is_the_same_bytes_each_time(traced: TracedGraph, tmp_path: Path) -> None:
    paths = tmp_path / "first.onnx", tmp_path / "second.onnx"
    for path in paths:
        tracing.write_graph(path, traced, 2, npu_opset=13)
    assert paths[0].read_bytes() == paths[1].read_bytes()
