from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from vconv.convert.hubs.base import WEIGHTS
from vconv.convert.hubs.table import download
from vconv.errors import UnknownNameError, WeightsError

Refused = Callable[..., AbstractContextManager[None]]
Publish = Callable[..., Any]
Contents = Callable[[Path], dict[str, bytes]]

NAME = "owner/model-large"


@pytest.mark.parametrize(
    ("there", "needed"),
    [
        (["safe"], "safe"),
        (["safe", "pickle"], "safe"),
        (["safe", "safe_shards"], "safe"),
        (["safe_shards", "pickle", "pickle_shards"], "safe_shards"),
        (["pickle", "pickle_shards"], "pickle"),
        (["pickle_shards"], "pickle_shards"),
    ],
)
def test_exactly_the_needed_files_arrive_and_no_other_is_asked_for(
    hub: Any, name: str, publish: Publish, there: list[str], needed: str, files: Any, contents: Contents
) -> None:
    publish(files.small, files.others, *(vars(files)[kind] for kind in there))
    found = download(name, NAME)
    expected = {**files.small, **vars(files)[needed]}
    assert contents(found.folder) == expected
    assert sorted(hub.files_asked_for()) == sorted(expected)


def test_the_configuration_of_an_adapter_arrives_so_that_it_can_be_refused(
    name: str, publish: Publish, files: Any, contents: Contents
) -> None:
    adapter = {"adapter_config.json": b"{}"}
    publish(files.small, files.safe, adapter, {"adapter_model.safetensors": b"not needed"})
    assert contents(download(name, NAME).folder) == {**files.small, **files.safe, **adapter}


def test_a_repository_need_not_have_licences_or_a_preprocessor(
    name: str, publish: Publish, files: Any, contents: Contents
) -> None:
    few = {"config.json": b"{}", **files.safe}
    publish(few)
    assert contents(download(name, NAME).folder) == few


def test_a_pinned_revision_is_the_one_that_is_asked_for(
    hub: Any, name: str, files: Any, contents: Contents
) -> None:
    repository = hub.repositories[NAME]
    repository.refs["v1"] = repository.at("main")
    repository.push({**files.small, "model.safetensors": b"later"})
    found = download(name, NAME, revision="v1")
    assert contents(found.folder) == {**files.small, **files.safe}
    assert found.revision == {"huggingface": repository.refs["v1"], "modelscope": "v1"}[name]
    assert contents(download(name, NAME).folder)["model.safetensors"] == b"later"


def test_a_second_call_downloads_nothing_and_says_so(
    hub: Any, name: str, publish: Publish, files: Any
) -> None:
    publish(files.small, files.safe_shards)
    lines: list[str] = []
    first = download(name, NAME, say=lines.append)
    hub.requests.clear()
    assert download(name, NAME, say=lines.append) == first
    assert hub.files_asked_for() == []
    assert lines == [f"downloading {NAME} from {name}", f"found {NAME} in the cache of {name}"]


def test_a_branch_that_moved_is_downloaded_anew_and_never_said_to_be_found(
    hub: Any, name: str, files: Any, contents: Contents
) -> None:
    download(name, NAME)
    later = {"model.safetensors": files.safe["model.safetensors"][::-1]}  # no other size
    hub.repositories[NAME].push({**files.small, **later})
    lines: list[str] = []
    assert contents(download(name, NAME, say=lines.append).folder) == {**files.small, **later}
    assert len(lines) == 1 and lines[0].startswith("download"), lines


def test_a_repository_without_a_configuration_is_as_complete_offline_as_it_was_online(
    hub: Any, name: str, publish: Publish, files: Any
) -> None:
    publish(files.safe_shards)
    first = download(name, NAME)
    hub.requests.clear()
    assert download(name, NAME, offline=True) == first
    assert hub.requests == []
    hub.down = True
    assert download(name, NAME) == first


def test_a_configuration_that_was_added_later_is_missed_offline(
    hub: Any, name: str, publish: Publish, refused: Refused, files: Any
) -> None:
    publish(files.safe)
    download(name, NAME)
    hub.repositories[NAME].push({**files.small, **files.safe})
    (download(name, NAME).folder / "config.json").unlink()
    with refused(WeightsError, "got no config.json |"):
        download(name, NAME, offline=True)


@pytest.mark.parametrize("revision", [None, "v1"])
def test_offline_the_cache_is_used_and_the_network_is_not(
    hub: Any, name: str, revision: str | None, publish: Publish, files: Any
) -> None:
    repository = publish(files.small, files.safe_shards)
    repository.refs["v1"] = repository.at("main")
    first = download(name, NAME, revision=revision)
    hub.requests.clear()
    lines: list[str] = []
    assert download(name, NAME, revision=revision, say=lines.append, offline=True) == first
    assert hub.requests == []
    assert lines == [f"found {NAME} in the cache of {name}"]


def test_a_commit_that_is_in_the_cache_is_not_asked_for(hub: Any, publish: Publish, files: Any) -> None:
    publish(files.small, files.safe_shards)
    first = download("huggingface", NAME)
    hub.requests.clear()
    assert download("huggingface", NAME, revision=first.revision) == first
    assert hub.requests == []
    (first.folder / "config.json").unlink()
    assert download("huggingface", NAME, revision=first.revision) == first
    assert (first.folder / "config.json").is_file()
    assert hub.requests != []


