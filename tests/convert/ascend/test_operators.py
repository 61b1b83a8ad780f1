from __future__ import annotations

import onnx
import pytest

from vconv.convert.ascend import operators

ONNX = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
"""Every operator of the ONNX standard."""


@pytest.mark.parametrize("name", ["Gelu", *sorted(operators.AVOIDED)])
def test_an_operator_is_not_supported(name: str) -> None:
    assert name not in operators.SUPPORTED


def test_gelu_is_not_on_the_published_list() -> None:
    assert "Gelu" not in operators.LISTED
    assert "Erf" in operators.LISTED


def test_an_alias_maps_the_published_spelling_to_that_of_onnx() -> None:
    for published, name in operators.ALIASES.items():
        assert published in operators.LISTED
        assert published not in ONNX
        assert name in ONNX
        assert published.lower() == name.lower()


def test_no_published_spelling_lacks_an_alias() -> None:
    by_lower_case = {name.lower(): name for name in ONNX}
    misspelt = {
        name: by_lower_case[name.lower()]
        for name in operators.LISTED
        if name not in ONNX and name.lower() in by_lower_case
    }
    assert misspelt == operators.ALIASES


def test_supported_operators_use_onnx_spellings() -> None:
    assert not operators.SUPPORTED & set(operators.ALIASES)
    assert set(operators.ALIASES.values()) <= operators.SUPPORTED
    assert len(operators.SUPPORTED) == len(operators.LISTED) - len(operators.AVOIDED & operators.LISTED)


def test_the_greatest_ir_version_can_hold_the_greatest_opset() -> None:
    opset = onnx.helper.make_opsetid("", operators.GREATEST_OPSET)
    assert onnx.helper.find_min_ir_version_for([opset]) <= operators.GREATEST_IR_VERSION
