from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest
from onnx import helper

from vconv.errors import InputError
from vconv.validators.msprobe import beside, names, table
from vconv.validators.msprobe.figures import FIGURES, Figures
from vconv.validators.msprobe.mapping import Operator, document
from vconv.validators.msprobe.names import NodeName
from vconv.validators.msprobe.table import Row

HEADER = (
    "Index,OpType,NPUDump,DataType,Address,GroundTruth,DataType,TensorIndex,Shape,CosineSimilarity,"
    "MaxAbsoluteError,AccumulatedRelativeError,RelativeEuclideanDistance,KullbackLeiblerDivergence,"
    "StandardDeviation,MeanAbsoluteError,RootMeanSquareError,MaxRelativeError,MeanRelativeError,"
    "CompareFailReason,IsNpuOps,IsOutputNode,IsPrecisionError"
)
"""The first line of a table that msprobe 26.2.0 wrote."""
SOUND = dict.fromkeys(FIGURES, 0.0) | {"CosineSimilarity": 1.0}
NAN = float("nan")


def operator(kind: str, *nodes: str) -> Operator:
    named = tuple(NodeName(name, name.replace("/", "_").replace(".", "_")) for name in nodes)
    return Operator(kind, named, ("images:0",), ("float32", "int64"))


def row(kind: str, nodes: Sequence[str], output: int = 0, index: int = 1, **figures: float) -> Row:
    made = Figures({**SOUND, **figures}, "(0.000;1.000),(0.000;1.000)", "", True)
    return Row(index, operator(kind, *nodes), output, ("float32", "float32"), 12, made, nodes[-1] == "last")


def test_a_table_is_written_as_msprobe_writes_it(tmp_path: Path) -> None:
    rows = [
        row("MatMul", ["/fc.1/MatMul"], RelativeEuclideanDistance=0.0000004),
        row("Split", ["split"], 1, 2, MaxAbsoluteError=3.25),
        row("Gelu", ["div", "erf", "last"], index=3, CosineSimilarity=0.98),
        row("Neg", ["last"], index=4),
    ]
    table.write(tmp_path / "result.csv", ["images"], rows)
    spread = '"(0.000;1.000),(0.000;1.000)"'
    zeros = f"0.000000,0.000000,{spread},0.000000,0.000000,0.000000,0.000000"
    assert (tmp_path / "result.csv").read_text().splitlines() == [
        HEADER,
        "0,Data,images,NaN,NaN,images" + ",NaN" * 13 + ',"[images] There is no dump file for my output '
        'operator ""images"". The type is Data.",NO,NO,NO',
        "1,MatMul,/fc.1/MatMul,float32,NaN,/fc.1/MatMul,float32,/fc.1/MatMul:output:0,[12],1.000000,0.000000,"
        f"0.000000,{zeros},,NO,NO,NO",
        "2,Split,split,float32,NaN,split,float32,split:output:1,[12],1.000000,3.250000,"
        f"0.000000,{zeros},,NO,NO,NO",
        '3,Gelu,last,float32,NaN,"div,erf,last",float32,last:output:0,[12],0.980000,0.000000,'
        f"0.000000,{zeros},,NO,YES,YES",
        "4,Neg,last,float32,NaN,last,float32,last:output:0,[12],1.000000,0.000000,"
        f"0.000000,{zeros},,NO,YES,NO",
    ]


@pytest.mark.parametrize(
    ("figure", "least", "passes"),
    [
        ("CosineSimilarity", 0.989999, 0.99),
        ("RelativeEuclideanDistance", 0.050001, 0.05),
        ("KullbackLeiblerDivergence", 0.005001, 0.005),
        ("RootMeanSquareError", 1.000001, 1.0),
        ("MeanRelativeError", 1.000001, 1.0),
        ("MaxRelativeError", NAN, 1e9),
    ],
)
def test_a_precision_error_is_what_msprobe_calls_one(figure: str, least: float, passes: float) -> None:
    assert row("MatMul", ["a"], **{figure: least}).departs == (figure != "MaxRelativeError")
    assert not row("MatMul", ["a"], **{figure: passes}).departs
    # The printed figure counts, which has six decimals.
    assert not row("MatMul", ["a"], **{figure: passes - 4e-7 * (figure == "CosineSimilarity")}).departs


