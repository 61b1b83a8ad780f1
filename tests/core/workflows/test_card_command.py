"""The command in a card makes the same artifact again."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import vconv
from vconv.catalog.systems import SYSTEMS, System
from vconv.cli import main
from vconv.convert.ascend.chips import CHIPS
from vconv.types import MANIFEST_FILE

IMAGES: dict[str, Any] = {"with_preprocessing": True, "aipp": "dynamic"}
ALL: dict[str, dict[str, Any]] = {
    "batches": {
        **{"batch": 2, "attention": "rank3", "npu_opset": 15, "seed": 3, "outputs": "cls,attention:1"},
        **{"format": "om", "soc": "Ascend910B4", "om_precision": "fp16", "gears": (1, 2), **IMAGES},
    },
    "sizes": {
        **{"size": "dynamic", "with_preprocessing": True, "golden": False, "batch": 2},
        **{"format": "om", "soc": "Ascend310P3"},
    },
    "air": {"format": "air", "soc": "Ascend910_9391", "batch": 2, "golden": False, "opset": 19},
}


@pytest.fixture
def system() -> System:
    """One system: what is tested here is the same for all."""
    return SYSTEMS["dinov3-vits16"]


def command_in(folder: Path, name: str) -> list[str]:
    """Return the words after ``vconv`` of the command in a card, with the miniature and its made weights."""
    (line,) = re.findall(r"(?m)^vconv (export .*)$", (folder / "README.md").read_text())
    _, _, option, _, *options = shlex.split(line)
    return ["export", name, option, "synthetic:1", *options]


@pytest.mark.parametrize(
    "kind", ["batches", *(pytest.param(one, marks=pytest.mark.full) for one in ("sizes", "air"))]
)
def test_the_command_in_a_card_makes_the_same_manifest_again(
    kind: str,
    small_name: str,
    size: tuple[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("vconv.convert.ascend.offline_air.installed", lambda: False)
    options = dict(ALL[kind])
    if kind == "sizes":
        options["gears_size"] = (size, (size[0] * 2, size[1]))
    first, again = tmp_path / "first", tmp_path / "again"
    vconv.export(small_name, "synthetic:1", first, **options)
    command = command_in(first, small_name)
    done = CliRunner().invoke(main, [*command, "--out", str(again)])
    assert done.exit_code == 0, done.stderr
    found, expected = (json.loads((folder / MANIFEST_FILE).read_text()) for folder in (again, first))
    assert found == expected
    assert set(options) <= {word[2:].replace("-", "_") for word in command}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_card_says_first_for_which_processor_an_offline_model_is(
    language: str, small_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    out, page = tmp_path / "out", tmp_path / "page"
    soc = CHIPS["310P"].names[1]
    vconv.export(small_name, "synthetic:1", out, format="om", soc=soc, gears=(1, 4), golden=False)
    vconv.card(out, language)
    vconv.card(out, language, page="gitcode", out=page)
    for folder in (out, page):
        text = (folder / "README.md").read_text()
        title, *lines = text[text.index("\n# ") + 1 :].splitlines()
        assert title.startswith("# ") and lines[0] == lines[2] == ""
        said = lines[1]
        assert all(part in said for part in ("`om/`", f"`{soc}`", "`cube_fp16in_fp32out`", "1, 4"))
