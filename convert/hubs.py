"""Weights on a model hub: one repository at one revision, found in the cache or downloaded.

Nothing is downloaded but the configuration, the licences and the weights in one format. Each hub's own
library does the work, with its environment variables, its cache and its token.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import importlib
import io
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vconv.errors import UnknownNameError, WeightsError
from vconv.types import Say, silent

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Names of weights that can be used, the most wanted first. An index brings the shards that it names."""

_CONFIG = "config.json"
_BESIDE = (_CONFIG, "preprocessor_config.json", "README.md")
_LICENCES = ("LICENSE", "LICENCE", "NOTICE")
_WEIGHT_SUFFIXES = {
    *(".safetensors", ".bin", ".h5", ".msgpack", ".onnx", ".pth", ".pt", ".ckpt", ".npz", ".gguf", ".tflite"),
}
_REPOSITORY = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Snapshot:
    """A repository at one revision, on this machine.

    Args:
        folder: where its files are.
        hub: the hub's name in :data:`HUBS`.
        repository: its name there, ``OWNER/NAME``.
        revision: the commit; a branch or tag only where the hub does not tell the commit.
    """

    folder: Path
    hub: str
    repository: str
    revision: str


@dataclass(frozen=True)
class Hub:
    """One row of the table: what is a hub's own.

    Args:
        name: what it is called.
        login: how a user gives it a token.
        mirror: the environment variable that names another address of it.
        cache: the environment variable that moves its cache.
        endpoint: returns its address.
        offline: returns whether its library was told to stay off the network.
        failures: returns what its library raises when something outside the program is at fault.
        listing: takes repository and revision; returns the commit and the name of every file.
        cached: takes repository and revision; returns what the cache holds of it, be it incomplete.
        fetch: takes repository, commit and names; returns the folder that holds them now.
        remember: takes repository, revision, commit and a file that is there; notes that the revision is
            that commit, so that the cache can tell when the network is away.
    """

    name: str
    login: str
    mirror: str
    cache: str
    endpoint: Callable[[], str]
    offline: Callable[[], bool]
    failures: Callable[[], tuple[type[Exception], ...]]
    listing: Callable[[str, str | None], tuple[str, list[str]]]
    cached: Callable[[str, str | None], Snapshot | None]
    fetch: Callable[[str, str, list[str]], Path]
    remember: Callable[[str, str | None, str, str], None]


@dataclass(frozen=True)
class _Wanted:
    """What was asked for: as errors tell it."""

    hub: Hub
    repository: str
    revision: str | None
    gated: bool
    licence: str

    def __str__(self) -> str:
        return self.repository + (f" at revision {self.revision}" if self.revision else "")


def download(
    hub: str,
    repository: str,
    revision: str | None = None,
    gated: bool = False,
    licence: str = "",
    say: Say = silent,
    offline: bool = False,
) -> Snapshot:
    """Find a repository in the hub's cache, or download what is needed of it.

    Args:
        hub: a name in :data:`HUBS`.
        repository: ``OWNER/NAME``.
        revision: a branch, tag or commit; None for the hub's default branch.
        gated: whether the repository is known to ask for consent.
        licence: the licence that is to be accepted, for the error that says how.
        say: takes progress.
        offline: whether to look in the cache only.

    Returns:
        The repository, complete: its configuration where it has one, its licences, its weights.

    Raises:
        UnknownNameError: there is no such hub.
        WeightsError: there is no such repository, no access, no network, no room, or no usable weights.
    """
    if hub not in HUBS:
        raise UnknownNameError("hub", hub, HUBS, fix="give one of them with --hub")
    if len(repository) > 96 or not _REPOSITORY.fullmatch(repository):
        raise WeightsError(
            "not the name of a repository",
            got=repr(repository),
            expected="OWNER/NAME",
            fix="copy the name from the model's page on the hub, such as facebook/dinov2-large",
        )
    wanted = _Wanted(HUBS[hub], repository, revision, gated, licence)
    row = wanted.hub
    if offline or row.offline():
        return _from_cache(wanted, say)
    try:
        commit, files = row.listing(repository, revision)
    except row.failures() as error:
        status = _status(error)
        found = row.cached(repository, revision) if status is None or status >= 500 else None
        if found is None or _lacking(found.folder):
            raise _explained(wanted, error, began=False) from error
        say(f"cannot reach {row.endpoint()}: found {repository} in the cache of {hub}")
        return found
    weights = _chosen(wanted, files)
    try:
        folder = _fetched(wanted, commit, files, weights, say)
    except row.failures() as error:
        raise _explained(wanted, error, began=True) from error
    return Snapshot(folder, hub, repository, commit)


