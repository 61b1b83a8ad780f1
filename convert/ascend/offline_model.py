"""Makes the offline model of an artifact: a graph that is compiled for an NPU.

ATC does not read weights from a safetensors file. So it gets a graph with embedded weights.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx_ir as ir

from vconv.convert.ascend import atc, atc_script, operators
from vconv.convert.ascend.atc import MODEL_FILE, SCRIPT_FILE, CompileOrder
from vconv.convert.ascend.fusions.report import WAY_OUT, CompilerReport
from vconv.convert.ascend.fusions.switch_file import RESULT_FILE, SWITCH_FILE
from vconv.convert.ascend.npu_opset import in_npu_opset
from vconv.convert.ascend.routes import Route
from vconv.convert.files.safetensors_file import TensorEntry
from vconv.convert.graphs.layer_norms import layer_norms
from vconv.convert.graphs.passes import table as passes
from vconv.convert.graphs.passes.base import PassContext, run_passes
from vconv.disk import require_space
from vconv.errors import ArtifactError, EngineError, InputError
from vconv.types import Say

_WIDE_BYTES = 4
"""Bytes of a float32."""
_GRAPH_BYTES = 2**24
"""Bytes reserved for a graph without its weights; the largest measured has 13.4 MB (7 billion parameters)."""


def require_fitting(route: Route, weights: Iterable[TensorEntry]) -> None:
    """Check that a graph can hold these weights.

    Raises:
        InputError: they are too large.
    """
    nbytes = sum(math.prod(one.shape) * _WIDE_BYTES if route.widened else one.nbytes for one in weights)
    greatest = route.greatest_bytes - _GRAPH_BYTES
    if nbytes > greatest:
        raise InputError(
            "the weights do not fit an offline model's graph",
            got=f"{nbytes / 1e9:.2f} GB",
            expected=f"at most {greatest / 1e9:.2f} GB: {route.bound}",
            fix=f"remove --format {route.name}, or export a smaller system",
        )


@dataclass(frozen=True)
class CompiledGraph:
    """The graph that ATC compiles, as far as a manifest describes it.

    Args:
        opset: its opset.
        ir_version: its IR version.
        operators: the number of its nodes of each operator.
        passes: the passes that made it from a graph of the artifact.
        norms: the names of the nodes of LayerNorms that are spelled out.
    """

    opset: int
    ir_version: int
    operators: Mapping[str, int]
    passes: tuple[str, ...]
    norms: tuple[str, ...]


def make(
    folder: Path,
    scratch: Path,
    order: CompileOrder,
    size: tuple[int, int],
    batch: int,
    say: Say,
    npu_opset: int | None = None,
    rank3: bool = False,
) -> CompiledGraph:
    """Add an offline model to an artifact. Without ATC, add the graph, the settings and a script instead.

    Args:
        folder: the artifact; its graphs and weights must be written.
        scratch: an empty folder on the same disk, as working folder for ATC.
        order: the settings of the compilation.
        size: (height, width) of the images.
        batch: the batch size of the static graph.
        say: receives progress messages.
        npu_opset: the opset of the graph that is compiled; None for the default: see
            :func:`vconv.convert.ascend.npu_opset.in_npu_opset`.
        rank3: whether it has attention over tensors of rank 3.

    Returns:
        The graph that is compiled.

    Raises:
        InputError: the network has an operator that has no form in that opset, or attention of another form.
        ArtifactError: CANN does not support an operator of the graph, or the disk has too little free space.
        EngineError: ATC fails, or replaces operators by others that compute something else.
    """
    place, graph_file = scratch / order.folder, order.route.graph
    place.mkdir()
    write = partial(_write_graph, folder / order.source, place / graph_file, rank3)
    compiled = in_npu_opset(write, npu_opset, f"{order.folder}/{graph_file}", say)
    settings, command = order.settings(compiled.norms), order.command(size, batch)
    for name, text in settings.items():
        (place / name).write_text(text)
    kept = [*settings]
    if atc.compiler():
        kept += compile_in(place, order, command, say)
    else:
        path = place / SCRIPT_FILE
        path.write_text(atc_script.script(command, [*settings]))
        path.chmod(0o755)
        kept += [graph_file, SCRIPT_FILE]
        where = f"{order.folder}/{SCRIPT_FILE}"
        say(f"{order.file} is not made, because atc is not on PATH: run {where} on a machine with CANN")
    (folder / order.folder).mkdir()
    for name in kept:
        (place / name).rename(folder / order.folder / name)
    return compiled


def compile_in(place: Path, order: CompileOrder, command: tuple[str, ...], say: Say) -> list[str]:
    """Compile an offline model with ATC, and check which passes it ran.

    Args:
        place: a folder with the graph and the settings.
        order: the settings of the compilation.
        command: the command of ATC.
        say: receives progress messages.

    Returns:
        The names of the files in that folder that ATC made and an artifact keeps.

    Raises:
        EngineError: ATC fails, or replaces operators by others that compute something else.
    """
    say(f"{order.file}: {' '.join(command)}")
    atc.compile_model(place, (atc.compiler() or atc.ATC, *command[1:]))
    report = place / RESULT_FILE
    if not report.is_file():
        say(f"{order.file}: atc left no {RESULT_FILE}, so which fusion passes it ran is not known")
        return [MODEL_FILE]
    _require_unfused(report)
    return [MODEL_FILE, RESULT_FILE]


def _require_unfused(path: Path) -> None:
    """Check that no pass of the compiler changed a result or a precision.

    Raises:
        EngineError: one did, or the file cannot be read.
    """
    try:
        harm = CompilerReport.read(path).harm
    except (OSError, ValueError) as error:
        raise EngineError(
            "cannot read which fusion passes atc ran",
            got=f"{RESULT_FILE} with {error!s:.120}",
            expected="one of the forms that are known of CANN 8 and 9",
            fix="report this form; without atc on PATH, the export gives what atc needs and a script",
        ) from error
    if harm:
        raise EngineError(
            "atc replaced operators of the graph by others that compute something else",
            got=harm,
            expected=f"no such pass, as {SWITCH_FILE} asks",
            fix=f"{WAY_OUT}; without atc on PATH, the export gives what atc needs and a script",
        )


def _write_graph(source: Path, target: Path, rank3: bool, npu_opset: int) -> CompiledGraph:
    """Write a copy of a graph in an opset for the NPU, with embedded weights."""
    model = ir.load(source)
    unlisted = sorted({node.op_type for node in model.graph.all_nodes()} - operators.SUPPORTED)
    if unlisted or model.opset_imports.get("", 0) > operators.GREATEST_OPSET:
        raise ArtifactError(
            f"ATC does not support the graph {source.name}",
            got=", ".join(unlisted) or f"opset {model.opset_imports.get('', 0)}",
            expected=f"operators that CANN supports, of opset {operators.GREATEST_OPSET} or lower",
            fix="remove --gears and --gears-size, so that vconv compiles the static graph",
        )
    weights = (value.const_value for value in model.graph.initializers.values())
    require_space(target.parent, sum(tensor.nbytes for tensor in weights if tensor is not None))
    names = passes.COMPILED_RANK3 if rank3 else passes.COMPILED
    run_passes(model, passes.named(names), PassContext(opset=npu_opset))
    ir.save(model, target)
    counted = Counter(node.op_type for node in model.graph.all_nodes())
    return CompiledGraph(
        npu_opset,
        model.ir_version,
        dict(sorted(counted.items())),
        names,
        tuple(node.name or "" for norm in layer_norms(model) if len(norm.nodes) > 1 for node in norm.nodes),
    )
