"""A signal ends a command with status 130, from the first import of the command line to the end of Python."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

SIGNALS = pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
MESSAGE = "interrupted: nothing half-made is left\n"


def default() -> None:
    """Take the default for every signal: a shell's background job ignores Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def run(script: str, **options: object) -> tuple[int, str, str]:
    """Run a script in another Python; return its status and what it printed."""
    given = {"preexec_fn": default, **options}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, **given)  # type: ignore[call-overload]
    return done.returncode, done.stdout, done.stderr


@SIGNALS
def test_a_signal_while_the_command_line_is_imported(name: str) -> None:
    script = f"""
import os, signal, sys
class Sender:
    def find_spec(self, name, path, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.{name})
sys.meta_path.insert(0, Sender())
from vconv.__main__ import main
sys.argv = ["vconv", "list"]
main()
"""
    assert run(script) == (130, "", MESSAGE)


@SIGNALS
def test_a_signal_after_the_result_changes_nothing(name: str) -> None:
    script = f"""
import atexit, os, signal, sys
class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
last = Last()  # goes with the interpreter
atexit.register(os.kill, os.getpid(), signal.{name})
from vconv.__main__ import main
sys.argv = ["vconv", "--version"]
main()
"""
    status, out, err = run(script)
    assert (status, out.startswith("vconv, version "), err) == (0, True, "")


@pytest.mark.parametrize(
    "body",
    [
        "exec('os.kill(os.getpid(), signal.SIGINT)')",
        "try:\n        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except BaseException as error:\n        raise ImportError('numpy') from error",
        "try:\n        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except BaseException as error:\n        raise SystemExit(1) from error",
    ],
    ids=["in an exec of text", "a library makes an import error of it", "a library ends the process"],
)
def test_a_signal_wherever_it_comes(body: str) -> None:
    script = (
        f"import os, signal\nfrom vconv.interruption import interruptible\nwith interruptible():\n    {body}"
    )
    assert run(script) == (130, "", MESSAGE)


def test_a_signal_that_nohup_ignores_stays_ignored() -> None:
    script = """
import os, signal
from vconv.interruption import interruptible
with interruptible():
    os.kill(os.getpid(), signal.SIGHUP)
    print("goes on")
"""
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    assert run(script, **ignoring) == (0, "goes on\n", "")


def test_a_signal_in_an_exec_of_text_of_a_module(tmp_path: Path) -> None:
    """Only of a module that is run by ``-m`` does Python look at the end for what has left an exec."""
    (tmp_path / "made.py").write_text(
        "import os, signal\nfrom vconv.interruption import interruptible\n"
        "with interruptible():\n    exec('os.kill(os.getpid(), signal.SIGINT)')\n"
    )
    command = [sys.executable, "-m", "made"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, preexec_fn=default)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", MESSAGE)


@SIGNALS
def test_signals_are_ignored_after_the_block(name: str) -> None:
    script = f"""
import os, signal
from vconv.interruption import interruptible
with interruptible():
    pass
os.kill(os.getpid(), signal.{name})
print("goes on")
"""
    assert run(script) == (0, "goes on\n", "")


def test_an_error_without_a_signal_keeps_its_traceback() -> None:
    script = "from vconv.interruption import interruptible\nwith interruptible():\n    1 / 0"
    status, _, err = run(script)
    assert (status, err.splitlines()[-1]) == (1, "ZeroDivisionError: division by zero")


@SIGNALS
def test_a_library_that_does_not_return_cannot_keep_the_process(name: str) -> None:
    script = f"""
import hashlib, os, signal, sys, threading
from vconv import interruption
interruption.PATIENCE_SECONDS = 0.5
with interruption.interruptible():
    threading.Timer(0.2, os.kill, (os.getpid(), signal.{name})).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # an hour outside of Python
"""
    status, out, err = run(script, timeout=60)
    assert (status, out) == (130, "")
    assert err.startswith("interrupted: a library did not return in time") and err.count("\n") == 1


def test_a_signal_that_is_handled_has_all_the_time_it_needs_to_clean_up() -> None:
    script = """
import os, signal, sys, time
from vconv import interruption
interruption.PATIENCE_SECONDS = 0.2
with interruption.interruptible():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        time.sleep(1)
        print("cleaned up")
"""
    assert run(script) == (130, "cleaned up\n", MESSAGE)


def test_an_interruption_that_cannot_be_printed_has_its_status() -> None:
    script = (
        "import os, signal\nfrom vconv.interruption import interruptible\n"
        "with interruptible():\n    os.kill(os.getpid(), signal.SIGINT)"
    )
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-c", script]
        assert subprocess.run(command, stderr=full, preexec_fn=default).returncode == 130
