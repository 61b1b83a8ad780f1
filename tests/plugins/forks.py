"""Processes that begin with torch imported: the import takes longer than most of what they do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FORKING = Path(__file__).parents[1] / "standins" / "forking.py"


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., tuple[str, ...]]]:
    """The function that makes a command, to run in a fork, of `-c SOURCE` or `-m MODULE`."""
    path = str(tmp_path_factory.mktemp("forks") / "socket")
    command = (sys.executable, "-P", str(FORKING), path, "serve")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield lambda *options: (sys.executable, "-S", "-P", str(FORKING), path, *options)
        server.communicate()


@pytest.fixture
def forked_children(forked: Callable[..., tuple[str, ...]]) -> Iterator[None]:
    """Start the processes of simulated sessions as forks, which a few tests of sessions do without."""
    from vconv.runtime.simulation.session import CHILD, Child

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Child.__init__, "__defaults__", (forked("-P", *CHILD[2:]),))
        yield
