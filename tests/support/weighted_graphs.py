"""Small graphs in float32 with their weights in a safetensors file, as an artifact has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import safetensors.torch
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from vconv.convert.files.safetensors_file import read_header, write
from vconv.convert.graphs.inferred_types import typed
from vconv.convert.graphs.passes.base import PassContext, run_passes
from vconv.convert.graphs.passes.table import NARROWED, QUANTISED, named
from vconv.convert.reduced import writing
from vconv.convert.reduced.plan import Plan
from vconv.types import WEIGHTS_FILE, Array

_KINDS = {"F32": TensorProto.FLOAT, "F16": TensorProto.FLOAT16, "BF16": TensorProto.BFLOAT16}
_TORCH = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def node(operator: str, given: str, made: str, **attributes: Any) -> NodeProto:
    """Make a node from the names of its inputs and of its outputs, which spaces separate.

    Its name is that of its first output, in capitals.
    """
    name = made.split()[0].upper()
    return helper.make_node(operator, given.split(), made.split(), name, **attributes)


def graph_of(
    folder: Path,
    nodes: Sequence[NodeProto],
    weights: Mapping[str, Array],
    outputs: str = "y",
    constants: Mapping[str, Array] | None = None,
    shape: Sequence[int | str] = ("n", 4),
    opset: int = 18,
    stored: str = "F32",
    path: str = "model.onnx",
) -> ir.Model:
    """Write a graph of ``x`` in float32 and its weights into a folder, and read it as an export does.

    Args:
        folder: the folder.
        nodes: the nodes.
        weights: the tensors of the weights file, by name.
        outputs: the names of the outputs, which spaces separate.
        constants: the tensors inside the graph, by name.
        shape: the shape of ``x``.
        opset: ONNX's opset.
        stored: safetensors' name of the type of the weights.
        path: the name of the graph.
    """
    tensors = {name: torch.from_numpy(np.array(value)).to(_TORCH[stored]) for name, value in weights.items()}
    safetensors.torch.save_file(tensors, folder / WEIGHTS_FILE)
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    for name, entry in read_header(folder / WEIGHTS_FILE).items():
        tensor = TensorProto(name=name, data_type=_KINDS[stored], dims=entry.shape)
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": WEIGHTS_FILE, "offset": entry.offset, "length": entry.nbytes}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        held.append(tensor)
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs.split()],
        held,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.save(onnx.shape_inference.infer_shapes(model, strict_mode=True), folder / path)
    return typed(ir.load(folder / path))


def reduced(folder: Path, model: ir.Model, plan: Plan, path: str = "model.onnx") -> ir.Model:
    """Write the weights of a plan and the graph into the folder of its precision, and return the graph."""
    entries, target = read_header(folder / WEIGHTS_FILE), folder / plan.precision
    target.mkdir()
    write(target / WEIGHTS_FILE, writing.planned(entries, {path: model}, plan))
    names = QUANTISED if plan.precision.startswith("int8") else NARROWED
    context = PassContext(entries=read_header(target / WEIGHTS_FILE), plan=plan)
    run_passes(model, named(names), context)
    ir.save(model, target / path)
    onnx.checker.check_model(target / path, full_check=True)
    return model


def computed(path: Path, x: Array) -> dict[str, Array]:
    """Run a graph in ONNX's own reference, which computes each operator in its type with NumPy."""
    model = onnx.load(path)
    names = [output.name for output in model.graph.output]
    return dict(zip(names, ReferenceEvaluator(model).run(None, {"x": x}), strict=True))


def types(model: ir.Model) -> dict[str, str]:
    """Return the name of the type of what each node gives first, by the name of the node."""
    return {str(one.name): one.outputs[0].dtype.name for one in model.graph if one.outputs[0].dtype}
