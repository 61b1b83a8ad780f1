"""Stages: a variant taken apart into embeddings, blocks and head, each of which can be run by itself.

Between two stages there is one array, the tokens. So a stage can be fed with what another variant's stage
before it gave, and its own error is separate from that of its input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from vconv.convert.architectures.base import Capability
from vconv.convert.network import Network
from vconv.errors import ArtifactError
from vconv.types import Array, Arrays

TOKENS = "tokens"
"""What goes from one stage to the next: float32 (B, 1 + registers + patches, D)."""
EMBEDDINGS, HEAD = "embeddings", "head"


def stage_names(blocks: int) -> tuple[str, ...]:
    """Name the stages of a network: ``embeddings``, ``block 0`` to the last, ``head``."""
    return (EMBEDDINGS, *(f"block {index}" for index in range(blocks)), HEAD)


def require(network: Network, *needed: Capability) -> None:
    """Make sure that a network can be taken apart.

    Raises:
        ArtifactError: something that must be known of it is not.
    """
    lack = network.lack(*needed)
    if lack:
        raise ArtifactError(
            f"{network.layout.family} cannot be taken apart into blocks",
            got=lack,
            expected="a network of a declared architecture",
            fix="compare its outputs as a whole: `vconv validate`",
        )


@dataclass(frozen=True)
class Step:
    """One operator of a stage, as it was run.

    Args:
        name: the name of what it gave, unlike any other's in its stage.
        operator: what it is: ``MatMul``, ``aten.mm``.
        node: what a user finds it by: the node of a graph, the module of a model.
        inputs: the names of those steps of the same stage that it works on, and of :data:`TOKENS`.
        weights: the weights that it works on.
        value: what it gave, as float32.
    """

    name: str
    operator: str
    node: str
    inputs: tuple[str, ...]
    weights: tuple[str, ...]
    value: Array


class Stages(ABC):
    """A variant in stages. They are run in order, the embeddings first: later ones need the batch's size."""

    names: tuple[str, ...]

    @abstractmethod
    def run(self, stage: int, given: Arrays) -> dict[str, Array]:
        """Run one stage.

        Args:
            stage: which.
            given: ``pixel_values`` for the embeddings, else :data:`TOKENS`.

        Returns:
            :data:`TOKENS`; the named outputs from the head.
        """

    @abstractmethod
    def steps(self, stage: int, given: Arrays) -> list[Step]:
        """Run one stage; return every operator of it that works on what was given, in order."""
