"""torch without the backends that load themselves, and torch_npu out of sight of whatever looks for it.

As it is imported, torch loads every package with an entry point in the group ``torch.backends``, and fails
where that fails (https://github.com/pytorch/pytorch/issues/122468): with torch_npu installed and CANN not,
``import torch`` raises. transformers and accelerate import torch_npu wherever it is installed, and fail with
it too.
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
"""The variable that torch looks at; 0 leaves every backend alone."""
TORCH_NPU = "torch_npu"


@contextlib.contextmanager
def without_autoload() -> Iterator[None]:
    """Make an import of torch in this block, and in child processes that it starts, load no backend.

    The variable is put back on exit.
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
    """Make torch_npu look as if it were not installed, unless it was imported before.

    On exit it is as it was, for an import of the caller's own to say what it has to say.
    """
    if TORCH_NPU in sys.modules:
        yield
        return
    # What None in sys.modules means is Python's own rule: an import of it fails, and find_spec returns None.
    sys.modules[TORCH_NPU] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if sys.modules.get(TORCH_NPU, sys) is None:
            del sys.modules[TORCH_NPU]


def is_installed(package: str) -> bool:
    """Tell whether a package is there to be imported; nothing is imported, and hidden ones are found."""
    return sys.modules.get(package) is not None or PathFinder.find_spec(package) is not None


def import_torch_npu() -> Any:
    """Import torch_npu in this process, hidden or not.

    Raises:
        Exception: whatever its import raises; the process should not try again.
    """
    if sys.modules.get(TORCH_NPU) is None:
        sys.modules.pop(TORCH_NPU, None)
    with without_autoload():
        return import_module(TORCH_NPU)
