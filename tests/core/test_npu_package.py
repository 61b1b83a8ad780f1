"""The real torch_npu, without CANN: as if it were installed first, or set_env.sh were not sourced."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from vconv.backends import AUTOLOAD

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
# ===: a build for CPUs alone, where an index has one, would be newer, and has no torchvision there.
PACKAGES = ("torch_npu==2.13.*", "torch===2.13.0", "torchvision==0.28.*")
ABSENT = "No matching distribution found for torch_npu"
"""What pip says where the package index has no such package."""
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A Python that has the real torch_npu and its torch; all the rest is lent to it."""
    place = ROOT / ".venv-npu"
    executable = place / "bin" / "python"
    if not (place / ".installed").exists():
        venv.create(place, with_pip=True, clear=True)
        done = subprocess.run(
            [executable, "-m", "pip", "install", "--quiet", *PACKAGES], capture_output=True, text=True
        )
        if ABSENT in done.stderr:
            pytest.skip(f"the package index has no {PACKAGES[0]} for this Python and machine")
        assert done.returncode == 0, done.stderr
        (place / ".installed").touch()
    asked = [executable, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    unwanted = {AUTOLOAD, "ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME", "LD_LIBRARY_PATH"}
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    environment["PYTHONPATH"] = str(ROOT / "build" / "typed")
    folder = tmp_path_factory.mktemp("npu-package")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [executable, *arguments], env=environment, cwd=folder, capture_output=True, text=True
        )

    return run


def test_torch_itself_does_not_import(python: Run) -> None:
    assert "Failed to load the backend extension: torch_npu" in python("-c", "import torch").stderr


def test_the_doctor_names_the_library_that_is_missing(python: Run) -> None:
    done = python("-m", "vconv", "doctor", "--json")
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    (problem,) = [row for row in document["findings"] if row["state"] == "problem"]
    assert problem["name"] == "torch_npu"
    assert "CANN cannot be loaded: libhccl.so is not found" in problem["found"]
    assert "set_env.sh" in problem["fix"]


def test_an_npu_is_refused_in_one_line(python: Run) -> None:
    done = python("-m", "vconv", "bisect", "nowhere", "--device", "npu")
    assert done.returncode == 2
    assert "there is no npu | got torch_npu: 2.13.0" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def artifact(python: Run) -> str:
    """What is exported there."""
    done = python("-m", "vconv", "export", "dinov3-vits16", "--weights", "synthetic", "--golden", "none")
    assert done.returncode == 0, done.stderr
    return "artifacts/dinov3-vits16"


def test_an_export_passes_its_validation_on_the_cpu(python: Run, artifact: str) -> None:
    done = python("-m", "vconv", "validate", artifact, "--device", "all", "--quick", "--json")
    assert json.loads(done.stdout)["passed"], done.stderr
    assert "npu is left out" in done.stderr


def test_a_session_opens_in_a_users_own_process(python: Run, artifact: str) -> None:
    code = f"""
import vconv
from PIL import Image
session = vconv.load("{artifact}", variant="patched-torch-fp32")
print(session([Image.new("RGB", (300, 200))])["patches"].shape)
"""
    done = python("-c", code)
    assert done.stdout.strip() == "(1, 196, 384)", done.stderr
