"""A graph of another exporter on the simulated NPU."""

from __future__ import annotations

from collections.abc import Mapping

from vconv.runtime.engines.adapted import AdaptedSession, Given, View
from vconv.runtime.simulation.arithmetic import Arithmetic
from vconv.runtime.simulation.session import Counts, Simulated, SimulatedGraphSession


class SimulatedAdaptedSession(AdaptedSession, Simulated):
    """A graph with a simulated NPU's arithmetic, run as if it had vconv's input and outputs.

    Args:
        inner: the opened graph. It is closed with this session.
        given: the images that it takes.
        views: where vconv's outputs are in those of the graph, by vconv's names.
    """

    def __init__(self, inner: SimulatedGraphSession, given: Given, views: Mapping[str, View]) -> None:
        super().__init__(inner, given, views)
        self._simulated = inner

    def configure(self, arithmetic: Arithmetic) -> None:
        """See :meth:`Simulated.configure`."""
        self._simulated.configure(arithmetic)

    def counts(self) -> Counts:
        """See :meth:`Simulated.counts`."""
        return self._simulated.counts()
