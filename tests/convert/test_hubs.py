from __future__ import annotations

import errno
import json
import os
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vconv.convert import hubs
from vconv.convert.hubs import HUBS, WEIGHTS, download
from vconv.errors import UnknownNameError, WeightsError

Refused = Callable[..., AbstractContextManager[None]]

HELPER = runpy.run_path(str(Path(__file__).parents[1] / "hub_server.py"))
NAME = "owner/model-large"
SMALL = {
    "config.json": b'{"model_type": "vit"}',
    "preprocessor_config.json": b'{"size": 224}',
    "README.md": b"---\nlicense: apache-2.0\n---\n",
    "LICENSE": b"Apache",
    "NOTICE.txt": b"notice",
}
SAFE = {"model.safetensors": bytes(range(256)) * 400}
PICKLE = {"pytorch_model.bin": b"a pickle" * 99}
OTHERS = {
    "flax_model.msgpack": b"flax",
    "tf_model.h5": b"tf",
    "onnx/model.onnx": b"onnx",
    "onnx/config.json": b"{}",
    "LICENSES/other": b"other",
    "tokenizer.json": b"{}",
    ".gitattributes": b"",
}


def sharded(stem: str, suffix: str) -> dict[str, bytes]:
    shards = {f"{stem}-0000{n}-of-00002{suffix}": bytes([n]) * 50 for n in (1, 2)}
    weight_map = dict(zip("abc", [*shards, *shards], strict=False))
    return {f"{stem}{suffix}.index.json": json.dumps({"weight_map": weight_map}).encode(), **shards}


SAFE_SHARDS, PICKLE_SHARDS = sharded("model", ".safetensors"), sharded("pytorch_model", ".bin")


@pytest.fixture
def hub() -> Iterator[Any]:
    with HELPER["serving"]() as server:
        server.repositories[NAME] = HELPER["Repository"]({**SMALL, **SAFE, **PICKLE, **OTHERS})
        yield server


@pytest.fixture
def publish(hub: Any) -> Callable[..., Any]:
    """Put other files, or a gate, in place of the repository that the hub has."""

    def put(*files: dict[str, bytes], gated: bool = False) -> Any:
        merged = {name: content for some in files for name, content in some.items()}
        hub.repositories[NAME] = HELPER["Repository"](merged, gated)
        return hub.repositories[NAME]

    return put


@pytest.fixture(autouse=True)
def huggingface(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point huggingface_hub at the stand-in and an empty cache: it reads its environment when imported."""
    from huggingface_hub import constants

    _point(monkeypatch, hub.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def modelscope(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Point modelscope, if it is installed, at the stand-in and an empty cache."""
    pytest.importorskip("modelscope_hub")
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "home"))
    for name in ("MODELSCOPE_DOMAIN", "MODELSCOPE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    _forget_modelscope()
    yield "modelscope"
    _forget_modelscope()


def _forget_modelscope() -> None:
    """Make modelscope read its environment again: it does so once a process."""
    if "modelscope_hub.config" in sys.modules:
        sys.modules["modelscope_hub.config"].set_default_config(None)


@pytest.fixture(params=sorted(HUBS))
def name(request: pytest.FixtureRequest) -> str:
    """Every hub of the table."""
    if request.param == "modelscope":
        request.getfixturevalue("modelscope")
    return str(request.param)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the libraries' own retries follow each other at once, or not at all."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    for module, retries in (
        ("_download", "DOWNLOAD_RETRY_TIMES"),
        ("_legacy_api", "REPO_TREE_PAGE_MAX_ATTEMPTS"),
    ):
        if f"modelscope_hub.{module}" in sys.modules:
            monkeypatch.setattr(sys.modules[f"modelscope_hub.{module}"], retries, 1)


