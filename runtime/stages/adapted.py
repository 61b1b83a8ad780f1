"""A graph of another exporter in stages, as if it had vconv's input and outputs."""

from __future__ import annotations

from collections.abc import Mapping

from vconv.runtime.engines.adapted import Given, View
from vconv.runtime.stages.base import Stages, Step
from vconv.runtime.stages.graph import GraphStages
from vconv.types import INPUT, Array, Arrays


class AdaptedStages(Stages):
    """A graph in stages, whose first stage takes normalised images, and whose last gives vconv's outputs.

    Args:
        inner: the graph in stages.
        given: the images that the graph takes.
        views: where vconv's outputs are in those of the graph, by vconv's names.
    """

    def __init__(self, inner: GraphStages, given: Given, views: Mapping[str, View]) -> None:
        self.names = inner.names
        self._inner, self._given, self._views = inner, given, views

    def run(self, stage: int, given: Arrays) -> dict[str, Array]:
        """See :meth:`Stages.run`."""
        found = self._inner.run(stage, self._made(stage, given))
        if stage < len(self.names) - 1:
            return found
        return {name: view.read(found) for name, view in self._views.items()}

    def steps(self, stage: int, given: Arrays) -> list[Step]:
        """See :meth:`Stages.steps`."""
        return self._inner.steps(stage, self._made(stage, given))

    def _made(self, stage: int, given: Arrays) -> Arrays:
        return {INPUT: self._given.made(given[INPUT])} if stage == 0 else given
