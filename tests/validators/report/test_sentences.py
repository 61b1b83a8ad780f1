from __future__ import annotations

import subprocess
import sys
from typing import Any

import made_reports
import pytest
from made_reports import timing, variant

from vconv.types import FROM_IMAGES, Check, Status
from vconv.validators.report import sentences
from vconv.validators.report.document import LeftOut, Ranking, RankRow, Winner

REFUSED = Ranking(refused="the machine was busy: others took 1.00 of 2 cores", rows=(), left_out=())


def row(name: str, rank: int | None, *ties: str, **values: Any) -> RankRow:
    names = {"artifact": "a", "engine": "onnxruntime"}
    tied = [{**names, "variant": tie} for tie in ties]
    timed = {"p50_ms": 50.26, "interval": [49.84, 51.0], "device": "cpu", "batch": 1}
    content = {**names, "variant": name, "rank": rank, "tied_with": tied, **timed, **values}
    return RankRow.model_validate(content)


def ranking(*rows: RankRow, left_out: tuple[LeftOut, ...] = ()) -> Ranking:
    return Ranking(refused=None, rows=rows, left_out=left_out)


def test_the_fastest_of_each_device_is_named_at_its_least_batch() -> None:
    found = ranking(
        row("a", 1), row("b", 2), row("b", 1, batch=8), row("c", 1, device="cuda:0", batch=4, engine="torch")
    )
    assert sentences.fastest(found) == [
        "fastest on cpu at batch 1: a (onnxruntime), 50.26 ms (49.84 to 51)",
        "fastest on cuda:0 at batch 4: c (torch), 50.26 ms (49.84 to 51)",
    ]


def test_those_that_are_not_told_apart_are_named_with_the_fastest() -> None:
    (line,) = sentences.fastest(ranking(row("a", 1, "b", "c"), row("b", 1, "a", "c")))
    assert line.endswith("; not told apart: b (onnxruntime), c (onnxruntime)")


def test_artifacts_are_named_where_there_are_several() -> None:
    (line,) = sentences.fastest(ranking(row("a", 1), row("a", 2, artifact="b")))
    assert "a (onnxruntime) of a, " in line


def test_a_refused_ranking_says_why() -> None:
    line = "ranking refused: the machine was busy: others took 1.00 of 2 cores"
    assert sentences.fastest(REFUSED) == sentences.ranks(REFUSED) == [line]


def test_a_ranking_spelled_out_has_a_line_a_variant_and_one_for_what_is_missing() -> None:
    left_out = (LeftOut(device="cpu", batch=8, reason="too few samples"),)
    baseline = row("o", None, interval=None)
    assert sentences.ranks(ranking(row("a", 1, "b"), baseline, left_out=left_out)) == [
        "rank 1 on cpu at batch 1: a (onnxruntime), 50.26 ms (49.84 to 51); not told apart: b (onnxruntime)",
        "rank - on cpu at batch 1: o (onnxruntime), 50.26 ms",
        "no ranking on cpu at batch 8: too few samples",
    ]


@pytest.mark.parametrize(
    ("winner", "line"),
    [
        (row("a", 1), "winner: a (onnxruntime)"),
        (row("a", 1, "b"), "winner: a (onnxruntime); not told apart: b (onnxruntime)"),
        (None, "no winner: it was busy"),
    ],
)
def test_a_winner_is_named_or_why_there_is_none(winner: RankRow | None, line: str) -> None:
    won = Winner.model_validate(winner) if winner else None
    document = made_reports.comparison(winner=won, winner_reason=None if winner else "it was busy")
    assert sentences.winner(document) == line


def test_the_winner_of_a_device_comes_with_the_line_that_loads_it() -> None:
    won = {**dict(row("a", 1, "b")), "load": "vconv.load(...)"}
    kept = {
        key: won[key] for key in ("artifact", "variant", "engine", "device", "batch", "tied_with", "load")
    }
    told = sentences.winners(made_reports.report(winners=[kept, {**kept, "device": "npu:0", "load": None}]))
    assert told == [
        "winner on cpu at batch 1: a (onnxruntime); not told apart: b (onnxruntime); "
        "to load it: vconv.load(...)",
        "winner on npu:0 at batch 1: a (onnxruntime); not told apart: b (onnxruntime)",
    ]
    assert sentences.winners(made_reports.report()) == []


def test_nothing_heavy_is_imported_for_a_sentence() -> None:
    heavy = "{'numpy', 'torch', 'pydantic'} & set(sys.modules)"
    code = f"import sys, vconv.validators.report.sentences; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("counts", [None, {}])
