from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vconv.backends import TORCH_NPU
from vconv.errors import InputError
from vconv.runtime.devices import table
from vconv.runtime.doctor import cann, imports
from vconv.runtime.doctor import diagnosis as doctor
from vconv.runtime.doctor.diagnosis import Diagnosis, Finding, State, npu_left_out, npu_problem
from vconv.runtime.doctor.imports import Attempt
from vconv.runtime.engines.table import ENGINES, Engine, Runs

StandIns = Any
"""What the fixture ``stand_ins`` makes."""
TORCH = """
class version: cuda = {cuda!r}
class cuda:
    device_count = staticmethod(lambda: {gpus})
    get_device_name = staticmethod(lambda index: f"GPU {{index}}")
"""
TORCH_NPU_BODY = """
import torch
class npu:
    is_available = staticmethod(lambda: {count} > 0)
    device_count = staticmethod(lambda: {count})
    get_device_name = staticmethod(lambda index: "Stand-in")
    get_soc_version = staticmethod(lambda: 224)
    reset_peak_memory_stats = memory_allocated = max_memory_allocated = mem_get_info = synchronize = None
torch.npu = npu
"""
ORT = "get_available_providers = lambda: ['CANNExecutionProvider', 'CPUExecutionProvider']"
NUMPY_1 = """
import sys
print("A module that was compiled using NumPy 1.x cannot be run in\\nNumPy 2.4.6 as", file=sys.stderr)
raise ImportError("import numpy failed")
"""
MISSING = "libhccl.so: cannot open shared object file: No such file or directory"


@pytest.fixture
def healthy(stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StandIns:
    """A machine where everything that vconv needs works, and nothing of an NPU is installed."""
    stand_ins.add("torch", "2.13.0", TORCH.format(cuda=None, gpus=0))
    for name in ("torchvision", "transformers", "timm", "numpy", "onnx"):
        stand_ins.add(name, "1.0", "")
    stand_ins.add("onnxruntime", "1.24.4", ORT)
    stand_ins.add("openvino", "2026.1.0", "")
    find = cann.find_toolkit
    monkeypatch.setattr(doctor, "find_toolkit", lambda: find(roots=[tmp_path / "Ascend"]))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return stand_ins


@pytest.fixture
def clean() -> Iterator[None]:
    """Take torch_npu out of this process again."""
    yield
    sys.modules.pop(TORCH_NPU, None)
    if hasattr(torch, "npu"):
        del torch.npu


def replaced(stand_ins: StandIns, name: str, body: str) -> None:
    (stand_ins.folder / name / "__init__.py").write_text(body)


def findings(diagnosis: Diagnosis | None = None) -> dict[str, Finding]:
    return {finding.name: finding for finding in (diagnosis or doctor.examine()).findings}


def test_a_healthy_machine_without_an_npu_has_no_problem(healthy: StandIns) -> None:
    found = doctor.examine()
    rows = findings(found)
    assert found.passed
    assert list(rows) == [
        *("vconv", "python", "torch", "torchvision", "transformers", "timm", "numpy", "onnx"),
        *("onnxruntime", "openvino", "CUDA", "torch_npu", "CANN", "atc", "acl"),
    ]
    assert rows["torch"].found == "2.13.0, built without CUDA"
    assert rows["timm"].found == "1.0"
    assert rows["openvino"].found == "2026.1.0"
    assert rows["onnxruntime"].found == "1.24.4, with CANNExecutionProvider, CPUExecutionProvider"
    notes = {name for name, finding in rows.items() if finding.state is State.NOTE}
    assert notes == {"CUDA", "torch_npu", "CANN", "atc", "acl"}
    assert rows["torch_npu"].found == "not installed: only needed for an NPU"


@pytest.mark.parametrize("error", [MISSING, "undefined symbol: _ZN2at4", "undefined symbol: aclInit", "odd"])
def test_a_torch_npu_that_pip_knows_nothing_of_is_diagnosed_too(healthy: StandIns, error: str) -> None:
    healthy.add(TORCH_NPU, "", f"raise ImportError({error!r})")
    finding = findings()["torch_npu"]
    assert finding.state is State.PROBLEM
    assert finding.fix


def test_a_record_of_an_installation_that_is_damaged_is_no_error(healthy: StandIns) -> None:
    (healthy.folder / "timm-1.0.dist-info" / "METADATA").unlink()
    assert findings()["timm"] == Finding("timm", State.OK, "of unknown version")


def test_gpus_are_named(healthy: StandIns) -> None:
    replaced(healthy, "torch", TORCH.format(cuda="13.0", gpus=2))
    rows = findings()
    assert rows["torch"].found == "2.13.0, built for CUDA 13.0"
    assert rows["CUDA"] == Finding("CUDA", State.OK, "GPU 0, GPU 1")
    replaced(healthy, "torch", TORCH.format(cuda="13.0", gpus=0))
    assert findings()["CUDA"] == Finding("CUDA", State.NOTE, "no GPU")


def test_a_machine_with_an_npu_has_all_of_it_listed(healthy: StandIns, tmp_path: Path) -> None:
    healthy.add(TORCH_NPU, "2.13.0", TORCH_NPU_BODY.format(count=2))
    healthy.add("acl", "", "")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "atc").write_text("")
    (tmp_path / "bin" / "atc").chmod(0o755)
    rows = findings()
    assert rows["torch_npu"] == Finding("torch_npu", State.OK, "2.13.0")
    assert rows["NPU"] == Finding("NPU", State.OK, "2 visible")
    assert rows["acl"] == Finding("acl", State.OK, "imports")
    assert rows["atc"] == Finding("atc", State.OK, str(tmp_path / "bin" / "atc"))
    assert npu_problem() is None
    assert npu_left_out() == ""


