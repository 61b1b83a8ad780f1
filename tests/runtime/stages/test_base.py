"""Variants in stages: torch's and graphs'."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import vconv
from vconv.artifact import manifest
from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import Manifest
from vconv.catalog.systems import System
from vconv.convert.architectures.base import EMBEDDING_ROLES
from vconv.convert.libraries.layers import find_blocks
from vconv.errors import ArtifactError
from vconv.precisions import PRECISIONS
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.torch_model import TorchSession
from vconv.runtime.engines.variants import open_variant
from vconv.runtime.stages.base import TOKENS, Stages, stage_names
from vconv.runtime.stages.graph import GraphStages
from vconv.runtime.stages.torch_model import TorchStages
from vconv.types import INPUT, Array, Arrays

PATCHED = "patched-torch-fp32"
GRAPHS = ("onnx-fp32", "onnx-fp32-npu")
NARROW = ("fp32", "bf16", "autocast-bf16")


def images(made: Manifest, seed: int = 3) -> Array:
    return np.random.default_rng(seed).standard_normal((2, 3, *made.size), np.float32)


def session(folder: Path, made: Manifest, precision: str = "fp32") -> TorchSession:
    record = Artifact(folder, made).variant(PATCHED)
    opened = open_variant(Artifact(folder, made), record, find_device("cpu"), precision=PRECISIONS[precision])
    assert isinstance(opened, TorchSession)
    return opened


def graph(folder: Path, made: Manifest, variant: str, engine: str = "onnxruntime") -> GraphStages:
    file = Artifact(folder, made).variant(variant).path
    return GraphStages(folder / file, Artifact.open(folder).network, find_device("cpu"), engine)


def chained(stages: Stages, pixel_values: Array) -> Arrays:
    given: Arrays = {INPUT: pixel_values}
    for place in range(len(stages.names)):
        given = stages.run(place, given)
    return given


@pytest.mark.parametrize("precision", NARROW)
def test_the_stages_of_a_torch_variant_give_bit_by_bit_what_it_gives_whole(
    precision: str, small_artifact: Path, made: Manifest
) -> None:
    with session(small_artifact, made, precision) as variant:
        whole = variant(images(made))
        found = chained(TorchStages(variant, plain=False), images(made))
        again = variant(images(made))
    assert found.keys() == whole.keys()
    for name, expected in whole.items():
        np.testing.assert_array_equal(found[name], expected)
        np.testing.assert_array_equal(again[name], expected)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("variant", GRAPHS)
def test_the_stages_of_a_graph_give_what_it_gives_whole(
    variant: str, engine: str, small_artifact: Path, made: Manifest
) -> None:
    with vconv.load(small_artifact, variant=variant) as whole:
        expected = whole(images(made))
    found = chained(graph(small_artifact, made, variant, engine), images(made))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", GRAPHS)
def test_a_graph_and_a_torch_variant_have_the_same_tokens_after_every_stage(
    variant: str, small_artifact: Path, made: Manifest
) -> None:
    with session(small_artifact, made) as opened:
        ours, theirs = graph(small_artifact, made, variant), TorchStages(opened, plain=True)
        assert ours.names == theirs.names == stage_names(3)
        given: Arrays = {INPUT: images(made)}
        for place in range(len(ours.names) - 1):
            actual, given = ours.run(place, given), theirs.run(place, given)
            assert actual.keys() == given.keys() == {TOKENS}
            np.testing.assert_allclose(actual[TOKENS], given[TOKENS], rtol=1e-4, atol=1e-4)


def test_a_stage_works_on_what_it_is_given_and_not_on_what_came_before(
    small_artifact: Path, made: Manifest
) -> None:
    with session(small_artifact, made) as opened:
        for stages in (TorchStages(opened, plain=False), graph(small_artifact, made, "onnx-fp32")):
            tokens = stages.run(0, {INPUT: images(made)})
            first = stages.run(2, tokens)
            stages.run(1, tokens)
            second = stages.run(2, tokens)
            other = stages.run(2, {TOKENS: tokens[TOKENS] + 1})
            np.testing.assert_array_equal(first[TOKENS], second[TOKENS])
            assert not np.allclose(first[TOKENS], other[TOKENS])


def test_steps_come_after_what_they_work_on_and_end_with_what_the_stage_gives(
    small_artifact: Path, made: Manifest
) -> None:
    with session(small_artifact, made) as opened:
        for stages in (TorchStages(opened, plain=True), graph(small_artifact, made, "onnx-fp32")):
            given: Arrays = {INPUT: images(made)}
            for stage in range(len(stages.names)):
                steps = stages.steps(stage, given)
                seen = {TOKENS}
                for step in steps:
                    assert step.inputs
                    assert set(step.inputs) <= seen
                    assert step.value.dtype == np.float32
                    seen.add(step.name)
                given = stages.run(stage, given)
                for value in given.values():
                    same = [step.value for step in steps if step.value.size == value.size]
                    nearest = min(float(np.abs(one.ravel() - value.ravel()).max()) for one in same)
                    assert nearest < 1e-4


def test_steps_name_every_weight_of_their_block_and_no_other(small_artifact: Path, made: Manifest) -> None:
    net = Artifact.open(small_artifact).network
    own = {net.stored_key(tensor) for tensor in net.tensors().values() if tensor.block == 1}
    with session(small_artifact, made) as opened:
        torch_stages, graph_stages = TorchStages(opened, plain=True), graph(small_artifact, made, "onnx-fp32")
        tokens = torch_stages.run(0, {INPUT: images(made)})
        graph_stages.run(0, {INPUT: images(made)})
        in_torch = {weight for step in torch_stages.steps(2, tokens) for weight in step.weights}
        in_graph = {weight for step in graph_stages.steps(2, tokens) for weight in step.weights}
    assert in_graph == own
    assert {net.prefix + net.layout.disk_key(name) for name in in_torch} == own


def test_the_embeddings_of_a_torch_variant_have_no_operator_of_the_head(
    small_artifact: Path, made: Manifest
) -> None:
    with session(small_artifact, made) as opened:
        steps = TorchStages(opened, plain=True).steps(0, {INPUT: images(made)})
    net = Artifact.open(small_artifact).network
    weights = {net.prefix + net.layout.disk_key(name) for step in steps for name in step.weights}
    roles = {net.stored_key(tensor): tensor.role for tensor in net.tensors().values()}
    assert {roles[weight] for weight in weights} <= EMBEDDING_ROLES


@pytest.mark.parametrize("system", ["vit_small_patch16_dinov3.lvd1689m"], indirect=True)
def test_a_network_whose_norm_comes_after_pooling_is_cut_where_its_blocks_end(
    small_system: System, tmp_path: Path
) -> None:
    arguments = {**small_system.config["model_args"], "use_fc_norm": True}
    system = replace(small_system, config={**small_system.config, "model_args": arguments})
    vconv.export(system, "synthetic:1", tmp_path / "a", batch=2)
    made = manifest.load(tmp_path / "a")
    for variant in GRAPHS:
        with vconv.load(tmp_path / "a", variant=variant) as whole:
            expected = whole(images(made))
        found = chained(graph(tmp_path / "a", made, variant), images(made))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4)


def test_a_model_is_as_it_was_after_it_was_run_in_stages(small_artifact: Path, made: Manifest) -> None:
    with session(small_artifact, made) as opened:
        stages = TorchStages(opened, plain=True)
        stages.steps(1, stages.run(0, {INPUT: images(made)}))
        for block in find_blocks(opened.outputs.model, opened.outputs.network):
            assert "forward" not in vars(block)
        for module in opened.outputs.model.modules():
            assert not module._forward_hooks and not module._forward_pre_hooks


def test_a_graph_in_which_two_values_go_from_block_to_block_is_a_sentence(
    copied: Path, made: Manifest
) -> None:
    model = onnx.load(copied / "model.onnx", load_external_data=False)
    net = Artifact.open(copied).network
    blocks = {net.stored_key(tensor): tensor.block for tensor in net.tensors().values()}
    first = next(node for node in model.graph.node if {blocks.get(name) for name in node.input} & {0})
    third = next(node for node in model.graph.node if {blocks.get(name) for name in node.input} & {2})
    # The third block is given what goes into the first too, past the second.
    both = onnx.helper.make_node("Add", [first.input[0], third.input[0]], ["both"])
    third.input[0] = "both"
    model.graph.node.insert(list(model.graph.node).index(third), both)
    (copied / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="the graph cannot be cut into blocks .* got [23] values between"):
        graph(copied, made, "onnx-fp32")