def _from_cache(wanted: _Wanted, say: Say) -> Snapshot:
    found = wanted.hub.cached(wanted.repository, wanted.revision)
    lacking = _lacking(found.folder) if found else []
    if found is None or lacking:
        raise WeightsError(
            f"{wanted} is not in the cache of {wanted.hub.name}, and the network is not to be used",
            got="no " + ", no ".join(lacking) if lacking else "nothing of it",
            expected="a complete download",
            fix="run once with the network, or give a folder with `--weights FOLDER`",
        )
    say(f"found {wanted.repository} in the cache of {wanted.hub.name}")
    return found


def _chosen(wanted: _Wanted, files: list[str]) -> str:
    """Choose the one file, or index, that brings the weights."""
    for name in WEIGHTS:
        if name in files:
            return name
    others = sorted(name for name in files if Path(name).suffix in _WEIGHT_SUFFIXES)
    raise WeightsError(
        f"{wanted} on {wanted.hub.name} has no weights that can be used",
        got=", ".join(others[:8]) + (f" and {len(others) - 8} more" if len(others) > 8 else "")
        if others
        else f"no weights among {len(files)} files",
        expected="one of " + ", ".join(WEIGHTS),
        fix="convert them with the library that they are for and give the folder with `--weights FOLDER`",
    )


def _fetched(wanted: _Wanted, commit: str, files: list[str], weights: str, say: Say) -> Path:
    """Bring what is needed and not there: first what the listing tells of, then the shards of an index."""
    row, repository = wanted.hub, wanted.repository
    licences = [name for name in files if "/" not in name and name.upper().startswith(_LICENCES)]
    names = [*(name for name in _BESIDE if name in files), *sorted(licences), weights]
    found = row.cached(repository, commit)
    if found and all((found.folder / name).is_file() for name in names + _shards(found.folder / weights)):
        say(f"found {repository} in the cache of {row.name}")
    else:
        say(f"downloading {repository} from {row.name}")
    folder = row.fetch(repository, commit, names)
    shards = _shards(folder / weights)
    for name in shards:
        if name not in files:
            raise WeightsError(
                f"{weights} of {wanted} names a shard that the repository does not have",
                got=repr(name),
                expected="a file beside it",
                fix="name another revision, or give a folder with `--weights FOLDER`",
            )
    if shards:
        row.fetch(repository, commit, shards)
    # Only now, so that a download that broke off is not what the cache knows the revision by.
    row.remember(repository, wanted.revision, commit, weights)
    return folder


