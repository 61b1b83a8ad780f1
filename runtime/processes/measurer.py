"""Measures the memory of variants: on a CPU in forks of one process, on other devices in new processes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Self

from vconv.runtime.processes import child, peak_memory, template
from vconv.runtime.processes.peak_memory import TIMEOUT_SECONDS, Peak
from vconv.runtime.processes.request import OpenRequest

TEMPLATE = child.command("vconv.runtime.processes.template")
_CHUNK = 65536


class PeakMeasurer:
    """Measures one variant after another; the template process, which is forked, starts with the first.

    An accelerator's runtime does not survive a fork, so each variant on an accelerator has a new process.

    Args:
        command: the command of the template process.
        timeout_seconds: the time after which a variant is given up.
    """

    def __init__(self, command: Sequence[str] = TEMPLATE, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._command, self._timeout = command, timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[str] | None = None
        self._unread, self._pending = b"", 0

    def prepare(self, subject: OpenRequest) -> None:
        """Start importing the libraries of a variant in the template process; return at once."""
        if subject.device == "cpu":
            self._send(template.write(subject, prepare=True))
            self._pending += 1

    def ready(self) -> None:
        """Wait until all imports that :meth:`prepare` started are done, so that they disturb no clock."""
        while self._pending:
            self._pending -= 1
            # Ignore an error here: if it happens again, it becomes the reason of the variant measured then.
            if not self._answer()[0]:
                self.close()

    def measure(self, subject: OpenRequest) -> Peak:
        """Open and run a variant in a separate process; return the memory that it took, or why it failed."""
        if subject.device != "cpu":
            return peak_memory.measure(subject, timeout_seconds=self._timeout)
        self.ready()
        self._send(template.write(subject))
        answer, reason = self._answer()
        if answer:
            return Peak(**json.loads(answer))
        self.close()
        return Peak(reason=reason)

    def _send(self, line: str) -> None:
        if self._process is None:
            self._said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env=child.environment(),
                start_new_session=True,
                bufsize=0,
            )
        assert self._process.stdin
        # If the process has ended, reading its answer reports that.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode())

    def _answer(self) -> tuple[bytes, str]:
        """Return the next answer, or an empty answer and the reason: the process ended, or took too long."""
        assert self._process and self._process.stdout and self._said
        source, until = self._process.stdout.fileno(), time.monotonic() + self._timeout
        while b"\n" not in self._unread:
            readable, _, _ = select.select([source], [], [], max(0.0, until - time.monotonic()))
            if not readable:
                return b"", peak_memory.TIMED_OUT.format(self._timeout)
            chunk = os.read(source, _CHUNK)
            if not chunk:
                try:
                    status = self._process.wait(max(0.0, until - time.monotonic()))
                except subprocess.TimeoutExpired:
                    return b"", peak_memory.TIMED_OUT.format(self._timeout)
                self._said.seek(0)
                return b"", child.ended(status, self._said.read())
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line, ""

    def close(self) -> None:
        """End the template process and all of its forks; the next variant starts a new process."""
        process, said = self._process, self._said
        self._process, self._said, self._unread, self._pending = None, None, b"", 0
        if process is None or said is None:
            return
        with process, said, contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
