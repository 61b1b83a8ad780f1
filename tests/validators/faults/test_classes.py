from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from vconv.artifact.artifact import Artifact
from vconv.convert.architectures.base import Numbers
from vconv.validators.bisect import hypotheses, localisation
from vconv.validators.checks import claims, compiled
from vconv.validators.faults import classes
from vconv.validators.faults.table import FAULTS


def test_every_class_that_anything_names_has_a_meaning() -> None:
    named = {fault.kind for fault in FAULTS} | set(hypotheses.HYPOTHESES) | {"operator", "weights"}
    named |= {classes.of_number(field.name) for field in dataclasses.fields(Numbers)}
    named |= set(localisation._BY_OPERATOR.values()) | {compiled.UNREADABLE, claims.CLASS}
    assert named <= classes.CLASSES.keys()
    assert all(classes.CLASSES.values())


def test_every_tensor_of_every_system_is_of_a_class(small_artifact: Path) -> None:
    net = Artifact.open(small_artifact).network
    found = {key: classes.of_tensor(net, net.stored_key(tensor)) for key, tensor in net.tensors().items()}
    assert set(found.values()) <= classes.CLASSES.keys()
    for key, fault in found.items():
        assert (fault == "position embedding") == ("pos" in key)
        assert (fault == "registers") == ("reg" in key)
        assert (fault == "bias") == (key.endswith(".bias") and net.tensors()[key].block is not None)


@pytest.mark.parametrize(
    ("key", "fault"), [("unheard.of.weight", "weights"), ("layer.0.attention.q_proj.bias", "bias")]
)
def test_a_tensor_that_the_network_does_not_have_is_of_a_class_by_its_name(
    key: str, fault: str, small_artifact: Path
) -> None:
    assert classes.of_tensor(Artifact.open(small_artifact).network, key) == fault
