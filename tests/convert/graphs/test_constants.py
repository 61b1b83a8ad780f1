from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest

from vconv.convert.graphs.constants import single

STEPS = {
    "a number": ("y = Identity(two)", 2.0),
    "a root": ("y = Sqrt(two)", math.sqrt(2)),
    "the reciprocal of a root": ("a = Sqrt(two) y = Reciprocal(a)", 1 / math.sqrt(2)),
    "a quotient": ("y = Div(three, two)", 1.5),
    "a power": ("y = Pow(three, two)", 9.0),
    "a difference": ("a = Neg(two) y = Sub(three, a)", 5.0),
    "a narrower type": ("a = Sqrt(two) y = Cast<to = 10>(a)", float(np.float16(math.sqrt(2)))),
    "more than one number": ("y = Sqrt(row)", None),
    "an input of the graph": ("y = Sqrt(x)", None),
    "a whole number": ("y = Neg(whole)", None),
    "an operator that is not computed": ("y = Erf(two)", None),
    "too many steps": ("a = Sqrt(two) b = Sqrt(a) c = Sqrt(b) d = Sqrt(c) y = Sqrt(d)", None),
}
"""Each with its value; None where it is no constant."""


@pytest.mark.parametrize("name", STEPS)
def test_a_number_is_computed_from_others(name: str) -> None:
    steps, expected = STEPS[name]
    text = f"""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1] x) => (float y)
        <float two = {{2.0}}, float three = {{3.0}}, float[2] row = {{1.0, 2.0}}, int64 whole = {{2}}>
        {{ {steps} }}
    """
    found = single(ir.from_onnx_text(text).graph.outputs[0])
    assert (None if found is None else found.item()) == (
        None if expected is None else pytest.approx(expected, rel=1e-7)
    )