def test_nothing_is_said_where_no_node_is_known_to_run_on_the_cpu(counts: dict[str, int] | None) -> None:
    assert sentences.fallbacks(variant("a", fallbacks=counts)) == ""


def test_nodes_that_an_accelerator_leaves_to_the_cpu_are_counted_in_a_sentence() -> None:
    found = variant("a", engine="onnxruntime", device="npu:0", fallbacks={"Expand": 2, "Shape": 1})
    expected = "a (onnxruntime): 3 nodes of it run on the CPU, not on npu:0: 2 Expand, 1 Shape"
    assert sentences.fallbacks(found) == expected
    assert "a node of it runs on the CPU, not on npu:0: 1 Erf" in sentences.fallbacks(
        found.model_copy(update={"fallbacks": {"Erf": 1}})
    )


@pytest.mark.parametrize(
    ("status", "reason", "measured", "word"),
    [
        ("skipped", "not judged: it is the reference", True, "reference"),
        ("skipped", "not judged: it is the reference, on this machine", True, "reference"),
        ("skipped", "not judged: the reference corrects it", True, "not judged"),
        ("skipped", "engine computes fp32", False, "skipped"),
        ("passed", "", True, "passed"),
        ("failed", "", True, "failed"),
    ],
)
def test_what_was_measured_and_not_judged_is_not_called_skipped(
    status: str, reason: str, measured: bool, word: str
) -> None:
    timings = [timing(1, 2.0)] if measured else []
    assert sentences.standing(variant("x", *timings, status=status, reason=reason)) == word


CHANGED_NOTHING = "the simulated arithmetic changed no operator of it"
REFERENCE = ("original-torch-fp32", "skipped", "not judged: it is the reference")


@pytest.mark.parametrize(
    ("status", "rows", "said"),
    [
        ("passed", [("a", "passed", "")], ""),
        ("failed", [("a", "failed", ""), ("b", "incomplete", "too little memory")], ""),
        (
            "incomplete",
            [REFERENCE, ("a", "skipped", CHANGED_NOTHING), ("b", "skipped", CHANGED_NOTHING)],
            f"incomplete, because no variant was judged: {CHANGED_NOTHING} (a, b)",
        ),
        (
            "incomplete",
            [REFERENCE, ("a", "skipped", "one reason"), ("b", "skipped", "another")],
            "incomplete, because no variant was judged: one reason (a); another (b)",
        ),
        (
            "incomplete",
            [("a", "passed", ""), ("b", "incomplete", "too little memory"), ("c", "skipped", "not here")],
            "incomplete, because not every variant could be judged: too little memory (b)",
        ),
        (
            "incomplete",
            [],
            "incomplete, because no variant was judged: nothing was recorded, and the original is not here: "
            "give --weights WHERE",
        ),
    ],
    ids=["passed", "failed", "one reason", "two reasons", "memory", "no reference"],
)
def test_an_incomplete_validation_says_why(status: str, rows: list[tuple[str, str, str]], said: str) -> None:
    found = [variant(name, status=word, reason=reason) for name, word, reason in rows]
    assert sentences.incomplete(Status(status), found) == said


def test_a_precision_is_said_once_if_it_is_computed_as_it_is() -> None:
    assert sentences.computed("fp32", "fp32") == "fp32"
    assert sentences.computed("fp16", "fp32") == "fp16 computed in fp32"


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        ({"epsilon": "skipped", "preprocessing": "passed"}, "passed, by 2 checks; 1 skipped"),
        (
            {"epsilon": "passed", "preprocessing": "skipped"},
            "not judged: a detail; its other checks that were made, 2, passed",
        ),
        (
            {"preprocessing": "passed", "network": "skipped"},
            "not judged: a detail; its other checks that were made, 2, passed",
        ),
        ({"epsilon": "failed", "preprocessing": "skipped"}, "failed, by 1 of 2 checks; 1 skipped"),
        ({"epsilon": "passed", "preprocessing": "passed"}, "passed, by 3 checks"),
    ],
)
def test_a_skipped_detail_does_not_make_the_graph_of_images_skipped(
    statuses: dict[str, str], said: str
) -> None:
    statuses = {"outputs": "passed", **statuses}
    checks = [
        Check(f"{FROM_IMAGES.path}: {name}", Status(status), "a detail", "graph" * (status == "failed"))
        for name, status in statuses.items()
    ]
    assert sentences.from_images(checks) == f"{FROM_IMAGES.name}: {said}; it is not timed"
