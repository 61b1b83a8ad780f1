from __future__ import annotations

from unittest.mock import Mock

import pytest
from engines_here import ENGINES_HERE

from vconv.artifact.artifact import Artifact
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.acl import OfflineSession
from vconv.runtime.engines.capture import CapturedSession
from vconv.runtime.engines.variants import open_variant
from vconv.runtime.simulation.session import SimulatedGraphSession, SimulatedTorchSession
from vconv.runtime.stages import table
from vconv.runtime.stages.graph import GraphStages
from vconv.runtime.stages.table import in_stages
from vconv.runtime.stages.torch_model import TorchStages

CPU: Device = find_device("cpu")


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
@pytest.mark.parametrize(
    ("variant", "engine", "kind"),
    [("patched-torch-fp32", "", TorchStages)]
    + [(name, engine, GraphStages) for name in ("onnx-fp32", "onnx-fp32-npu") for engine in ENGINES_HERE],
)
def test_torch_and_graphs_are_taken_apart(small: Artifact, variant: str, engine: str, kind: type) -> None:
    with open_variant(small, small.variant(variant), CPU, engine) as session:
        found = in_stages(session, CPU, small.network)
        assert isinstance(found, kind)
        assert len(found.names) == 1 + 3 + 1


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (SimulatedTorchSession, table.SIMULATED),
        (SimulatedGraphSession, table.SIMULATED),
        (CapturedSession, table.CAPTURED),
        (OfflineSession, table.COMPILED),
    ],
)
def test_what_runs_whole_is_left_whole_and_says_why(kind: type, reason: str) -> None:
    assert in_stages(Mock(spec=kind), CPU, Mock()) == reason
