"""Import torch without its automatic backends, and hide torch_npu from libraries that import it.

When torch is imported, it loads every package with an entry point in the group ``torch.backends``, and fails
if one of them fails (https://github.com/pytorch/pytorch/issues/122468): with torch_npu installed but not
CANN, ``import torch`` raises. transformers and accelerate import torch_npu wherever it is installed, and fail
in the same way.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.machinery import PathFinder
from typing import Any

AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"
"""The environment variable that torch reads; 0 loads no backend."""
TORCH_NPU = "torch_npu"


@contextlib.contextmanager
def without_autoload() -> Iterator[None]:
    """Keep torch from loading backends when it is imported in this block or in a child process of it.

    The variable is restored on exit.
    """
    before = os.environ.get(AUTOLOAD)
    os.environ[AUTOLOAD] = "0"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(AUTOLOAD, None)
        else:
            os.environ[AUTOLOAD] = before


@contextlib.contextmanager
def without_torch_npu() -> Iterator[None]:
    """Make torch_npu look as if it were not installed, unless it has been imported before.

    On exit it is visible again, so that an import by the caller raises its own error.
    """
    if TORCH_NPU in sys.modules:
        yield
        return
    # None in sys.modules is Python's way to block a module: its import fails, and find_spec returns None.
    sys.modules[TORCH_NPU] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if sys.modules.get(TORCH_NPU, sys) is None:
            del sys.modules[TORCH_NPU]


def is_installed(package: str) -> bool:
    """Return whether a package is installed, hidden or not, without importing it."""
    return sys.modules.get(package) is not None or PathFinder.find_spec(package) is not None


def import_torch_npu() -> Any:
    """Import torch_npu in this process, hidden or not.

    Raises:
        Exception: whatever the import raises; this process should not try again.
    """
    if sys.modules.get(TORCH_NPU) is None:
        sys.modules.pop(TORCH_NPU, None)
    with without_autoload():
        return import_module(TORCH_NPU)
