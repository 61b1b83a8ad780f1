"""Weights that are found again by their content, in graphs made by hand of an original's tensors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

from vconv.catalog.systems import SYSTEMS, miniature
from vconv.convert.sources.base import Source
from vconv.convert.sources.table import Request, open_source
from vconv.types import WEIGHTS_FILE, Array, Check, Status
from vconv.validators.foreign.graph_file import open_file
from vconv.validators.foreign.weights import check_weights, find, misplaced

Tensors = dict[str, Array]
QUERY, KEY, VALUE = (
    f"encoder.layer.0.attention.attention.{part}.weight" for part in ("query", "key", "value")
)
POSITIONS = "embeddings.position_embeddings"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("source")
    return open_source(Request(miniature(SYSTEMS["dinov2-large"]), "synthetic:1"), folder)


@pytest.fixture
def tensors(source: Source) -> Tensors:
    """The original's tensors, in the order in which its blocks use them."""
    found = load_file(source.folder / WEIGHTS_FILE)
    unused = source.network.unused
    return {name: value for name, value in found.items() if name not in unused}


def written(tensors: Tensors, path: Path, external: bool = False) -> Path:
    """Write a graph that reads each tensor once, in order."""
    constants = [
        numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in tensors.items()
    ]
    nodes = [
        helper.make_node("ReduceSum", [name], [f"sum_{place}"], keepdims=0)
        for place, name in enumerate(tensors)
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 56, 56])
    last = helper.make_tensor_value_info(f"sum_{len(tensors) - 1}", TensorProto.FLOAT, [])
    graph = helper.make_graph(nodes, "g", [images], [last], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    onnx.save(model, path, save_as_external_data=external, location="weights.bin", size_threshold=0)
    return path


def checked(source: Source, path: Path) -> Check:
    graph = open_file(path)
    found = find(graph, source.network, source.original)
    return check_weights(graph, found, source.network, source.original)


def renamed(tensors: Tensors) -> Iterator[tuple[str, Array]]:
    for place, value in enumerate(tensors.values()):
        yield f"onnx::MatMul_{place}", value.T if value.ndim == 2 else value


@pytest.mark.parametrize("external", [False, True], ids=("inside", "beside"))
def test_renamed_and_transposed_weights_are_found(
    source: Source, tensors: Tensors, tmp_path: Path, external: bool
) -> None:
    check = checked(source, written(dict(renamed(tensors)), tmp_path / "a.onnx", external))
    assert check.status is Status.PASSED, check.detail


def test_joined_and_divided_weights_are_found(source: Source, tensors: Tensors, tmp_path: Path) -> None:
    joined = np.concatenate([tensors.pop(name) for name in (QUERY, KEY, VALUE)]).T
    positions = tensors.pop(POSITIONS)
    tensors = {"qkv": joined, "first": positions[:, :1], "rest": positions[:, 1:], **tensors}
    check = checked(source, written(tensors, tmp_path / "a.onnx"))
    assert check.status is Status.PASSED, check.detail


def test_float16_weights_are_found(source: Source, tensors: Tensors, tmp_path: Path) -> None:
    halved = {name: value.astype(np.float16) for name, value in tensors.items()}
    path = written(halved, tmp_path / "a.onnx")
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, path)
    assert checked(source, path).status is Status.PASSED


def test_weights_of_two_blocks_that_are_exchanged_fail(
    source: Source, tensors: Tensors, tmp_path: Path
) -> None:
    for name in [name for name in tensors if ".layer.0." in name]:
        other = name.replace(".layer.0.", ".layer.2.")
        tensors[name], tensors[other] = tensors[other], tensors[name]
    check = checked(source, written(tensors, tmp_path / "a.onnx"))
    assert (check.status, check.fault) == (Status.FAILED, "weights")
    assert "of block 2 is used where that of block 0 belongs" in check.detail


def test_a_sound_order_is_not_suspected(source: Source, tensors: Tensors, tmp_path: Path) -> None:
    graph = open_file(written(tensors, tmp_path / "a.onnx"))
    assert misplaced(graph, find(graph, source.network, source.original)) == ""


def test_the_place_of_a_weight_is_where_it_meets_the_images(
    source: Source, tensors: Tensors, tmp_path: Path
) -> None:
    path = written(tensors, tmp_path / "a.onnx")
    model = onnx.load(path)
    nodes = list(model.graph.node)
    images = [helper.make_node("ReduceMean", ["images"], ["grey"], keepdims=0)]
    held = [helper.make_node("Identity", [name], [f"held_{name}"]) for name in reversed([*tensors])]
    for place, node in enumerate(nodes):
        node.CopyFrom(helper.make_node("Mul", [f"held_{node.input[0]}", "grey"], [f"used_{place}"]))
    del model.graph.node[:], model.graph.output[:]
    model.graph.node.extend([*images, *held, *nodes])
    last = f"used_{len(nodes) - 1}"
    shape = list(list(tensors.values())[-1].shape)
    model.graph.output.append(helper.make_tensor_value_info(last, TensorProto.FLOAT, shape))
    onnx.save(model, path)
    check = checked(source, path)
    assert check.status is Status.PASSED, check.detail


