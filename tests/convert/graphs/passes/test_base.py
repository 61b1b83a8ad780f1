from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from vconv.convert.graphs.passes.base import (
    Condition,
    Pass,
    PassContext,
    PassError,
    PassResult,
    fingerprint,
    run_passes,
)

CONTEXT = PassContext()


def model() -> ir.Model:
    given, made = (
        ir.Value(name=name, shape=ir.Shape([2]), type=ir.TensorType(ir.DataType.FLOAT)) for name in "xy"
    )
    weight = ir.Value(name="w", const_value=ir.tensor(np.ones(2, np.float32), name="w"))
    node = ir.Node("", "Add", [given, weight], outputs=[made], name="add")
    graph = ir.Graph([given], [made], nodes=[node], initializers=[weight], opset_imports={"": 18}, name="g")
    return ir.Model(graph, ir_version=8)


def renaming(name: str) -> Callable[[ir.Model, PassContext], bool]:
    """A toy pass that renames the graph."""

    def run(model: ir.Model, context: PassContext) -> bool:
        modified = model.graph.name != name
        model.graph.name = name
        return modified

    return run


def called(name: str) -> Condition:
    def wrong(model: ir.Model, context: PassContext) -> str:
        return "" if model.graph.name == name else f"it is called {model.graph.name}"

    return Condition(f"the graph is called {name}", wrong)


TOY = Pass("toy", renaming("toy"), requires=(called("g"),), ensures=(called("toy"),))


def test_passes_run_in_order_and_report_their_changes() -> None:
    again = Pass("again", renaming("toy"), requires=(called("toy"),))
    found = model()
    results = run_passes(found, (TOY, again), CONTEXT)
    assert results == (PassResult("toy", True), PassResult("again", False))
    assert found.graph.name == "toy"


def test_what_a_pass_requires_must_hold_before_it() -> None:
    with pytest.raises(
        PassError, match="the pass toy requires 'the graph is called g', but it is called toy"
    ):
        run_passes(model(), (TOY, TOY), CONTEXT)


def test_what_a_pass_ensures_must_hold_after_it() -> None:
    broken = replace(TOY, run=renaming("other"))
    with pytest.raises(PassError, match="the pass toy ensures 'the graph is called toy', but it is called o"):
        run_passes(model(), (broken,), CONTEXT)


def lying(says: bool, name: str) -> Pass:
    def run(model: ir.Model, context: PassContext) -> bool:
        model.graph.name = name
        return says

    return Pass("liar", run)


@pytest.mark.parametrize(
    ("says", "name", "did"), [(False, "other", "changed"), (True, "g", "did not change")]
)
def test_a_wrong_report_of_a_change_is_an_error(says: bool, name: str, did: str) -> None:
    with pytest.raises(PassError, match=f"the pass liar returned modified={says}, but it {did} the model"):
        run_passes(model(), (lying(says, name),), CONTEXT)


def _shape(found: ir.Model) -> None:
    found.graph.inputs[0].shape = ir.Shape([3])


def _attribute(found: ir.Model) -> None:
    found.graph[0].attributes["axis"] = ir.AttrInt64("axis", 1)


def _node(found: ir.Model) -> None:
    found.graph[0].op_type = "Sub"


def _weight(found: ir.Model) -> None:
    found.graph.initializers["w"].const_value = ir.tensor(np.zeros(2, np.float32), name="w")


def _no_weight(found: ir.Model) -> None:
    found.graph.initializers["w"].const_value = None


def _note(found: ir.Model) -> None:
    found.graph.outputs[0].metadata_props["a"] = "b"


def _node_note(found: ir.Model) -> None:
    found.graph[0].doc_string = "note"


def _opset(found: ir.Model) -> None:
    found.opset_imports[""] = 19


def _inner_shape(found: ir.Model) -> None:
    found.graph[0].outputs[0].shape = ir.Shape(["batch"])


CHANGES: tuple[Callable[[ir.Model], Any], ...] = (
    *(_shape, _attribute, _node, _weight, _no_weight, _note, _node_note, _opset, _inner_shape),
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
def test_a_fingerprint_changes_with_every_change_of_the_saved_model(
    change: Callable[[ir.Model], Any],
) -> None:
    found, same = model(), model()
    assert fingerprint(found) == fingerprint(same)
    change(found)
    assert fingerprint(found) != fingerprint(same)


def test_a_fingerprint_reads_no_external_data(tmp_path: Path) -> None:
    def outside(offset: int) -> ir.Model:
        found = model()
        found.graph.initializers["w"].const_value = ir.ExternalTensor(
            "missing.safetensors", offset, 8, ir.DataType.FLOAT, shape=ir.Shape([2]), name="w",
            base_dir=str(tmp_path),
        )  # fmt: skip
        return found

    assert fingerprint(outside(0)) == fingerprint(outside(0)) != fingerprint(outside(8))


def test_a_fingerprint_does_not_change_the_model() -> None:
    found = model()
    before = ir.to_proto(found).SerializeToString(deterministic=True)
    fingerprint(found)
    assert ir.to_proto(found).SerializeToString(deterministic=True) == before
