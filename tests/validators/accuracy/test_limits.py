from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from vconv.errors import InputError, VconvError
from vconv.types import Status
from vconv.validators.accuracy.limits import (
    GREATEST_FILE,
    STRICT,
    TABLES,
    Limits,
    LimitsFile,
    Pair,
    open_limits,
)
from vconv.validators.accuracy.metrics import METRICS
from vconv.validators.accuracy.verdicts import OutputVerdict
from vconv.validators.report import saving
from vconv.validators.report.rows import LimitRow


def test_strict_and_card_are_tables_of_every_pair_and_no_files() -> None:
    assert list(TABLES) == ["strict", "card"]
    for name, table in TABLES.items():
        assert open_limits(name) == Limits(name, table)
        assert list(table) == list(STRICT)
    assert open_limits("strict").table is STRICT
    assert len({id(limit) for limit in TABLES["card"].values()}) == 1


@pytest.mark.parametrize("level", TABLES)
@pytest.mark.parametrize("key", STRICT)
def test_every_limit_bounds_known_metrics_and_says_where_it_comes_from(
    key: tuple[str, str], level: str
) -> None:
    limit = TABLES[level][key]
    assert limit.bounds and set(limit.bounds) <= set(METRICS)
    assert limit.source
    for metric, bound in limit.bounds.items():
        assert math.isfinite(bound)
        assert 0 < bound < 1
        assert (bound > 0.9) == (METRICS[metric].better == "high")


@pytest.mark.parametrize("key", STRICT)
def test_every_limit_bounds_the_vector_relative_error_that_reports_show(key: tuple[str, str]) -> None:
    for table in TABLES.values():
        assert "vector_relative_error" in table[key].bounds


def test_a_tightened_limit_leaves_a_share_of_the_distance_from_a_perfect_result() -> None:
    limit = STRICT["int8", "int8"].tightened(0.5)
    assert limit.bounds == pytest.approx({"vector_relative_error": 0.05, "token_cosine_min": 0.99})
    assert limit.source == STRICT["int8", "int8"].source


def test_the_card_is_what_the_source_documents_use() -> None:
    bounds = TABLES["card"]["fp32", "fp32"].bounds
    assert bounds == {"vector_relative_error": 0.01, "relative_error": 0.01, "cosine": 0.999}


def test_less_precision_is_never_held_to_a_tighter_limit() -> None:
    bounds = [limit.bounds["vector_relative_error"] for limit in STRICT.values()]
    assert bounds == sorted(bounds)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, so that a path as it is given is a name."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def opened(text: str, name: str = "mine.toml") -> Limits:
    Path(name).write_text(text)
    return open_limits(name)


EVERY = """
[fp32.fp32]
vector_relative_error = 2e-5
source = "our own runs"

[bf16.bf16]
top1_match = 1
token_cosine_p1 = 0.99
max_abs = 3
"""


@pytest.mark.usefixtures("here")
def test_a_pair_that_a_file_names_has_exactly_its_bounds_and_the_others_stay_strict() -> None:
    table = opened(EVERY).table
    assert table["fp32", "fp32"].bounds == {"vector_relative_error": 2e-5}
    assert table["bf16", "bf16"].bounds == {"top1_match": 1.0, "token_cosine_p1": 0.99, "max_abs": 3.0}
    assert {type(bound) for bound in table["bf16", "bf16"].bounds.values()} == {float}
    for pair in STRICT:
        if pair not in (("fp32", "fp32"), ("bf16", "bf16")):
            assert table[pair] is STRICT[pair]
    assert list(table) == list(STRICT)


@pytest.mark.usefixtures("here")
def test_a_limit_of_a_file_says_where_it_comes_from_or_that_nobody_did() -> None:
    table = opened(EVERY).table
    assert table["fp32", "fp32"].source == "our own runs"
    assert table["bf16", "bf16"].source == "not given"


