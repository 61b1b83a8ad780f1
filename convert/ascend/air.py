"""What must be in a graph of Ascend IR that torchair makes of a network, and the check of it.

Sources, in the repository github.com/Ascend/torchair:

- ``docs/zh/ascend_ir/features/advanced/dynamo_export.md``: the call, and the files that it writes.
- ``python/torchair/npu_export.py``: if nothing is written, that is only logged.
- ``python/torchair/_ge_concrete_graph/utils.py``: if ``dynamo.pbtxt`` is not written, that is only printed.
- ``.../export_utils.py``: parameters and buffers become constants; any other tensor stays an input.
- ``.../ge_converter/aten/gelu.py``: ``aten.gelu`` becomes ``Gelu``, whatever its ``approximate`` says.
  ``Gelu`` computes the tanh form (repository github.com/hicann/ops-nn, ``activation/gelu/README.md``). No
  fusion pass does that, so that no switch turns it off.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vconv.convert.ascend.routes import AIR_ROUTE, GREATEST_PROTOBUF
from vconv.errors import EngineError

GRAPH_FILE, READABLE_FILE = AIR_ROUTE.graph, "dynamo.pbtxt"
EXPORT_NAME = Path(GRAPH_FILE).stem
GELU, ERF, INPUTS, OUTSIDE = "Gelu", "Erf", ("Data", "RefData"), "FileConstant"
"""Operators of Ascend IR: the tanh GELU, erf, the inputs, and a weight in a separate file."""
_OPERATOR = re.compile(r'\s*(op|type): "(\w+)"')
"""A line that names an operator; which of the two words it has depends on the version of torchair."""


@dataclass(frozen=True)
class Expected:
    """What must be in the graph of a network.

    Args:
        erfs: the number of ``Erf``.
        gelus: the number of ``Gelu``: of the GELUs that the network defines in their tanh form.
    """

    erfs: int
    gelus: int = 0


@contextlib.contextmanager
def output(path: Path, expected: Expected) -> Iterator[Path]:
    """Open a folder for ``dynamo_export``; afterwards check what is there, and keep the graph alone.

    Args:
        path: where to put the graph.
        expected: what the graph must have.

    Yields:
        An empty folder, beside the artifact's files. It is removed in the end, whatever happens.

    Raises:
        EngineError: torchair wrote no graph, one that computes another GELU, or one without its weights.
    """
    work = Path(tempfile.mkdtemp(prefix=".air.", dir=path.parent.parent))
    try:
        yield work
        require(work, expected)
        (work / GRAPH_FILE).replace(path)
    finally:
        shutil.rmtree(work)


def require(folder: Path, expected: Expected) -> None:
    """Check what torchair wrote.

    Args:
        folder: what was given to it as ``export_path``.
        expected: what the graph must have.

    Raises:
        EngineError: see :func:`output`.
    """
    written, readable = folder / GRAPH_FILE, folder / READABLE_FILE
    missing = [path.name for path in (written, readable) if not path.is_file()]
    if missing:
        raise EngineError(
            "torchair wrote no graph",
            got=f"no {missing[0]}",
            expected=f"{GRAPH_FILE} and {READABLE_FILE}",
            fix="read its log (TNG_LOG_LEVEL=0): it does not raise if it cannot write",
        )
    if written.stat().st_size > GREATEST_PROTOBUF:
        raise EngineError(
            f"{GRAPH_FILE} is too large for atc",
            got=f"{written.stat().st_size / 1e9:.2f} GB",
            expected="at most 2 GB, the greatest protobuf message",
            fix="export a smaller system",
        )
    found = operators(readable)
    if found[GELU] != expected.gelus or found[ERF] != expected.erfs:
        raise EngineError(
            "the graph that torchair made computes another GELU than the network",
            got=f"{found[GELU]} {GELU} and {found[ERF]} {ERF} in {READABLE_FILE}",
            expected=f"{expected.gelus} {GELU} and {expected.erfs} {ERF}: torchair turns every aten.gelu "
            f"into {GELU}, whose form is tanh",
            fix="trace the model with vconv.workflows.air_graph.traced, and leave it as it is",
        )
    inputs = sum(found[name] for name in INPUTS)
    if inputs != 1 or found[OUTSIDE]:
        raise EngineError(
            "the graph that torchair made does not hold the weights of the network",
            got=f"{inputs} inputs and {found[OUTSIDE]} weights in separate files",
            expected="the images as the only input, and every weight inside",
            fix="report this version of torchair; without torchair, the export gives the scripts",
        )


def operators(path: Path) -> Counter[str]:
    """Count the operators in a ``dynamo.pbtxt`` by type."""
    found: dict[str, Counter[str]] = {"op": Counter(), "type": Counter()}
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            named = _OPERATOR.match(line)
            if named:
                found[named[1]][named[2]] += 1
    return found["op"] or found["type"]
