"""Stages: a variant split into embeddings, blocks and head. Each stage can be run separately.

Only one array goes from one stage to the next: the tokens. So a stage can take the tokens that the preceding
stage of another variant gave, and the error of the stage is separate from the error of its input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from vconv.convert.architectures.base import Capability
from vconv.convert.architectures.outputs import Needed
from vconv.convert.network import Network
from vconv.errors import ArtifactError
from vconv.types import Array, Arrays

TOKENS = "tokens"
"""The array between two stages: float32 (B, 1 + registers + patches, D)."""
EMBEDDINGS, HEAD = "embeddings", "head"


def stage_names(blocks: int) -> tuple[str, ...]:
    """Return the names of a network's stages: ``embeddings``, ``block 0`` to the last block, ``head``."""
    return (EMBEDDINGS, *(f"block {index}" for index in range(blocks)), HEAD)


def undivided(network: Network, *further: Capability) -> str:
    """Return why a network cannot be split into stages; empty if it can.

    Args:
        network: the network.
        further: what must be known of it, besides its blocks.
    """
    lack = network.lack(*further, Capability.BLOCKS)
    return lack or ("" if Needed.by(network).blocks else "its outputs need no whole block")


def require(network: Network, *further: Capability) -> None:
    """Check that a network can be split into stages.

    Raises:
        ArtifactError: it cannot.
    """
    lack = undivided(network, *further)
    if lack:
        raise ArtifactError(
            f"{network.layout.family} cannot be taken apart into blocks",
            got=lack,
            expected="a network of a declared architecture, and an output after its first block",
            fix="compare its outputs as a whole: `vconv validate`",
        )


@dataclass(frozen=True)
class Step:
    """One operator of a stage, as it was run.

    Args:
        name: the name of its result, unique in the stage.
        operator: the operator, such as ``MatMul`` or ``mm``.
        node: where a user finds the operator: the node of a graph, or the module of a model.
        inputs: the names of the steps of the same stage that it takes as inputs; :data:`TOKENS` for the
            stage's input.
        weights: the names of the weights that it takes.
        value: its result, as float32.
        by_position: whether it takes a constant with a row for each patch, such as a position embedding or a
            table of RoPE.
    """

    name: str
    operator: str
    node: str
    inputs: tuple[str, ...]
    weights: tuple[str, ...]
    value: Array
    by_position: bool = False


class Stages(ABC):
    """A variant in stages. Run them in order, the embeddings first: later stages need the batch's size."""

    names: tuple[str, ...]

    @abstractmethod
    def run(self, stage: int, given: Arrays) -> dict[str, Array]:
        """Run one stage.

        Args:
            stage: the index of the stage.
            given: ``pixel_values`` for the embeddings, else :data:`TOKENS`.

        Returns:
            :data:`TOKENS`; for the head, the named outputs.
        """

    @abstractmethod
    def steps(self, stage: int, given: Arrays) -> list[Step]:
        """Run one stage; return every operator that depends on the stage's input, in order."""
