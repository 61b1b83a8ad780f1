from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from vconv.catalog.systems import System
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
    change(given, architectures=["Dinov2Backbone"])
    with refused(WeightsError, "a class of", "that is not exported", "['Dinov2Backbone']"):
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
        with refused(WeightsError, f"{given / file}", f"got {len(before) + 2**22} bytes", "at most 4194304"):
            opened(small_system, given, scratch)
        (given / file).write_text(before)


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