def test_a_torch_npu_without_cann_names_the_library_and_the_script(healthy: StandIns, tmp_path: Path) -> None:
    healthy.add(TORCH_NPU, "2.13.0", f"raise ImportError({MISSING!r})")
    folder = tmp_path / "Ascend" / "cann"
    folder.mkdir(parents=True)
    (folder / "set_env.sh").write_text("")
    found = doctor.examine()
    assert not found.passed
    rows = findings(found)
    assert rows["torch_npu"].found == "2.13.0, but CANN cannot be loaded: libhccl.so is not found"
    assert rows["torch_npu"].fix == f"`source {folder / 'set_env.sh'}`"
    assert rows["CANN"].state is State.NOTE
    assert "not set up in this shell" in rows["CANN"].found
    assert "NPU" not in rows


def test_an_outer_error_does_not_hide_the_cause(healthy: StandIns) -> None:
    body = f"try:\n    raise ImportError({MISSING!r})\nexcept ImportError as error:\n"
    healthy.add(TORCH_NPU, "2.13.0", f"{body}    raise RuntimeError('cannot load') from error")
    assert "libhccl.so is not found" in findings()["torch_npu"].found


@pytest.mark.parametrize("torch_npu", ["2.12.0", "2.14.0.post1"])
def test_a_torch_npu_for_another_torch_is_a_problem_though_it_imports(
    healthy: StandIns, torch_npu: str
) -> None:
    healthy.add(TORCH_NPU, torch_npu, TORCH_NPU_BODY.format(count=1))
    finding = findings()["torch_npu"]
    series = torch_npu[:4]
    assert finding.state is State.PROBLEM
    assert finding.found == f"{torch_npu} is built for torch {series}, and torch 2.13.0 is installed"
    assert finding.fix == f"`pip install 'torch=={series}.*'`, or `pip install 'torch_npu==2.13.*'`"


def test_an_npu_that_is_not_to_be_seen_is_a_problem_with_what_hides_it(
    healthy: StandIns, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    healthy.add(TORCH_NPU, "2.13.0", TORCH_NPU_BODY.format(count=0))
    finding = findings()["NPU"]
    assert finding.state is State.PROBLEM
    assert "none is visible" in finding.found
    assert "npu-smi is not found" in finding.fix
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "npu-smi").write_text("")
    (tmp_path / "bin" / "npu-smi").chmod(0o755)
    assert "`npu-smi info` must list one" in findings()["NPU"].fix
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "9")
    finding = findings()["NPU"]
    assert "ASCEND_RT_VISIBLE_DEVICES is '9'" in finding.found
    assert finding.fix == "`unset ASCEND_RT_VISIBLE_DEVICES`"


def test_a_device_query_that_fails_is_a_problem(healthy: StandIns) -> None:
    body = TORCH_NPU_BODY.format(count=1) + "\ndef broken(): raise RuntimeError('aclInit failed')"
    healthy.add(TORCH_NPU, "2.13.0", f"{body}\nnpu.device_count = broken")
    assert "aclInit failed" in findings()["torch_npu"].found


@pytest.mark.parametrize(
    ("installed", "state", "found"),
    [
        ("9.0.0", State.OK, "9.0.0 in "),
        ("8.5.0", State.NOTE, "torch_npu 2.9.0.post2 is released with CANN 9.0.0"),
        ("", State.OK, "of unknown version in "),
    ],
)
def test_another_pair_of_torch_npu_and_cann_is_a_note(
    healthy: StandIns,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    installed: str,
    state: State,
    found: str,
) -> None:
    healthy.add(TORCH_NPU, "2.9.0.post2", "")
    folder = tmp_path / "cann" / "x86_64-linux"
    folder.mkdir(parents=True)
    (folder / "ascend_toolkit_install.info").write_text(f"version={installed}\n")
    monkeypatch.setenv("ASCEND_HOME_PATH", str(folder.parent))
    finding = findings()["CANN"]
    assert (finding.state, found in finding.found) == (state, True)


