from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from examples import EXAMPLES
from torch import Tensor

from vconv.catalog.systems import System
from vconv.convert import conversion
from vconv.convert.libraries import models
from vconv.convert.libraries.readers import find_reader
from vconv.convert.sources.base import Origin, Source
from vconv.convert.sources.local import open_local
from vconv.convert.sources.table import Request, open_source
from vconv.convert.weights import ledger
from vconv.errors import VconvError, WeightsError
from vconv.types import silent

Refused = Callable[..., AbstractContextManager[None]]
ONE = "vit_small_patch16_dinov3.lvd1689m"
one_system = pytest.mark.parametrize("system", [ONE], indirect=True)
CONFIGURATIONS = [
    (name, file)
    for name, system in EXAMPLES.items()
    for file in ("config.json", *(["preprocessor_config.json"] if system.preprocessor else []))
]


def opened(system: System, path: Path, scratch: Path, lines: list[str] | None = None) -> Source:
    say = silent if lines is None else lines.append
    return open_local(system, path, scratch, say, "FIX")


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def as_safetensors(folder: Path, tensors: dict[str, Tensor]) -> Path:
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    return folder / "model.safetensors"


def test_a_folder_brings_its_own_configurations(small_system: System, given: Path, scratch: Path) -> None:
    config = {**json.loads((given / "config.json").read_text()), "mine": 0.5}
    (given / "config.json").write_text(json.dumps(config))
    source = opened(small_system, given, scratch)
    assert source.config == config
    assert json.loads((scratch / "config.json").read_text()) == config
    assert source.from_catalog == ()
    digest = hashlib.sha256((given / "model.safetensors").read_bytes()).hexdigest()
    assert source.origin == Origin("folder", digest[:12])
    assert (source.origin.label, source.origin.synthetic) == (f"folder:{digest[:12]}", False)


def test_a_lone_file_gets_the_published_configurations_and_that_is_said(
    small_system: System, given: Path, scratch: Path
) -> None:
    alone = given.with_name("alone")
    alone.mkdir()
    (given / "model.safetensors").rename(alone / "mine.safetensors")
    lines: list[str] = []
    source = opened(small_system, alone / "mine.safetensors", scratch, lines)
    digest = hashlib.sha256((alone / "mine.safetensors").read_bytes()).hexdigest()
    assert source.origin.label == f"file:{digest[:12]}"
    assert source.config == dict(small_system.config)
    assert source.preprocessor == dict(small_system.preprocessor)
    assert source.from_catalog == source.library.files
    said = [f"no {name} beside the weights: using the published one" for name in source.library.files]
    assert lines == [*said, "reading mine.safetensors"]


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_a_file_has_the_configurations_that_lie_beside_it(
    small_system: System, given: Path, scratch: Path
) -> None:
    config = json.loads((given / "config.json").read_text())
    (given / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 0.05}))
    source = opened(small_system, given / "model.safetensors", scratch)
    assert source.config["layer_norm_eps"] == 0.05
    assert source.from_catalog == ()


@pytest.mark.parametrize(("system", "name"), CONFIGURATIONS, indirect=["system"])
def test_a_configuration_that_is_not_there_is_the_published_one_and_that_is_said(
    small_system: System, given: Path, scratch: Path, name: str
) -> None:
    (given / name).unlink()
    lines: list[str] = []
    source = opened(small_system, given, scratch, lines)
    assert source.config == dict(small_system.config)
    assert source.preprocessor == dict(small_system.preprocessor)
    assert source.from_catalog == (name,)
    assert lines == [f"no {name} beside the weights: using the published one", "reading model.safetensors"]
    assert (scratch / name).exists()


@pytest.mark.parametrize(
    ("system", "name"), [CONFIGURATIONS[0], *CONFIGURATIONS[1:2], (ONE, "config.json")], indirect=["system"]
)
@pytest.mark.parametrize(
    ("content", "fragment"),
    [(b"{", "Expecting"), (b"[1]", "a list"), (b"3", "a int"), (b"\xff", "decode"), (b"", "Expecting")],
)
def test_a_configuration_that_is_no_json_object_is_refused(
    small_system: System,
    given: Path,
    scratch: Path,
    refused: Refused,
    name: str,
    content: bytes,
    fragment: str,
) -> None:
    (given / name).write_bytes(content)
    with refused(WeightsError, f"{given / name}", fragment, "a JSON object"):
        opened(small_system, given, scratch)


