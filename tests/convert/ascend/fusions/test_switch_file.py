"""The switch file for ATC, and what ATC reports of the passes that it ran."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vconv.convert.ascend.fusions import switch_file
from vconv.convert.ascend.fusions.switch_file import effects, harmful_effects

FIRED = {"effect_times": "12", "match_times": "12"}
MATCHED = {"effect_times": "0", "match_times": "54"}
UNIT = {"effect_times": "3", "match_times": "4", "repository_hit_times": "0"}
PASSES = {
    "graph_fusion": {"GeluONNXFusionPass": FIRED, "MatMulBiasAddFusionPass": MATCHED},
    "ub_fusion": {"TbeEltwiseFusionPass": UNIT},
}
FORMS = {
    "an object by graph": {"session_and_graph_id_0_0": PASSES},
    "two graphs": {"session_and_graph_id_0_0": PASSES, "session_and_graph_id_0_1": PASSES},
    "a list": [{**PASSES, "session_and_graph_id": "0_0"}],
    "an object of one graph": PASSES,
    "without unit fusions": {"session_and_graph_id_0_0": {"graph_fusion": PASSES["graph_fusion"]}},
}
"""The forms that public files have."""


@pytest.mark.parametrize("form", FORMS)
def test_what_each_pass_changed_is_counted(form: str) -> None:
    graphs = 2 if form == "two graphs" else 1
    expected = {"GeluONNXFusionPass": 12 * graphs, "TbeEltwiseFusionPass": 3 * graphs}
    expected["MatMulBiasAddFusionPass"] = 0
    if form == "without unit fusions":
        del expected["TbeEltwiseFusionPass"]
    assert effects(json.dumps(FORMS[form])) == expected
    assert harmful_effects(effects(json.dumps(FORMS[form]))) == {"GeluONNXFusionPass": 12 * graphs}


def test_a_report_of_no_pass_is_read() -> None:
    assert effects("{}") == effects("[]") == {}


@pytest.mark.parametrize(
    "text", ["", "3", '"GeluONNXFusionPass"', "[[3]]", '{"session_and_graph_id_0_0": 3}']
)
def test_another_form_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="in the place of a graph|it is empty"):
        effects(text)


def test_the_switch_file_turns_off_what_changes_a_result_or_a_precision() -> None:
    assert json.loads(switch_file.switch_file()) == {
        "Switch": {
            "GraphFusion": {
                "GeluONNXFusionPass": "off",
                "GeluFusionPass": "off",
                "AddLayerNormFusionPass": "off",
            },
            "UBFusion": {},
        }
    }


def test_the_name_of_a_pass_in_the_documents_is_that_of_this_page() -> None:
    page = Path(__file__).parents[4] / "docs" / "ascend.md"
    for name in switch_file.switched_off():
        assert f"`{name}`" in page.read_text()
