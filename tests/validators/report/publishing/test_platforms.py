"""What each platform reads at the head of a page."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vconv.errors import UnknownNameError
from vconv.validators.report.publishing.platforms import PLATFORMS, commands, find_platform

CARD = {
    "license": "other",
    "license_name": "dinov3-license",
    "license_link": "https://example.org/licence",
    "base_model": "facebook/x",
    "library_name": "transformers",
    "pipeline_tag": "image-feature-extraction",
    "tags": ["vconv", "ascend", "npu", "onnx"],
}
SYNTHETIC = {key: CARD[key] for key in ("library_name", "pipeline_tag", "tags")}
MODELSCOPE = {"tasks": ["feature-extraction"], "frameworks": ["pytorch"]}

CASES: list[tuple[str, dict[str, Any], bool, dict[str, Any]]] = [
    (
        "gitcode",
        CARD,
        True,
        {**CARD, "hardware": "NPU", "tags": ["NPU", "Ascend", "ascend-npu", "vconv", "onnx"]},
    ),
    ("gitcode", CARD, False, {**CARD, "tags": ["vconv", "onnx"]}),
    ("huggingface", CARD, True, CARD),
    ("huggingface", CARD, False, CARD),
    (
        "modelscope",
        CARD,
        True,
        {"base_model": "facebook/x", "license": "DINOv3 License", **MODELSCOPE, "tags": CARD["tags"]},
    ),
    ("modelscope", SYNTHETIC, False, {**MODELSCOPE, "tags": ["vconv", "onnx"]}),
    (
        "modelscope",
        {**SYNTHETIC, "license": "mit", "pipeline_tag": "image-classification"},
        False,
        {
            "license": "mit",
            "tasks": ["image-classification"],
            "frameworks": ["pytorch"],
            "tags": ["vconv", "onnx"],
        },
    ),
]


@pytest.mark.parametrize(("name", "fields", "on_npu", "expected"), CASES)
def test_the_metadata_is_that_of_the_platform(
    name: str, fields: dict[str, Any], on_npu: bool, expected: dict[str, Any]
) -> None:
    assert find_platform(name).metadata(fields, on_npu) == expected


def test_modelscope_reads_a_framework_and_a_task() -> None:
    files = find_platform("modelscope").files(CARD)
    assert json.loads(files["configuration.json"]) == {"framework": "pytorch", "task": "feature-extraction"}


def test_the_tasks_of_modelscope_are_known_to_its_library() -> None:
    constant = pytest.importorskip("modelscope.utils.constant")
    known = {
        value
        for tasks in constant.Tasks.__mro__
        for name, value in vars(tasks).items()
        if isinstance(value, str) and name[0] != "_"
    }
    for task in ("image-feature-extraction", "image-classification"):
        (found,) = find_platform("modelscope").metadata({**CARD, "pipeline_tag": task}, False)["tasks"]
        assert found in known


@pytest.mark.parametrize("name", PLATFORMS)
def test_the_commands_name_the_folder(name: str) -> None:
    found = commands(PLATFORMS[name], "my folder")
    assert all("my folder" in words and "FOLDER" not in words for words in found)


def test_an_unknown_platform_is_a_sentence() -> None:
    with pytest.raises(UnknownNameError, match="unknown page | got 'gitlab' | expected one of gitcode"):
        find_platform("gitlab")