def test_a_file_is_known_by_its_path_as_it_was_given_and_its_hash(here: Path) -> None:
    digest = hashlib.sha256(EVERY.encode()).hexdigest()
    assert opened(EVERY).file == LimitsFile("mine.toml", digest)
    assert opened(EVERY).within == "mine.toml"
    assert opened(EVERY).named == (("fp32", "fp32"), ("bf16", "bf16"))
    assert open_limits(here / "mine.toml").file == LimitsFile(str(here / "mine.toml"), digest)


@pytest.mark.usefixtures("here")
def test_a_file_that_is_called_strict_is_opened_by_a_path() -> None:
    Path("strict").write_text(EVERY)
    assert open_limits("strict").file is None
    assert open_limits("./strict").table["fp32", "fp32"].bounds == {"vector_relative_error": 2e-5}


EXTREMES = {
    "vector_relative_error": ("0", "0.0", "-0.0", "1e300", repr(sys.float_info.max), "7"),
    "cosine": ("0", "1", "1.0", "0.5"),
}


@pytest.mark.parametrize(
    ("metric", "text"), [(metric, text) for metric, texts in EXTREMES.items() for text in texts]
)
@pytest.mark.usefixtures("here")
def test_every_number_that_can_be_a_bound_is_one(metric: str, text: str) -> None:
    table = opened(f"[int8.int8]\n{metric} = {text}").table
    assert table["int8", "int8"].bounds == {metric: float(text)}


