"""Processes that begin with torch imported: the import takes longer than most of what they do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FORKING = TESTS / "standins" / "forking.py"
STARTING = ("core/workflows", "core/cli", "runtime/simulation")
"""Folders of tests that start processes which measure or simulate."""


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., tuple[str, ...]]]:
    """The function that makes a command, to run in a fork, of `-c SOURCE` or `-m MODULE`."""
    path = str(tmp_path_factory.mktemp("forks") / "socket")
    command = (sys.executable, "-P", str(FORKING), path, "serve")
    # Libraries read these when they are imported: as in the processes that vconv starts, no hub is asked.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield lambda *options: (sys.executable, "-S", "-P", str(FORKING), path, *options)
        server.communicate()


@pytest.fixture(autouse=True)
def _fork_children(request: pytest.FixtureRequest) -> Iterator[None]:
    """Start the processes that measure or simulate as forks, in tests that run miniatures.

    A test that is marked `real_processes` gets those that users have, as does one with stand-ins for
    packages, which a process has to import itself.
    """
    real = "stand_ins" in request.fixturenames or request.node.get_closest_marker("real_processes")
    place = request.path.relative_to(TESTS).as_posix()
    if real or not place.startswith(STARTING) or "small_system" not in request.fixturenames:
        yield
        return
    from vconv.runtime.processes.measurer import TEMPLATE, PeakMeasurer
    from vconv.runtime.processes.peak_memory import TIMEOUT_SECONDS
    from vconv.runtime.simulation.session import CHILD, Child

    forked = request.getfixturevalue("forked")
    with pytest.MonkeyPatch.context() as patched:
        measuring = (forked("-P", *TEMPLATE[2:]), TIMEOUT_SECONDS)
        patched.setattr(PeakMeasurer.__init__, "__defaults__", measuring)
        patched.setattr(Child.__init__, "__defaults__", (forked("-P", *CHILD[2:]),))
        yield
