from __future__ import annotations

import re
from pathlib import Path

import pytest

from vconv.runtime.doctor.cann import Toolkit
from vconv.runtime.doctor.import_failures import (
    _COMMON,
    IMPORT_FAILURES,
    Installation,
    explain,
    series,
    setting_up,
)
from vconv.runtime.doctor.imports import Attempt

MODULE = "vconv.runtime.doctor.import_failures"

VERSIONS = {"torch": "2.13.0+cpu", "torch_npu": "2.13.0", "torchvision": "0.1", "numpy": "2.4.6"}
CANN = Toolkit(Path("/opt/cann"), "8.5.0", Path("/opt/cann/set_env.sh"), True)
GONE = "cannot open shared object file: No such file or directory"
NUMPY = "\nA module that was compiled using NumPy 1.x cannot be run in\nNumPy 2.4.6 as it may crash."
TWO = (
    "RuntimeError: Two accelerators cannot be used at the same time in PyTorch: npu and cuda. You can "
    "install the cpu version of PyTorch to use your npu device\n"
    "[ERROR] 2026-11-21 ERR00007 PTA feature not supported"
)

CASES: dict[str, tuple[str, str, str, str, str]] = {
    "CANN": (
        "torch_npu",
        f"ImportError: libhccl.so: {GONE}",
        "",
        "libhccl.so",
        "source /opt/cann/set_env.sh",
    ),
    "CANN's runtime": ("torch_npu", f"ImportError: libascendcl.so: {GONE}", "", "CANN cannot", "set_env.sh"),
    "driver": ("torch_npu", f"ImportError: libascend_hal.so: {GONE}", "", "driver cannot", "container"),
    "NNAL": ("torch_npu", f"OSError: libatb.so: {GONE}", "", "NNAL", "/usr/local/Ascend/nnal/atb/set_env.sh"),
    "torch's library": (
        *("torch_npu", f"ImportError: libtorch_cuda.so: {GONE}", "", "another torch"),
        "--force-reinstall --no-deps 'torch_npu==2.13.0'",
    ),
    "torch's symbol": (
        *("torch_npu", "ImportError: /x/libtorch_npu.so: undefined symbol: _ZNK3c1010TensorImpl4sizeEv", ""),
        *("another torch: undefined symbol _ZNK3c1010TensorImpl4sizeEv", "'torch_npu==2.13.0'"),
    ),
    "torch's typeinfo": (
        *("torch_npu", "ImportError: /x/libtorch_npu.so: undefined symbol: _ZTIN5torch8autograd4NodeE", ""),
        *("another torch", "torch_npu==2.13.0"),
    ),
    "CANN's symbol": (
        *("torch_npu", "ImportError: /x/libtorch_npu.so: undefined symbol: MsprofSysCycleTime", ""),
        *("another CANN: undefined symbol MsprofSysCycleTime", "COMPATIBILITY.md (here it is 8.5.0)"),
    ),
    "NNAL's symbol": (
        *("torch_npu", "ImportError: /x/libtorch_npu.so: undefined symbol: _ZN3atb15CreateOperationE", ""),
        *("another CANN", "the CANN that this torch_npu is released with"),
    ),
    "two accelerators": ("torch_npu", TWO, "", "process with cuda", "CUDA_VISIBLE_DEVICES"),
    "environment": (
        *("torch_npu", "Exception: ASCEND_OPP_PATH environment variable is not set. Please run", ""),
        *("ASCEND_OPP_PATH", "source /opt/cann/set_env.sh"),
    ),
    "home": (
        "torch_npu",
        "Exception: ASCEND_HOME_PATH : /x does not exist. ",
        "",
        "ASCEND_HOME_PATH",
        "source",
    ),
    "dependency": (
        *("torch_npu", "ModuleNotFoundError: No module named 'yaml'", ""),
        *("it needs yaml, which is not installed", "`pip install pyyaml`"),
    ),
    "another dependency": (
        *("timm", "ModuleNotFoundError: No module named 'huggingface_hub'", "", "it needs huggingface_hub"),
        "`pip install huggingface_hub`",
    ),
    "NumPy 2": (
        *("onnxruntime", "ImportError: import numpy failed", NUMPY),
        *("built for NumPy 1, and NumPy 2.4.6 is installed", "`pip install 'numpy<2'`"),
    ),
    "torchvision": (
        *("torchvision", "RuntimeError: operator torchvision::nms does not exist", ""),
        *("it does not fit this torch: the operator torchvision::nms", "one is built for CUDA"),
    ),
    "anything else": (
        *("onnx", "TypeError: Descriptors cannot be created directly.\nIf this call came from", ""),
        *("it fails with TypeError: Descriptors cannot be created directly.", "`python -c 'import onnx'`"),
    ),
    "the same in another library": (
        *("onnx", f"ImportError: libhccl.so: {GONE}", "", "it fails with ImportError: libhccl.so"),
        "`python -c 'import onnx'`",
    ),
}
"""The library, what its import raises, what else it says, and what the finding and the fix must have."""


