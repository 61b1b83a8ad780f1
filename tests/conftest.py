"""What tests share: every system in full and in small, with synthetic weights."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from examples import EXAMPLES

from vconv.artifact import manifest
from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import Manifest
from vconv.catalog.systems import SYSTEMS, System, miniature
from vconv.convert.sources.base import Source
from vconv.convert.sources.table import Request, open_source
from vconv.errors import VconvError
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import find_device
from vconv.runtime.inputs.images import natural_image
from vconv.workflows import export as workflows

pytest_plugins = ["choice_of_systems", "forks", "garbage", "once_a_run", "reduced_artifacts"]
"""In tests/plugins."""

Refused = Callable[..., contextlib.AbstractContextManager[None]]

STANDINS = Path(__file__).parent / "standins"
"""Programs and modules of CANN, imitated."""


@pytest.fixture(params=sorted(EXAMPLES))
def system(request: pytest.FixtureRequest) -> System:
    """A system of the catalog, in full size: tests/plugins/choice_of_systems.py says which."""
    return SYSTEMS[request.param]


@pytest.fixture(scope="session")
def shrink() -> Callable[[System], System]:
    """The function that shrinks a system."""
    return miniature


@pytest.fixture
def small_system(system: System) -> System:
    """A system of the catalog, shrunk."""
    return miniature(system)


@pytest.fixture
def size(small_system: System) -> tuple[int, int]:
    """The (height, width) of the images that a shrunk system takes."""
    assert small_system.family is not None
    side = small_system.family.miniature.side
    return side, side


@pytest.fixture
def small_name(small_system: System) -> Iterator[str]:
    """A system's name, with its shrunken self in its place in the catalog."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("vconv.catalog.systems.SYSTEMS", {small_system.name: small_system})
        yield small_system.name


@pytest.fixture
def small_source(small_system: System, tmp_path: Path) -> Source:
    """Synthetic weights of a shrunk system."""
    folder = tmp_path / "source"
    folder.mkdir()
    return open_source(Request(small_system, "synthetic:1"), folder)


@pytest.fixture(scope="session")
def export_in_full(once: Callable[..., Path]) -> Callable[[str], Path]:
    """Export a system in full size, once a run; the artifact is shared and must not be changed."""

    def export(name: str) -> Path:
        folder = once(name, lambda path: workflows.export(name, "synthetic:0", path / name, batch=2))
        return folder / name

    return export


@pytest.fixture
def artifact(system: System, export_in_full: Callable[[str], Path]) -> Path:
    """The artifact of a system, in full size."""
    return export_in_full(system.name)


@pytest.fixture(params=["in full", "in small"])
def either(request: pytest.FixtureRequest, system: System) -> Path:
    """The artifact of a system, in full size and shrunk."""
    return Path(request.getfixturevalue("artifact" if request.param == "in full" else "small_artifact"))


@pytest.fixture
def photographs(tmp_path: Path) -> list[str]:
    """Two image files, as a user would have them."""
    paths = [str(tmp_path / name) for name in ("one.png", "two.jpg")]
    for seed, path in enumerate(paths):
        natural_image(100 + seed).resize((640, 427 + seed)).save(path)
    return paths