def test_offline_another_revision_is_not_taken_for_the_one_asked_for(
    hub: Any, name: str, refused: Refused
) -> None:
    download(name, NAME)
    with refused(WeightsError, f"{NAME} at revision v2 is not in the cache", "got nothing of it"):
        download(name, NAME, revision="v2", offline=True)


def test_offline_with_an_empty_cache_is_one_sentence(hub: Any, name: str, refused: Refused) -> None:
    with refused(WeightsError, f"{NAME} is not in the cache of {name}", "nothing of it", "--weights FOLDER"):
        download(name, NAME, offline=True)
    assert hub.requests == []


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors", "model-00002-of-00002.safetensors"])
def test_an_incomplete_snapshot_is_refused_and_says_what_is_missing(
    name: str, publish: Publish, refused: Refused, lost: str, files: Any
) -> None:
    publish(files.small, files.safe_shards if "-of-" in lost else files.safe)
    (download(name, NAME).folder / lost).unlink()
    with refused(WeightsError, f"{NAME} is not in the cache of {name}", f"got no {lost} |"):
        download(name, NAME, offline=True)


def test_everything_that_is_missing_is_named(
    name: str, publish: Publish, refused: Refused, files: Any
) -> None:
    publish(files.small, files.safe_shards)
    folder = download(name, NAME).folder
    for lost in ("config.json", "model-00001-of-00002.safetensors"):
        (folder / lost).unlink()
    with refused(WeightsError, "got no config.json, no model-00001-of-00002.safetensors |"):
        download(name, NAME, offline=True)


def test_a_lost_shard_is_downloaded_and_no_other_file(
    hub: Any, name: str, publish: Publish, files: Any, contents: Contents
) -> None:
    publish(files.small, files.safe_shards)
    lost = download(name, NAME).folder / "model-00002-of-00002.safetensors"
    lost.resolve().unlink()
    lost.unlink(missing_ok=True)
    hub.requests.clear()
    lines: list[str] = []
    assert contents(download(name, NAME, say=lines.append).folder) == {**files.small, **files.safe_shards}
    assert hub.files_asked_for() == [lost.name]
    assert lines == [f"downloading {NAME} from {name}"]


@pytest.mark.parametrize(
    "wrong",
    [
        "a b/c",
        "",
        "model",
        "a/b/c",
        "/a",
        "a/",
        "../a",
        "a/..",
        "a--b/c",
        "https://hub/a/b",
        "a" * 96 + "/b",
        "a/b.git",
        "a/b-",
        "a/b.",
        "a-/b",
    ],
)
def test_what_is_no_repository_name_is_refused_before_anything_is_asked(
    hub: Any, name: str, refused: Refused, wrong: str
) -> None:
    with refused(WeightsError, "not the name of a repository", repr(wrong), "OWNER/NAME"):
        download(name, wrong)
    assert hub.requests == []


def test_an_unknown_hub_names_the_nearest(refused: Refused) -> None:
    with refused(UnknownNameError, "unknown hub", "'hugingface'", "one of huggingface", "--hub"):
        download("hugingface", NAME)


def test_a_repository_without_usable_weights_says_which_there_are(
    hub: Any, publish: Publish, refused: Refused, files: Any
) -> None:
    publish(files.small, files.others)
    there = "flax_model.msgpack, onnx/model.onnx |"
    with refused(WeightsError, f"{NAME} on huggingface has no weights", f"got {there}", ", ".join(WEIGHTS)):
        download("huggingface", NAME)
    assert hub.files_asked_for() == []


def test_a_repository_without_any_weights_says_so(
    name: str, publish: Publish, refused: Refused, files: Any
) -> None:
    publish(files.small)
    with refused(WeightsError, f"{NAME} on {name} has no weights", "no weights among 5 files"):
        download(name, NAME)


@pytest.mark.parametrize("text", [b"{", b"[]", b"{}", b'{"weight_map": 3}', b"\xff"])
def test_an_index_that_cannot_be_read_is_one_sentence(
    publish: Publish, refused: Refused, text: bytes, files: Any
) -> None:
    publish(files.small, files.safe_shards, {"model.safetensors.index.json": text})
    with refused(WeightsError, "model.safetensors.index.json is not a valid index"):
        download("huggingface", NAME)


@pytest.mark.parametrize(
    ("shard", "sentence"),
    [
        ("model-00003.safetensors", "names a shard that the repository does not have"),
        ("../../outside.safetensors", "is not a valid index"),
    ],
)
def test_an_index_names_only_files_of_the_repository(
    publish: Publish, refused: Refused, shard: str, sentence: str, files: Any
) -> None:
    index = json.dumps({"weight_map": {"a": shard}}).encode()
    publish(files.small, {"model.safetensors.index.json": index})
    with refused(WeightsError, sentence, repr(shard)):
        download("huggingface", NAME)


def test_nothing_is_printed(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    download(name, NAME)
    assert capfd.readouterr() == ("", "")
