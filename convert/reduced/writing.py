"""Write the folder of a reduced precision: its weights file, and its graphs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx_ir as ir

from vconv.convert.files import safetensors_file
from vconv.convert.files.safetensors_file import PlannedTensor, TensorEntry, read_header
from vconv.convert.graphs.inferred_types import typed
from vconv.convert.graphs.passes import table as passes
from vconv.convert.graphs.passes.base import PassContext, run_passes
from vconv.convert.reduced import narrow_weights, quantised_weights
from vconv.convert.reduced.islands import NARROW_TYPES, wide_weights
from vconv.convert.reduced.plan import Plan
from vconv.convert.reduced.products import weight_products
from vconv.disk import require_space
from vconv.types import WEIGHTS_FILE, Say, silent


def write(folder: Path, graphs: Iterable[str], plan: Plan, say: Say = silent) -> dict[str, tuple[str, ...]]:
    """Write the graphs of an artifact in a reduced precision, and their weights file, into a folder of it.

    Args:
        folder: the artifact; its weights file and its graphs in float32 are written.
        graphs: the names of the graphs.
        plan: what is computed in which type.
        say: receives progress lines.

    Returns:
        The names of the passes that were run on each new graph, by its path in the artifact.

    Raises:
        ArtifactError: the disk has too little free space for the weights.
        WeightsError: a weight is too large for the narrow type.
    """
    entries, target = read_header(folder / WEIGHTS_FILE), folder / plan.precision
    models = {name: typed(ir.load(folder / name)) for name in graphs}
    tensors = planned(entries, models, plan)
    require_space(folder, sum(tensor.nbytes for tensor in tensors))
    target.mkdir()
    safetensors_file.write(target / WEIGHTS_FILE, tensors, say)
    context = PassContext(entries=read_header(target / WEIGHTS_FILE), plan=plan)
    names = passes.NARROWED if plan.precision in NARROW_TYPES else passes.QUANTISED
    made = {}
    for name, model in models.items():
        say(f"{plan.precision}/{name}")
        results = run_passes(model, passes.named(names), context)
        ir.save(model, target / name)
        made[f"{plan.precision}/{name}"] = tuple(result.name for result in results)
    return made


def planned(
    entries: Mapping[str, TensorEntry], models: Mapping[str, ir.Model], plan: Plan
) -> list[PlannedTensor]:
    """Plan the weights file of a reduced precision.

    Args:
        entries: the tensors of the artifact's weights file, by name.
        models: the graphs in float32 that will share the file, by name.
        plan: what is computed in which type.
    """
    dtype = NARROW_TYPES.get(plan.precision)
    if dtype is None:
        return quantised_weights.planned(entries, weight_products(next(iter(models.values()))), plan)
    wide = {name for model in models.values() for name in wide_weights(model, dtype, plan.kept)}
    return narrow_weights.planned(entries, wide, plan.precision)