def test_numpy_2_beside_an_onnxruntime_built_for_1_is_a_problem(healthy: StandIns) -> None:
    replaced(healthy, "onnxruntime", NUMPY_1)
    finding = findings()["onnxruntime"]
    assert finding.found == "1.24.4, but it is built for NumPy 1, and NumPy 2.4.6 is installed"
    assert finding.fix == "`pip install 'numpy<2'`"
    healthy.record("onnxruntime-cann", "1.24.4")
    finding = findings()["onnxruntime"]
    assert finding.state is State.PROBLEM
    assert finding.found.startswith("onnxruntime 1.24.4 and onnxruntime-cann 1.24.4 overwrite each other's")
    assert "built for NumPy 1" in finding.found
    assert "`pip uninstall onnxruntime onnxruntime-cann`" in finding.fix


def test_openvino_may_be_absent_but_not_broken(healthy: StandIns, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(healthy, "openvino", "raise ImportError('libopenvino.so: cannot open shared object file')")
    found = findings()["openvino"]
    assert (found.state, "libopenvino.so" in found.found) == (State.PROBLEM, True)
    installed = doctor.is_installed
    monkeypatch.setattr(doctor, "is_installed", lambda name: name != "openvino" and installed(name))
    absent = "not installed: another engine for graphs, on a CPU"
    assert findings()["openvino"] == Finding("openvino", State.NOTE, absent)


def test_two_builds_of_onnxruntime_that_work_are_a_note(healthy: StandIns) -> None:
    healthy.record("onnxruntime-cann", "1.24.4")
    finding = findings()["onnxruntime"]
    assert finding.state is State.NOTE
    assert "it has CANNExecutionProvider, CPUExecutionProvider" in finding.found


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A new engine: its row alone."""
    row = Engine("toy", Runs.GRAPHS, "toy_engine:ToySession", "toy_runtime", ("toy_runtime", "toy-gpu"))
    row = replace(row, purpose="an engine for a test")
    monkeypatch.setitem(ENGINES, "toy", row)  # type: ignore[arg-type]
    return row


def test_a_new_engine_is_looked_for_after_the_others(healthy: StandIns, toy: Engine) -> None:
    absent = Finding("toy_runtime", State.NOTE, "not installed: an engine for a test")
    rows = findings()
    assert rows["toy_runtime"] == absent
    assert list(rows).index("toy_runtime") == list(rows).index("openvino") + 1
    healthy.add("toy_runtime", "1.2.3", "")
    assert findings()["toy_runtime"] == Finding("toy_runtime", State.OK, "1.2.3")
    healthy.record("toy-gpu", "1.2.3")
    assert findings()["toy_runtime"] == Finding(
        "toy_runtime",
        State.NOTE,
        "toy_runtime 1.2.3 and toy-gpu 1.2.3 overwrite each other's files",
        "`pip uninstall toy_runtime toy-gpu`, then install one of them",
    )
    replaced(healthy, "toy_runtime", "raise ImportError('half of it is missing')")
    finding = findings()["toy_runtime"]
    assert (finding.state, "half of it is missing" in finding.found) == (State.PROBLEM, True)


def test_a_torchvision_for_another_torch_is_the_problem_and_timms_is_a_consequence(healthy: StandIns) -> None:
    replaced(healthy, "torchvision", "raise RuntimeError('operator torchvision::nms does not exist')")
    replaced(healthy, "timm", "import torchvision")
    rows = findings()
    assert "it does not fit this torch" in rows["torchvision"].found
    assert rows["timm"] == Finding("timm", State.PROBLEM, "1.0, which needs torchvision", "fix torchvision")


def test_a_broken_torch_is_a_problem_and_not_the_end(healthy: StandIns) -> None:
    replaced(healthy, "torch", "raise ImportError('libcufile.so.0: cannot open shared object file')")
    rows = findings()
    assert rows["torch"].state is State.PROBLEM
    assert "libcufile.so.0" in rows["torch"].found
    assert rows["onnx"].state is State.OK


def test_what_vconv_needs_and_is_not_installed_is_a_problem(
    healthy: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = doctor.is_installed
    monkeypatch.setattr(doctor, "is_installed", lambda name: name != "timm" and there(name))
    replaced(healthy, "timm", "raise ImportError")
    assert findings()["timm"] == Finding("timm", State.PROBLEM, "not installed", "`pip install timm`")


def test_a_library_that_ends_the_process_is_a_problem_and_not_the_end(healthy: StandIns) -> None:
    replaced(healthy, "onnxruntime", "import os, signal\nos.kill(os.getpid(), signal.SIGABRT)")
    rows = findings()
    assert "ended the process by SIGABRT" in rows["onnxruntime"].found
    assert rows["onnx"].state is State.OK


def test_an_acl_that_does_not_load_is_a_note_with_the_script(healthy: StandIns) -> None:
    healthy.add("acl", "", "raise ImportError('libascendcl.so: cannot open shared object file')")
    finding = findings()["acl"]
    assert finding.state is State.NOTE
    assert "libascendcl.so" in finding.found
    assert "set_env.sh" in finding.fix


def test_a_finding_that_is_a_problem_says_how_to_fix_it() -> None:
    with pytest.raises(ValueError, match="has no text, or a problem has no fix"):
        Finding("torch", State.PROBLEM, "broken")
    with pytest.raises(ValueError, match="has no text, or a problem has no fix"):
        Finding("torch", State.OK, "")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Every question that is put to a child."""
    questions: list[tuple[str, ...]] = []
    ask: Callable[..., dict[str, Attempt]] = imports.try_imports

    def noted(names: tuple[str, ...]) -> dict[str, Attempt]:
        questions.append(tuple(names))
        return ask(names)

    monkeypatch.setattr(imports, "try_imports", noted)
    return questions


def test_a_cpu_and_a_gpu_are_had_without_a_word_about_torch_npu(
    healthy: StandIns, asked: list[tuple[str, ...]]
) -> None:
    healthy.add(TORCH_NPU, "2.13.0", "raise SystemExit('nobody must import this')")
    assert table.find_device("cpu").name == "cpu"
    with pytest.raises(InputError, match="there is no cuda"):
        table.find_device("cuda:99" if torch.cuda.is_available() else "cuda")
    assert asked == []


def test_where_torch_npu_is_not_installed_nobody_is_asked(
    healthy: StandIns, asked: list[tuple[str, ...]]
) -> None:
    with pytest.raises(
        InputError, match="got torch_npu: not installed .* use --device npu-sim or cpu, or install torch_npu"
    ):
        table.find_device("npu")
    assert asked == []
    assert npu_left_out() == ""


def test_a_broken_torch_npu_is_one_line_with_the_mend_and_a_child_is_asked_once(
    healthy: StandIns, asked: list[tuple[str, ...]]
) -> None:
    healthy.add(TORCH_NPU, "2.13.0", f"raise ImportError({MISSING!r})")
    with pytest.raises(InputError, match="there is no npu") as caught:
        table.find_device("npu")
    message = str(caught.value)
    assert "got torch_npu: 2.13.0, but CANN cannot be loaded: libhccl.so is not found" in message
    assert "fix: use --device npu-sim or cpu, or install CANN" in message
    assert "\n" not in message
    assert asked == [("torch", TORCH_NPU)]
    assert TORCH_NPU not in sys.modules
    assert not hasattr(torch, "npu")


def test_another_environment_is_asked_about_again(
    healthy: StandIns, asked: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = f"import os\nif 'SOURCED' not in os.environ:\n    raise ImportError({MISSING!r})\n"
    healthy.add(TORCH_NPU, "2.13.0", body + TORCH_NPU_BODY.format(count=1))
    assert npu_problem() is not None
    monkeypatch.setenv("SOURCED", "1")
    assert npu_problem() is None
    assert len(asked) == 2


def test_all_goes_on_without_a_broken_npu_and_says_so(healthy: StandIns) -> None:
    healthy.add(TORCH_NPU, "2.13.0", f"raise ImportError({MISSING!r})")
    assert "npu" not in {device.kind for device in table.find_devices("all")}
    assert npu_left_out().startswith("npu is left out: torch_npu: 2.13.0, but CANN cannot be loaded")


@pytest.mark.usefixtures("clean")
def test_a_torch_npu_that_works_is_imported_once_an_npu_is_asked_for(healthy: StandIns) -> None:
    healthy.add(TORCH_NPU, "2.13.0", TORCH_NPU_BODY.format(count=2))
    assert table.find_device("cpu").name == "cpu"
    assert TORCH_NPU not in sys.modules
    assert [table.find_device(name).name for name in ("npu", "npu:1")] == ["npu:0", "npu:1"]
    assert TORCH_NPU in sys.modules
    with pytest.raises(InputError, match="there is no npu:2 | got 2 of them"):
        table.find_device("npu:2")
