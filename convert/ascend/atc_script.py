"""The shell script that compiles an offline model later, on a machine with CANN."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from vconv.convert.ascend.atc import ATC, MODEL_FILE
from vconv.convert.ascend.fusions.switch_file import RESULT_FILE
from vconv.convert.ascend.routes import ONNX_ROUTE, Route


def script(command: Sequence[str], settings: Sequence[str], route: Route = ONNX_ROUTE) -> str:
    """Return a shell script that runs a command on a machine with ATC.

    The script works in a temporary hidden folder of the artifact, because ATC leaves additional files in its
    working folder. It first removes what an earlier run made, so that a model never has the report of
    another; if ATC fails, there is no offline model. On the route of Ascend IR, it makes the graph first if
    there is none.

    Args:
        command: a command from :meth:`CompileOrder.command`.
        settings: names of the files that it needs beside the graph.
        route: the way from the network to the offline model.
    """
    graph = route.graph
    needed = " ".join(f'"$here"/{shlex.quote(name)}' for name in (graph, *settings))
    made = [f'if [ ! -f "$here"/{graph} ]; then', f'  "${{PYTHON:-python3}}" "$here"/{route.maker}', "fi"]
    return "\n".join(
        [
            "#!/bin/sh",
            f"# Compiles {graph} into {MODEL_FILE}, beside this script. Needs CANN's atc on PATH.",
            "set -eu",
            f"if ! command -v {ATC} > /dev/null; then",
            f"  echo '{ATC} is not on PATH: source set_env.sh of CANN first' >&2",
            "  exit 127",
            "fi",
            'here=$(cd "$(dirname "$0")" && pwd)',
            f'rm -f "$here"/{MODEL_FILE} "$here"/{RESULT_FILE}  # of an earlier run',
            *(made if route.maker else []),
            'work=$(mktemp -d "$here/../.atc.XXXXXX")',
            "trap 'rm -rf \"$work\"' EXIT",
            "trap 'exit 130' HUP INT TERM",
            "unset ASCEND_WORK_PATH  # for ATC to leave its report here",
            'cd "$work"',
            f"ln -s {needed} .",
            " \\\n  ".join(map(shlex.quote, command)),
            f"if [ -f {RESULT_FILE} ]; then",
            f'  mv {RESULT_FILE} "$here"/{RESULT_FILE}',
            "fi",
            f'mv {MODEL_FILE} "$here"/{MODEL_FILE}',
            "",
        ]
    )
