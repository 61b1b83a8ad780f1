"""The engines of graphs that can run on this machine's CPU, over which tests are parametrised."""

from __future__ import annotations

from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.table import graph_engines

ENGINES_HERE = tuple(name for name, engine in graph_engines().items() if not engine.lack(find_device("cpu")))
