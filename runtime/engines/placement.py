"""Where the nodes of a graph ran: ONNX Runtime runs the nodes that a provider does not take on the CPU.

Source: the profile that ONNX Runtime writes, a JSON list of events. Events of the category ``Node`` name the
provider of each node: https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from vconv.artifact.staging import workplace
from vconv.disk import SCRATCH

_KERNEL = "_kernel_time"
"""The end of an event's name if the event is the run of a node, and not its preparation."""


def fallbacks(profile: Path, wanted: set[str]) -> dict[str, int]:
    """Count the nodes that ran on a provider other than the wanted ones.

    Args:
        profile: the profile that ONNX Runtime wrote.
        wanted: the providers that the nodes should run on.

    Returns:
        Operator -> how many nodes ran elsewhere, the most frequent operator first. Each node counts once.
    """
    nodes: dict[tuple[str, str], str] = {}
    for event in json.loads(profile.read_bytes()):
        details = event.get("args", {})
        ran = event.get("cat") == "Node" and event["name"].endswith(_KERNEL)
        if ran and details["provider"] not in wanted:
            nodes[event["name"], details.get("node_index", "")] = details["op_name"]
    return dict(Counter(nodes.values()).most_common())


class Profile:
    """The profile of a session's first runs, in a temporary folder."""

    def __init__(self) -> None:
        self._kept = contextlib.ExitStack()
        self._folder = self._kept.enter_context(workplace(Path(tempfile.gettempdir()), SCRATCH))

    def start(self, options: Any) -> None:
        """Make a session that is opened with these options write the profile."""
        options.enable_profiling = True
        options.profile_file_prefix = str(self._folder / "profile")

    def end(self, session: Any, wanted: set[str]) -> dict[str, int]:
        """End a session's profiling and remove the profile; return the result of :func:`fallbacks`."""
        try:
            return fallbacks(Path(session.end_profiling()), wanted)
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove the profile's folder."""
        self._kept.close()
