"""What is costly and alike in many tests, made once a run for all its workers."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Make a file or folder once a run, whichever worker needs it first; it must not be changed."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)

    def get(name: str, make: Callable[[Path], object]) -> Path:
        path = folder / name
        with (folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                # A maker that failed may have left something.
                shutil.rmtree(folder / f"{name}.part", ignore_errors=True)
                make(folder / f"{name}.part")
                (folder / f"{name}.part").rename(path)
        return path

    return get


HARMLESS = (
    "os", "time", "sys", "shutil", "tempfile", "pathlib", "subprocess", "huggingface_hub",
    "vconv.artifact", "vconv.catalog", "vconv.cli", "vconv.convert.hubs", "vconv.convert.sources",
    "vconv.disk", "vconv.progress", "vconv.runtime", "vconv.validators", "vconv.workflows",
)  # fmt: skip
"""Modules in which a test may replace something without changing how a network is traced."""


@pytest.fixture(scope="session")
def traced_once(once: Callable[..., Path]) -> Callable[..., contextlib.AbstractContextManager[None]]:
    """A context in which each network is traced once a run, unless a function says that something changed."""

    tracing = importlib.import_module("vconv.convert.graphs.tracing")
    trace = tracing.trace

    @contextlib.contextmanager
    def remembering(changed: Callable[[], bool] = lambda: False) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(tracing, "trace", _remembering(trace, once, changed))
            yield

    return remembering


@pytest.fixture(autouse=True)
def _trace_once(
    request: pytest.FixtureRequest, traced_once: Callable[..., contextlib.AbstractContextManager[None]]
) -> Iterator[None]:
    """Trace each network once a run.

    Tracing is most of an export's time, and does not look at the weights. A test whose `monkeypatch` has
    replaced something outside :data:`HARMLESS` traces anew.
    """
    with traced_once(partial(_changed, request)):
        yield


def _changed(request: pytest.FixtureRequest) -> bool:
    if "monkeypatch" not in request.fixturenames:
        return False
    patched = request.getfixturevalue("monkeypatch")
    owners = [owner for owner, *_ in patched._setattr]
    owners += [owner for owner, *_ in patched._setitem if owner is not os.environ]
    return any(
        not f"{_module(owner)}.".startswith(tuple(f"{name}." for name in HARMLESS)) for owner in owners
    )


def _module(owner: Any) -> str:
    return str(owner.__name__ if isinstance(owner, ModuleType) else getattr(owner, "__module__", ""))


def _remembering(
    trace: Callable[..., Any], once: Callable[..., Path], changed: Callable[[], bool]
) -> Callable[..., Any]:
    import onnx
    import onnx_ir as ir

    from vconv.convert.graphs.passes.table import TRACED
    from vconv.convert.graphs.tracing import TracedGraph

    def described(folder: Path, network: Any, *given: Any) -> str:
        config = json.loads((folder / "config.json").read_text())
        ordered = replace(network, config=dict(sorted(network.config.items())))
        text = repr((sorted(config.items()), ordered, *given))
        text = re.sub(r" at 0x[0-9a-f]+|PosixPath\('[^']*'\)", "", text)
        return re.sub(r"frozenset\(\{([^}]*)\}\)", lambda found: str(sorted(found[1].split(", "))), text)

    def remembered(folder: Path, *given: Any) -> Any:
        if changed():
            return trace(folder, *given)
        digest = hashlib.sha256(described(folder, *given).encode()).hexdigest()

        def make(path: Path) -> None:
            made = trace(folder, *given)
            content = ir.to_proto(made.model).SerializeToString(), made.repeats
            path.write_bytes(pickle.dumps(content))

        model, repeats = pickle.loads(once(f"{digest}.pickle", make).read_bytes())
        entries = given[4]
        return TracedGraph(ir.from_proto(onnx.ModelProto.FromString(model)), TRACED, repeats, entries)

    return remembered
