"""Whether libraries can be imported, tried in a process of its own.

A failed import leaves half of a library behind, and some take the process down with them. So a child does it:
``python -m vconv.runtime.doctor.imports NAME...`` imports one after the other, and writes an
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
"""Longer than torch takes to import from a slow disk."""
_SAID = 4000
"""Characters of what a child said on standard error that are kept."""


@dataclass(frozen=True)
class Attempt:
    """What came of importing a library.

    Args:
        name: the module.
        errors: what was raised, as ``Type: message``, each followed by its cause; empty where it went well.
        facts: what the library then said of itself.
        said: what the child said on standard error; empty where the import went well.
    """

    name: str
    errors: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    said: str = ""

    @property
    def failed(self) -> bool:
        """Whether it cannot be used."""
        return bool(self.errors)

    @property
    def first_line(self) -> str:
        """The first line of what was raised."""
        return self.errors[0].splitlines()[0] if self.errors else ""

    @property
    def whole(self) -> str:
        """Everything that was raised or said."""
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
"""What is asked of a library that was imported, beside what the table of engines asks."""
SAYS = "says"
"""The fact that is what an engine's package says of itself."""


def attempt(name: str) -> Attempt:
    """Import a library in this process; return what came of it."""
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
    """Import libraries in a child process, one after the other; return what came of each, by name.

    Args:
        names: the modules. torch_npu is out of sight of the others, unless it is one of them.
        command: the child.
        timeout_seconds: when to give it up.
    """
    out, said, ended = _run([*command, *names], timeout_seconds)
    found = {}
    for line in out.splitlines(keepends=True):
        if line.endswith("\n"):  # one that was cut off tells nothing
            known = Attempt(**json.loads(line))
            found[known.name] = replace(known, errors=tuple(known.errors), said=said * known.failed)
    for name in names:
        if name not in found:
            found[name] = Attempt(name, (ended,), said=said)
            ended = f"{name} was to be imported before it"
    return found


def _run(command: Sequence[str], timeout_seconds: float) -> tuple[str, str, str]:
    """Run a child; return its two outputs, and how it ended if not by itself."""
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
        # With all that it started: a process that lives on would keep the pipes open.
        os.killpg(child.pid, signal.SIGKILL)
        out, said = child.communicate()
        return out, said[-_SAID:], f"its import did not end within {timeout_seconds:.0f} s"
    if child.returncode < 0:
        ended = f"its import ended the process by {signal.Signals(-child.returncode).name}"
    else:
        ended = f"its import ended the process with status {child.returncode}"
    return out, said[-_SAID:], ended


def main() -> None:
    """Import what the arguments name, and write what came of it to standard output."""
    names = sys.argv[1:]
    hidden = contextlib.nullcontext() if TORCH_NPU in names else without_torch_npu()
    # Libraries print to standard output: it is theirs no more, and what they say goes to standard error.
    with os.fdopen(os.dup(1), "w") as out, without_autoload(), hidden:
        os.dup2(2, 1)
        for name in names:
            out.write(json.dumps(asdict(attempt(name))) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
