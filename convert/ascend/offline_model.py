"""Making an artifact's offline model: from a graph beside its weights to what an NPU loads.

ATC follows a graph's weights into no file of safetensors, so it gets a graph with its weights inside.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from vconv.convert.ascend import atc, operators
from vconv.convert.ascend.atc import FOLDER, GRAPH_FILE, MODEL_FILE, SCRIPT_FILE, CompileOrder
from vconv.convert.graphs.passes import table as passes
from vconv.convert.graphs.passes.base import PassContext, run_passes
from vconv.disk import require_space
from vconv.errors import ArtifactError, InputError
from vconv.types import Say

GREATEST_BYTES = 2**31 - 1
"""Of a message in protobuf, and so of a graph with its weights inside: https://protobuf.dev/overview/."""
_GRAPH_BYTES = 2**24
"""Room for the graph itself beside its weights; the greatest measured is 13.4 MB, of 7 billion parameters."""


def require_fitting(nbytes: int) -> None:
    """Make sure that a graph can hold weights of a size.

    Raises:
        InputError: it cannot.
    """
    greatest = GREATEST_BYTES - _GRAPH_BYTES
    if nbytes > greatest:
        raise InputError(
            "the weights do not fit an offline model's graph",
            got=f"{nbytes / 1e9:.2f} GB",
            expected=f"at most {greatest / 1e9:.2f} GB: ATC takes a graph with its weights inside, "
            "and protobuf no message of more than 2 GB",
            fix="leave --format om out, or export a smaller system",
        )


def make(
    folder: Path, scratch: Path, order: CompileOrder, size: tuple[int, int], batch: int, say: Say
) -> None:
    """Put an offline model into an artifact, or, without ATC, all that makes it: graph, settings, script.

    Args:
        folder: the artifact, its graphs and its weights written.
        scratch: an empty folder on the same disk, for ATC to work in.
        order: what to compile.
        size: (height, width) of the images.
        batch: of the static graph.
        say: takes progress.

    Raises:
        ArtifactError: the graph has operators that CANN does not list, or there is no room for it.
        EngineError: ATC fails.
    """
    place = scratch / FOLDER
    place.mkdir()
    _write_graph(folder / order.source, place / GRAPH_FILE)
    settings, command = order.settings(), order.command(size, batch)
    for name, text in settings.items():
        (place / name).write_text(text)
    found = atc.compiler()
    kept = [*settings]
    if found:
        say(f"{order.file}: {' '.join(command)}")
        atc.compile_model(place, (found, *command[1:]))
        kept.append(MODEL_FILE)
    else:
        path = place / SCRIPT_FILE
        path.write_text(atc.script(command, [*settings]))
        path.chmod(0o755)
        kept += [GRAPH_FILE, SCRIPT_FILE]
        where = f"{FOLDER}/{SCRIPT_FILE}"
        say(f"{order.file} is not made, for there is no atc on PATH: {where} makes it where CANN is")
    (folder / FOLDER).mkdir()
    for name in kept:
        (place / name).rename(folder / FOLDER / name)


def _write_graph(source: Path, target: Path) -> None:
    """Write a graph again, its weights inside."""
    model = ir.load(source)
    unlisted = sorted({node.op_type for node in model.graph.all_nodes()} - operators.SUPPORTED)
    if unlisted or model.opset_imports.get("", 0) > operators.GREATEST_OPSET:
        raise ArtifactError(
            f"{source.name} is no graph for ATC",
            got=", ".join(unlisted) or f"opset {model.opset_imports.get('', 0)}",
            expected=f"operators that CANN lists, of opset {operators.GREATEST_OPSET} at most",
            fix="leave --gears out, so that the static graph is compiled",
        )
    weights = (value.const_value for value in model.graph.initializers.values())
    require_space(target.parent, sum(tensor.nbytes for tensor in weights if tensor is not None))
    run_passes(model, passes.named(passes.ALONE), PassContext())
    ir.save(model, target)
