"""Fold constants, remove unused nodes, and inline functions with onnxscript's optimiser.

Case 1: a value that depends on constants only, up to a size: it becomes a constant.
Case 2: a value that depends on a weight without data: it stays as it is, and no weight is read.
Case 3: a node whose outputs are not used: it is removed.
"""

from __future__ import annotations

import onnx_ir as ir
import onnxscript.optimizer

from vconv.convert.graphs.passes.base import Pass, PassContext, fingerprint


def optimise(model: ir.Model, fold_elements: int) -> bool:
    """Optimise a model in place; return whether this changed it.

    onnxscript does not report changes, so that fingerprints are compared.

    Args:
        model: a model whose weights have no data.
        fold_elements: number of elements of the greatest constant that is folded.
    """
    before = fingerprint(model)
    onnxscript.optimizer.optimize(model, input_size_limit=fold_elements, output_size_limit=fold_elements)
    return fingerprint(model) != before


def _run(model: ir.Model, context: PassContext) -> bool:
    return optimise(model, context.fold_elements)


PASS = Pass("optimise", _run)