TABLES_EXPECTED = "expected tables such as [fp32.fp32], each with metric = bound"
FIX = "fix: correct the file, or use --within strict"
LOW = "expected a finite number, 0 or more"
HIGH = "expected a number from 0 to 1"
NESTED = "a = " + "[" * 10_000
REFUSALS: Mapping[str, tuple[str, str]] = {
    "not TOML": (
        "[fp32.fp32\n",
        "m.toml is not TOML | got Expected ']' at the end of a table declaration (at line 1, column 11) "
        f"| {TABLES_EXPECTED} | {FIX}",
    ),
    "nested without end": (NESTED, "m.toml is not TOML | got "),
    "empty": ("", f"m.toml has no limits | got no table | {TABLES_EXPECTED} | {FIX}"),
    "a comment alone": ("# to do", f"m.toml has no limits | got no table | {TABLES_EXPECTED} | {FIX}"),
    "a stray key": (
        "vector_relative_error = 1e-3\n[fp32.fp32]\ncosine = 0.9",
        f"'vector_relative_error' of m.toml is no table | got 0.001 | {TABLES_EXPECTED} | {FIX}",
    ),
    "a stray key under a precision": (
        "[fp32]\ncosine = 0.9",
        f"'fp32.cosine' of m.toml is no table | got 0.9 | {TABLES_EXPECTED} | {FIX}",
    ),
    "an array of tables": (
        "[[fp32.fp32]]\ncosine = 0.9",
        f"'fp32.fp32' of m.toml is no table | got [{{'cosine': 0.9}}] | {TABLES_EXPECTED} | {FIX}",
    ),
    "a long value": (
        f"a = '{'x' * 1000}'",
        f"'a' of m.toml is no table | got '{'x' * 79} | {TABLES_EXPECTED} | {FIX}",
    ),
    "an unknown precision": (
        "[fp31.fp32]\ncosine = 0.9",
        "unknown table in m.toml | got 'fp31.fp32' | expected one of fp32.fp32, fp16.fp16, fp32.hf32, "
        "fp32.fp16, bf16.bf16, int8.int8 | "
        "fix: name one of those",
    ),
    "an unknown arithmetic": (
        "[bf16.hf32]\ncosine = 0.9",
        "unknown table in m.toml | got 'bf16.hf32' | expected one of fp32.hf32, bf16.bf16, fp16.fp16, "
        "fp32.fp32, fp32.fp16, int8.int8 | "
        "fix: name one of those",
    ),
    "an unknown metric": (
        "[fp32.fp32]\nvector_relative_eror = 1e-3",
        "unknown metric in [fp32.fp32] of m.toml | got 'vector_relative_eror' | expected one of "
        f"vector_relative_error, relative_error and {len(METRICS) - 2} others | fix: name one of those",
    ),
    "a table without anything": (
        "[fp16.fp16]",
        f"[fp16.fp16] of m.toml has no bound | got nothing in it | {TABLES_EXPECTED} | {FIX}",
    ),
    "a precision without anything": (
        "[fp16]",
        f"[fp16] of m.toml has no bound | got nothing in it | {TABLES_EXPECTED} | {FIX}",
    ),
    "a source alone": (
        "[fp16.fp16]\nsource = 'a'",
        f"[fp16.fp16] of m.toml has no bound | got a source alone | {TABLES_EXPECTED} | {FIX}",
    ),
    "a source that is no text": (
        "[fp16.fp16]\nsource = 3\ncosine = 0.9",
        f'source in [fp16.fp16] of m.toml is no text | got 3 | expected source = "..." | {FIX}',
    ),
    "a second table that is wrong": (
        "[fp16.fp16]\ncosine = 0.9\n[bf16.bf16]",
        f"[bf16.bf16] of m.toml has no bound | got nothing in it | {TABLES_EXPECTED} | {FIX}",
    ),
    **{
        f"{metric} of {text}": (
            f"[fp32.fp32]\n{metric} = {text}",
            f"{metric} in [fp32.fp32] of m.toml is no bound | got {shown} | {expected} | {FIX}",
        )
        for metric, text, shown, expected in (
            ("mse", "nan", "nan", LOW),
            ("mse", "inf", "inf", LOW),
            ("mse", "-inf", "-inf", LOW),
            ("mse", "-1e-9", "-1e-09", LOW),
            ("mse", "-1", "-1", LOW),
            ("mse", "true", "True", LOW),
            ("mse", "'1e-3'", "'1e-3'", LOW),
            ("mse", "[1e-3]", "[0.001]", LOW),
            ("mse", "{a = 1}", "{'a': 1}", LOW),
            ("mse", f"1{'0' * 400}", f"1{'0' * 79}", LOW),
            ("cosine", "nan", "nan", HIGH),
            ("cosine", "1.0001", "1.0001", HIGH),
            ("cosine", "99.9", "99.9", HIGH),
            ("cosine", "-0.5", "-0.5", HIGH),
            ("top1_match", "false", "False", HIGH),
        )
    },
}
"""By what is wrong with a file: the file, and how it is refused."""


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.usefixtures("here")
def test_a_file_that_holds_something_else_is_refused_in_one_line(name: str) -> None:
    text, sentence = REFUSALS[name]
    with pytest.raises(VconvError) as caught:
        opened(text, "m.toml")
    message = str(caught.value)
    assert message.startswith(sentence) if text == NESTED else message == sentence
    assert len(message.splitlines()) == 1
    assert caught.value.exit_status == 2


NOTHING_THERE = "expected strict, card, or a TOML file of limits | fix: name one of those"


@pytest.mark.parametrize("name", ["lax", "", "Strict", "no/such.toml"])
def test_a_name_that_is_neither_strict_nor_card_nor_a_file_is_refused(name: str, here: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_limits(name)
    got = "No such file or directory" if name else "a folder, not a regular file"
    assert str(caught.value) == f"no limits at {name} | got {got} | {NOTHING_THERE}".replace("  ", " ")


def test_a_folder_is_no_file_of_limits(here: Path) -> None:
    (here / "limits").mkdir()
    with pytest.raises(InputError) as caught:
        open_limits("limits")
    assert str(caught.value) == f"no limits at limits | got a folder, not a regular file | {NOTHING_THERE}"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("dots", "refused"), [(200, False), (201, True)])
def test_a_name_of_very_many_parts_is_refused_before_it_is_parsed(dots: int, refused: bool) -> None:
    with pytest.raises(VconvError) as caught:
        opened(".".join("a" * (dots + 1)) + " = 1\n", "m.toml")
    first = "m.toml is not TOML | got a line with more than 200 dots | "
    assert str(caught.value).startswith(first) == refused


