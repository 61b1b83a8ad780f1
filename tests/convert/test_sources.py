from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch

from vconv.catalog import System
from vconv.convert.safetensors_file import read_header
from vconv.convert.sources import Source, is_synthetic, open_source, sha256_of, ways
from vconv.errors import WeightsError

Refused = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.fixture
def given(small_source: Source, tmp_path: Path) -> Path:
    """A folder as a user would bring it, with a configuration of its own."""
    folder = tmp_path / "given"
    folder.mkdir()
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        (folder / name).write_bytes((small_source.folder / name).read_bytes())
    return folder


@pytest.mark.parametrize(
    ("weights", "label"),
    [("synthetic", "synthetic:0"), ("synthetic:0", "synthetic:0"), ("synthetic:42", "synthetic:42")],
)
def test_a_seed_is_a_source(small_system: System, scratch: Path, weights: str, label: str) -> None:
    lines: list[str] = []
    source = open_source(small_system, weights, scratch, lines.append)
    assert source.label == label
    assert source.synthetic
    assert source.config == dict(small_system.config)
    assert source.preprocessor == dict(small_system.preprocessor)
    assert lines == [f"drawing synthetic weights from seed {label.partition(':')[2]}"]
    assert source.sha256 == hashlib.sha256((scratch / "model.safetensors").read_bytes()).hexdigest()


def test_a_seed_is_never_mistaken_for_training(small_system: System, scratch: Path) -> None:
    assert open_source(small_system, "synthetic:7", scratch).synthetic
    assert is_synthetic("synthetic:0")
    assert not is_synthetic("folder:synthetic")
    assert not is_synthetic("file:synthetic.safetensors")


@pytest.mark.parametrize("weights", ["synthetic:-1", "synthetic:", "synthetic:x", "synthetic:1234567890"])
def test_what_is_not_a_seed_is_refused(
    small_system: System, scratch: Path, weights: str, refused: Refused
) -> None:
    with refused(WeightsError, "not a seed", repr(weights), "synthetic:SEED", "synthetic:0"):
        open_source(small_system, weights, scratch)


def test_a_folder_is_a_source(small_system: System, given: Path, scratch: Path) -> None:
    config = {**json.loads((given / "config.json").read_text()), "layer_norm_eps": 0.5}
    (given / "config.json").write_text(json.dumps(config))
    source = open_source(small_system, str(given), scratch)
    assert source.label == f"folder:{source.sha256[:12]}"
    assert not source.synthetic
    assert source.config == config
    assert json.loads((scratch / "config.json").read_text()) == config
    assert source.sha256 == hashlib.sha256((given / "model.safetensors").read_bytes()).hexdigest()
    assert set(source.entries) == set(safetensors.torch.load_file(given / "model.safetensors"))


def test_a_file_is_a_source_with_the_catalogs_configuration(
    small_system: System, given: Path, scratch: Path
) -> None:
    (given / "model.safetensors").rename(given / "mine.safetensors")
    source = open_source(small_system, str(given / "mine.safetensors"), scratch)
    assert source.label == f"file:{source.sha256[:12]}"
    assert source.config == dict(small_system.config)
    assert source.preprocessor == dict(small_system.preprocessor)


def test_a_source_is_not_written_to(small_system: System, given: Path, scratch: Path) -> None:
    before = {path.name: path.read_bytes() for path in given.iterdir()}
    open_source(small_system, str(given), scratch)
    assert {path.name: path.read_bytes() for path in given.iterdir()} == before


def test_a_source_folder_is_one_that_stock_transformers_loads(
    small_system: System, given: Path, scratch: Path, stock: Callable[[Path], object]
) -> None:
    source = open_source(small_system, str(given), scratch)
    model = stock(source.folder)
    weights = safetensors.torch.load_file(given / "model.safetensors")
    named = dict(model.named_parameters())  # type: ignore[attr-defined]
    assert named["embeddings.cls_token"].equal(weights["embeddings.cls_token"])
    assert len(named) == len(weights) == len(source.entries)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_folder_without_a_configuration_gets_the_catalogs(
    small_system: System, given: Path, scratch: Path, name: str
) -> None:
    (given / name).unlink()
    source = open_source(small_system, str(given), scratch)
    assert source.config == dict(small_system.config)
    assert source.preprocessor == dict(small_system.preprocessor)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
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
        open_source(small_system, str(given), scratch)