def _lacking(folder: Path) -> list[str]:
    """Name what keeps a folder from being complete."""
    config = [] if (folder / _CONFIG).is_file() else [_CONFIG]
    weights = next((name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        return [*config, WEIGHTS[0]]
    return config + [name for name in _shards(folder / weights) if not (folder / name).is_file()]


def _shards(path: Path) -> list[str]:
    """Return the shards that an index names; none where it is no index, or not there."""
    if not path.name.endswith(".index.json") or not path.is_file():
        return []
    try:
        return sorted({str(name) for name in json.loads(path.read_text())["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"cannot read {path.name}",
            got=f"{type(error).__name__}: {error}",
            expected="a JSON object whose weight_map names a file for every tensor",
            fix=f"remove {path.parent} and run again, or give a folder with `--weights FOLDER`",
        ) from error


_NOT_FETCHED = "name a mirror with {mirror}, try {others}, or give a folder with `--weights FOLDER`"
_SENTENCES = {
    "full": (
        "{wanted} cannot be written to the cache of {hub}",
        "a folder with room, that can be written to",
        "make room, or move the cache with {cache}, and run again",
    ),
    "gated": (
        "no access to {wanted} on {hub}, which is gated or private",
        "a token of an account that has access",
        "open {page}, accept its licence{licence}, then run {login}; "
        "or give the weights as a folder with `--weights FOLDER`",
    ),
    "token": (
        "{hub} refuses the token that was sent for {wanted}",
        "a valid token",
        "make a new one and run {login}; or remove it, if the repository is public",
    ),
    "missing": (
        "no {wanted} on {hub}",
        "a repository and a revision that exist, public or open to your token",
        "look at {page}; if it is private, run {login}",
    ),
    "broken": (
        "the download of {wanted} from {hub} broke off",
        "every file whole",
        "run again, what arrived whole is kept; or " + _NOT_FETCHED,
    ),
    "unreachable": (
        "cannot reach {hub} for {wanted}",
        "an answer, or a complete download in the cache",
        _NOT_FETCHED,
    ),
}
"""What a failure means: what, expected, fix."""


def _explained(wanted: _Wanted, error: Exception, began: bool) -> WeightsError:
    """Say in one sentence what an error of a hub's library means."""
    row, endpoint, status = wanted.hub, wanted.hub.endpoint(), _status(error)
    kind = _kind(wanted, error, began)
    first = list(_chain(error))[-1]
    said = " ".join(str(first).split())[:200] or type(first).__name__
    if status:
        said = _headers(error).get("X-Error-Message") or HTTPStatus(status).phrase
    fields = {
        "wanted": wanted,
        "hub": row.name,
        "page": f"{endpoint}/{wanted.repository}",
        "licence": f" ({wanted.licence})" if wanted.licence else "",
        "login": row.login,
        "mirror": row.mirror,
        "cache": row.cache,
        "others": " or ".join(f"`--hub {name}`" for name in HUBS if name != row.name),
    }
    what, expected, fix = (part.format_map(fields) for part in _SENTENCES[kind])
    where = "" if kind == "full" else f"{status or 'no answer'} from {endpoint}: "
    return WeightsError(what, got=where + said, expected=expected, fix=fix)


def _kind(wanted: _Wanted, error: Exception, began: bool) -> str:
    if any(_is_full(one) for one in _chain(error)):
        return "full"
    status, headers = _status(error), _headers(error)
    signed = any(_is_signed(one) for one in _chain(error))
    if status == 403 or headers.get("X-Error-Code") == "GatedRepo":
        return "gated"
    if status == 401 and signed:
        return "token"
    if status == 401 and wanted.gated:
        return "gated"
    if status in (400, 401, 404):
        return "missing"
    return "broken" if began else "unreachable"


def _is_full(error: BaseException) -> bool:
    """Tell whether an error is one of the disk; those of the network name no file."""
    if not isinstance(error, OSError):
        return "No space left on device" in str(error)
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or bool(error.errno and error.filename)


def _is_signed(error: BaseException) -> bool:
    """Tell whether the request that was refused carried a token."""
    request = getattr(getattr(error, "response", None), "request", None)
    headers = getattr(request, "headers", {})
    return "authorization" in headers or "m_session_id" in headers.get("cookie", "")


def _headers(error: Exception) -> Mapping[str, str]:
    answers = (getattr(one, "response", None) for one in _chain(error))
    return next((answer.headers for answer in answers if answer is not None), {})


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from, the first cause last."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        # ModelScope downloads files side by side and keeps what befell each.
        at = at.__cause__ or at.__context__ or next(iter(getattr(at, "failed_files", {}).values()), None)


def _status(error: Exception) -> int | None:
    """Return the HTTP status that an error came from, if the hub answered at all."""
    for one in _chain(error):
        status = getattr(getattr(one, "response", None), "status_code", getattr(one, "status_code", None))
        if isinstance(status, int) and status >= 400:
            return status
    return None


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


def _hf_endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _hf_offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def _hf_failures() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import HfHubHTTPError

    # Its base is that of requests, httpx or httpx2, as the version has it; hf_xet raises RuntimeError.
    return (OSError, HfHubHTTPError.__mro__[1], RuntimeError, json.JSONDecodeError)


def _hf_listing(repository: str, revision: str | None) -> tuple[str, list[str]]:
    from huggingface_hub import HfApi

    found = HfApi().model_info(repository, revision=revision, timeout=_TIMEOUT_SECONDS)
    return str(found.sha), [sibling.rfilename for sibling in found.siblings or []]


def _hf_cached(repository: str, revision: str | None) -> Snapshot | None:
    from huggingface_hub import try_to_load_from_cache

    for name in (*WEIGHTS, _CONFIG):
        path = try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(path, str):
            folder = Path(path).parent
            return Snapshot(folder, "huggingface", repository, folder.name)
    return None


def _hf_fetch(repository: str, commit: str, names: list[str]) -> Path:
    from huggingface_hub import hf_hub_download

    with _without_bars():
        return [Path(hf_hub_download(repository, name, revision=commit)) for name in names][-1].parent


def _hf_remember(repository: str, revision: str | None, commit: str, name: str) -> None:
    from huggingface_hub import hf_hub_download

    found = _hf_cached(repository, revision)
    if found is None or found.revision != commit:
        with _without_bars():
            hf_hub_download(repository, name, revision=revision)


def _ms(module: str) -> Any:
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
    """Keep ModelScope's prints, bars and log lines off the terminal: it has no switch for them."""
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


def _ms_endpoint() -> str:
    for name in ("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"):
        if os.environ.get(name):
            return ("" if "://" in os.environ[name] else "https://") + os.environ[name].rstrip("/")
    return "https://www.modelscope.cn"


def _ms_failures() -> tuple[type[Exception], ...]:
    errors = (one for one in vars(_ms("errors")).values() if isinstance(one, type))
    return (OSError, json.JSONDecodeError, *(one for one in errors if issubclass(one, Exception)))


def _ms_listing(repository: str, revision: str | None) -> tuple[str, list[str]]:
    api, branch = _ms("api"), revision or "master"
    with _hushed():
        endpoint = api.HubApi().get_endpoint_for_read(repo_id=repository, repo_type="model")
        files = api.HubApi(endpoint=endpoint).get_model_files(repository, revision=branch, recursive=False)
    return branch, [file["Path"] for file in files if file.get("Type") != "tree"]


def _ms_cached(repository: str, revision: str | None) -> Snapshot | None:
    load, errors = _ms("snapshot_download").snapshot_download, _ms("errors")
    with _hushed():
        try:
            folder = Path(load(repository, revision=revision, local_files_only=True))
        except (ValueError, errors.CacheNotFound):
            return None
    if folder.parent.name == "snapshots":
        return Snapshot(folder, "modelscope", repository, folder.name)
    # Up to 1.37 the cache had one folder a repository, whatever the revision, and a note of which it is.
    note = folder / ".mv"
    held = re.match("Revision:([^,]+)", note.read_text()) if note.is_file() else None
    name = held[1] if held else "master"
    return Snapshot(folder, "modelscope", repository, name) if revision in (None, name) else None


def _ms_fetch(repository: str, commit: str, names: list[str]) -> Path:
    load = _ms("snapshot_download").snapshot_download
    with _hushed():
        return Path(load(repository, revision=commit, allow_patterns=[glob.escape(name) for name in names]))


_ROWS = (
    Hub(
        name="huggingface",
        login="`hf auth login` or set HF_TOKEN",
        mirror="HF_ENDPOINT",
        cache="HF_HUB_CACHE",
        endpoint=_hf_endpoint,
        offline=_hf_offline,
        failures=_hf_failures,
        listing=_hf_listing,
        cached=_hf_cached,
        fetch=_hf_fetch,
        remember=_hf_remember,
    ),
    Hub(
        name="modelscope",
        login="`modelscope login` or set MODELSCOPE_API_TOKEN",
        mirror="MODELSCOPE_ENDPOINT",
        cache="MODELSCOPE_CACHE",
        endpoint=_ms_endpoint,
        offline=lambda: False,
        failures=_ms_failures,
        listing=_ms_listing,
        cached=_ms_cached,
        fetch=_ms_fetch,
        remember=lambda repository, revision, commit, name: None,
    ),
)

HUBS: Mapping[str, Hub] = MappingProxyType({hub.name: hub for hub in _ROWS})
"""Every hub by its name. A new hub is one more row."""
