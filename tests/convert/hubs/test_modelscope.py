from __future__ import annotations

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


def test_modelscope_tells_the_branch_and_not_the_commit(modelscope: str) -> None:
    assert download(modelscope, NAME).revision == "master"


def test_one_request_tells_that_modelscope_is_down(hub: Any, modelscope: str, refused: Refused) -> None:
    hub.down = True
    with refused(WeightsError, "cannot reach modelscope"):
        download(modelscope, NAME)
    assert [(request.method, request.path) for request in hub.requests] == [
        ("HEAD", f"/api/v1/models/{NAME}")
    ]


def test_a_proxy_is_honoured(
    hub: Any,
    modelscope: str,
    point: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    files: Any,
    contents: Contents,
) -> None:
    for variable in ("http_proxy", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HTTP_PROXY", hub.endpoint)
    point("http://hub.invalid")
    assert contents(download(modelscope, NAME).folder) == {**files.small, **files.safe}
    assert all(request.path.startswith("http://hub.invalid/") for request in hub.requests)


@pytest.mark.parametrize(
    ("value", "endpoint"), [("true", "https://www.modelscope.ai"), ("0", "https://modelscope.cn")]
)
def test_the_site_that_is_preferred_is_asked_first(
    modelscope: str, monkeypatch: pytest.MonkeyPatch, value: str, endpoint: str
) -> None:
    monkeypatch.delenv("MODELSCOPE_ENDPOINT")
    monkeypatch.setenv("MODELSCOPE_PREFER_AI_SITE", value)
    assert HUBS[modelscope].endpoint() == endpoint


def test_without_the_package_modelscope_the_fix_is_to_install_it(
    monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    for module in [module for module in sys.modules if module.split(".")[0] == "modelscope"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with refused(WeightsError, "needs the package modelscope", "pip install 'vconv[modelscope]'"):
        download("modelscope", NAME)


@pytest.mark.filterwarnings("ignore:Environment variable MODELSCOPE_DOMAIN:FutureWarning")
def test_the_older_variable_of_modelscope_is_honoured(
    hub: Any, modelscope: str, monkeypatch: pytest.MonkeyPatch, files: Any, contents: Contents
) -> None:
    monkeypatch.delenv("MODELSCOPE_ENDPOINT")
    monkeypatch.setenv("MODELSCOPE_DOMAIN", hub.endpoint)
    assert contents(download(modelscope, NAME).folder) == {**files.small, **files.safe}
    assert HUBS[modelscope].endpoint() == hub.endpoint


def test_the_cache_of_an_older_modelscope_is_held_against_its_note(
    tmp_path: Path, modelscope: str, refused: Refused, files: Any
) -> None:
    folder = tmp_path / "modelscope" / "models" / NAME
    folder.mkdir(parents=True)
    for file, content in {**files.small, **files.safe, ".mv": b"Revision:v1,CreatedAt:0"}.items():
        (folder / file).write_bytes(content)
    found = download(modelscope, NAME, revision="v1", offline=True)
    assert (found.folder, found.revision) == (folder, "v1")
    with refused(WeightsError, f"{NAME} at revision v2 is not in the cache"):
        download(modelscope, NAME, revision="v2", offline=True)