def test_a_pipe_is_no_file_of_limits_and_not_waited_for(here: Path) -> None:
    os.mkfifo(here / "pipe")
    with pytest.raises(InputError) as caught:
        open_limits("pipe")
    assert str(caught.value) == f"no limits at pipe | got a named pipe, not a regular file | {NOTHING_THERE}"


def test_bytes_that_are_no_text_are_no_limits(here: Path) -> None:
    (here / "m.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"^m\.toml is not TOML \| got 'utf-8' codec can't decode byte 0xff"):
        open_limits("m.toml")


@pytest.mark.parametrize(("over", "refused"), [(0, False), (1, True)])
def test_a_file_of_more_than_16_kibibytes_is_not_read(over: int, refused: bool, here: Path) -> None:
    assert GREATEST_FILE == 16 * 1024
    text = "[fp32.fp32]\ncosine = 0.5\n"
    (here / "m.toml").write_text(text + "#" * (GREATEST_FILE + over - len(text)))
    if not refused:
        assert open_limits("m.toml").named == (("fp32", "fp32"),)
        return
    with pytest.raises(InputError) as caught:
        open_limits("m.toml")
    assert str(caught.value) == (
        f"m.toml is no file of limits | got more than 16 KiB | {TABLES_EXPECTED} | {FIX}"
    )


@pytest.mark.usefixtures("here")
def test_a_bound_that_no_output_can_be_held_to_is_refused() -> None:
    limits = opened("[fp32.fp32]\ncosine = 0.9\n[bf16.bf16]\nmse = 1\ntop1_match = 1", "m.toml")
    limits.require_use("there/a", ("cls", "logits"))
    with pytest.raises(InputError) as caught:
        limits.require_use("there/a", iter(("cls", "patches")))
    assert str(caught.value) == (
        "top1_match in [bf16.bf16] of m.toml bounds nothing of there/a | got outputs cls, patches "
        "| expected logits | fix: leave that bound out for this artifact"
    )


@pytest.mark.parametrize("within", TABLES)
def test_strict_and_card_bound_what_every_output_has(within: str) -> None:
    open_limits(within).require_use("there/a", ("cls",))
    for limit in TABLES[within].values():
        assert all(METRICS[metric].applies_to("cls") for metric in limit.bounds)


@pytest.mark.parametrize(
    ("thing", "field"),
    [
        (STRICT["fp32", "fp32"], "bounds"),
        (open_limits("card"), "table"),
        (LimitsFile("a", "b"), "path"),
        (METRICS["mse"], "better"),
        (OutputVerdict(Status.PASSED, (), {}), "status"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_judges_and_what_was_judged_cannot_be_changed(thing: object, field: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(thing, field, "loose")


@pytest.mark.usefixtures("here")
def test_a_report_has_the_limits_that_were_used_and_no_others() -> None:
    limits = opened(EVERY)
    used: list[Pair] = [("fp32", "hf32"), ("fp32", "fp32"), ("fp32", "fp32")]
    rows = [LimitRow.of(pair, limits.table[pair]) for pair in used]
    assert saving.limits_used(limits, rows).as_json() == {
        "within": "mine.toml",
        "file": {"path": "mine.toml", "sha256": hashlib.sha256(EVERY.encode()).hexdigest()},
        "rows": [
            {
                "precision": "fp32",
                "arithmetic": "fp32",
                "bounds": {"vector_relative_error": 2e-5},
                "source": "our own runs",
            },
            {
                "precision": "fp32",
                "arithmetic": "hf32",
                "bounds": dict(STRICT["fp32", "hf32"].bounds),
                "source": STRICT["fp32", "hf32"].source,
            },
        ],
    }
    nothing = {"within": "card", "file": None, "rows": []}
    assert saving.limits_used(open_limits("card"), []).as_json() == nothing