def test_a_nan_is_no_precision_error_to_msprobe_whatever_the_other_figures_are() -> None:
    assert not row("MatMul", ["a"], CosineSimilarity=NAN, RelativeEuclideanDistance=NAN).departs
    assert not row("MatMul", ["a"], CosineSimilarity=NAN, RelativeEuclideanDistance=9.0).departs


def test_the_mapping_leads_from_operators_to_nodes() -> None:
    found = document(["images"], [operator("Gelu", "div", "/act.0/Mul")])
    (graph,) = found["graph"]
    names = {"key": "_datadump_original_op_names", "value": {"list": {"s": ["div", "/act.0/Mul"]}}}
    origin = {"key": "_datadump_origin_name", "value": {"s": "/act.0/Mul"}}

    def output(dtype: str, index: int) -> dict[str, object]:
        place = {"key": "_datadump_origin_output_index", "value": {"i": index}}
        return {"dtype": dtype, "attr": [origin, place]}

    assert graph["op"] == [
        {
            **{"name": "images", "type": "Data", "id": 0, "input": []},
            "output_desc": [{"dtype": "DT_FLOAT", "attr": []}],
        },
        {
            **{"name": "/act.0/Mul", "type": "Gelu", "id": 1, "input": ["images:0"], "attr": [names]},
            "output_desc": [output("DT_FLOAT", 0), output("DT_INT64", 1)],
        },
    ]


NODES = [NodeName(name, name) for name in ("conv", "div", "erf", "mul", "split", "last")]
THEIRS = """\
0,Data,images,NaN,NaN,images,NaN,NaN,NaN,NaN,NaN,NaN,NaN,NaN,NaN,NaN,NaN,NaN,NaN,no dump,NO,NO,NO
1,Conv2D,conv,float16,NaN,conv,float32,conv:input:0,[4],1.0,0,0,0.9,0,"(0;1),(0;1)",0,0,0,0,,NO,NO,NO
1,Conv2D,conv,float16,NaN,conv,float32,conv:output:0,[4],0.999999,0,0,0.0004,0,"(0;1),(0;1)",0,0,0,0,,NO,NO,NO
2,Gelu,mulgelu,float16,NaN,"div,erf,mul",float32,mulgelu:output:0,[4],0.99,0,0,0.03,0,,0,0,0,0,,NO,NO,NO
3,TransData,trans_1,float16,NaN,*,NaN,trans_1:output:0,[4],NaN,NaN,NaN,NaN,NaN,NaN,NaN,NaN,NaN,NaN,,YES,NO,NO
4,SplitD,split,float16,NaN,split,float32,split:output:1,[4],1.0,0,0,0.001,0,"(0;1),(0;1)",0,0,0,0,,NO,NO,NO
"""


