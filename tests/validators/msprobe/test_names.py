from __future__ import annotations

import re

import pytest
from difficult_names import LONG, graph, node

from vconv.validators.msprobe import names

READ = re.compile(r"[A-Za-z0-9_-]+")
"""What msprobe reads as the name of an operator (``msaccucmp/cmp_utils/reg_manager.py``)."""


@pytest.mark.parametrize(
    ("given", "file"),
    [
        ("/blocks.0/mlp/fc1/MatMul", "_blocks_0_mlp_fc1_MatMul"),
        ("node_conv2d", "node_conv2d"),
        ("split:0", "split_0"),
        ("pre_quant_norm", "pre_qnt_norm"),
        ("x/AscendQuant", "x_Ascendqnt"),
        ("quantity", "quantity"),
        ("a b\N{LATIN SMALL LETTER E WITH ACUTE}", "a_b_"),
    ],
)
def test_a_node_is_named_as_msprobe_names_it_unless_it_would_refuse_or_confuse_it(
    given: str, file: str
) -> None:
    (found,) = names.node_names([node("Add", given, "a b", "c")])
    assert (found.node, found.file) == (given, file)
    same = re.sub(r"[./]", "_", given) == file
    assert (found.renamed, found.origin) == (not same, given if same else file)


def test_nodes_whose_names_differ_only_in_dots_and_slashes_get_files_of_their_own() -> None:
    found = names.node_names([node("Add", name, "a b", "c") for name in ("a/b", "a.b", "a_b", "a_b_2")])
    assert [one.file for one in found] == ["a_b", "a_b_2", "a_b_3", "a_b_2_2"]
    assert [one.renamed for one in found] == [False, True, True, True]


def test_a_node_without_a_name_is_named_by_its_operator_and_place() -> None:
    assert names.node_names(graph().graph.node)[-1].node == "ReduceSum_12"


def test_every_name_is_read_and_no_operator_shares_one() -> None:
    found = names.node_names([*graph().graph.node, node("Add", f"a{LONG}", "a b", "c")])
    operators = [names.in_file(one.operator) for one in found]
    for listed in ([one.file for one in found], operators):
        assert len(set(listed)) == len(listed)
        assert all(READ.fullmatch(name) for name in listed)
    assert max(map(len, operators)) <= 120


def test_files_are_named_by_operator_number_and_microseconds() -> None:
    time = 1796036488926994
    assert names.golden_file("_fc1_MatMul", 0, time) == "_fc1_MatMul.0.1796036488926994.npy"
    assert names.target_file("MatMul", "/fc1/MatMul", 4, time) == "MatMul._fc1_MatMul.4.1.1796036488926994"


def test_a_name_that_is_too_long_is_in_a_table() -> None:
    time = 1796036488926994
    wanted = names.golden_file("x" * 300, 0, time)
    assert names.shortened("short.0.1.npy", 3, time) == "short.0.1.npy"
    assert names.shortened(wanted, 3, time) == "17960364889269943.npy"
    assert names.mapping_text({wanted: "17960364889269943.npy"}) == f"17960364889269943.npy,{wanted}\n"