def test_another_architecture_is_refused_and_both_are_named(
    small_system: System, given: Path, scratch: Path, refused: Refused
) -> None:
    own = find_reader(small_system.config).layout.architecture
    wanted = {
        system.name: system
        for system in EXAMPLES.values()
        if find_reader(system.config).layout.architecture is not own
    }
    family = small_system.config.get("model_type") or small_system.config["architecture"]
    for other in wanted.values():
        expected = other.config.get("model_type") or other.library
        with refused(
            WeightsError, "has weights of another architecture", f"got {family}", expected, "vconv list"
        ):
            opened(other, given, scratch)


@pytest.mark.parametrize("content", [{}, {"model_type": None}, {"hidden_size": 384}])
def test_a_configuration_that_names_no_architecture_is_refused(
    small_system: System, given: Path, scratch: Path, refused: Refused, content: dict[str, Any]
) -> None:
    (given / "config.json").write_text(json.dumps(content))
    told = "config.json does not say which network it describes | got no model_type and no architecture | "
    with refused(WeightsError, told):
        opened(small_system, given, scratch)


@pytest.mark.parametrize("content", [{"model_type": "resnet"}, {"architecture": "resnet18"}])
def test_an_architecture_that_nobody_knows_is_refused(
    small_system: System, given: Path, scratch: Path, refused: Refused, content: dict[str, Any]
) -> None:
    (given / "config.json").write_text(json.dumps(content))
    got = content.get("model_type") or content.get("architecture")
    with refused(WeightsError, "has weights of another architecture", f"got {got}", "vconv list"):
        opened(small_system, given, scratch)


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_a_missing_and_an_unknown_tensor_are_named_when_it_is_converted(
    small_system: System, given: Path, scratch: Path, tmp_path: Path, refused: Refused, change: str
) -> None:
    tensors = tensors_of(given)
    name = next(key for key in tensors if key.endswith("norm1.weight") or "before.weight" in key)
    if change == "missing":
        del tensors[name]
    else:
        name = "the.stray"
        tensors[name] = torch.ones(1)
    as_safetensors(given, tensors)
    source = opened(small_system, given, scratch)
    (tmp_path / "artifact").mkdir()
    with refused(WeightsError, source.network.layout.family, f"got the {change} tensor {name}"):
        conversion.prepare(tmp_path / "artifact", source, silent)
    assert not (tmp_path / "artifact" / "model.safetensors").exists()
    with pytest.raises(VconvError):
        ledger.match_tensors(source.network, source.entries)


def test_a_file_without_metadata_is_loaded_all_the_same(
    small_system: System, given: Path, scratch: Path
) -> None:
    tensors = tensors_of(given)
    as_safetensors(given, tensors)
    source = opened(small_system, given, scratch)
    held = models.load(source.folder, source.network).state_dict()
    assert len(held) == len(tensors)


@one_system
def test_an_artifact_is_no_source(small_system: System, given: Path, scratch: Path, refused: Refused) -> None:
    (given / "vconv.json").write_text("{}")
    for path in (given, given / "model.safetensors"):
        with refused(WeightsError, f"{path} is an artifact", "patched weights", "was made from"):
            opened(small_system, path, scratch)


@one_system
def test_licences_come_along_and_nothing_else(small_system: System, given: Path, scratch: Path) -> None:
    names = ["LICENSE", "LICENSE.md", "Licence.txt", "NOTICE", "license-weights.pdf"]
    for name in (*names, "README.md", "unlicensed", "THE_LICENSE"):
        (given / name).write_text("text")
    (given / "LICENSES").mkdir()
    source = opened(small_system, given, scratch)
    assert {path.name for path in source.licence_files} == set(names)
    assert {path.parent for path in source.licence_files} == {given}
    assert list(source.licence_files) == sorted(source.licence_files)


@one_system
def test_a_licence_is_no_link_out_of_the_folder_but_into_a_cache_and_no_larger_than_a_megabyte(
    small_system: System, given: Path, scratch: Path, tmp_path: Path
) -> None:
    blobs, snapshot = tmp_path / "model" / "blobs", tmp_path / "model" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.parent.mkdir()
    (blobs / "1").write_text("text")
    (tmp_path / "secret").write_text("key")
    given.rename(snapshot)
    (snapshot / "LICENSE").symlink_to("../../blobs/1")
    (snapshot / "LICENSE.md").write_bytes(bytes(1_000_001))
    (snapshot / "NOTICE").symlink_to(tmp_path / "secret")
    lines: list[str] = []
    assert opened(small_system, snapshot, scratch, lines).licence_files == (snapshot / "LICENSE",)
    assert "NOTICE is skipped: it is a link that leads out of the folder" in lines
    assert "LICENSE.md is skipped: it is larger than 1000000 bytes" in lines


