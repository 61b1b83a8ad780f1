"""What the tests of the hubs share: a stand-in for both on this machine, and caches of their own.

The stand-in answers as the hubs do and writes down what it was asked.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from vconv.convert.hubs.table import HUBS

NAME = "owner/model-large"


def sharded(stem: str, suffix: str) -> dict[str, bytes]:
    shards = {f"{stem}-0000{n}-of-00002{suffix}": bytes([n]) * 50 for n in (1, 2)}
    weight_map = dict(zip("abc", [*shards, *shards], strict=False))
    return {f"{stem}{suffix}.index.json": json.dumps({"weight_map": weight_map}).encode(), **shards}


def named(*names: str) -> dict[str, bytes]:
    return {name: f"{name} of a stand-in".encode() for name in names}


FILES = SimpleNamespace(
    small=named("config.json", "preprocessor_config.json", "README.md", "LICENSE", "NOTICE.txt"),
    safe={"model.safetensors": bytes(range(256)) * 400},
    safe_shards=sharded("model", ".safetensors"),
    pickle=named("pytorch_model.bin"),
    pickle_shards=sharded("pytorch_model", ".bin"),
    others=named("flax_model.msgpack", "onnx/config.json", "onnx/model.onnx", "LICENSES/x", "tokenizer.json"),
)
"""What repositories are made of: names and contents."""


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
        self.unlisted: int | None = None
        """The status by which the listing of a commit's files is refused; None where it is given."""

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
            (r"/api/models/([^/]+/[^/]+)/tree/(.+)", self._tree),
            (r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", self._listing),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
        ):
            if match := re.fullmatch(pattern, url.path):
                return answer(*(part and unquote(part) for part in match.groups()))
        return self._send(404)

    def _tree(self, name: str, revision: str) -> None:
        """Answer as the hub does to all: the files of a gated repository can be listed, not read."""
        if self.hub.unlisted:
            self._send(self.hub.unlisted)
        elif found := self._huggingface(name, revision):
            files = [
                {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for file, content in sorted(found[1].items())
            ]
            self._send(200, json.dumps(files).encode())

    def _listing(self, name: str, revision: str | None) -> None:
        if self.hub.unlisted and revision and len(revision) == 40:  # before 1.0 the library lists by this
            self._send(self.hub.unlisted)
        elif found := self._huggingface(name, revision):
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


@pytest.fixture
def files() -> SimpleNamespace:
    """What repositories are made of: names and contents."""
    return FILES


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A hub in a thread, on a free port, with one repository."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.hub = HubServer(f"http://127.0.0.1:{server.server_address[1]}")  # type: ignore[attr-defined]
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        everything = {**FILES.small, **FILES.safe, **FILES.pickle, **FILES.others}
        handler.hub.repositories[NAME] = Repository(everything)  # type: ignore[attr-defined]
        yield handler.hub  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


@pytest.fixture
def publish(hub: HubServer) -> Callable[..., Repository]:
    """Put other files, or a gate, in place of the repository that the hub has."""

    def put(*files: dict[str, bytes], gated: bool = False) -> Repository:
        merged = {name: content for some in files for name, content in some.items()}
        hub.repositories[NAME] = Repository(merged, gated)
        return hub.repositories[NAME]

    return put


def _point(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    from huggingface_hub import constants, file_download

    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    for module in (constants, file_download):  # before 1.0 the second has a copy
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", endpoint)


@pytest.fixture(autouse=True)
def huggingface(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point huggingface_hub at the stand-in and an empty cache: it reads its environment when imported."""
    from huggingface_hub import constants

    _point(monkeypatch, hub.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def modelscope(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Point modelscope, if it is installed, at the stand-in and an empty cache."""
    pytest.importorskip("modelscope_hub")
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "home"))
    for name in ("MODELSCOPE_DOMAIN", "MODELSCOPE_API_TOKEN", "MODELSCOPE_PREFER_AI_SITE"):
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
def point(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Point every hub at another address."""

    def to(endpoint: str) -> None:
        _point(monkeypatch, endpoint)
        _forget_modelscope()

    return to


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Every file of a folder, but for the notes that modelscope, and vconv in its cache, keep."""
    notes = (".msc", ".mv", ".mdl", ".vconv-no-config")

    def read(folder: Path) -> dict[str, bytes]:
        paths = [path for path in folder.rglob("*") if path.is_file() and path.name not in notes]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}

    return read
