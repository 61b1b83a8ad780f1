from __future__ import annotations

import onnx
import pytest

from vconv.convert import cann

ONNX = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
"""Every operator that ONNX itself defines."""


@pytest.mark.parametrize("name", ["Gelu", *sorted(cann.AVOIDED)])
def test_an_operator_is_not_supported(name: str) -> None:
    assert name not in cann.SUPPORTED


def test_gelu_is_not_on_the_published_list() -> None:
    assert "Gelu" not in cann.LISTED
    assert "Erf" in cann.LISTED


def test_an_alias_leads_from_the_published_spelling_to_onnx() -> None:
    for published, name in cann.ALIASES.items():
        assert published in cann.LISTED
        assert published not in ONNX
        assert name in ONNX
        assert published.lower() == name.lower()


def test_no_published_spelling_lacks_an_alias() -> None:
    by_lower_case = {name.lower(): name for name in ONNX}
    misspelt = {
        name: by_lower_case[name.lower()]
        for name in cann.LISTED
        if name not in ONNX and name.lower() in by_lower_case
    }
    assert misspelt == cann.ALIASES


def test_supported_operators_use_onnx_spellings() -> None:
    assert not cann.SUPPORTED & set(cann.ALIASES)
    assert set(cann.ALIASES.values()) <= cann.SUPPORTED
    assert len(cann.SUPPORTED) == len(cann.LISTED) - len(cann.AVOIDED & cann.LISTED)


def test_the_greatest_ir_version_can_hold_the_greatest_opset() -> None:
    opset = onnx.helper.make_opsetid("", cann.GREATEST_OPSET)
    assert onnx.helper.find_min_ir_version_for([opset]) <= cann.GREATEST_IR_VERSION
