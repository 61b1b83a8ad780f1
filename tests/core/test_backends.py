from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vconv.backends import (
    AUTOLOAD,
    TORCH_NPU,
    import_torch_npu,
    is_installed,
    without_autoload,
    without_torch_npu,
)
from vconv.runtime.processes.peak_memory import measure
from vconv.runtime.processes.request import OpenRequest

StandIns = Any
"""What the fixture ``stand_ins`` makes."""
ONE = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)


def python(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run Python as a user's shell would, with torch's autoload as it is by default."""
    environment = {name: value for name, value in os.environ.items() if name != AUTOLOAD}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=check
    )


@pytest.mark.parametrize("before", [None, "0", "1"])
def test_the_variable_is_put_back(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(AUTOLOAD, raising=False)
    if before is not None:
        monkeypatch.setenv(AUTOLOAD, before)
    with pytest.raises(ZeroDivisionError), without_autoload():
        assert os.environ[AUTOLOAD] == "0"
        raise ZeroDivisionError
    assert os.environ.get(AUTOLOAD) == before


def test_what_the_block_itself_unset_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(AUTOLOAD, raising=False)
    with without_autoload():
        del os.environ[AUTOLOAD]
    assert AUTOLOAD not in os.environ


def test_torch_npu_is_out_of_sight_in_the_block_and_back_after_it(broken_torch_npu: StandIns) -> None:
    assert importlib.util.find_spec(TORCH_NPU) is not None
    with pytest.raises(ZeroDivisionError), without_torch_npu(), without_torch_npu():
        assert importlib.util.find_spec(TORCH_NPU) is None
        assert is_installed(TORCH_NPU)
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(TORCH_NPU)
        raise ZeroDivisionError
    assert TORCH_NPU not in sys.modules
    with pytest.raises(ImportError, match=r"libhccl\.so"):
        importlib.import_module(TORCH_NPU)


def test_a_torch_npu_that_was_imported_stays_in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(TORCH_NPU)
    monkeypatch.setitem(sys.modules, TORCH_NPU, module)
    with without_torch_npu():
        assert importlib.import_module(TORCH_NPU) is module
    assert sys.modules[TORCH_NPU] is module


def test_a_torch_npu_that_is_imported_in_the_block_stays(
    stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = f"import os\nfound = os.environ['{AUTOLOAD}']\nos.environ['{AUTOLOAD}'] = '1'"
    stand_ins.add(TORCH_NPU, "2.13.0", body)
    monkeypatch.delenv(AUTOLOAD, raising=False)
    monkeypatch.setitem(sys.modules, TORCH_NPU, None)  # for it to be taken away again
    with without_torch_npu():
        module = import_torch_npu()
    assert sys.modules[TORCH_NPU] is module
    assert module.found == "0"
    assert AUTOLOAD not in os.environ  # though it set it


def test_what_is_not_there_is_not_installed() -> None:
    assert is_installed("torch")
    assert is_installed("json")
    assert not is_installed("no_such_package")


def test_a_broken_torch_npu_breaks_torch_and_transformers_but_not_vconv(
    broken_torch_npu: StandIns,
) -> None:
    plain = python("-c", "import torch", check=False)
    assert plain.returncode == 1
    assert "Failed to load the backend extension: torch_npu" in plain.stderr
    transformers = f"""
import os
os.environ["{AUTOLOAD}"] = "0"
from transformers.utils import is_torch_npu_available
is_torch_npu_available()
"""
    assert "ImportError: libhccl.so" in python("-c", transformers, check=False).stderr
    vconv = (
        f"import os, sys, vconv\nvconv.load\nassert 'torch' in sys.modules and '{AUTOLOAD}' not in os.environ"
    )
    python("-c", vconv)


def test_help_and_list_do_not_mind_a_broken_torch_npu(broken_torch_npu: StandIns) -> None:
    assert "doctor" in python("-m", "vconv", "--help").stdout
    assert "dinov3-vits16" in python("-m", "vconv", "list").stdout


@ONE
def test_a_session_is_run_beside_a_broken_torch_npu(broken_torch_npu: StandIns, small_artifact: Path) -> None:
    code = f"""
import sys, vconv
from PIL import Image
with vconv.load({str(small_artifact)!r}, variant="patched-torch-fp32") as session:
    assert session([Image.new("RGB", (64, 48))])["pooled"].shape[0] == 1
assert "torch_npu" not in sys.modules
from transformers.utils import is_torch_npu_available
assert not is_torch_npu_available()
"""
    python("-c", code)


def test_transformers_remembers_that_it_saw_no_torch_npu(broken_torch_npu: StandIns, tmp_path: Path) -> None:
    code = f"""
import os
os.environ["{AUTOLOAD}"] = "0"
from vconv.convert.libraries.base import stock_transformers
with stock_transformers():
    pass
from transformers.utils import is_torch_npu_available
assert not is_torch_npu_available()
"""
    python("-c", code)


@ONE
def test_an_artifact_is_validated_on_all_devices_beside_a_broken_torch_npu(
    broken_torch_npu: StandIns, copied: Path
) -> None:
    code = f"""
from vconv.cli import main
main(["validate", {str(copied)!r}, "--device", "all", "--quick", "--json"])
"""
    done = python("-c", code)
    assert json.loads(done.stdout)["passed"]
    left_out = [line for line in done.stderr.splitlines() if "npu is left out" in line]
    assert len(left_out) == 1
    assert "torch_npu: 2.13.0" in left_out[0]


@ONE
def test_a_variant_is_measured_in_a_process_of_its_own_beside_a_broken_torch_npu(
    broken_torch_npu: StandIns, small_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(AUTOLOAD, raising=False)
    subject = OpenRequest(str(small_artifact), "patched-torch-fp32", "torch", "fp32", "cpu")
    assert asdict(measure(subject))["reason"] == ""
