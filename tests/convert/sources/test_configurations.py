from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from vconv.catalog.systems import System
from vconv.convert.sources import configurations
from vconv.convert.sources.base import Source
from vconv.convert.sources.local import open_local
from vconv.errors import WeightsError
from vconv.types import silent

Refused = Callable[..., AbstractContextManager[None]]
by_transformers = pytest.mark.parametrize("system", ["dinov3-vits16", "dinov2-large"], indirect=True)


def opened(system: System, path: Path, scratch: Path, lines: list[str] | None = None) -> Source:
    return open_local(system, path, scratch, silent if lines is None else lines.append, "FIX")


def change(folder: Path, **more: Any) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **more}))


@by_transformers
def test_another_class_is_refused_when_a_folder_is_opened(
    small_system: System, given: Path, scratch: Path, refused: Refused
) -> None:
    change(given, architectures=["Dinov2PreTrainedModel"])
    with refused(WeightsError, "a class of", "that is not exported", "['Dinov2PreTrainedModel']"):
        opened(small_system, given, scratch)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"])
def test_a_folder_with_an_adapter_is_refused_and_its_base_model_may_be_named(
    small_system: System, given: Path, scratch: Path, refused: Refused, name: str
) -> None:
    (given / name).write_text("{}")
    with refused(WeightsError, "has an adapter", f"got {name}", "merge_and_unload", "--weights"):
        opened(small_system, given, scratch)
    assert opened(small_system, given / "model.safetensors", scratch).origin.kind == "file"


def test_a_folder_with_an_adapter_alone_is_no_model(
    small_system: System, given: Path, scratch: Path, refused: Refused
) -> None:
    (given / "model.safetensors").rename(given / "adapter_model.safetensors")
    with refused(WeightsError, "has an adapter"):
        opened(small_system, given, scratch)


def test_a_configuration_above_the_limit_is_not_read(
    small_system: System, given: Path, scratch: Path, refused: Refused
) -> None:
    for file in ("config.json", "preprocessor_config.json")[: 1 if small_system.library == "timm" else 2]:
        before = (given / file).read_text()
        (given / file).write_text(before + " " * 2**22)
        with refused(WeightsError, f"cannot use {given / file} | got more than 4,194,304 bytes"):
            opened(small_system, given, scratch)
        (given / file).write_text(before)


UNUSABLE = {
    "the name 'hidden_act' twice": '{"hidden_act": "gelu", "hidden_act": "relu"}',
    r"the text '\ud800', with half a character": r'{"a": "\ud800"}',
    r"the text 'a\x00b', with a zero byte": r'{"a": "a\u0000b"}',
    "more than 32 levels": '{"a": ' + "[" * 40 + "]" * 40 + "}",
    "a number of 40 digits": '{"a": ' + "1" * 40 + "}",
    "no JSON: ": "{",
    "a list": "[]",
}


@by_transformers
@pytest.mark.parametrize("reason", UNUSABLE)
def test_a_configuration_is_read_as_strictly_as_an_artifacts_and_refused_where_it_is(
    small_system: System, given: Path, scratch: Path, refused: Refused, reason: str
) -> None:
    for file in ("config.json", "preprocessor_config.json"):
        before = (given / file).read_text()
        (given / file).write_text(UNUSABLE[reason])
        with refused(
            WeightsError,
            f"cannot use {given / file} | got {reason}",
            "expected a JSON object",
            "download the file again; if it was written by hand, correct it",
        ):
            opened(small_system, given, scratch)
        (given / file).write_text(before)


THERE: dict[str, Callable[[Path], object]] = {
    "a named pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
}


@by_transformers
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
@pytest.mark.parametrize("there", THERE)
def test_a_name_that_is_there_is_read_or_refused_for_what_it_is(
    small_system: System, given: Path, scratch: Path, refused: Refused, there: str, name: str
) -> None:
    """In a broken cache of Hugging Face, the files of a snapshot are links to nothing."""
    (given / name).unlink()
    THERE[there](given / name)
    with refused(WeightsError, f"cannot use {given / name} | got {there}", "download the file again"):
        opened(small_system, given, scratch)


@pytest.mark.parametrize("there", THERE)
def test_weights_of_another_name_that_are_no_file_are_refused_for_what_they_are(
    small_system: System, given: Path, scratch: Path, refused: Refused, there: str
) -> None:
    (given / "model.safetensors").unlink()
    THERE[there](given / "tuned.safetensors")
    got = f"no weights in {given} | got no model.safetensors"
    if there != "a folder":
        got = f"cannot use {given / 'tuned.safetensors'} | got {there}"
    with refused(WeightsError, got):
        opened(small_system, given, scratch)


def test_a_broken_link_to_an_adapter_is_an_adapter(
    small_system: System, given: Path, scratch: Path, refused: Refused
) -> None:
    (given / "adapter_config.json").symlink_to("nowhere")
    with refused(WeightsError, "has an adapter"):
        opened(small_system, given, scratch)


@by_transformers
def test_two_equal_sides_are_written_as_one_number(small_system: System, given: Path, scratch: Path) -> None:
    """transformers 4.57 does not take two in a DINOv3."""
    before = json.loads((given / "config.json").read_text())
    change(given, **{name: [before[name]] * 2 for name in ("image_size", "patch_size")})
    source = opened(small_system, given, scratch)
    assert source.config == before == json.loads((scratch / "config.json").read_text())


@by_transformers
def test_an_activation_that_no_published_network_has_is_told(
    small_system: System, given: Path, scratch: Path
) -> None:
    change(given, hidden_act="relu")
    lines: list[str] = []
    family = opened(small_system, given, scratch, lines).network.layout.family
    assert lines[0] == (
        f"config.json asks for the activation 'relu', which no published {family} has: "
        "continue only if these weights were trained with it"
    )


def test_the_published_activation_is_not_told(small_system: System, given: Path, scratch: Path) -> None:
    lines: list[str] = []
    opened(small_system, given, scratch, lines)
    assert lines == ["reading model.safetensors"]


def test_prefixes_of_training_tools_are_removed_and_told(
    small_system: System, small_source: Source, given: Path, scratch: Path
) -> None:
    tensors = safetensors.torch.load_file(given / "model.safetensors")
    named = {f"module._orig_mod.{name}": tensor for name, tensor in tensors.items()}
    safetensors.torch.save_file(named, given / "model.safetensors")
    lines: list[str] = []
    source = opened(small_system, given, scratch, lines)
    held = safetensors.torch.load_file(source.folder / "model.safetensors")
    assert {name: torch.equal(held[name], tensors[name]) for name in held} == dict.fromkeys(tensors, True)
    assert source.entries.keys() == small_source.entries.keys()
    assert source.prefixes == ("module.", "_orig_mod.")
    assert lines[1:] == [
        "removed module. and _orig_mod. from the names of the tensors: training tools add them"
    ]


def test_two_equal_sides_of_a_network_beyond_the_catalog_stay_two(tmp_path: Path) -> None:
    """A Hiera of transformers 5 takes no other."""
    config = {"model_type": "hiera", "image_size": [224, 224], "patch_size": [7, 7]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert configurations.own(tmp_path / "config.json") == config
