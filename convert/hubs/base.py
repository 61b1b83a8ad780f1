"""The common parts of all hubs: the row in the table, the request, and errors as one sentence."""

from __future__ import annotations

import errno
import http.client
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vconv.convert.files import shards
from vconv.errors import WeightsError
from vconv.printable import shortened
from vconv.types import PICKLE_FILE, WEIGHTS_FILE

WEIGHTS = (WEIGHTS_FILE, shards.SAFETENSORS_INDEX, PICKLE_FILE, shards.PICKLE_INDEX)
"""Names of weights files that vconv reads, the preferred first. An index stands for its shards too."""


@dataclass(frozen=True)
class Snapshot:
    """A repository at one revision, on this machine.

    Args:
        folder: the folder with its files.
        hub: the hub's name in the table.
        repository: the repository's name on the hub, ``OWNER/NAME``.
        revision: the commit; a branch or tag if the hub does not report the commit.
    """

    folder: Path
    hub: str
    repository: str
    revision: str


@dataclass(frozen=True)
class Hub:
    """One row of the table: everything that differs from hub to hub. The hub's library does the work.

    Args:
        name: its name in the table.
        login: how a user sets a token.
        mirror: the environment variable that sets another address.
        cache: the environment variable that moves the cache.
        endpoint: returns its address.
        offline: returns whether its library is in offline mode.
        failures: returns the exceptions that its library raises for the network, the hub or the disk.
        listing: takes repository and revision; returns the commit and the name of every file.
        cached: takes repository and revision; returns the snapshot in the cache, complete or not, or None.
        fetch: takes repository, commit and file names; downloads those files and returns their folder.
        remember: takes a complete snapshot, the requested revision, the name of its weights file and
            whether the repository is bare (has no configuration); records in the cache that the revision is
            this commit, and that it is bare.
        bare: takes a snapshot; returns whether the cache records that its repository has no configuration.
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
    remember: Callable[[Snapshot, str | None, str, bool], None]
    bare: Callable[[Snapshot], bool]


@dataclass(frozen=True)
class Wanted:
    """A request to a hub, as error messages name it.

    Args:
        hub: the hub.
        repository: ``OWNER/NAME``.
        revision: a branch, tag or commit; None for the hub's default branch.
        gated: whether the repository is known to require consent.
        licence: the licence to accept; empty if unknown.
    """

    hub: Hub
    repository: str
    revision: str | None
    gated: bool
    licence: str

    def __str__(self) -> str:
        return self.repository + (f" at revision {self.revision}" if self.revision else "")


_NOT_FETCHED = "set a mirror with {mirror}, try {others}, or give a folder with `--weights FOLDER`"
_SENTENCES = {
    "full": (
        "{wanted} cannot be written to the cache of {hub}",
        "a writable folder with enough free space",
        "free some space, or move the cache with {cache}, and run again",
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
        "the download of {wanted} from {hub} was interrupted",
        "complete files",
        "run again: complete files are kept; or " + _NOT_FETCHED,
    ),
    "unreachable": (
        "cannot reach {hub} for {wanted}",
        "an answer, or a complete download in the cache",
        _NOT_FETCHED,
    ),
}
"""Kinds of failure: what went wrong, what was expected, the fix."""


def explained(wanted: Wanted, error: Exception, began: bool, others: Iterable[str]) -> WeightsError:
    """Return one sentence for an error of a hub's library.

    Args:
        wanted: the request.
        error: the exception that the library raised.
        began: whether the download of files had begun.
        others: names of the other hubs, which may have the repository too.
    """
    row, endpoint, status = wanted.hub, wanted.hub.endpoint(), status_of(error)
    kind = _kind(wanted, error, began)
    first = list(_chain(error))[-1]
    said = shortened(str(first)) or type(first).__name__
    if status:
        said = _headers(error).get("X-Error-Message") or http.client.responses.get(status, "an error")
    fields = {
        "wanted": wanted,
        "hub": row.name,
        "page": f"{endpoint}/{wanted.repository}",
        "licence": f" ({wanted.licence})" if wanted.licence else "",
        "login": row.login,
        "mirror": row.mirror,
        "cache": row.cache,
        "others": " or ".join(f"`--hub {name}`" for name in others),
    }
    what, expected, fix = (part.format_map(fields) for part in _SENTENCES[kind])
    where = "" if kind == "full" else f"{status or 'no answer'} from {endpoint}: "
    return WeightsError(what, got=where + said, expected=expected, fix=fix)


def status_of(error: Exception) -> int | None:
    """Return the HTTP status behind an error; None if the hub did not answer."""
    for one in _chain(error):
        status = getattr(getattr(one, "response", None), "status_code", getattr(one, "status_code", None))
        if isinstance(status, int) and status >= 400:
            return status
    return None


def _kind(wanted: Wanted, error: Exception, began: bool) -> str:
    if any(_is_full(one) for one in _chain(error)):
        return "full"
    status, headers = status_of(error), _headers(error)
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
    """Return whether an error comes from the disk; network errors have no file name."""
    if not isinstance(error, OSError):
        return "No space left on device" in str(error)
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or bool(error.errno and error.filename)


def _is_signed(error: BaseException) -> bool:
    """Return whether the refused request carried a token."""
    request = getattr(getattr(error, "response", None), "request", None)
    headers = getattr(request, "headers", {})
    return "authorization" in headers or "m_session_id" in headers.get("cookie", "")


def _headers(error: Exception) -> Mapping[str, str]:
    answers = (getattr(one, "response", None) for one in _chain(error))
    return next((answer.headers for answer in answers if answer is not None), {})


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, the first cause last."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        # ModelScope downloads files in parallel and keeps the error of each.
        at = at.__cause__ or at.__context__ or next(iter(getattr(at, "failed_files", {}).values()), None)