@pytest.mark.parametrize(("system", "name"), CONFIGURATIONS[:2], indirect=["system"])
def test_code_that_a_configuration_names_is_forgotten(
    small_system: System, given: Path, scratch: Path, name: str
) -> None:
    content = json.loads((given / name).read_text())
    (given / name).write_text(json.dumps({**content, "auto_map": {"AutoModel": "evil.Foo"}}))
    opened(small_system, given, scratch)
    assert json.loads((scratch / name).read_text()) == content


@one_system
def test_a_configuration_nested_too_deep_is_refused(
    small_system: System, given: Path, scratch: Path, refused: Refused
) -> None:
    (given / "config.json").write_text("[" * 100_000)
    with refused(WeightsError, f"{given / 'config.json'}", "got more than 32 levels", "a JSON object"):
        opened(small_system, given, scratch)


@one_system
@pytest.mark.parametrize("described", [True, False])
def test_a_file_brings_the_licence_of_its_folder_where_that_is_a_models(
    small_system: System, given: Path, scratch: Path, described: bool
) -> None:
    (given / "LICENSE").write_text("text")
    (given / "README.md").write_text("---\nlicense: mit\n---\n")
    if not described:
        (given / "config.json").unlink()
    source = opened(small_system, given / "model.safetensors", scratch)
    expected = ((given / "LICENSE",), "mit") if described else ((), small_system.licence)
    assert (source.licence_files, source.licence) == expected


@one_system
@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n# Model", "mit"),
        ("---\ntags:\n- vision\nlicense: apache-2.0\nlibrary_name: timm\n---\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: dinov3-license\nlicense_link: x\n---\n", "dinov3-license"),
        ("---\nlicense: 'cc-by-nc-4.0'\n---\n", "cc-by-nc-4.0"),
        ('---\nlicense: "mit"\n---\n', "mit"),
        ("---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("---\nlicense:\n- mit\n---\n", None),
        ("---\ntags: [a]\n---\nlicense: mit\n", None),
        ("license: mit\n", None),
        ("# Model\n---\nlicense: mit\n---\n", None),
        ("---\nlicense: mit", "mit"),
        ("", None),
        ("---", None),
    ],
)
def test_the_licence_is_the_model_cards_or_the_systems(
    small_system: System, given: Path, scratch: Path, card: str, licence: str | None
) -> None:
    (given / "README.md").write_bytes(card.encode())
    assert opened(small_system, given, scratch).licence == (licence or small_system.licence)


@one_system
def test_a_card_that_is_no_text_is_passed_over(small_system: System, given: Path, scratch: Path) -> None:
    (given / "README.md").write_bytes(b"\xff\xfe---\n\x00")
    assert opened(small_system, given, scratch).licence == small_system.licence


def test_two_openings_of_one_folder_are_the_same(small_system: System, given: Path, tmp_path: Path) -> None:
    found = []
    for name in "ab":
        (tmp_path / name).mkdir()
        found.append(open_source(Request(small_system, str(given)), tmp_path / name))
    first, second = found
    assert (first.files, first.origin) == (second.files, second.origin)
    assert first.configuration_sha256 == second.configuration_sha256
    assert (first.folder / "config.json").read_bytes() == (second.folder / "config.json").read_bytes()


@one_system
def test_a_given_origin_is_kept(small_system: System, given: Path, scratch: Path) -> None:
    origin = Origin("huggingface", "me/mine", "abc")
    assert open_local(small_system, given, scratch, silent, "FIX", origin).origin == origin


@one_system
@pytest.mark.parametrize("large", [False, True])
def test_shards_are_merged_unless_they_are_mapped_when_they_are_loaded(
    small_system: System, given: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    tensors = {name: tensor.bfloat16() for name, tensor in tensors_of(given).items()}
    (given / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in shards.items():
        safetensors.torch.save_file({name: tensors[name] for name in held}, given / file)
    index = {"weight_map": {name: file for file, held in shards.items() for name in held}}
    (given / "model.safetensors.index.json").write_text(json.dumps(index))
    monkeypatch.setattr("vconv.convert.libraries.widening.GREATEST_WIDENED", 0 if large else 2**40)
    source = opened(small_system, given, scratch)
    links = {path.name for path in scratch.iterdir() if path.is_symlink()}
    assert links == ({*shards, "model.safetensors.index.json"} if large else set())
    assert source.files.keys() == shards.keys()
    for name, tensor in models.load(source.folder, source.network).state_dict().items():
        assert torch.equal(tensor.float(), tensors[source.network.layout.disk_key(name)].float()), name
