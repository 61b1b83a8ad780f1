"""The platforms on which a page is published: what each reads besides the text. A platform is one row."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vconv.errors import UnknownNameError
from vconv.validators.report.card.model import SPOKEN

Fields = Mapping[str, Any]
"""The metadata of a card, as :func:`vconv.validators.report.card.front_matter.metadata` gives it."""

FOLDER = "FOLDER"
"""What stands for the path of the folder in a command."""
_PREPARED_FOR = ("ascend", "npu")
"""Tags of the card that name what an artifact is prepared for."""
_MEASURED_ON = ("NPU", "Ascend", "ascend-npu")
"""Tags of pages on GitCode about NPUs: https://ai.gitcode.com/nanyizjm/whisper-tiny-npu says so in its text,
and so do other pages of its author."""
_LARGE = ("*.safetensors", "*.onnx", "*.om", "*.air")
_MODELSCOPE_TASKS = {"image-feature-extraction": "feature-extraction"}
"""ModelScope's names of tasks where they differ: class Tasks of modelscope/utils/constant.py, 1.40."""


@dataclass(frozen=True)
class Platform:
    """A platform.

    Args:
        name: its name for ``--page``.
        title: its name in a text.
        metadata: from a card's metadata, and whether the model passed on a real NPU, to the metadata there.
        files: from a card's metadata to the further files that the platform reads, by name.
        publish: the commands that publish a folder, as words, with :data:`FOLDER` for its path.
        without_npu: what a page there does without a validation that passed on a real NPU.
        hashtag: the line by which a page says that the model passed on a real NPU; empty if there is none.
    """

    name: str
    title: str
    metadata: Callable[[Fields, bool], Fields]
    files: Callable[[Fields], Mapping[str, str]]
    publish: Sequence[Sequence[str]]
    without_npu: str = "claims no NPU"
    hashtag: str = ""


def _of_gitcode(fields: Fields, on_npu: bool) -> Fields:
    tags = [tag for tag in fields["tags"] if tag not in _PREPARED_FOR]
    if not on_npu:
        return {**fields, "tags": tags}
    return {**fields, "tags": [*_MEASURED_ON, *tags], "hardware": "NPU"}


def _of_modelscope(fields: Fields, on_npu: bool) -> Fields:
    kept = {key: fields[key] for key in ("base_model",) if key in fields}
    if "license" in fields:
        licence = fields.get("license_name") or fields["license"]
        kept["license"] = SPOKEN.get(str(licence), str(licence))
    tags = [tag for tag in fields["tags"] if on_npu or tag not in _PREPARED_FOR]
    return {**kept, "tasks": [_modelscope_task(fields)], "frameworks": ["pytorch"], "tags": tags}


def _modelscope_task(fields: Fields) -> str:
    task = str(fields["pipeline_tag"])
    return _MODELSCOPE_TASKS.get(task, task)


def _configuration(fields: Fields) -> Mapping[str, str]:
    content = {"framework": "pytorch", "task": _modelscope_task(fields)}
    return {"configuration.json": json.dumps(content, indent=2) + "\n"}


def _attributes(fields: Fields) -> Mapping[str, str]:
    return {".gitattributes": "".join(f"{name} filter=lfs diff=lfs merge=lfs -text\n" for name in _LARGE)}


PLATFORMS: Mapping[str, Platform] = {
    platform.name: platform
    for platform in (
        Platform(
            "gitcode",
            "GitCode",
            _of_gitcode,
            _attributes,
            (
                ("git", "-C", FOLDER, "init", "-b", "main"),
                ("git", "-C", FOLDER, "lfs", "install", "--local"),
                ("git", "-C", FOLDER, "add", "."),
                ("git", "-C", FOLDER, "commit", "-m", "vconv card"),
                ("git", "-C", FOLDER, "push", "https://gitcode.com/OWNER/NAME.git", "main"),
            ),
            without_npu="has no `hardware: NPU` in its front matter",
            hashtag="#+NPU",
        ),
        Platform(
            "modelscope",
            "ModelScope",
            _of_modelscope,
            _configuration,
            (("modelscope", "upload", "OWNER/NAME", FOLDER),),
        ),
        Platform(
            "huggingface",
            "Hugging Face",
            lambda fields, on_npu: fields,
            lambda fields: {},
            (("hf", "upload", "OWNER/NAME", FOLDER),),
        ),
    )
}
"""Every platform, by its name for ``--page``."""


def commands(platform: Platform, folder: str) -> list[list[str]]:
    """Return the commands that publish a folder on a platform, as words."""
    return [[folder if word == FOLDER else word for word in words] for words in platform.publish]


def find_platform(name: str) -> Platform:
    """Look a platform up by its name.

    Raises:
        UnknownNameError: there is no such platform.
    """
    if name not in PLATFORMS:
        raise UnknownNameError("page", name, PLATFORMS, fix="name one of those")
    return PLATFORMS[name]
