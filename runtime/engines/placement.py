"""Where the nodes of a graph ran: ONNX Runtime gives those that a provider does not take to the CPU.

Source: the profile that ONNX Runtime writes, a JSON list of events, of which those of the category ``Node``
name the provider of each node: https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

_KERNEL = "_kernel_time"
"""How the name of an event ends that is a node's run, in place of its preparation."""


def fallbacks(profile: Path, wanted: set[str]) -> dict[str, int]:
    """Count the nodes that ran elsewhere than they were to.

    Args:
        profile: what ONNX Runtime wrote.
        wanted: providers that they were to run on.

    Returns:
        By operator, the most frequent first, how many nodes ran elsewhere; each counts once.
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
        self._folder = Path(tempfile.mkdtemp(prefix="vconv-profile-"))

    def start(self, options: Any) -> None:
        """Let a session that is opened with these options write it."""
        options.enable_profiling = True
        options.profile_file_prefix = str(self._folder / "profile")

    def end(self, session: Any, wanted: set[str]) -> dict[str, int]:
        """Let a session stop writing it; return what fell back, as :func:`fallbacks` does."""
        try:
            return fallbacks(Path(session.end_profiling()), wanted)
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove it."""
        shutil.rmtree(self._folder, ignore_errors=True)
