from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from vconv.backends import AUTOLOAD
from vconv.runtime.doctor import imports
from vconv.runtime.doctor.imports import CHILD, Attempt, try_imports

StandIns = Any
"""What the fixture ``stand_ins`` makes."""


def test_what_can_be_imported_and_what_cannot_are_told_apart(stand_ins: StandIns) -> None:
    stand_ins.add("sound", "", "")
    stand_ins.add("unsound", "", "import sys\nprint('why', file=sys.stderr)\nraise OSError('no\\nway')")
    found = try_imports(("unsound", "sound", "absent"))
    assert list(found) == ["unsound", "sound", "absent"]
    assert found["sound"] == Attempt("sound")
    assert found["unsound"].failed
    assert found["unsound"].first_line == "OSError: no"
    assert "way" in found["unsound"].whole and "why" in found["unsound"].whole
    assert found["absent"].errors == ("ModuleNotFoundError: No module named 'absent'",)


def test_an_error_comes_with_its_causes(stand_ins: StandIns) -> None:
    body = "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ImportError('outer') from error"
    stand_ins.add("nested", "", body)
    errors = try_imports(("nested",))["nested"].errors
    assert errors == ("ImportError: outer", "ZeroDivisionError: division by zero")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "ended the process by SIGSEGV"),
        ("raise SystemExit(3)", "ended the process with status 3"),
        ("import os\nos._exit(0)", "ended the process with status 0"),
    ],
)
def test_an_import_that_ends_the_process_is_found(stand_ins: StandIns, body: str, said: str) -> None:
    stand_ins.add("first", "", "")
    stand_ins.add("deadly", "", body)
    found = try_imports(("first", "deadly", "json"))
    assert not found["first"].failed
    assert said in found["deadly"].first_line
    assert found["json"].errors == ("deadly was to be imported before it",)


def test_an_import_that_never_ends_is_given_up_with_all_that_it_started(stand_ins: StandIns) -> None:
    started = "subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])"
    stand_ins.add("endless", "", f"import signal, subprocess, sys\n{started}\nsignal.pause()")
    found = try_imports(("json", "endless"), timeout_seconds=2.0)
    assert "did not end within 2 s" in found["endless"].first_line


def test_a_child_that_cannot_be_started_is_found() -> None:
    found = try_imports(("json",), command=("/no/such/python",))
    assert "no process can be started" in found["json"].first_line


def test_a_line_that_was_cut_off_is_no_answer() -> None:
    code = f"print({json.dumps(asdict(Attempt('json')))!r}); print('{{\"na', end='')"
    found = try_imports(("json", "os"), command=(sys.executable, "-c", code))
    assert not found["json"].failed
    assert found["os"].failed


def test_what_a_library_prints_is_not_taken_for_an_answer(stand_ins: StandIns) -> None:
    stand_ins.add("loud", "", "import os\nprint('{}')\nos.write(1, b'nonsense\\n')")
    assert try_imports(("loud",)) == {"loud": Attempt("loud")}


def test_no_backend_loads_itself_and_torch_npu_is_seen_only_where_it_is_asked_for(
    broken_torch_npu: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(AUTOLOAD, raising=False)
    body = f"import os\nassert os.environ['{AUTOLOAD}'] == '0'\ntry:\n    import torch_npu\n"
    broken_torch_npu.add("curious", "", f"{body}except ModuleNotFoundError:\n    pass")
    assert not try_imports(("curious",))["curious"].failed
    found = try_imports(("curious", "torch_npu"))
    assert "libhccl.so" in found["curious"].first_line
    assert "libhccl.so" in found["torch_npu"].first_line


def test_what_lies_in_the_current_folder_is_not_taken_for_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.chdir(tmp_path)
    assert not try_imports(("json",))["json"].failed


def test_the_child_is_this_python_and_this_module() -> None:
    assert (sys.executable, "-P", "-m", imports.__name__) == CHILD


def test_nothing_is_imported_here(stand_ins: StandIns) -> None:
    stand_ins.add("elsewhere", "", f"import os\nassert os.getpid() != {os.getpid()}")
    assert not try_imports(("elsewhere",))["elsewhere"].failed
    assert "elsewhere" not in sys.modules