def _point(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    from huggingface_hub import constants, file_download

    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    for module in (constants, file_download):  # before 1.0 the second has a copy
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", endpoint)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Point every hub at a port where nobody listens."""

    def point() -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
        _point(monkeypatch, endpoint)
        _forget_modelscope()
        return endpoint

    return point


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, but for the notes that modelscope keeps for itself."""
    paths = [
        path for path in folder.rglob("*") if path.is_file() and path.name not in (".msc", ".mv", ".mdl")
    ]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    ("there", "needed"),
    [
        ([SAFE], SAFE),
        ([SAFE, PICKLE], SAFE),
        ([SAFE, SAFE_SHARDS], SAFE),
        ([SAFE_SHARDS, PICKLE, PICKLE_SHARDS], SAFE_SHARDS),
        ([PICKLE, PICKLE_SHARDS], PICKLE),
        ([PICKLE_SHARDS], PICKLE_SHARDS),
    ],
    ids=["safetensors", "both", "whole-and-shards", "shards", "pickle", "pickle-shards"],
)
def test_exactly_the_needed_files_arrive_and_no_other_is_asked_for(
    hub: Any,
    name: str,
    publish: Callable[..., Any],
    there: list[dict[str, bytes]],
    needed: dict[str, bytes],
) -> None:
    publish(SMALL, OTHERS, *there)
    found = download(name, NAME)
    assert contents(found.folder) == {**SMALL, **needed}
    assert sorted(hub.files_asked_for()) == sorted({**SMALL, **needed})


def test_a_repository_need_not_have_licences_or_a_preprocessor(
    name: str, publish: Callable[..., Any]
) -> None:
    files = {"config.json": b"{}", **SAFE}
    publish(files)
    assert contents(download(name, NAME).folder) == files


def test_a_snapshot_says_which_commit_it_is(hub: Any) -> None:
    found = download("huggingface", NAME)
    assert (found.hub, found.repository) == ("huggingface", NAME)
    assert found.revision == hub.repositories[NAME].at("main")
    assert len(found.revision) == 40


def test_modelscope_tells_the_branch_and_not_the_commit(modelscope: str) -> None:
    assert download(modelscope, NAME).revision == "master"


def test_a_pinned_revision_is_the_one_that_is_asked_for(hub: Any, name: str) -> None:
    repository = hub.repositories[NAME]
    repository.refs["v1"] = repository.at("main")
    repository.push({**SMALL, "model.safetensors": b"later"})
    found = download(name, NAME, revision="v1")
    assert contents(found.folder) == {**SMALL, **SAFE}
    assert found.revision == {"huggingface": repository.refs["v1"], "modelscope": "v1"}[name]
    assert contents(download(name, NAME).folder)["model.safetensors"] == b"later"


def test_a_commit_can_be_pinned(hub: Any) -> None:
    repository = hub.repositories[NAME]
    first = repository.at("main")
    repository.push({**SMALL, "model.safetensors": b"later"})
    found = download("huggingface", NAME, revision=first)
    assert found.revision == first
    assert contents(found.folder) == {**SMALL, **SAFE}
    assert all(first in request.path for request in hub.requests)


def test_a_second_call_downloads_nothing_and_says_so(
    hub: Any, name: str, publish: Callable[..., Any]
) -> None:
    publish(SMALL, SAFE_SHARDS)
    lines: list[str] = []
    first = download(name, NAME, say=lines.append)
    hub.requests.clear()
    assert download(name, NAME, say=lines.append) == first
    assert hub.files_asked_for() == []
    assert lines == [f"downloading {NAME} from {name}", f"found {NAME} in the cache of {name}"]


def test_a_second_call_asks_huggingface_for_the_listing_only(hub: Any) -> None:
    download("huggingface", NAME)
    hub.requests.clear()
    download("huggingface", NAME)
    assert [request.path for request in hub.requests] == [f"/api/models/{NAME}"]


def test_a_branch_that_moved_is_downloaded_anew(hub: Any, name: str) -> None:
    download(name, NAME)
    hub.repositories[NAME].push({**SMALL, "model.safetensors": b"later"})
    assert contents(download(name, NAME).folder)["model.safetensors"] == b"later"


@pytest.mark.parametrize("revision", [None, "v1"])
def test_offline_the_cache_is_used_and_the_network_is_not(
    hub: Any, name: str, revision: str | None, publish: Callable[..., Any]
) -> None:
    repository = publish(SMALL, SAFE_SHARDS)
    repository.refs["v1"] = repository.at("main")
    first = download(name, NAME, revision=revision)
    hub.requests.clear()
    lines: list[str] = []
    assert download(name, NAME, revision=revision, say=lines.append, offline=True) == first
    assert hub.requests == []
    assert lines == [f"found {NAME} in the cache of {name}"]


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
    name: str, publish: Callable[..., Any], refused: Refused, lost: str
) -> None:
    publish(SMALL, SAFE_SHARDS if "-of-" in lost else SAFE)
    (download(name, NAME).folder / lost).unlink()
    with refused(WeightsError, f"{NAME} is not in the cache of {name}", f"got no {lost} |"):
        download(name, NAME, offline=True)


def test_everything_that_is_missing_is_named(
    name: str, publish: Callable[..., Any], refused: Refused
) -> None:
    publish(SMALL, SAFE_SHARDS)
    folder = download(name, NAME).folder
    for lost in ("config.json", "model-00001-of-00002.safetensors"):
        (folder / lost).unlink()
    with refused(WeightsError, "got no config.json, no model-00001-of-00002.safetensors |"):
        download(name, NAME, offline=True)


def test_a_lost_shard_is_downloaded_and_no_other_file(
    hub: Any, name: str, publish: Callable[..., Any]
) -> None:
    publish(SMALL, SAFE_SHARDS)
    lost = download(name, NAME).folder / "model-00002-of-00002.safetensors"
    lost.resolve().unlink()
    lost.unlink(missing_ok=True)
    hub.requests.clear()
    lines: list[str] = []
    assert contents(download(name, NAME, say=lines.append).folder) == {**SMALL, **SAFE_SHARDS}
    assert hub.files_asked_for() == [lost.name]
    assert lines == [f"downloading {NAME} from {name}"]


def test_a_snapshot_of_only_a_configuration_is_made_complete(hub: Any) -> None:
    from huggingface_hub import hf_hub_download

    folder = Path(hf_hub_download(NAME, "config.json")).parent
    lines: list[str] = []
    assert download("huggingface", NAME, say=lines.append).folder == folder
    assert contents(folder) == {**SMALL, **SAFE}
    assert lines == [f"downloading {NAME} from huggingface"]


def test_without_a_network_the_cache_is_used(name: str, closed: Callable[[], str], no_waiting: None) -> None:
    first = download(name, NAME)
    endpoint = closed()
    lines: list[str] = []
    assert download(name, NAME, say=lines.append) == first
    assert lines == [f"cannot reach {endpoint}: found {NAME} in the cache of {name}"]


def test_without_a_network_an_incomplete_snapshot_is_no_help(
    name: str, closed: Callable[[], str], no_waiting: None, refused: Refused
) -> None:
    (download(name, NAME).folder / "model.safetensors").unlink()
    closed()
    with refused(WeightsError, f"cannot reach {name} for {NAME}"):
        download(name, NAME)


def test_an_endpoint_where_nobody_listens_fails_soon_and_names_the_ways_out(
    name: str, closed: Callable[[], str], refused: Refused
) -> None:
    endpoint, start = closed(), time.monotonic()
    other = {"huggingface": "modelscope", "modelscope": "huggingface"}[name]
    ways = (HUBS[name].mirror, f"--hub {other}", "--weights FOLDER")
    with refused(WeightsError, f"cannot reach {name} for {NAME}", f"no answer from {endpoint}", *ways):
        download(name, NAME)
    assert time.monotonic() - start < 15


def test_the_mirror_of_huggingface_is_named() -> None:
    assert HUBS["huggingface"].mirror == "HF_ENDPOINT"


def test_a_hub_that_is_down_is_named_with_its_answer(
    hub: Any, name: str, no_waiting: None, refused: Refused
) -> None:
    hub.down = True
    with refused(WeightsError, f"cannot reach {name}", f"503 from {hub.endpoint}"):
        download(name, NAME)


def test_a_hub_that_is_down_is_made_good_by_the_cache(hub: Any, name: str, no_waiting: None) -> None:
    first = download(name, NAME)
    hub.down = True
    assert download(name, NAME) == first


def test_a_repository_that_does_not_exist_is_named(hub: Any, name: str, refused: Refused) -> None:
    hub.tokens["good"] = True
    with refused(WeightsError, f"no owner/other on {name}", f"{hub.endpoint}/owner/other", "private"):
        download(name, "owner/other")


def test_a_repository_that_does_not_exist_is_named_to_a_signed_in_user(
    hub: Any, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    hub.tokens["good"] = True
    monkeypatch.setenv("HF_TOKEN", "good")
    with refused(WeightsError, "no owner/other on huggingface", "404", "Repository not found"):
        download("huggingface", "owner/other")


def test_a_revision_that_does_not_exist_is_named(name: str, refused: Refused) -> None:
    with refused(WeightsError, f"no {NAME} at revision v9 on {name}", "404"):
        download(name, NAME, revision="v9")


@pytest.mark.parametrize("known", [True, False])
def test_a_gated_repository_says_how_to_get_access(
    hub: Any, publish: Callable[..., Any], refused: Refused, known: bool
) -> None:
    publish(SMALL, SAFE, gated=True)
    ways = ("`hf auth login`", "HF_TOKEN", "--weights FOLDER", "accept its licence (dinov3-license)")
    with refused(WeightsError, f"no access to {NAME}", "401", f"open {hub.endpoint}/{NAME}", *ways):
        download("huggingface", NAME, gated=known, licence="dinov3-license")


def test_a_gated_system_is_told_so_even_where_the_hub_does_not_say_why(refused: Refused) -> None:
    with refused(WeightsError, "no access to owner/other", "401", "accept its licence (dinov3-license)"):
        download("huggingface", "owner/other", gated=True, licence="dinov3-license")


def test_a_token_without_access_says_how_to_get_it(
    hub: Any, publish: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    publish(SMALL, SAFE, gated=True)
    hub.tokens["other"] = False
    monkeypatch.setenv("HF_TOKEN", "other")
    with refused(WeightsError, f"no access to {NAME}", "403", "accept its licence, then"):
        download("huggingface", NAME)


def test_a_closed_repository_of_modelscope_says_how_to_get_access(
    hub: Any, publish: Callable[..., Any], modelscope: str, refused: Refused
) -> None:
    publish(SMALL, SAFE, gated=True)
    with refused(WeightsError, f"no access to {NAME}", "403", "`modelscope login`", "MODELSCOPE_API_TOKEN"):
        download(modelscope, NAME)


@pytest.mark.parametrize(
    ("hub_name", "variable"), [("huggingface", "HF_TOKEN"), ("modelscope", "MODELSCOPE_API_TOKEN")]
)
def test_a_token_with_access_opens_a_gated_repository(
    hub: Any,
    publish: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    hub_name: str,
    variable: str,
) -> None:
    if hub_name == "modelscope":
        request.getfixturevalue("modelscope")
    publish(SMALL, SAFE, gated=True)
    hub.tokens["good"] = True
    monkeypatch.setenv(variable, "good")
    assert contents(download(hub_name, NAME, gated=True).folder) == {**SMALL, **SAFE}
    assert {request.token for request in hub.requests if NAME in request.path} == {"good"}


@pytest.mark.parametrize("gated", [True, False])
def test_a_stored_token_that_expired_is_told_from_a_missing_one(
    tmp_path: Path, publish: Callable[..., Any], refused: Refused, gated: bool
) -> None:
    publish(SMALL, SAFE, gated=gated)
    (tmp_path / "token").write_text("expired")
    with refused(WeightsError, f"refuses the token that was sent for {NAME}", "401", "`hf auth login`"):
        download("huggingface", NAME, gated=gated)


def test_a_token_that_modelscope_does_not_know_is_told(
    modelscope: str, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "expired")
    with refused(WeightsError, f"refuses the token that was sent for {NAME}", "401", "`modelscope login`"):
        download(modelscope, NAME)


def test_a_download_that_broke_off_says_so_and_the_next_one_succeeds(
    hub: Any, name: str, no_waiting: None, refused: Refused
) -> None:
    hub.breaking.add("model.safetensors")
    with refused(WeightsError, f"the download of {NAME} from {name} broke off", hub.endpoint, "run again"):
        download(name, NAME)
    with refused(WeightsError, f"{NAME} is not in the cache"):
        download(name, NAME, offline=True)
    hub.breaking.clear()
    assert contents(download(name, NAME).folder) == {**SMALL, **SAFE}


def test_what_arrived_whole_is_not_downloaded_again(hub: Any, no_waiting: None) -> None:
    hub.breaking.add("model.safetensors")
    with pytest.raises(WeightsError, match="what arrived whole is kept"):
        download("huggingface", NAME)
    hub.breaking.clear()
    hub.requests.clear()
    download("huggingface", NAME)
    assert hub.files_asked_for() == ["model.safetensors"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "blobs"), "Permission denied"),
        (RuntimeError("Data processing error: No space left on device (os error 28)"), "os error 28"),
    ],
    ids=["full", "forbidden", "full-in-xet"],
)
def test_a_cache_that_cannot_be_written_to_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, refused: Refused, error: Exception, said: str
) -> None:
    import huggingface_hub

    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with refused(WeightsError, f"{NAME} cannot be written to the cache", said, "HF_HUB_CACHE"):
        download("huggingface", NAME)


def test_a_disk_that_fills_up_while_modelscope_downloads_is_one_sentence(
    modelscope: str, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(hubs, "HUBS", {modelscope: replace(HUBS[modelscope], fetch=fail)})
    with refused(WeightsError, f"{NAME} cannot be written to the cache", "No space", "MODELSCOPE_CACHE"):
        download(modelscope, NAME)


@pytest.mark.parametrize(
    "wrong",
    ["a b/c", "", "model", "a/b/c", "/a", "a/", "../a", "a/..", "a--b/c", "https://hub/a/b", "a" * 96 + "/b"],
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
    hub: Any, publish: Callable[..., Any], refused: Refused
) -> None:
    publish(SMALL, OTHERS)
    there = "flax_model.msgpack, onnx/model.onnx, tf_model.h5 |"
    with refused(WeightsError, f"{NAME} on huggingface has no weights", f"got {there}", ", ".join(WEIGHTS)):
        download("huggingface", NAME)
    assert hub.files_asked_for() == []


def test_a_repository_without_any_weights_says_so(
    name: str, publish: Callable[..., Any], refused: Refused
) -> None:
    publish(SMALL)
    with refused(WeightsError, f"{NAME} on {name} has no weights", "no weights among 5 files"):
        download(name, NAME)


@pytest.mark.parametrize("text", [b"{", b"[]", b"{}", b'{"weight_map": 3}', b"\xff"])
def test_an_index_that_cannot_be_read_is_one_sentence(
    publish: Callable[..., Any], refused: Refused, text: bytes
) -> None:
    publish(SMALL, SAFE_SHARDS, {"model.safetensors.index.json": text})
    with refused(WeightsError, "cannot read model.safetensors.index.json", "weight_map"):
        download("huggingface", NAME)


@pytest.mark.parametrize("shard", ["model-00003.safetensors", "../../outside.safetensors"])
def test_an_index_names_only_files_of_the_repository(
    publish: Callable[..., Any], refused: Refused, shard: str
) -> None:
    index = json.dumps({"weight_map": {"a": shard}}).encode()
    publish(SMALL, {"model.safetensors.index.json": index})
    with refused(WeightsError, "names a shard that the repository does not have", repr(shard)):
        download("huggingface", NAME)


def test_without_the_package_modelscope_the_fix_is_to_install_it(
    monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    for module in [module for module in sys.modules if module.split(".")[0] == "modelscope"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with refused(WeightsError, "needs the package modelscope", "pip install 'vconv[modelscope]'"):
        download("modelscope", NAME)


def test_nothing_is_printed(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    download(name, NAME)
    assert capfd.readouterr() == ("", "")


def test_progress_bars_are_off_while_files_arrive_and_as_before_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import huggingface_hub
    from huggingface_hub.utils import are_progress_bars_disabled

    bars: list[bool] = []
    really = huggingface_hub.hf_hub_download

    def spy(*args: Any, **options: Any) -> str:
        bars.append(are_progress_bars_disabled())
        return really(*args, **options)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", spy)
    before = are_progress_bars_disabled()
    download("huggingface", NAME)
    assert len(bars) > len(SMALL)
    assert all(bars)
    assert are_progress_bars_disabled() is before


@pytest.mark.filterwarnings("ignore:Environment variable MODELSCOPE_DOMAIN:FutureWarning")
def test_the_older_variable_of_modelscope_is_honoured(
    hub: Any, modelscope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODELSCOPE_ENDPOINT")
    monkeypatch.setenv("MODELSCOPE_DOMAIN", hub.endpoint)
    assert contents(download(modelscope, NAME).folder) == {**SMALL, **SAFE}
    assert HUBS[modelscope].endpoint() == hub.endpoint


def test_the_cache_of_an_older_modelscope_is_held_against_its_note(
    tmp_path: Path, modelscope: str, refused: Refused
) -> None:
    folder = tmp_path / "modelscope" / "models" / NAME
    folder.mkdir(parents=True)
    for file, content in {**SMALL, **SAFE, ".mv": b"Revision:v1,CreatedAt:0"}.items():
        (folder / file).write_bytes(content)
    found = download(modelscope, NAME, revision="v1", offline=True)
    assert (found.folder, found.revision) == (folder, "v1")
    with refused(WeightsError, f"{NAME} at revision v2 is not in the cache"):
        download(modelscope, NAME, revision="v2", offline=True)


PROGRAM = """
import sys
from vconv.convert.hubs import download
from vconv.errors import WeightsError
assert not {"huggingface_hub", "modelscope", "torch"} & set(sys.modules)
try:
    print(download("huggingface", sys.argv[1]).folder)
except WeightsError as error:
    print(error)
"""


def test_the_environment_of_huggingface_is_honoured(hub: Any, tmp_path: Path) -> None:
    def run(**more: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), **more}
        command = [sys.executable, "-c", PROGRAM, NAME]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    hub.tokens["good"] = True
    hub.repositories[NAME].gated = True
    assert "is not in the cache" in run(HF_HUB_OFFLINE="1")
    assert hub.requests == []
    folder = Path(run(HF_TOKEN="good"))
    assert folder.is_relative_to(tmp_path / "home" / "hub")
    assert contents(folder) == {**SMALL, **SAFE}
    assert {request.token for request in hub.requests if NAME in request.path} == {"good"}
    hub.requests.clear()
    assert Path(run(HF_HUB_OFFLINE="1")) == folder
    assert hub.requests == []
    elsewhere = Path(run(HF_TOKEN="good", HF_HUB_CACHE=str(tmp_path / "elsewhere")))
    assert elsewhere.is_relative_to(tmp_path / "elsewhere")
