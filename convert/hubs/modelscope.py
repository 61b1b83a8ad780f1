"""ModelScope, through the library modelscope: its environment variables, its cache and its token apply."""

from __future__ import annotations

import contextlib
import glob
import importlib
import io
import json
import logging
import os
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

from vconv.convert.hubs.base import Hub, Snapshot
from vconv.errors import WeightsError

_TIMEOUT_SECONDS = 5.0
_DOWN = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
_CHINESE, _INTERNATIONAL = "https://modelscope.cn", "https://www.modelscope.ai"
_BARE_NOTE = ".vconv-no-config"
"""A file in a snapshot's folder: the repository has no configuration. The library does not record this."""


def _library(module: str) -> Any:
    try:
        return importlib.import_module(f"modelscope.hub.{module}")
    except ImportError as error:
        raise WeightsError(
            "the hub modelscope needs the package modelscope",
            got=str(error),
            expected="modelscope installed",
            fix="run `pip install 'vconv[modelscope]'`",
        ) from error


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Keep ModelScope's prints, bars and log lines off the terminal; it has no option for this."""
    loggers = [logging.getLogger(name) for name in ("modelscope", "modelscope_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _endpoint() -> str:
    """Return the address that the library tries first."""
    for name in ("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"):
        if os.environ.get(name):
            return ("" if "://" in os.environ[name] else "https://") + os.environ[name].rstrip("/")
    prefers = os.environ.get("MODELSCOPE_PREFER_AI_SITE", "").strip().lower()
    return _INTERNATIONAL if prefers in ("1", "true", "yes", "on") else _CHINESE


def _failures() -> tuple[type[Exception], ...]:
    errors = (one for one in vars(_library("errors")).values() if isinstance(one, type))
    return (OSError, json.JSONDecodeError, *(one for one in errors if issubclass(one, Exception)))


def _reach(repository: str) -> None:
    """Ask once, and raise at once if the hub does not answer: the library would retry for up to a minute."""
    requests: Any = importlib.import_module("requests")  # the library's own client, with its proxies
    with requests.head(f"{_endpoint()}/api/v1/models/{repository}", timeout=_TIMEOUT_SECONDS) as answer:
        if answer.status_code in _DOWN:
            answer.raise_for_status()


def _listing(repository: str, revision: str | None) -> tuple[str, list[str]]:
    api, branch = _library("api"), revision or "master"
    _reach(repository)
    with _hushed():
        endpoint = api.HubApi().get_endpoint_for_read(repo_id=repository, repo_type="model")
        files = api.HubApi(endpoint=endpoint).get_model_files(repository, revision=branch, recursive=False)
    return branch, [file["Path"] for file in files]


def _cached(repository: str, revision: str | None) -> Snapshot | None:
    load, errors = _library("snapshot_download").snapshot_download, _library("errors")
    with _hushed():
        try:
            folder = Path(load(repository, revision=revision, local_files_only=True))
        except (ValueError, errors.CacheNotFound):
            return None
    if folder.parent.name == "snapshots":
        return Snapshot(folder, HUB.name, repository, folder.name)
    # Up to 1.37 the cache had one folder for each repository, and the file .mv in it named the revision.
    note = folder / ".mv"
    held = re.match("Revision:([^,]+)", note.read_text()) if note.is_file() else None
    name = held[1] if held else "master"
    return Snapshot(folder, HUB.name, repository, name) if revision in (None, name) else None


def _fetch(repository: str, commit: str, names: list[str]) -> Path:
    load = _library("snapshot_download").snapshot_download
    with _hushed():
        return Path(load(repository, revision=commit, allow_patterns=[glob.escape(name) for name in names]))


def _remember(found: Snapshot, revision: str | None, weights: str, bare: bool) -> None:
    note = found.folder / _BARE_NOTE
    if bare:
        note.touch()
    else:
        note.unlink(missing_ok=True)


HUB = Hub(
    name="modelscope",
    login="`modelscope login` or set MODELSCOPE_API_TOKEN",
    mirror="MODELSCOPE_ENDPOINT",
    cache="MODELSCOPE_CACHE",
    endpoint=_endpoint,
    offline=lambda: False,
    failures=_failures,
    listing=_listing,
    cached=_cached,
    fetch=_fetch,
    remember=_remember,
    bare=lambda found: (found.folder / _BARE_NOTE).is_file(),
)
