"""A stand-in for both model hubs on this machine: it answers as they do and writes down what it was asked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit


class Request(NamedTuple):
    """What was asked."""

    method: str
    path: str
    token: str | None


class Repository:
    """One model: its files at each commit, and what its branches and tags stand for."""

    def __init__(self, files: dict[str, bytes], gated: bool = False) -> None:
        self.commits: dict[str, dict[str, bytes]] = {}
        self.refs: dict[str, str] = {}
        self.gated = gated
        self.push(files)

    def push(self, files: dict[str, bytes]) -> str:
        """Make a commit that holds these files, on the default branch."""
        commit = hashlib.sha1(f"{len(self.commits)} {sorted(files.items())}".encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.refs |= {"main": commit, "master": commit}
        return commit

    def at(self, revision: str | None) -> str | None:
        """Return the commit that a revision stands for, if any."""
        name = revision or "main"
        return name if name in self.commits else self.refs.get(name)


class HubServer:
    """The hub; :attr:`requests` is what it was asked."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.repositories: dict[str, Repository] = {}
        self.tokens: dict[str, bool] = {}
        """Valid tokens, and whether they open gated repositories."""
        self.requests: list[Request] = []
        self.breaking: set[str] = set()
        """Files whose connection is closed in the middle of the first answer, and at once ever after."""
        self.down = False

    def files_asked_for(self) -> list[str]:
        """Return the names of the files whose content was asked for, in order."""
        paths = [request.path for request in self.requests if request.method == "GET"]
        found = (re.search(r"/resolve/[^/]+/(.+)|FilePath=([^&]+)", path) for path in paths)
        return [unquote(match[1] or match[2]) for match in found if match]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        bearer = re.fullmatch("Bearer (.+)", self.headers.get("Authorization", ""))
        cookie = re.search("m_session_id=([^;]+)", self.headers.get("Cookie", ""))
        self.token = bearer[1] if bearer else cookie[1] if cookie else None
        self.hub.requests.append(Request(self.command, self.path, self.token))
        url = urlsplit(self.path)
        self.asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        if self.hub.down:
            return self._send(503)
        for pattern, answer in (
            (r"/api/v1/models/([^/]+/[^/]+)(/revisions|/repo/files|/repo)?", self._modelscope),
            (r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", self._listing),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
        ):
            if match := re.fullmatch(pattern, url.path):
                return answer(*(part and unquote(part) for part in match.groups()))
        return self._send(404)

    def _listing(self, name: str, revision: str | None) -> None:
        if found := self._huggingface(name, revision):
            commit, files = found
            siblings = [{"rfilename": file} for file in sorted(files)]
            self._send(200, json.dumps({"id": name, "sha": commit, "siblings": siblings}).encode())

    def _resolve(self, name: str, revision: str, file: str) -> None:
        if found := self._huggingface(name, revision):
            commit, files = found
            if self.hub.repositories[name].gated and not self.hub.tokens.get(self.token or ""):
                self._send(403 if self.token else 401, code="GatedRepo", message=f"Access to {name} is gated")
            elif file not in files:
                self._send(404, code="EntryNotFound", commit=commit)
            else:
                self._send_file(file, files[file], commit)

    def _huggingface(self, name: str, revision: str | None) -> tuple[str, dict[str, bytes]] | None:
        """Find a repository at a revision, or answer why not, in the hub's own words."""
        repository = self.hub.repositories.get(name)
        if self.token and self.token not in self.hub.tokens:
            self._send(401, message="Invalid credentials in Authorization header")
        elif repository is None and self.token is None:
            self._send(401, message="Invalid username or password.")
        elif repository is None:
            self._send(404, code="RepoNotFound", message="Repository not found")
        elif commit := repository.at(revision):
            return commit, repository.commits[commit]
        else:
            self._send(404, code="RevisionNotFound", message=f"Invalid rev id: {revision}")
        return None

    def _modelscope(self, name: str, part: str | None) -> None:
        repository = self.hub.repositories.get(name)
        commit = repository.at(self.asked.get("Revision", "master")) if repository else None
        if self.token and self.token not in self.hub.tokens:
            return self._send(401)
        if repository is None or commit is None:
            return self._send(404, json.dumps({"Code": 404, "Message": "not found"}).encode())
        if repository.gated and not self.hub.tokens.get(self.token or ""):
            return self._send(403)
        files = repository.commits[commit]
        if part == "/repo":
            return self._send_file(self.asked["FilePath"], files[self.asked["FilePath"]], commit)
        entries = [
            {
                **{"Name": file, "Path": file, "Type": "blob", "Size": len(content), "Revision": commit},
                "Sha256": hashlib.sha256(content).hexdigest(),
            }
            for file, content in sorted(files.items())
            if "/" not in file or self.asked.get("Recursive") == "True"
        ]
        branches = [{"Revision": ref, "CreatedAt": 0} for ref in repository.refs]
        data = {
            None: {"Name": name},
            "/repo/files": {"Files": entries},
            "/revisions": {"RevisionMap": {"Branches": branches, "Tags": []}},
        }[part]
        return self._send(200, json.dumps({"Code": 200, "Success": True, "Data": data}).encode())

    def _send_file(self, name: str, content: bytes, commit: str) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        end = int(match[2]) + 1 if match and match[2] else len(content)
        broken = name in self.hub.breaking and self.command == "GET"
        stop = (start + end) // 2 if self.hub.files_asked_for().count(name) == 1 else start
        self.send_response(206 if match else 200)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", str(end - start))
        if match:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[start : stop if broken else end])
        self.close_connection = broken

    def _send(
        self, status: int, content: bytes = b"", code: str = "", message: str = "", commit: str = ""
    ) -> None:
        self.send_response(status)
        for name, value in (("X-Error-Code", code), ("X-Error-Message", message), ("X-Repo-Commit", commit)):
            if value:
                self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@contextlib.contextmanager
def serving() -> Iterator[HubServer]:
    """Run a hub in a thread, on a port of its own."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.hub = HubServer(f"http://127.0.0.1:{server.server_address[1]}")  # type: ignore[attr-defined]
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield handler.hub  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()
