"""The process that has the simulated NPU: it opens one variant, and executes commands from a pipe.

``python -m vconv.runtime.simulation.process DESCRIPTOR`` is a child of the sessions in
:mod:`vconv.runtime.simulation.session`. The process sets up the device before it imports transformers,
because transformers caches whether there is an NPU.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from vconv.errors import VconvError
from vconv.runtime.simulation.arithmetic import Arithmetic

if TYPE_CHECKING:
    from vconv.runtime.engines.base import Session
    from vconv.runtime.processes.request import OpenRequest
    from vconv.runtime.timing.launches import Launches
    from vconv.types import Array


class Bug(Exception):
    """An error that users cannot fix; its text is the traceback from the process in which it happened."""


class Server:
    """The commands that a parent process can call by name.

    Args:
        arithmetic: how the device computes initially.

    Raises:
        UnavailableError: the NPU cannot be simulated here.
    """

    def __init__(self, arithmetic: Arithmetic) -> None:
        from vconv.runtime.simulation.device import simulate

        self._state = simulate(arithmetic)
        self._session: Session | None = None

    def open(self, subject: OpenRequest) -> str:
        """Open a variant on the device; return how its patched GELU is computed."""
        from vconv.runtime.devices.table import find_device
        from vconv.runtime.processes import peak_memory

        # The parent sets how the device computes. A session must not change it at every run.
        device = dataclasses.replace(find_device("npu"), exact=contextlib.nullcontext)
        self._session = peak_memory.opened(subject, device)
        self._state.recount()
        return self._session.gelu

    def run(self, pixel_values: Array) -> tuple[dict[str, Array], Mapping[str, tuple[str, str]]]:
        """Run a batch; return the outputs, and the type and device of each output."""
        assert self._session is not None
        outputs = self._session.run(pixel_values)
        placed = {name: (place.dtype, place.device) for name, place in self._session.placed.items()}
        return outputs, placed

    def launches(self, pixel_values: Array) -> Launches | None:
        """Count the launches of one forward pass of a batch."""
        assert self._session is not None
        return self._session.launches(pixel_values)

    def configure(self, arithmetic: Arithmetic) -> None:
        """Change the device's arithmetic, and restart the counts."""
        self._state.configure(arithmetic)

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return how often each operator ran, and how many operators each cause changed."""
        return dict(self._state.executed), dict(self._state.changed)

    def probe(self, seed: int) -> Any:
        """Find out how the device computes, from its results."""
        from vconv.runtime.devices.probe import probe
        from vconv.runtime.devices.table import find_device

        return probe(find_device("npu"), seed)


def serve(connection: Connection, make: Callable[[Arithmetic], Server] = Server) -> None:
    """Answer the parent's requests until it closes the pipe.

    The first request is the arithmetic; each later request is a command and its arguments. An answer is a
    pair: its kind, ``result``, ``refusal`` or ``bug``, and its value, error or traceback.
    """
    server: Server | None = None
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        try:
            if server is None:
                server, answer = make(request), None
            else:
                name, arguments = request
                answer = getattr(server, name)(*arguments)
        except VconvError as error:
            connection.send(("refusal", error))
        except Exception:  # noqa: BLE001 - a bug is its parent's to show, with the traceback
            connection.send(("bug", traceback.format_exc()))
        else:
            connection.send(("result", answer))


def main() -> None:
    """Serve the parent that holds the other end of the pipe."""
    os.dup2(2, 1)  # Send what libraries print to standard error.
    with Connection(int(sys.argv[1])) as connection:
        serve(connection)


if __name__ == "__main__":
    main()
