"""Hugging Face, through huggingface_hub: its environment variables, its cache and its token apply."""

from __future__ import annotations

import contextlib
import glob
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vconv.convert.hubs.base import WEIGHTS, Hub, Snapshot
from vconv.types import CONFIG_FILE

_TIMEOUT_SECONDS = 10.0


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    bars: Any = importlib.import_module("huggingface_hub.utils")
    before = bars.are_progress_bars_disabled()
    bars.disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            bars.enable_progress_bars()


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def _failures() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import HfHubHTTPError

    # The first base of HfHubHTTPError is the HTTPError of the client that this version of the library uses:
    # requests, httpx or httpx2. hf_xet raises RuntimeError; a token, address or proxy without sense raises
    # ValueError; a client that lacks a package (for a SOCKS proxy) raises ImportError.
    return (OSError, HfHubHTTPError.__bases__[0], RuntimeError, ValueError, ImportError)


def _listing(repository: str, revision: str | None) -> tuple[str, list[str]]:
    from huggingface_hub import HfApi

    found = HfApi().model_info(repository, revision=revision, timeout=_TIMEOUT_SECONDS)
    return str(found.sha), [sibling.rfilename for sibling in found.siblings or []]


def _cached(repository: str, revision: str | None) -> Snapshot | None:
    from huggingface_hub import try_to_load_from_cache

    for name in (*WEIGHTS, CONFIG_FILE):
        path = try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(path, str):
            folder = Path(path).parent
            return Snapshot(folder, HUB.name, repository, folder.name)
    return None


def _fetch(repository: str, commit: str, names: list[str]) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache

    held = [try_to_load_from_cache(repository, name, revision=commit) for name in names]
    if all(isinstance(path, str) for path in held):  # a commit never changes
        return Path(str(held[0])).parent
    with _without_bars():
        wanted = [glob.escape(name) for name in names]
        folder = Path(snapshot_download(repository, revision=commit, allow_patterns=wanted))
        # If the hub refuses to list the commit, the library returns an incomplete cache folder without an
        # error. Asking for a missing file by itself downloads it, or raises the reason.
        for name in names:
            if not (folder / name).is_file():
                hf_hub_download(repository, name, revision=commit)
    return folder


def _remember(found: Snapshot, revision: str | None, weights: str, bare: bool) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    known = _cached(found.repository, revision)
    with _without_bars():
        if known is None or known.revision != found.revision:
            hf_hub_download(found.repository, weights, revision=revision)
        if bare and not _bare(found):
            # The library records a missing file in its cache, under .no_exist.
            try:
                hf_hub_download(found.repository, CONFIG_FILE, revision=found.revision)
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError:
                pass


def _bare(found: Snapshot) -> bool:
    from huggingface_hub import try_to_load_from_cache

    # A path: the file is in the cache. None: unknown. Anything else: the cache records that there is no file.
    noted = try_to_load_from_cache(found.repository, CONFIG_FILE, revision=found.revision)
    return noted is not None and not isinstance(noted, str)


HUB = Hub(
    name="huggingface",
    login="`hf auth login` or set HF_TOKEN",
    mirror="HF_ENDPOINT",
    cache="HF_HUB_CACHE",
    endpoint=_endpoint,
    offline=_offline,
    failures=_failures,
    listing=_listing,
    cached=_cached,
    fetch=_fetch,
    remember=_remember,
    bare=_bare,
)
