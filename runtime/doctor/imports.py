"""Try in a child process whether libraries can be imported.

A failed import leaves a library half imported, and some imports end the process. So a child process imports
them: ``python -m vconv.runtime.doctor.imports NAME...`` imports one after the other, and writes an
:class:`Attempt` as a line of JSON for each, also for one that failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from typing import Any

from vconv.backends import TORCH_NPU, without_autoload, without_torch_npu
from vconv.runtime.engines.table import ENGINES
from vconv.runtime.processes import child as children

CHILD = children.command("vconv.runtime.doctor.imports")
TIMEOUT_SECONDS = 120.0
"""The time limit; torch takes less even from a slow disk."""
_SAID = 4000
"""How many characters of a child's standard error are kept."""


@dataclass(frozen=True)
class Attempt:
    """The result of importing a library.

    Args:
        name: the module.
        errors: the exceptions, as ``Type: message``, each followed by its cause; empty if the import
            succeeded.
        facts: what was read from the imported library, such as its version.
        said: what the child wrote to standard error; empty if the import succeeded.
    """

    name: str
    errors: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    said: str = ""

    @property
    def failed(self) -> bool:
        """Whether the import failed."""
        return bool(self.errors)

    @property
    def first_line(self) -> str:
        """The first line of the first exception."""
        return self.errors[0].splitlines()[0] if self.errors else ""

    @property
    def whole(self) -> str:
        """All exceptions and the standard error, as one text."""
        return "\n".join((*self.errors, self.said))


def _of_torch(torch: Any) -> dict[str, Any]:
    count = torch.cuda.device_count() if torch.version.cuda else 0
    names = [torch.cuda.get_device_name(index) for index in range(count)]
    return {"cuda": torch.version.cuda, "gpus": names}


def _of_torch_npu(torch_npu: Any) -> dict[str, Any]:
    npu = import_module("torch").npu
    return {"npus": int(npu.device_count()) if npu.is_available() else 0}


_FACTS: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "torch": _of_torch,
    TORCH_NPU: _of_torch_npu,
}
"""By library, what is read from it once it is imported. The table of engines has more."""
SAYS = "says"
"""The key of the fact that an engine's package states about itself."""


def attempt(name: str) -> Attempt:
    """Import a library in this process; return the result."""
    try:
        module = import_module(name)
        facts = _FACTS[name](module) if name in _FACTS else {}
        for engine in ENGINES.values():
            if engine.package == name and engine.says:
                facts[SAYS] = list(engine.says(module))
        return Attempt(name, facts=facts)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is what is asked for)
        return Attempt(name, tuple(_chain(error)))


def _chain(error: BaseException | None) -> list[str]:
    errors: list[str] = []
    while error is not None and len(errors) < 10:
        errors.append(f"{type(error).__name__}: {error}")
        error = error.__cause__ or error.__context__
    return errors


def try_imports(
    names: Sequence[str], command: Sequence[str] = CHILD, timeout_seconds: float = TIMEOUT_SECONDS
) -> dict[str, Attempt]:
    """Import libraries in a child process, one after the other; return the results by name.

    Args:
        names: the modules. torch_npu is hidden from the others unless it is one of them.
        command: starts the child.
        timeout_seconds: the time limit for the child.
    """
    out, said, ended = _run([*command, *names], timeout_seconds)
    found = {}
    for line in out.splitlines(keepends=True):
        if line.endswith("\n"):  # a line that was cut off is no JSON
            known = Attempt(**json.loads(line))
            found[known.name] = replace(known, errors=tuple(known.errors), said=said * known.failed)
    for name in names:
        if name not in found:
            found[name] = Attempt(name, (ended,), said=said)
            ended = f"{name} was to be imported before it"
    return found


def _run(command: Sequence[str], timeout_seconds: float) -> tuple[str, str, str]:
    """Run a child; return its standard output, its standard error, and why it failed, empty if it did not."""
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=children.environment(),
            start_new_session=True,
        )
    except OSError as error:
        return "", "", f"no process can be started to import it: {error}"
    try:
        out, said = child.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        # End its whole group: a process that lives on would keep the pipes open.
        os.killpg(child.pid, signal.SIGKILL)
        out, said = child.communicate()
        return out, said[-_SAID:], f"its import did not end within {timeout_seconds:.0f} s"
    if child.returncode < 0:
        ended = f"its import ended the process by {signal.Signals(-child.returncode).name}"
    else:
        ended = f"its import ended the process with status {child.returncode}"
    return out, said[-_SAID:], ended


def main() -> None:
    """Import the libraries that the arguments name, and write the results to standard output."""
    names = sys.argv[1:]
    hidden = contextlib.nullcontext() if TORCH_NPU in names else without_torch_npu()
    # Libraries print to standard output. That is kept for the results; their output goes to standard error.
    with os.fdopen(os.dup(1), "w") as out, without_autoload(), hidden:
        os.dup2(2, 1)
        for name in names:
            out.write(json.dumps(asdict(attempt(name))) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
