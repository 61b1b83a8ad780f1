from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from vconv.convert.hubs.table import HUBS, download
from vconv.errors import WeightsError

Refused = Callable[..., AbstractContextManager[None]]
Publish = Callable[..., Any]
Contents = Callable[[Path], dict[str, bytes]]

NAME = "owner/model-large"


def test_a_snapshot_says_which_commit_it_is(hub: Any) -> None:
    found = download("huggingface", NAME)
    assert (found.hub, found.repository) == ("huggingface", NAME)
    assert found.revision == hub.repositories[NAME].at("main")
    assert len(found.revision) == 40


def test_a_commit_can_be_pinned(hub: Any, files: Any, contents: Contents) -> None:
    repository = hub.repositories[NAME]
    first = repository.at("main")
    repository.push({**files.small, "model.safetensors": b"later"})
    found = download("huggingface", NAME, revision=first)
    assert found.revision == first
    assert contents(found.folder) == {**files.small, **files.safe}
    assert all(first in request.path for request in hub.requests)


def test_a_second_call_asks_huggingface_for_the_listing_only(hub: Any) -> None:
    download("huggingface", NAME)
    hub.requests.clear()
    download("huggingface", NAME)
    assert [request.path for request in hub.requests] == [f"/api/models/{NAME}"]


def test_a_snapshot_of_only_a_configuration_is_made_complete(
    hub: Any, files: Any, contents: Contents
) -> None:
    from huggingface_hub import hf_hub_download

    folder = Path(hf_hub_download(NAME, "config.json")).parent
    lines: list[str] = []
    assert download("huggingface", NAME, say=lines.append).folder == folder
    assert contents(folder) == {**files.small, **files.safe}
    assert lines == [f"downloading {NAME} from huggingface"]


def test_weights_that_another_program_fetched_alone_are_not_complete_offline(refused: Refused) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(NAME, "model.safetensors")
    with refused(WeightsError, f"{NAME} is not in the cache", "got no config.json |"):
        download("huggingface", NAME, offline=True)


def test_the_hub_is_asked_once_about_a_configuration_that_is_not_there(
    hub: Any, publish: Publish, files: Any
) -> None:
    publish(files.safe)
    download("huggingface", NAME)
    hub.requests.clear()
    download("huggingface", NAME)
    assert [request.path for request in hub.requests] == [f"/api/models/{NAME}"]


def test_the_mirror_of_huggingface_is_named() -> None:
    assert HUBS["huggingface"].mirror == "HF_ENDPOINT"


def test_a_repository_that_does_not_exist_is_named_to_a_signed_in_user(
    hub: Any, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    hub.tokens["good"] = True
    monkeypatch.setenv("HF_TOKEN", "good")
    with refused(WeightsError, "no owner/other on huggingface", "404", "Repository not found"):
        download("huggingface", "owner/other")


def test_progress_bars_are_off_while_files_arrive_and_as_before_afterwards(hub: Any, files: Any) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled

    bars: dict[str, bool] = {}

    class Watched(list[Any]):
        def append(self, asked: Any) -> None:
            bars[asked.path] = are_progress_bars_disabled()

    before = are_progress_bars_disabled()
    hub.requests = Watched()
    download("huggingface", NAME)
    assert bars.pop(f"/api/models/{NAME}") is before
    assert len(bars) > len(files.small)
    assert all(bars.values())
    assert are_progress_bars_disabled() is before


def test_several_files_are_downloaded_by_one_call_of_the_library(
    hub: Any, publish: Publish, monkeypatch: pytest.MonkeyPatch, files: Any
) -> None:
    import huggingface_hub

    calls: list[list[str]] = []
    really = huggingface_hub.snapshot_download

    def spy(repository: str, **options: Any) -> Any:
        calls.append(options["allow_patterns"])
        return really(repository, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", spy)
    publish(files.small, files.safe_shards)
    download("huggingface", NAME)
    index, *shards = files.safe_shards
    assert calls == [
        ["config.json", "preprocessor_config.json", "README.md", "LICENSE", "NOTICE.txt", index],
        shards,
    ]
    download("huggingface", NAME)
    assert len(calls) == 2


@pytest.mark.parametrize("status", [403, 404])
def test_a_commit_that_the_hub_refuses_to_list_never_passes_for_complete(
    hub: Any, status: int, files: Any, contents: Contents
) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(NAME, "config.json")
    hub.unlisted = status
    assert contents(download("huggingface", NAME).folder) == {**files.small, **files.safe}


def test_a_gated_commit_that_the_hub_refuses_to_list_says_how_to_get_access(
    hub: Any, refused: Refused
) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(NAME, "config.json")
    hub.unlisted, hub.repositories[NAME].gated = 403, True
    with refused(WeightsError, f"no access to {NAME}", "401", "`hf auth login`"):
        download("huggingface", NAME)


def test_a_listing_that_fails_after_the_first_is_one_sentence(hub: Any, refused: Refused) -> None:
    hub.unlisted = 418
    with refused(
        WeightsError, f"the download of {NAME} from huggingface was interrupted", "418", "run again"
    ):
        download("huggingface", NAME)


def test_a_file_name_is_no_pattern(hub: Any, publish: Publish, files: Any, contents: Contents) -> None:
    odd = {"LICENSE[abc].md": b"bracketed", "LICENSE*": b"starred"}
    publish(files.small, files.safe, odd, {"LICENSES/inner.md": b"what the star would match"})
    assert contents(download("huggingface", NAME).folder) == {**files.small, **files.safe, **odd}


PROGRAM = """
import sys
from vconv.convert.hubs.table import download
from vconv.errors import WeightsError
assert not {"huggingface_hub", "modelscope", "torch"} & set(sys.modules)
try:
    print(download("huggingface", sys.argv[1]).folder)
except WeightsError as error:
    print(error)
"""


def test_the_environment_of_huggingface_is_honoured(
    hub: Any, tmp_path: Path, files: Any, contents: Contents
) -> None:
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
    assert contents(folder) == {**files.small, **files.safe}
    assert {request.token for request in hub.requests if NAME in request.path} == {"good"}
    hub.requests.clear()
    assert Path(run(HF_HUB_OFFLINE="1")) == folder
    assert hub.requests == []
    elsewhere = Path(run(HF_TOKEN="good", HF_HUB_CACHE=str(tmp_path / "elsewhere")))
    assert elsewhere.is_relative_to(tmp_path / "elsewhere")
