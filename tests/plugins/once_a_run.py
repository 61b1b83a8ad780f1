"""What is costly and alike in many tests, made once a run for all its workers."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
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


@pytest.fixture(autouse=True)
def _trace_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """Trace each network once a run, in tests that export miniatures and patch nothing themselves.

    Tracing is most of an export's time, and does not look at the weights. A test that takes `monkeypatch` may
    have changed what is traced, and always traces anew, as does one that is marked `trace_anew`.
    """
    patching = "monkeypatch" in request.fixturenames or request.node.get_closest_marker("trace_anew")
    if patching or "small_system" not in request.fixturenames:
        yield
        return
    with pytest.MonkeyPatch.context() as patched:
        tracing = importlib.import_module("vconv.convert.graphs.tracing")
        patched.setattr(tracing, "trace", _remembering(tracing.trace, request.getfixturevalue("once")))
        yield


def _remembering(trace: Callable[..., Any], once: Callable[..., Path]) -> Callable[..., Any]:
    import onnx
    import onnx_ir as ir

    from vconv.convert.graphs.passes.table import TRACED
    from vconv.convert.graphs.tracing import TracedGraph

    def described(folder: Path, *given: Any) -> str:
        text = (folder / "config.json").read_text() + repr(given)
        text = re.sub(r" at 0x[0-9a-f]+|PosixPath\('[^']*'\)", "", text)
        return re.sub(r"frozenset\(\{([^}]*)\}\)", lambda found: str(sorted(found[1].split(", "))), text)

    def remembered(folder: Path, *given: Any) -> Any:
        digest = hashlib.sha256(described(folder, *given).encode()).hexdigest()

        def make(path: Path) -> None:
            path.write_bytes(ir.to_proto(trace(folder, *given).model).SerializeToString())

        model = ir.from_proto(onnx.ModelProto.FromString(once(f"{digest}.onnx", make).read_bytes()))
        return TracedGraph(model, TRACED)

    return remembered
