from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from difficult_names import IMAGES, graph

from vconv.artifact.artifact import Artifact
from vconv.runtime.devices.table import find_device
from vconv.runtime.stages.pieces import every_value, value_sizes
from vconv.types import Array

CPU = find_device("cpu")


def whole(model: onnx.ModelProto, folder: Path, images: Array) -> dict[str, Array]:
    """Every value of a graph, as outputs of one run of ONNX Runtime without optimisations."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output if name]
    del made.graph.output[:]
    made.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    session = onnxruntime.InferenceSession(made.SerializeToString(), options)
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: images}), strict=True))


@pytest.mark.parametrize("most_bytes", [1, 200, 2**28], ids=["nodes", "a_few", "one"])
def test_a_graph_in_pieces_gives_every_value_of_the_whole_bit_by_bit(most_bytes: int) -> None:
    model = graph()
    expected = whole(model, Path(), IMAGES)
    found = list(every_value(model, Path(), CPU, {"images": IMAGES}, most_bytes))
    assert [node.SerializeToString() for node, _ in found] == [
        node.SerializeToString() for node in model.graph.node
    ]
    values = {name: value for _, some in found for name, value in some.items()}
    assert list(values) == list(expected)
    for name, value in values.items():
        assert value.dtype == expected[name].dtype
        np.testing.assert_array_equal(value, expected[name])


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_a_graph_with_its_weights_in_a_file_runs_in_pieces(small_artifact: Path) -> None:
    artifact = Artifact.open(small_artifact)
    height, width = artifact.manifest.size
    images = np.random.default_rng(0).normal(size=(2, 3, height, width)).astype(np.float32)
    model = onnx.load(small_artifact / "model.npu.onnx", load_external_data=False)
    expected = whole(model, small_artifact, images)
    for _, values in every_value(model, small_artifact, CPU, {"pixel_values": images}, 2**16):
        for name, value in values.items():
            np.testing.assert_array_equal(value, expected.pop(name))
    assert not expected


def test_a_value_that_no_later_node_reads_is_dropped() -> None:
    alive: list[weakref.ref[Array]] = []
    at_once = 0
    for _, values in every_value(graph(), Path(), CPU, {"images": IMAGES}, 1):
        alive += map(weakref.ref, values.values())
        del values
        at_once = max(at_once, sum(one() is not None for one in alive))
    # The first product, and what is computed from it, are needed until the GELU is done.
    assert at_once == 3


def test_the_size_of_a_value_without_a_shape_is_that_of_the_largest_input() -> None:
    model = graph()
    sizes = value_sizes(model)
    assert (sizes["fc1"], sizes["left"], sizes["index"], sizes["scalar"]) == (144, 72, 48, 4)
    kept = [value for value in model.graph.value_info if value.name != "left"]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    assert value_sizes(model)["left"] == 144
