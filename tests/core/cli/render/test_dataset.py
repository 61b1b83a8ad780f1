"""What was found on a folder of images, in a terminal: no table is wider than 80 characters."""

from __future__ import annotations

from typing import Any

import pytest
from made_reports import report

from vconv.cli.render.dataset import dataset


def document() -> dict[str, Any]:
    """Make a report whose every cell is as wide as it can be."""
    place = {"variant": "original-torch-autocast-bf16-captured", "engine": "openvino", "device": "npu-sim"}
    errors = {"p50": 1.25e-10, "p90": 0.1, "p99": 0.1, "p100": 2.5e-2}
    output = {"cosine": {}, "relative_error": {}, "vector_relative_error": errors, "compared": 12}
    output |= {"limit": 1e-3, "beyond": 999999}
    row = {
        **place,
        "precision": "bf16",
        "arithmetic": "bf16",
        "simulated": True,
        "status": "skipped",
        "reason": "",
        "outputs": {"last_hidden_state": output, "cls": output | {"beyond": None}},
        "neighbours": {"k": 10, "agreement": 0.99995},
        "top1_agreement": 0.125,
    }
    missing = {"p50": None, "p90": None, "p99": None, "p100": None}
    torn = output | {"vector_relative_error": missing, "beyond": 2}
    worst = {
        "image": "[red]" + "folder/" * 12 + "x.png",
        **place,
        "simulated": True,
        "output": "last_hidden_state",
    }
    worst |= {"relative_error": None, "thumbnail": None}
    worst |= {"vector_relative_error": 1.25e-10, "cosine": -0.123456789, "share_of_limit": 123456.0}
    none = dict.fromkeys(("vector_relative_error", "cosine", "share_of_limit"))
    return {
        "weights": "synthetic:0",
        "synthetic": True,
        "dataset": {
            "folder": "/a/folder",
            "images": 1234567,
            "k": 10,
            "neighbours_of": "pooled",
            "agreement_by_chance": 0.0125,
            "variants": [row, row | {"outputs": {"cls": output, "patches": torn}, "top1_agreement": None}],
            "neighbours_between": [],
            "worst": [worst, worst | none],
            "skipped": [{"image": f"{place}.png", "reason": "it is torn"} for place in range(7)],
            "other_files": 1,
            "resumed": False,
            "seconds": 1.0,
        },
    }


def drawn(content: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    dataset(report(**content))
    return capsys.readouterr().out


def test_no_line_is_wider_than_80_characters(capsys: pytest.CaptureFixture[str]) -> None:
    lines = drawn(document(), capsys).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) > 20


def test_what_is_simulated_or_synthetic_says_so_and_nothing_is_taken_for_markup(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = drawn(document(), capsys)
    assert "synthetic: not trained weights" in " ".join(text.split())
    assert "".join(text.split()).count("(simulated)") == 4
    assert text.count("[red]folder/") == 2
    assert "1,234,567 images, 7 skipped, files of other suffixes, left out: 1" in " ".join(text.split())
    assert "skipped: 4.png: it is torn" in text
    assert "and 2 more, which the log names" in text
    assert "skipped: 5.png" not in text


def test_more_images_than_a_report_lists_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    content = document()
    content["dataset"]["skipped_count"] = 100_500
    text = " ".join(drawn(content, capsys).split())
    assert "1,234,567 images, 100,500 skipped, files of other suffixes, left out: 1" in text
    assert "and 100,495 more, the log names the first 7" in text


def test_a_variant_is_shown_at_the_output_with_most_images_beyond_or_else_the_greatest_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = document()
    first, second = content["dataset"]["variants"]
    second["outputs"]["cls"] = second["outputs"]["cls"] | {"beyond": 0}
    lines = drawn(content, capsys).splitlines()
    shown = [line for line in lines if line.startswith("original-") and line.endswith("not judged")]
    assert "999999" in shown[0]
    assert "patches" in shown[1]
    assert first["outputs"].keys() == {"last_hidden_state", "cls"}


def test_without_a_classifier_there_is_no_column_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    content = document()
    assert "top-1" in drawn(content, capsys)
    for row in content["dataset"]["variants"]:
        row["top1_agreement"] = None
    assert "top-1" not in drawn(content, capsys)


def test_without_a_folder_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert drawn({**document(), "dataset": None}, capsys) == ""
