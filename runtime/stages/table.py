"""Which open sessions can be split into stages, and why others cannot."""

from __future__ import annotations

from vconv.convert.architectures.base import Capability
from vconv.convert.network import Network
from vconv.runtime.devices.base import Device
from vconv.runtime.engines.base import GraphSession, Session
from vconv.runtime.engines.capture import CapturedSession
from vconv.runtime.engines.compiled import CompiledSession
from vconv.runtime.engines.torch_model import TorchSession
from vconv.runtime.simulation.session import Simulated
from vconv.runtime.stages.base import Stages, undivided
from vconv.runtime.stages.graph import GraphStages
from vconv.runtime.stages.torch_model import TorchStages

SIMULATED = "a simulated device runs whole models only"
CAPTURED = "what is captured is replayed whole"
COMPILED = "a compiled model runs whole"


def in_stages(session: Session, device: Device, network: Network) -> Stages | str:
    """Split an open variant into embeddings, blocks and head.

    Args:
        session: the open variant.
        device: the device that it runs on.
        network: the patched network, whose weights show where a graph's blocks end.

    Returns:
        The variant's stages, or the reason why it cannot be split.

    Raises:
        ArtifactError: a graph cannot be cut where a block ends.
    """
    # Test this first: the simulated session of a graph is a GraphSession too.
    if isinstance(session, Simulated):
        return SIMULATED
    if isinstance(session, CapturedSession):
        return CAPTURED
    if isinstance(session, CompiledSession):
        return COMPILED
    if isinstance(session, TorchSession):
        return undivided(session.outputs.network) or TorchStages(session, plain=False)
    if isinstance(session, GraphSession):
        lack = undivided(network, Capability.ROLES)
        return lack or GraphStages(session.path, network, device, session.engine, session.precision)
    return COMPILED