def scene(name: str, error: str, said: str, toolkit: Toolkit | None = CANN, **versions: str) -> Installation:
    tried = Attempt(name, ("RuntimeError: the outermost", error), said=said)
    if name != "torch_npu":
        tried = Attempt(name, (error,), said=said)
    return Installation({**VERSIONS, **versions}, {name: tried}, toolkit, {})


@pytest.mark.parametrize("case", CASES)
def test_a_trouble_is_told_from_what_the_import_says(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{MODULE}.requires", lambda name: ["numpy", "torch==2.13.0"])
    name, error, said, found, fix = CASES[case]
    actual = explain(scene(name, error, said), name)
    assert found in actual[0]
    assert fix in actual[1]
    assert not any("\n" in text for text in actual)


def test_every_row_has_a_case() -> None:
    rows = [(name, trouble) for name, troubles in IMPORT_FAILURES.items() for trouble in troubles]
    rows += [(name, trouble) for name in {case[0] for case in CASES.values()} for trouble in _COMMON]
    hit = {
        trouble.pattern
        for name, trouble in rows
        if any(case[0] == name and re.search(trouble.pattern, case[1] + case[2]) for case in CASES.values())
    }
    assert hit == {trouble.pattern for _, trouble in rows}


def test_a_torch_of_another_series_is_to_be_replaced() -> None:
    error = "ImportError: /x/libtorch_npu.so: undefined symbol: _ZN2at4_ops3addE"
    assert (
        explain(scene("torch_npu", error, "", torch="2.15.0"), "torch_npu")[1]
        == "`pip install 'torch==2.13.*'`"
    )


def test_the_cann_that_a_torch_npu_is_released_with_is_named() -> None:
    error = "ImportError: /x/libtorch_npu.so: undefined symbol: aclrtFoo"
    fix = explain(scene("torch_npu", error, "", torch_npu="2.9.0.post2"), "torch_npu")[1]
    assert fix == "install CANN 9.0.0, which this torch_npu is released with (here it is 8.5.0)"
    assert "here it is" not in explain(scene("torch_npu", error, "", None), "torch_npu")[1]


def test_a_torchvision_that_wants_another_torch_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{MODULE}.requires", lambda name: ["numpy", "torch>=2.14.0"])
    name, error, said, *_ = CASES["torchvision"]
    fix = explain(scene(name, error, said), name)[1]
    assert fix == "it wants torch>=2.14.0: `pip install --upgrade torch==2.13.0+cpu torchvision`"


def test_setting_up_names_the_script_or_what_to_install() -> None:
    assert setting_up(scene("torch_npu", "", "")) == "`source /opt/cann/set_env.sh`"
    without_script = Toolkit(Path("/opt/cann"), "", None, True)
    assert "/opt/cann has no set_env.sh" in setting_up(scene("torch_npu", "", "", without_script))
    assert setting_up(scene("torch_npu", "", "", None)).startswith("install CANN, and `source`")
    paired = setting_up(scene("torch_npu", "", "", None, torch_npu="2.9.0.post2"))
    assert paired.startswith("install CANN 9.0.0, and")


@pytest.mark.parametrize("version", ["2.13", "2.13.0", "2.13.0.post2", "2.13.0+cpu", "2.13+cu130"])
def test_a_series_is_the_first_two_numbers(version: str) -> None:
    assert series(version) == "2.13"