@pytest.mark.parametrize("family", ["resnet", None])
def test_another_architecture_is_refused(
    small_system: System, given: Path, scratch: Path, refused: Refused, family: str | None
) -> None:
    config = {**json.loads((given / "config.json").read_text()), "model_type": family}
    (given / "config.json").write_text(json.dumps(config))
    expected = f"expected {small_system.config['model_type']}"
    with refused(WeightsError, "holds another architecture", f"got {family}", expected, "vconv list"):
        open_source(small_system, str(given), scratch)


def test_no_weights_given_is_refused_with_every_way_to_give_them(
    system: System, scratch: Path, refused: Refused
) -> None:
    with refused(WeightsError, f"no weights for {system.name}", ways(system)):
        open_source(system, None, scratch)


def test_every_way_to_give_weights_is_named(system: System) -> None:
    said = ways(system)
    assert f"hf download {system.hub_id}" in said
    assert "--weights FILE.safetensors" in said
    assert "--weights synthetic" in said


@pytest.mark.parametrize("gated", [True, False])
def test_a_licence_is_asked_for_only_where_the_hub_does(system: System, gated: bool) -> None:
    assert (
        f"accept its licence on the hub first: {system.licence}" in ways(replace(system, gated=gated))
    ) is gated


def test_a_path_with_nothing_there_is_refused(system: System, scratch: Path, refused: Refused) -> None:
    missing = scratch / "nowhere"
    with refused(WeightsError, f"no weights at {missing}", "nothing there", ways(system)):
        open_source(system, str(missing), scratch)


def test_a_folder_without_weights_is_refused(
    small_system: System, given: Path, scratch: Path, refused: Refused
) -> None:
    (given / "model.safetensors").unlink()
    with refused(WeightsError, f"no weights in {given}", "no model.safetensors", ways(small_system)):
        open_source(small_system, str(given), scratch)


def test_a_damaged_file_is_refused_before_it_is_hashed(
    small_system: System, given: Path, scratch: Path, refused: Refused
) -> None:
    path = given / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    lines: list[str] = []
    with refused(WeightsError, "model.safetensors is not a sound safetensors file"):
        open_source(small_system, str(given), scratch, lines.append)
    assert lines == []


def test_two_openings_of_one_folder_are_the_same(small_system: System, given: Path, tmp_path: Path) -> None:
    found = []
    for name in "ab":
        (tmp_path / name).mkdir()
        found.append(open_source(small_system, str(given), tmp_path / name))
    assert found[0].sha256 == found[1].sha256
    assert (found[0].folder / "config.json").read_bytes() == (found[1].folder / "config.json").read_bytes()


def test_entries_are_those_of_the_file(small_source: Source) -> None:
    assert small_source.entries == read_header(small_source.folder / "model.safetensors")


def test_a_hash_is_that_of_the_whole_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("suffix", [".bin", ".pth", ".pt"])
def test_a_pickle_is_refused_without_being_read(system: System, scratch: Path, suffix: str) -> None:
    path = scratch.parent / f"weights{suffix}"
    path.write_bytes(b"not even a pickle")
    with pytest.raises(WeightsError, match="a pickle, which can run code"):
        open_source(system, str(path), scratch)


def test_a_folder_with_other_weights_names_them(system: System, scratch: Path) -> None:
    folder = scratch.parent / "given"
    folder.mkdir()
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"no model\.safetensors, but pytorch_model\.bin"):
        open_source(system, str(folder), scratch)


def test_an_artifact_is_no_source(system: System, scratch: Path) -> None:
    folder = scratch.parent / "given"
    folder.mkdir()
    (folder / "vconv.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    for given in (folder, folder / "model.safetensors"):
        with pytest.raises(WeightsError, match="is an artifact"):
            open_source(system, str(given), scratch)
