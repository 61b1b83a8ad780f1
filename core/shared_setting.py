"""Settings of the whole process that several threads need at the same time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType


class SharedSetting(AbstractContextManager[None]):
    """A setting of the process: the first thread that needs it sets it, and the last one restores it.

    Without this, a thread would restore the caller's setting while another still runs under its own.

    Args:
        make: makes the context that sets and restores. It must not depend on the thread.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._users = 0
        self._kept = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._kept.enter_context(self._make())
            self._users += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._kept.close()
