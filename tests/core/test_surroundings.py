"""What a calling program changed in torch and numpy neither changes a result nor is changed by one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

import vconv
from vconv.artifact.artifact import Artifact
from vconv.catalog.systems import SYSTEMS, System
from vconv.disk import own_folders
from vconv.runtime.inputs.images import natural_image
from vconv.surroundings import own_surroundings
from vconv.workflows.export import export

Disturb = Callable[[], AbstractContextManager[Any]]


@contextlib.contextmanager
def setting(set_it: Callable[..., Any], value: Any, before: Any) -> Iterator[None]:
    set_it(value)
    try:
        yield
    finally:
        set_it(before)


DISTURBANCES: dict[str, Disturb] = {
    "float64": lambda: setting(torch.set_default_dtype, torch.float64, torch.float32),
    "float16": lambda: setting(torch.set_default_dtype, torch.float16, torch.float32),
    "device meta": lambda: setting(torch.set_default_device, "meta", None),
    "with device meta": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "deterministic": lambda: setting(torch.use_deterministic_algorithms, True, False),
    "deterministic or warned": lambda: setting(
        lambda on: torch.use_deterministic_algorithms(on, warn_only=on), True, False
    ),
    "bfloat16 products": lambda: setting(torch.set_float32_matmul_precision, "medium", "highest"),
    "numpy raises": lambda: np.errstate(all="raise"),
}
TOGETHER = {
    "float64 and more": ("float64", "autocast", "inference mode", "deterministic", "numpy raises"),
    "float16 and more": (
        "float16",
        "device meta",
        "no gradients",
        "deterministic or warned",
        "bfloat16 products",
    ),
}
"""Disturbances that `make test` tries at the same time; `make test-full` tries each by itself, too."""
CASES = [
    *(pytest.param(names, id=name) for name, names in TOGETHER.items()),
    *(pytest.param((name,), id=name, marks=pytest.mark.full) for name in DISTURBANCES),
]
MORE_THREADS = partial(setting, torch.set_num_threads)
"""The last bits of a sum depend on it, with torch as with OMP_NUM_THREADS: it is the caller's to choose."""


def state() -> dict[str, Any]:
    """Return everything that the disturbances change."""
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "inference": torch.is_inference_mode_enabled(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "only warned": torch.is_deterministic_algorithms_warn_only_enabled(),
        "products": torch.backends.mkldnn.matmul.fp32_precision,
        "threads": torch.get_num_threads(),
        "errors": np.geterr(),
        "random": torch.get_rng_state().tolist() if torch.get_default_device().type == "cpu" else None,
    }


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def results(folder: Path, system: System) -> dict[str, Any]:
    """Export, validate and load; return every byte and every number that must be the same."""
    export(system, "synthetic:1", folder)
    files = digests(folder)
    report = vconv.validate(folder, quick=True)
    errors = [[dict(row.metrics) for row in one.outputs.values()] for one in report.variants]
    with vconv.load(folder, variant="patched-torch-fp32") as session:
        outputs = session([natural_image(7)])
    return {
        "files": files,
        "passed": (report.passed, report.reference.source),
        "errors": errors,
        "outputs": {name: value.tobytes() for name, value in outputs.items()},
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, shrink: Callable[[System], System]) -> dict[str, Any]:
    """The results where nothing was changed."""
    return results(tmp_path_factory.mktemp("plain") / "a", shrink(SYSTEMS["dinov3-vits16"]))


@pytest.mark.parametrize("names", CASES)
def test_every_result_is_the_same_and_the_caller_finds_its_settings_unchanged(
    names: tuple[str, ...], plain: dict[str, Any], shrink: Callable[[System], System], tmp_path: Path
) -> None:
    with contextlib.ExitStack() as disturbed:
        for name in names:
            disturbed.enter_context(DISTURBANCES[name]())
        before = state()
        found = results(tmp_path / "a", shrink(SYSTEMS["dinov3-vits16"]))
        assert state() == before
    assert found == plain


def test_every_disturbance_is_tried_together_with_others_but_that_of_the_other_kind_of_device() -> None:
    assert sorted(name for names in TOGETHER.values() for name in names) == sorted(
        DISTURBANCES.keys() - {"with device meta"}
    )


def test_the_number_of_threads_is_the_callers(
    plain: dict[str, Any], shrink: Callable[[System], System], tmp_path: Path
) -> None:
    before = torch.get_num_threads()
    with MORE_THREADS(before + 1, before):
        found = results(tmp_path / "a", shrink(SYSTEMS["dinov3-vits16"]))
        assert torch.get_num_threads() == before + 1
    assert found["passed"] == plain["passed"] == (True, "live")
    differing = {name for name, digest in plain["files"].items() if found["files"][name] != digest}
    assert differing <= {"golden/golden.safetensors", "vconv.json", "vconv.json.sha256", "README.md"}


