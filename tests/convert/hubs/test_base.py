from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vconv.convert.hubs import huggingface, modelscope, table
from vconv.convert.hubs.base import Wanted, explained
from vconv.convert.hubs.table import HUBS, download
from vconv.errors import WeightsError

Refused = Callable[..., AbstractContextManager[None]]
Publish = Callable[..., Any]
Contents = Callable[[Path], dict[str, bytes]]

NAME = "owner/model-large"


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the libraries' own retries follow each other at once, or not at all."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    if "modelscope_hub._download" in sys.modules:
        monkeypatch.setattr(sys.modules["modelscope_hub._download"], "DOWNLOAD_RETRY_TIMES", 1)


@pytest.fixture
def closed(point: Callable[[str], None]) -> Callable[[], str]:
    """Point every hub at a port where nobody listens, and return the address."""

    def close() -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
        point(endpoint)
        return endpoint

    return close


def test_without_a_network_the_cache_is_used(name: str, closed: Callable[[], str]) -> None:
    first = download(name, NAME)
    endpoint = closed()
    lines: list[str] = []
    assert download(name, NAME, say=lines.append) == first
    assert lines == [f"cannot reach {endpoint}: found {NAME} in the cache of {name}"]


def test_without_a_network_an_incomplete_snapshot_is_no_help(
    name: str, closed: Callable[[], str], refused: Refused
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
    assert time.monotonic() - start < 20


def test_an_endpoint_that_never_answers_is_given_up_after_one_try(
    name: str, point: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    for row in (huggingface, modelscope):
        monkeypatch.setattr(row, "_TIMEOUT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point(f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with refused(WeightsError, f"cannot reach {name} for {NAME}", "timed out"):
            download(name, NAME)
    assert time.monotonic() - start < 20


def test_a_hub_that_is_down_is_named_with_its_answer(hub: Any, name: str, refused: Refused) -> None:
    hub.down = True
    with refused(WeightsError, f"cannot reach {name}", f"503 from {hub.endpoint}"):
        download(name, NAME)


@pytest.mark.parametrize("status", [404, 418, 520, 599])
def test_an_answer_that_no_standard_names_is_a_sentence_too(status: int) -> None:
    class Answered(Exception):
        status_code = status

    wanted = Wanted(HUBS["huggingface"], NAME, None, False, "")
    message = str(explained(wanted, Answered(), began=False, others=()))
    assert f"got {status} from " in message


@pytest.mark.parametrize(
    ("name", "value"),
    [("HF_ENDPOINT", "http://[bad"), ("HF_TOKEN", "t€k€n"), ("ALL_PROXY", "socks5://127.0.0.1:9")],
)
def test_surroundings_that_make_no_sense_are_a_sentence(
    hub: Any, refused: Refused, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    import huggingface_hub

    monkeypatch.setenv(name, value)
    if name == "HF_ENDPOINT":
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", value)
    reset: Any = getattr(huggingface_hub.utils, "close_session", lambda: None)
    reset()
    with refused(WeightsError, f"cannot reach huggingface for {NAME}"):
        download("huggingface", NAME)
    reset()


def test_a_hub_that_is_down_is_made_good_by_the_cache(hub: Any, name: str) -> None:
    first = download(name, NAME)
    hub.down = True
    assert download(name, NAME) == first


def test_a_repository_that_does_not_exist_is_named(hub: Any, name: str, refused: Refused) -> None:
    hub.tokens["good"] = True
    with refused(WeightsError, f"no owner/other on {name}", f"{hub.endpoint}/owner/other", "private"):
        download(name, "owner/other")


def test_a_revision_that_does_not_exist_is_named(name: str, refused: Refused) -> None:
    with refused(WeightsError, f"no {NAME} at revision v9 on {name}", "404"):
        download(name, NAME, revision="v9")


@pytest.mark.parametrize("known", [True, False])
def test_a_gated_repository_says_how_to_get_access(
    hub: Any, publish: Publish, refused: Refused, known: bool, files: Any
) -> None:
    publish(files.small, files.safe, gated=True)
    ways = ("`hf auth login`", "HF_TOKEN", "--weights FOLDER", "accept its licence (dinov3-license)")
    with refused(WeightsError, f"no access to {NAME}", "401", f"open {hub.endpoint}/{NAME}", *ways):
        download("huggingface", NAME, gated=known, licence="dinov3-license")


def test_a_gated_system_is_told_so_even_where_the_hub_does_not_say_why(refused: Refused) -> None:
    with refused(WeightsError, "no access to owner/other", "401", "accept its licence (dinov3-license)"):
        download("huggingface", "owner/other", gated=True, licence="dinov3-license")


def test_a_token_without_access_says_how_to_get_it(
    hub: Any, publish: Publish, monkeypatch: pytest.MonkeyPatch, refused: Refused, files: Any
) -> None:
    publish(files.small, files.safe, gated=True)
    hub.tokens["other"] = False
    monkeypatch.setenv("HF_TOKEN", "other")
    with refused(WeightsError, f"no access to {NAME}", "403", "accept its licence, then"):
        download("huggingface", NAME)


def test_a_closed_repository_of_modelscope_says_how_to_get_access(
    hub: Any, publish: Publish, modelscope: str, refused: Refused, files: Any
) -> None:
    publish(files.small, files.safe, gated=True)
    with refused(WeightsError, f"no access to {NAME}", "403", "`modelscope login`", "MODELSCOPE_API_TOKEN"):
        download(modelscope, NAME)


@pytest.mark.parametrize(
    ("hub_name", "variable"), [("huggingface", "HF_TOKEN"), ("modelscope", "MODELSCOPE_API_TOKEN")]
)
def test_a_token_with_access_opens_a_gated_repository(
    hub: Any,
    publish: Publish,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    hub_name: str,
    variable: str,
    files: Any,
    contents: Contents,
) -> None:
    if hub_name == "modelscope":
        request.getfixturevalue("modelscope")
    publish(files.small, files.safe, gated=True)
    hub.tokens["good"] = True
    monkeypatch.setenv(variable, "good")
    assert contents(download(hub_name, NAME, gated=True).folder) == {**files.small, **files.safe}
    assert {asked.token for asked in hub.requests if NAME in asked.path and asked.method == "GET"} == {"good"}


@pytest.mark.parametrize("gated", [True, False])
def test_a_stored_token_that_expired_is_told_from_a_missing_one(
    tmp_path: Path, publish: Publish, refused: Refused, gated: bool, files: Any
) -> None:
    publish(files.small, files.safe, gated=gated)
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
    hub: Any, name: str, no_waiting: None, refused: Refused, files: Any, contents: Contents
) -> None:
    hub.breaking.add("model.safetensors")
    with refused(
        WeightsError, f"the download of {NAME} from {name} was interrupted", hub.endpoint, "run again"
    ):
        download(name, NAME)
    with refused(WeightsError, f"{NAME} is not in the cache"):
        download(name, NAME, offline=True)
    hub.breaking.clear()
    assert contents(download(name, NAME).folder) == {**files.small, **files.safe}


def test_what_arrived_whole_is_not_downloaded_again(hub: Any, no_waiting: None) -> None:
    hub.breaking.add("model.safetensors")
    with pytest.raises(WeightsError, match="complete files are kept"):
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

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with refused(WeightsError, f"{NAME} cannot be written to the cache", said, "HF_HUB_CACHE"):
        download("huggingface", NAME)


def test_a_disk_that_fills_up_while_modelscope_downloads_is_one_sentence(
    modelscope: str, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(table, "HUBS", {modelscope: replace(HUBS[modelscope], fetch=fail)})
    with refused(WeightsError, f"{NAME} cannot be written to the cache", "No space", "MODELSCOPE_CACHE"):
        download(modelscope, NAME)
