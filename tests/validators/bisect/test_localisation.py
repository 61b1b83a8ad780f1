"""Where a variant departs: one operator of a graph is made wrong, and must be found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import Manifest
from vconv.precisions import PRECISIONS
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.torch_model import TorchSession
from vconv.runtime.engines.variants import open_variant
from vconv.runtime.stages.base import TOKENS, Stages, Step
from vconv.runtime.stages.graph import GraphStages
from vconv.runtime.stages.torch_model import TorchStages
from vconv.types import INPUT, Array, Arrays, silent
from vconv.validators.accuracy import golden
from vconv.validators.bisect.localisation import Departure, StageError, localise
from vconv.validators.bisect.matching import MatchedOperator, match_operators
from vconv.validators.faults.operators import alter
from vconv.validators.faults.workshop import ArtifactCopy

GRAPH = "model.onnx"
BOUND = 1e-5
NOT_COMPUTED = ("Shape", "Concat", "Expand", "Slice")
"""Operators that may give a shape, in which nothing can be made wrong so that it still runs."""
FAULTS = 8
"""Operators that are made wrong, of each system, each of another kind."""


def torch_session(folder: Path, made: Manifest, precision: str = "fp32") -> TorchSession:
    record = Artifact(folder, made).variant("patched-torch-fp32")
    opened = open_variant(Artifact(folder, made), record, find_device("cpu"), precision=PRECISIONS[precision])
    assert isinstance(opened, TorchSession)
    return opened


@pytest.fixture
def reference(small_artifact: Path, made: Manifest) -> Iterator[TorchStages]:
    with torch_session(small_artifact, made) as session:
        yield TorchStages(session, plain=True)


@pytest.fixture
def pixel_values(small_artifact: Path, made: Manifest) -> Array:
    assert made.golden
    recorded: Array = golden.load(small_artifact / made.golden.path)[0]
    return recorded


def test_a_sound_graph_departs_nowhere(
    reference: TorchStages, pixel_values: Array, small_artifact: Path
) -> None:
    graph = GraphStages(
        small_artifact / GRAPH, Artifact.open(small_artifact).network, find_device("cpu"), "onnxruntime"
    )
    found = localise(reference, graph, pixel_values, BOUND, True, silent)
    assert not found.departs
    assert all(0 <= row.own < BOUND for row in found.stages)
    assert all(row.agrees for row in found.matches)
    assert found.sentence("it").startswith("it keeps to its reference: no stage departs by more than 1e-05; ")


def test_one_wrong_operator_is_found_in_its_block_whatever_it_is(
    reference: TorchStages, pixel_values: Array, copied: Path, tmp_path: Path
) -> None:
    net = Artifact.open(copied).network
    stages = GraphStages(copied / GRAPH, net, find_device("cpu"), "onnxruntime")
    chance = random.Random(7)
    shop = ArtifactCopy.open(Artifact.open(copied), tmp_path / "workshop")
    kinds = {node.name: node.op_type for node in shop.graph(GRAPH).graph.node}
    places = [(s, node) for s in range(len(stages.names)) for node in stages.operators(s)]
    places = [place for place in places if kinds[place[1]] not in NOT_COMPUTED]
    one_of_each = {kinds[node]: (s, node) for s, node in chance.sample(places, len(places))}
    for stage, node in list(one_of_each.values())[:FAULTS]:
        model = shop.graph(GRAPH)
        what = alter(model, node, shop.value_of)
        shop.save_graph(GRAPH, model)
        wrong = GraphStages(shop.folder / GRAPH, net, find_device("cpu"), "onnxruntime")
        found = localise(reference, wrong, pixel_values, BOUND, True, silent)
        assert found.departs, what
        assert found.culprit is not None, what
        assert (found.worst, found.matches[found.culprit].node) == (stage, node), what
        sentence = found.sentence("it")
        assert sentence.startswith(f"it departs in {stages.names[stage]}, by ")
        assert node in sentence
        shop.restore()


def test_a_torch_variant_in_less_precision_departs_from_the_one_in_full(
    reference: TorchStages, pixel_values: Array, small_artifact: Path, made: Manifest
) -> None:
    with torch_session(small_artifact, made, "bf16") as session:
        found = localise(reference, TorchStages(session, plain=False), pixel_values, BOUND, False, silent)
    assert found.departs
    assert found.culprit is not None
    assert min(row.own for row in found.stages) > 1e-4
    total = [row.total for row in found.stages]
    assert max(total) < 5e-2


def test_a_torch_variant_departs_nowhere_from_itself(
    reference: TorchStages, pixel_values: Array, small_artifact: Path, made: Manifest
) -> None:
    with torch_session(small_artifact, made) as session:
        found = localise(reference, TorchStages(session, plain=True), pixel_values, BOUND, True, silent)
    assert not found.departs
    assert [(row.own, row.total) for row in found.stages] == [(0.0, 0.0)] * len(found.stages)


def departure(*own: float, **match: object) -> Departure:
    fields: dict[str, object] = {"operator": "Mul", "node": "n", "weights": (), "shape": (1,)}
    fields |= {"counterpart": "mul here", "error": 1e-3, "agrees": False, "inputs": (), **match}
    rows = tuple(StageError(f"stage {place}", value, value) for place, value in enumerate(own))
    worst = int(np.argmax(own))
    return Departure(rows, worst, (MatchedOperator(**fields),), 0, BOUND)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("match", "fault"),
    [
        ({"operator": "Erf"}, "activation"),
        ({"operator": "gelu"}, "activation"),
        ({"operator": "LayerNormalization", "weights": ("norm.weight",)}, "epsilon"),
        ({"operator": "MatMul", "weights": ("a.weight",)}, "weights"),
        ({"operator": "Softmax"}, "operator"),
    ],
)
def test_the_operator_names_the_class_of_fault(match: dict[str, object], fault: str) -> None:
    assert departure(1e-7, 1e-3, **match).fault == fault


class Spoilt(Stages):
    """Stages of which one gives NaN in one place."""

    def __init__(self, sound: TorchStages, stage: int, output: str) -> None:
        self.names, self._sound, self._stage, self._output = sound.names, sound, stage, output

    def run(self, stage: int, given: Arrays) -> dict[str, Array]:
        found = self._sound.run(stage, given)
        if stage == self._stage:
            found[self._output] = found[self._output].copy()
            found[self._output][1].flat[0] = np.nan
        return found

    def steps(self, stage: int, given: Arrays) -> list[Step]:
        return self._sound.steps(stage, given)


@pytest.mark.parametrize(("stage", "output"), [(0, TOKENS), (2, TOKENS), (4, "patches")])
def test_one_nan_in_the_second_image_departs_where_it_first_is(
    stage: int, output: str, reference: TorchStages, pixel_values: Array
) -> None:
    found = localise(reference, Spoilt(reference, stage, output), pixel_values, BOUND, True, silent)
    assert found.departs
    assert (found.worst, found.stages[stage].own) == (stage, np.inf)
    assert [row.own for row in found.stages[:stage]] == [0.0] * stage


@pytest.mark.parametrize("variant", ["onnx-fp32", "onnx-fp32-npu"])
def test_the_operators_of_every_stage_of_a_graph_are_matched(
    small: Artifact, variant: str, reference: TorchStages, pixel_values: Array, small_artifact: Path
) -> None:
    file = small.variant(variant).path
    graph = GraphStages(
        small_artifact / file, Artifact.open(small_artifact).network, find_device("cpu"), "onnxruntime"
    )
    given: Arrays = {INPUT: pixel_values}
    for stage in range(len(graph.names)):
        steps = graph.steps(stage, given)
        found = match_operators(steps, partial(reference.visit, stage, given), BOUND)
        assert len(found) == len(steps) > 0
        assert all(row.agrees for row in found)
        graph.run(stage, given)
        given = reference.run(stage, given)


def test_a_departure_that_adds_up_over_stages_is_said_to_be_in_none() -> None:
    rows = (StageError("embeddings", 8e-6, 8e-6), StageError("head", 9e-6, 1.5e-5))
    found = Departure(rows, 1, (), None, BOUND)
    assert (found.departs, found.own, found.fault) == (True, False, "")
    assert found.sentence("it") == (
        "it departs from head on, by 1.5e-05 accumulated, in no single stage; "
        "head adds most, 9.0e-06 in this stage alone (any other stage: at most 8.0e-06)"
    )


def test_a_departure_is_said_in_a_sentence() -> None:
    found = departure(1e-7, 2e-3, weights=("a.weight",))
    assert found.sentence("it") == (
        "it departs in stage 1, by 2.0e-03 in this stage alone (any other stage: at most 1.0e-07), "
        "at Mul n, which works on a.weight: its output is 1.0e-03 from mul here"
    )
    lost = departure(1e-7, 2e-3, error=None, counterpart="")
    assert lost.sentence("it").endswith("at Mul n: nothing in the reference is near its output")


@pytest.mark.parametrize("own", [(1e-7, 2e-5), (float("nan"), 1e-7), (float("inf"), 0.0)])
def test_a_stage_beyond_the_bound_or_not_a_number_departs(own: tuple[float, float]) -> None:
    assert departure(*own).departs
    assert not departure(1e-7, 1e-5).departs