def test_tables_are_set_side_by_side_by_the_last_node_of_each_operator(tmp_path: Path) -> None:
    (tmp_path / "theirs.csv").write_text(f"{HEADER}\n{THEIRS}")
    ours = [
        row("Conv", ["conv"], RelativeEuclideanDistance=0.0001, CosineSimilarity=0.99999999),
        row("Mul", ["mul"], RelativeEuclideanDistance=0.01),
        row("Split", ["split"], 0, RelativeEuclideanDistance=0.002),
        row("Split", ["split"], 1, RelativeEuclideanDistance=0.0),
        row("Neg", ["last"]),
    ]
    found = beside.beside(ours, table.read(tmp_path / "theirs.csv"), NODES)
    beside.write(tmp_path / "beside.csv", found)
    with (tmp_path / "beside.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines == [
        [
            *("operator", "type", "nodes", "output", "found", "relative_l2", "cosine"),
            *("their_relative_l2", "their_cosine", "ratio"),
        ],
        ["conv", "Conv2D", "conv", "0", "both", "0.0001", "0.99999999", "0.0004", "0.999999", "4.0"],
        ["mulgelu", "Gelu", "div,erf,mul", "0", "both", "0.01", "1.0", "0.03", "0.99", "3.0"],
        ["trans_1", "TransData", "*", "0", "theirs", "", "", "", "", ""],
        ["split", "SplitD", "split", "1", "both", "0.0", "1.0", "0.001", "1.0", ""],
        ["split", "Split", "split", "0", "ours", "0.002", "1.0", "", "", ""],
        ["last", "Neg", "last", "0", "ours", "0.0", "1.0", "", "", ""],
    ]


def their_row(node: str) -> str:
    figures = '1.0,0,0,0.5,0,"(0;1),(0;1)",0,0,0,0,'
    return f"1,Neg,{node},float32,NaN,{node},float32,{node}:output:0,[4],{figures},NO,NO,NO"


@pytest.mark.parametrize("mapping", ["theirs", "ours"])
def test_nodes_that_vconv_renamed_are_found_by_either_name(mapping: str, tmp_path: Path) -> None:
    nodes = names.node_names(
        helper.make_node("Neg", ["x"], ["y"], name) for name in ("a/b", "a.b", "a_b_2", "k_quant")
    )
    assert [name.renamed for name in nodes] == [False, True, True, True]
    ours = [
        Row(place, Operator("Neg", (name,), (), ("float32",)), 0, ("float32", "float32"), 4, figures, False)
        for place, name in enumerate(nodes)
        if (figures := Figures({**SOUND, "RelativeEuclideanDistance": float(place)}, "", "", True))
    ]
    # msprobe has the nodes' own names from the mapping of a real model; the others from vconv's mapping.
    named = [name.node if mapping == "theirs" else name.origin for name in nodes]
    expected = {name: float(place) for place, name in enumerate(named)}
    if mapping == "ours":
        # "a_b_2" is what "a.b" became, and another node's own name, which comes first.
        assert named == ["a/b", "a_b_2", "a_b_2_2", "k_qnt"]
        del named[1], expected["a_b_2"]
    (tmp_path / "theirs.csv").write_text("\n".join([HEADER, *map(their_row, named)]) + "\n")
    found = beside.beside(ours, table.read(tmp_path / "theirs.csv"), nodes)
    both = {pair.operator: pair.relative_l2 for pair in found if pair.found == "both"}
    assert both == expected


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"", "an empty file"),
        (b"\n\n", "an empty file"),
        (HEADER.encode(), "a header alone"),
        (b"a,b\n1,2\n", "no column GroundTruth, OpType, NPUDump, TensorIndex"),
        (f"{HEADER}\n1,MatMul,fc\n".encode(), "line 2: 1,MatMul,fc"),
        (
            f"{HEADER}\n{THEIRS.splitlines()[1].replace(',0.9,', ',much,')}\n".encode(),
            "line 2: 1,Conv2D,conv",
        ),
        (bytes(range(128, 256)), "no text of a table: 'utf-8' codec"),
        (None, "No such file or directory"),
    ],
    ids=["empty", "lines", "header", "columns", "short", "figure", "binary", "none"],
)
def test_what_is_no_table_of_msprobe_is_refused_in_one_line(
    content: bytes | None, got: str, tmp_path: Path
) -> None:
    path = tmp_path / "other.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        table.read(path)
    assert str(caught.value).startswith(f"{path} is not a table of msprobe | got {got}")
    assert "fix: give the result_TIME.csv that `msprobe compare -m offline_model`" in str(caught.value)