def state_of(folder: Path) -> list[tuple[Path, int, int]]:
    """List what is in a folder, with the size and time of each file."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path, path.stat().st_size, path.stat().st_mtime_ns) for path in found]


@pytest.fixture
def small_artifact(
    small_system: System,
    once: Callable[..., Path],
    traced_once: Callable[..., contextlib.AbstractContextManager[None]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:
    """The artifact of a shrunk system, its static graph of batch 2; shared: change :func:`copied`."""
    path = tmp_path_factory.getbasetemp() / "small" / small_system.name
    if not path.exists():
        with traced_once():
            made = once(
                f"small-{small_system.name}",
                lambda part: workflows.export(small_system, "synthetic:1", part / small_system.name, batch=2),
            )
        shutil.copytree(made / small_system.name, path)
    before = state_of(path)
    yield path
    assert state_of(path) == before, "the shared artifact was changed: take the fixture `copied`"


@pytest.fixture
def copied(small_artifact: Path, tmp_path: Path) -> Path:
    """A copy of :func:`small_artifact`, to be changed and validated."""
    return shutil.copytree(small_artifact, tmp_path / "copied")


@pytest.fixture
def made(small_artifact: Path) -> Manifest:
    """The manifest of :func:`small_artifact`."""
    return manifest.load(small_artifact)


@pytest.fixture
def refused() -> Refused:
    """Expect an error that the user can fix: of this type, one line, with these fragments."""

    @contextlib.contextmanager
    def expect(kind: type[VconvError], *fragments: str) -> Iterator[None]:
        with pytest.raises(kind) as caught:
            yield
        message = str(caught.value)
        assert "\n" not in message
        assert all(part in message for part in (" | got ", " | expected ", " | fix: "))
        assert [part for part in fragments if part not in message] == [], message

    return expect


@pytest.fixture
def small(small_artifact: Path, made: Manifest) -> Artifact:
    """The artifact of every shrunk system, opened."""
    return Artifact(small_artifact, made)


@dataclass(frozen=True)
class StandIns:
    """A folder of packages that stand in for ones that are not installed here.

    Args:
        folder: where they lie; child processes find them before anything else.
    """

    folder: Path

    def add(
        self, name: str, version: str, body: str, *, autoload: bool = False, requires: Sequence[str] = ()
    ) -> None:
        """Install a package as pip would: the module, and what importlib.metadata reads.

        Args:
            name: of the package.
            version: of it; empty for one that pip did not install.
            body: what its ``__init__.py`` is.
            autoload: whether it has the entry point by which torch loads it.
            requires: what it says that it requires.
        """
        (self.folder / name).mkdir()
        (self.folder / name / "__init__.py").write_text(body)
        if version:
            self.record(name, version, autoload=autoload, requires=requires)

    def record(
        self, name: str, version: str, *, autoload: bool = False, requires: Sequence[str] = ()
    ) -> None:
        """Write what importlib.metadata reads, and no module."""
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        if autoload:
            (info / "entry_points.txt").write_text(f"[torch.backends]\n{name} = {name}:_autoload\n")


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    """Packages that this process, and the children that it starts, find before what is installed."""
    folder = tmp_path / "stand-ins"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), before])))
    # A stand-in is rewritten within the second by which Python tells old bytecode from new.
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME", "ASCEND_RT_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    return StandIns(folder)


@pytest.fixture
def broken_torch_npu(stand_ins: StandIns) -> StandIns:
    """A torch_npu that fails as the real one does where CANN is not installed."""
    missing = "libhccl.so: cannot open shared object file: No such file or directory"
    stand_ins.add("torch_npu", "2.13.0", f"raise ImportError({missing!r})", autoload=True)
    return stand_ins


@pytest.fixture
def acl(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in for pyACL, as ``import acl`` finds it: fresh, and in the end nothing of it may be held."""
    monkeypatch.syspath_prepend(str(STANDINS))
    sys.modules.pop("acl", None)
    module = importlib.import_module("acl")
    gc.freeze()  # what is older needs no search
    yield module
    gc.collect()
    gc.unfreeze()
    assert module.held() == {}
    del sys.modules["acl"]


@pytest.fixture
def atc(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on PATH with the stand-in for ATC."""
    folder = tmp_path_factory.mktemp("cann")
    program = folder / "atc"
    program.write_text(f"#!{sys.executable}\n" + (STANDINS / "atc.py").read_text())
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


@pytest.fixture
def torchair(stand_ins: StandIns) -> StandIns:
    """The stand-in for torchair, beside a torch_npu that is nothing but there."""
    stand_ins.add("torch_npu", "2.13.0", "")
    stand_ins.add("torchair", "", (STANDINS / "torchair.py").read_text())
    return stand_ins


@pytest.fixture
def npu() -> Device:
    """An NPU of which only its name is known: the CPU under another."""
    return replace(find_device("cpu"), name="npu:0", kind="npu", index=0)
