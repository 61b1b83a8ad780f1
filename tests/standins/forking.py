"""Python processes that begin with the libraries imported, for tests that start many: forks of one process.

``python forking.py SOCKET serve`` answers until its standard input ends. ``python -S forking.py SOCKET``
with ``-c SOURCE`` or ``-P -m MODULE ARGUMENT`` does as Python does with these options, in a fork: what it
inherits, its exit status and the signal that ended it are the same. Only imports lie before it.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

IMPORTED = (
    "torch",
    "onnxruntime",
    "timm.models",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "vconv.runtime.processes.peak_memory",
    "vconv.runtime.simulation.kernels",
    "vconv.runtime.simulation.modules",
)
"""What forks find imported."""
_INHERITED = 3
"""Standard input, output and error; what else is open in a caller goes over by its number."""


def call(path: str, arguments: list[str]) -> int:
    """Have a fork run this; return its exit status."""
    numbers = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    passed = [number for number in sorted(numbers) if number < _INHERITED or _is_open(number)]
    request = {
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "numbers": passed,
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect(path)
        socket.send_fds(server, [json.dumps(request).encode()], passed)
        status = server.recv(64)
    if not status:
        raise SystemExit("the server of forks is gone")
    if (code := int(status)) < 0:
        os.kill(os.getpid(), -code)
    return code


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def serve(path: str) -> None:
    """Fork for every caller, until standard input ends."""
    os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
    for name in IMPORTED:
        importlib.import_module(name)

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(path)
        listening.listen()
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listening, 0], [], [])
            if 0 in ready:
                return
            caller, _ = listening.accept()
            with caller:
                if os.fork() == 0:
                    listening.close()
                    _end_with(partial(_wait_for, caller))


def _end_with(work: Callable[[], int]) -> NoReturn:
    """Do some work and end with its status, 1 where it fails.

    To end as the interpreter does would wait for threads that a fork lacks.
    """
    status = 1
    try:
        status = work()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - whatever it is, the process ends with it and says it
        status = 1
        traceback.print_exc()
    finally:
        os._exit(status)


def _wait_for(caller: socket.socket) -> int:
    """Fork once more, and tell the caller how that ended; a caller that is killed takes the fork with it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    raw, numbers, _, _ = socket.recv_fds(caller, 2**20, 64)
    request = json.loads(raw)
    child = os.fork()
    if child == 0:
        caller.close()
        os.setpgid(0, 0)
        _end_with(partial(_run, request, numbers))
    for number in numbers:
        os.close(number)
    # The child does so too: whichever comes first, the group is there from here on.
    os.setpgid(child, child)
    ended = os.pidfd_open(child)
    ready, _, _ = select.select([caller, ended], [], [])
    if ended not in ready:
        os.killpg(child, signal.SIGKILL)
        return 0
    _, status = os.waitpid(child, 0)
    caller.send(str(os.waitstatus_to_exitcode(status)).encode())
    return 0


def _run(request: dict[str, Any], numbers: list[int]) -> int:
    spare = [os.dup(number) if number in request["numbers"] else number for number in numbers]
    spare = [os.dup2(number, 200 + place) for place, number in enumerate(spare)]
    for number, wanted in zip(spare, request["numbers"], strict=True):
        os.dup2(number, wanted, inheritable=True)
        os.close(number)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    option, what, *rest = [one for one in request["arguments"] if one != "-P"]
    sys.argv = [option if option == "-c" else what, *rest]
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    status = 0
    try:
        if option == "-c":
            exec(what, {"__name__": "__main__"})
        else:
            import runpy

            runpy.run_module(what, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        status = 1
    return status


if __name__ == "__main__":
    if sys.argv[2] == "serve":
        serve(sys.argv[1])
    else:
        sys.exit(call(sys.argv[1], sys.argv[2:]))