def test_threads_that_come_and_go_leave_the_callers_settings() -> None:
    inside, go_on = threading.Barrier(2), threading.Event()
    seen: list[torch.dtype] = []

    @own_surroundings()
    def stay() -> None:
        inside.wait()
        go_on.wait()
        seen.append(torch.get_default_dtype())

    @own_surroundings()
    def pass_by() -> None:
        inside.wait()

    with setting(torch.set_default_dtype, torch.float64, torch.float32):
        before = state()
        threads = [threading.Thread(target=pass_by), threading.Thread(target=stay)]
        for thread in threads:
            thread.start()
        threads[0].join()
        assert torch.get_default_dtype() == torch.float32  # one thread still needs it
        go_on.set()
        threads[1].join()
        assert state() == before
    assert seen == [torch.float32]


class Reached(Exception):
    """The command has come to what it computes; torch's default type is then the argument."""


COMMANDS: dict[str, Callable[[Path], object]] = {
    "validate": vconv.validate,
    "compare": lambda path: vconv.compare([path]),
    "bisect": vconv.bisect,
    "reference": lambda path: vconv.reference(path, out=path / "reference"),
    "msprobe": lambda path: vconv.msprobe(path, out=path / "dumps"),
    "selftest": vconv.selftest,
    "fill": vconv.fill,
    "load": vconv.load,
    "export": lambda path: vconv.export("dinov3-vits16", "synthetic", path),
    "doctor": lambda path: vconv.doctor(),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_torchs_defaults(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(*_: object) -> NoReturn:
        raise Reached(torch.get_default_dtype())

    monkeypatch.setattr(Artifact, "open", reached)
    monkeypatch.setattr("vconv.workflows.export.open_source", reached)
    monkeypatch.setattr("vconv.runtime.doctor.diagnosis.examine", reached)
    with DISTURBANCES["float64"](), pytest.raises(Reached) as found:
        COMMANDS[command](tmp_path / "artifact")
    assert found.value.args == (torch.float32,)


def test_an_error_restores_the_settings_too() -> None:
    with contextlib.ExitStack() as disturbed:
        for disturb in DISTURBANCES.values():
            disturbed.enter_context(disturb())
        before = state()
        with pytest.raises(ZeroDivisionError), own_surroundings():
            assert state() | {"random": None} == {
                "dtype": torch.float32,
                "device": torch.device("cpu"),
                "autocast": False,
                "inference": False,
                "gradients": True,
                "deterministic": False,
                "only warned": False,
                "products": "ieee",
                "threads": before["threads"],
                "errors": {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"},
                "random": None,
            }
            raise ZeroDivisionError
        assert state() == before


def test_the_surroundings_import_no_large_library() -> None:
    script = """
import sys
from vconv.surroundings import own_surroundings
with own_surroundings():
    print(sorted({"torch", "numpy"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


NOBODY = (
    "import pwd\ndef none(uid): raise KeyError(f'getpwuid(): uid not found: {uid}')\npwd.getpwuid = none\n"
)
NAMES = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME")


def nobody(tmp_path: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Python as a user without a home and without an entry in the list of users."""
    (tmp_path / "sitecustomize.py").write_text(NOBODY)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    environment |= {"PYTHONPATH": path, "TMPDIR": str(tmp_path)}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_a_user_without_a_home_opens_an_engine_that_needs_one(small_artifact: Path, tmp_path: Path) -> None:
    script = f"import vconv\nprint(vconv.load({str(small_artifact)!r}, engine='openvino').engine)"
    done = nobody(tmp_path, "-c", script)
    assert (done.returncode, done.stdout) == (0, "openvino\n"), done.stderr


def test_a_graph_is_searched_for_the_folders_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setenv("HOME", "/home/somebody")
    here = [Path(tempfile.gettempdir()), Path(sys.prefix), Path("/home/somebody"), Path.cwd()]
    assert own_folders() == here
    monkeypatch.setattr("pwd.getpwuid", none)
    monkeypatch.delenv("HOME")
    assert own_folders() == [*here[:2], here[3]]
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert own_folders() == here[:2]


def test_a_user_without_a_home_has_one_of_its_own_while_a_command_runs(tmp_path: Path) -> None:
    script = """
import os
from pathlib import Path
from vconv.surroundings import own_surroundings
with own_surroundings():
    print(Path.home(), oct(Path.home().stat().st_mode))
print(os.environ.get("HOME"))
"""
    home = tmp_path / f"vconv-home-{os.getuid()}"
    assert nobody(tmp_path, "-c", script).stdout == f"{home} 0o40700\nNone\n"
    home.rmdir()
    home.symlink_to("/")
    assert nobody(tmp_path, "-c", script).stdout.startswith(f"{home}-")
    home.unlink()
    home.symlink_to("nowhere")
    assert nobody(tmp_path, "-c", script).stdout.startswith(f"{home}-")
    home.unlink()
    home.write_text("somebody else's")
    assert nobody(tmp_path, "-c", script).stdout.startswith(f"{home}-")
