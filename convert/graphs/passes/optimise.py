"""Fold constants, drop what is not used, and inline functions, by onnxscript's optimiser.

Case 1: what follows from constants alone, up to a size: becomes a constant.
Case 2: what follows from a weight whose data are not there: left as it is; none is read.
Case 3: a node that nothing uses: goes.
"""

from __future__ import annotations

import onnx_ir as ir
import onnxscript.optimizer

from vconv.convert.graphs.passes.base import Pass, PassContext, fingerprint


def optimise(model: ir.Model, fold_elements: int) -> bool:
    """Optimise a model in place; return whether that changed it, which onnxscript does not say.

    Args:
        model: a model whose weights have no data.
        fold_elements: greatest constant that is folded.
    """
    before = fingerprint(model)
    onnxscript.optimizer.optimize(model, input_size_limit=fold_elements, output_size_limit=fold_elements)
    return fingerprint(model) != before


def _run(model: ir.Model, context: PassContext) -> bool:
    return optimise(model, context.fold_elements)


PASS = Pass("optimise", _run)