@pytest.mark.parametrize(
    ("name", "fault"), [(KEY, "weights"), (POSITIONS, "position embedding")], ids=("key", "positions")
)
def test_a_weight_that_differs_a_little_fails_with_its_class(
    source: Source, tensors: Tensors, tmp_path: Path, name: str, fault: str
) -> None:
    tensors[name] = tensors[name] * np.float32(1.001)
    check = checked(source, written(tensors, tmp_path / "a.onnx"))
    assert (check.status, check.fault) == (Status.FAILED, fault)
    assert f"differs from {name} by 1.0e-03" in check.detail


def test_a_weight_that_is_nowhere_is_said(source: Source, tensors: Tensors, tmp_path: Path) -> None:
    del tensors[KEY]
    check = checked(source, written(tensors, tmp_path / "a.onnx"))
    assert check.status is Status.SKIPPED
    assert f"{KEY} is not: folded, or changed" in check.detail


SCALE = "encoder.layer.1.layer_scale2.lambda1"
FOLDED = tuple(f"encoder.layer.1.mlp.fc2.{part}" for part in ("weight", "bias"))
NORM = "encoder.layer.1.norm2.weight"
AFTER_NORM = "encoder.layer.1.mlp.fc1.weight"


@pytest.fixture(scope="module")
def near_one(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Source:
    """The source with scales within 5 % of 1, as a checkpoint."""
    folder = tmp_path_factory.mktemp("near one")
    shutil.copytree(source.folder, folder, dirs_exist_ok=True)
    tensors = load_file(folder / WEIGHTS_FILE)
    generator = np.random.default_rng(0)
    for name in (SCALE, NORM):
        tensors[name] = generator.uniform(0.96, 1.04, tensors[name].shape).astype(np.float32)
    save_file(tensors, folder / WEIGHTS_FILE)
    system = miniature(SYSTEMS["dinov2-large"])
    return open_source(Request(system, str(folder)), tmp_path_factory.mktemp("scratch"))


def folded(source: Source, kind: type, turned: bool) -> Tensors:
    """Return the tensors of a graph with a LayerScale, and the scale of a norm, folded into weights."""
    found = load_file(source.folder / WEIGHTS_FILE)
    found = {name: value for name, value in found.items() if name not in source.network.unused}
    scale, norm = found.pop(SCALE), found.pop(NORM)
    weight, bias = FOLDED
    found[weight] = found[weight] * scale[:, None]
    found[bias] = found[bias] * scale
    found[AFTER_NORM] = found[AFTER_NORM] * norm
    made = {name: value.astype(kind) for name, value in found.items()}
    return dict(renamed(made)) if turned else made


@pytest.mark.parametrize("turned", [False, True], ids=("as stored", "transposed"))
@pytest.mark.parametrize("kind", [np.float32, np.float16], ids=("fp32", "fp16"))
def test_a_scale_that_is_folded_into_a_weight_is_no_altered_weight(
    near_one: Source, tmp_path: Path, kind: type, turned: bool
) -> None:
    path = written(folded(near_one, kind, turned), tmp_path / "a.onnx")
    if kind is np.float16:
        model = onnx.load(path)
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
        onnx.save(model, path)
    check = checked(near_one, path)
    assert check.status is Status.SKIPPED, check.detail
    assert "folded, or changed" in check.detail


CHANGED = {
    "one element": (FOLDED[0], "weights", lambda value: _with(value, value.flat[5] * np.float32(1.001))),
    "one of the bias": (FOLDED[1], "bias", lambda value: _with(value, value.flat[5] * np.float32(1.001))),
    "all of the matrix": (AFTER_NORM, "weights", lambda value: value * np.float32(1.001)),
}
"""Changes of a weight, into which a scale was folded or not: its name, the class of fault, the change."""


def _with(value: Array, changed: np.float32) -> Array:
    made = value.copy()
    made.flat[5] = changed
    return made


@pytest.mark.parametrize("change", CHANGED)
def test_a_weight_that_is_changed_beside_its_scale_is_altered(
    near_one: Source, tmp_path: Path, change: str
) -> None:
    name, fault, alter = CHANGED[change]
    tensors = folded(near_one, np.float32, turned=False)
    stored = load_file(near_one.folder / WEIGHTS_FILE)
    unscaled = change == "all of the matrix"  # a scaled matrix times one number is still scaled
    tensors[name] = alter(stored[name] if unscaled else tensors[name])
    check = checked(near_one, written(tensors, tmp_path / "a.onnx"))
    assert (check.status, check.fault) == (Status.FAILED, fault), check.detail
    assert name in check.detail
