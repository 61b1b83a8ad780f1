from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from vconv.convert.graphs.passes.base import PassContext, PassError, run_passes
from vconv.convert.graphs.passes.least_ir_version import PASS, least_ir_version


def model(version: int) -> ir.Model:
    return ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="g"), ir_version=version)


@pytest.mark.parametrize(("opset", "expected"), [(18, 8), (19, 9), (20, 9), (21, 10), (22, 10)])
def test_the_ir_version_is_the_one_released_with_the_operator_set(opset: int, expected: int) -> None:
    """As in https://github.com/onnx/onnx/blob/main/docs/Versioning.md#released-versions."""
    found = model(onnx.IR_VERSION)
    assert least_ir_version(found, opset) is (expected != onnx.IR_VERSION)
    assert found.ir_version == expected


def test_the_right_ir_version_stays_as_it_is() -> None:
    found = model(8)
    assert not least_ir_version(found, 18)
    assert found.ir_version == 8


def test_an_operator_set_must_be_chosen() -> None:
    with pytest.raises(PassError, match="requires 'an operator set is chosen'"):
        run_passes(model(8), (PASS,), PassContext())
