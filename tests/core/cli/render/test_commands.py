"""Commands that vconv suggests: pasted into a shell, they are what was meant, whatever the path."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vconv
from vconv.cli import render
from vconv.cli.render.commands import command
from vconv.cli.terminal import WIDTH
from vconv.types import WEIGHTS_FILE

LONGEST = "/data/models/of-the-vision-group/artifacts/vit_small_patch14_reg4_dinov2.lvd142m" * 2
PATHS = (
    "plain",
    "two words",
    "it's tim's",
    'a "quoted" name',
    r"back\slash's \\ and \n",
    "$HOME `id` *?[a] !1 #;&|<>(){}~",
    "Käse 模型 \N{OK HAND SIGN}",
    "  spaces  at  both  ends ",
    "-n",
    "many words and it's long, " * 8,
    LONGEST,
)
SYSTEM = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
COST = {
    "seconds": 1.0,
    "peak_rss_bytes": 1,
    "patches": [],
    "ledger": {"tensors": 1},
    "om": None,
    "reduced": [],
}


def exported(path: str, weights: str | None, without: bool = False) -> dict[str, Any]:
    return {
        **COST,
        **{"artifact": path, "weights": "a label", "synthetic": False, "variants": []},
        **{"weights_given": weights, "weights_found_again": weights is None, "without_weights": without},
    }


def filled(path: str, weights: str | None) -> dict[str, Any]:
    known = {"weights_given": weights, "weights_found_again": weights is None}
    return {"artifact": path, "nbytes": 1, "sha256": "f", **known}


def carded(path: str, found_again: bool) -> dict[str, Any]:
    card = {"file": "README.md", "language": "en", "reports": []}
    return {"artifact": path, **card, "weights_found_again": found_again}


def referred(path: str) -> dict[str, Any]:
    return {
        **{"reference": "original", "weights": "a label", "synthetic": False, "device": "cpu"},
        **{"device_model": "a CPU", "arithmetic": "fp32", "images": ["one"], "floor": {}},
        **{"file": path, "nbytes": 1, "sha256": "f"},
    }


def pasted(shown: str) -> list[str]:
    """Return the words that a shell makes of a text: it takes out a backslash before the end of a line."""
    return shlex.split(shown.replace("\\\n", ""))


@pytest.fixture
def suggested(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The function that draws a document, and returns the command after a title as it was printed."""

    def printed(draw: Callable[[Any], None], document: Any, title: str) -> str:
        capsys.readouterr()
        draw(document)
        shown = capsys.readouterr().out
        assert shown.count(title) == 1
        return shown[shown.index(title) + len(title) :]

    return printed


@pytest.mark.parametrize("path", PATHS)
@SYSTEM
def test_every_suggestion_can_be_pasted(
    path: str, small_artifact: Path, suggested: Callable[..., str]
) -> None:
    described = {**vconv.info(small_artifact), "artifact": path}
    unfilled = {**described, "missing": [WEIGHTS_FILE], "without_weights": True}
    validate, fill, given = ["vconv", "validate", path], ["vconv", "fill", path], ["--weights", path]
    for draw, document, title, expected in (
        (render.exported, exported(path, None), "next:", validate),
        (render.exported, exported(path, path), "next:", [*validate, *given]),
        (render.exported, exported(path, path, without=True), "next:", [*fill, *given]),
        (render.filled, filled(path, None), "next:", validate),
        (render.filled, filled(path, path), "next:", [*validate, *given]),
        (render.carded, carded(path, True), "without measurements:", validate),
        (
            render.referred,
            referred(path),
            "next, on the other machine:",
            ["vconv", "validate", "PATH", "--reference", path],
        ),
        (render.artifact, unfilled, "exported without weights; complete it:", fill),
    ):
        assert pasted(suggested(draw, document, title)) == expected
    shown = suggested(render.artifact, described, "not validated yet:")
    assert pasted(shown)[: len(validate)] == validate


@pytest.mark.parametrize(
    "name", ["a\tb", "two\nlines", "\x1b[31mred\x7f1", "tur\N{RIGHT-TO-LEFT OVERRIDE}ned's é \\x1b"]
)
def test_what_a_terminal_would_not_show_is_pasted_as_escapes(
    name: str, suggested: Callable[..., str]
) -> None:
    shown = suggested(lambda words: command("next:", *words), ["printf", "%s", name], "next:")
    assert shown.strip().isprintable()
    said = subprocess.run(["bash", "-c", shown], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    assert said.stdout.decode() == name


def test_a_long_command_is_still_one_for_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    command("next:", "echo", LONGEST, "of two words", "--weights", "WHERE")
    shown = capsys.readouterr().out.removeprefix("next: ")
    assert max(map(len, shown.splitlines())) <= WIDTH < len(shown)
    said = subprocess.run(["sh", "-c", shown], capture_output=True, text=True, check=True).stdout
    assert said == f"{LONGEST} of two words --weights WHERE\n"


@SYSTEM
def test_where_the_original_is_not_found_again_its_weights_are_asked_for(
    small_artifact: Path, suggested: Callable[..., str]
) -> None:
    known = {**vconv.info(small_artifact), "artifact": "a"}
    assert known["weights_found_again"] is True
    unknown = {**known, "weights_found_again": False}
    validate = ["vconv", "validate", "a", "--weights", "WHERE"]
    for draw, document, title in (
        (render.filled, {**filled("a", None), "weights_found_again": False}, "next:"),
        (render.carded, carded("a", False), "without measurements:"),
    ):
        assert pasted(suggested(draw, document, title)) == validate
    assert pasted(suggested(render.artifact, unknown, "not validated yet:"))[:5] == validate


@SYSTEM
@pytest.mark.parametrize("found_again", [True, False])
def test_an_artifact_whose_weights_are_gone_is_to_be_filled_and_not_validated(
    copied: Path, found_again: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / WEIGHTS_FILE).unlink()
    render.artifact({**vconv.info(copied), "artifact": "a", "weights_found_again": found_again})
    shown = capsys.readouterr().out
    assert "vconv validate" not in shown
    title = "its weights are missing; complete it:"
    expected = ["vconv", "fill", "a"] + ["--weights", "WHERE"] * (not found_again)
    assert pasted(shown[shown.index(title) + len(title) :]) == expected
    assert "\n\n\n" not in shown


@SYSTEM
def test_fill_asks_for_the_weights_only_where_they_are_the_originals(
    copied: Path, small_artifact: Path
) -> None:
    for given, told in (("synthetic:1", "synthetic:1"), (str(small_artifact / WEIGHTS_FILE), None)):
        (copied / WEIGHTS_FILE).unlink()
        document = vconv.fill(copied, given)
        assert (document["weights_given"], document["weights_found_again"]) == (told, True)
