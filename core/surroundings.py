"""What a calling program may have changed around vconv, and a command must neither depend on nor change.

This module imports neither torch nor numpy: what was not imported yet has its defaults.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from vconv.shared_setting import SharedSetting


@contextlib.contextmanager
def own_surroundings() -> Iterator[None]:
    """Give this block the defaults of Python's libraries, and restore the caller's settings after it.

    These are torch's default type and device, autocast, inference mode, deterministic algorithms and the
    precision of float32 in products, numpy's handling of floating-point errors, and a home folder for users
    that have none. The number of threads is the caller's to choose, as with ``OMP_NUM_THREADS``. What belongs
    to the whole process is set by the first thread that needs it, and restored by the last. Also a decorator.
    """
    with contextlib.ExitStack() as kept:
        kept.enter_context(_HOME)
        if "numpy" in sys.modules:
            kept.enter_context(_numpy_defaults())
        if "torch" in sys.modules:
            kept.enter_context(_TORCH)
            kept.enter_context(_torch_defaults_of_a_thread())
        yield


def _numpy_defaults() -> AbstractContextManager[None]:
    numpy = sys.modules["numpy"]
    defaults: AbstractContextManager[None] = numpy.errstate(
        divide="warn", over="warn", under="ignore", invalid="warn"
    )
    return defaults


@contextlib.contextmanager
def _torch_defaults() -> Iterator[None]:
    """Set what torch keeps for the whole process."""
    torch: Any = sys.modules["torch"]
    with contextlib.ExitStack() as kept:
        kept.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        if torch.are_deterministic_algorithms_enabled():
            warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
            kept.callback(torch.use_deterministic_algorithms, True, warn_only=warn_only)
            torch.use_deterministic_algorithms(False)
        # GPUs and NPUs set theirs. The older setting raises if the newer ones disagree with it.
        for place in (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv):
            kept.callback(setattr, place, "fp32_precision", place.fp32_precision)
            place.fp32_precision = "ieee"
        yield


@contextlib.contextmanager
def _torch_defaults_of_a_thread() -> Iterator[None]:
    """Set what torch keeps for each thread."""
    torch: Any = sys.modules["torch"]
    with contextlib.ExitStack() as kept:
        if torch.get_default_device().type != "cpu":
            kept.enter_context(torch.device("cpu"))
        # The last is the name that torch_npu takes; without torch_npu, torch has a name in its place.
        for kind in ("cpu", "cuda", torch._C._get_privateuse1_backend_name()):
            if torch.is_autocast_enabled(kind):
                kept.enter_context(torch.autocast(kind, enabled=False))
        if torch.is_inference_mode_enabled() or not torch.is_grad_enabled():
            kept.enter_context(torch.inference_mode(False))
            kept.enter_context(torch.enable_grad())
        yield


@contextlib.contextmanager
def _home() -> Iterator[None]:
    """Set HOME if this user has no home folder: in containers, a user may be no more than a number.

    Libraries such as OpenVINO and ModelScope cannot even be imported without one.
    """
    if os.path.expanduser("~") != "~":  # noqa: PTH111 (Path.home raises)
        yield
        return
    os.environ["HOME"] = str(_temporary_home())
    try:
        yield
    finally:
        del os.environ["HOME"]


def _temporary_home() -> Path:
    """Make a folder that only this user can change; it stays, with what libraries cache in it."""
    folder = Path(tempfile.gettempdir(), f"vconv-home-{os.getuid()}")
    with contextlib.suppress(OSError):  # such as somebody else's file of that name
        folder.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_symlink() and folder.stat().st_uid == os.getuid():
            return folder
    return Path(tempfile.mkdtemp(prefix=f"{folder.name}-"))


_HOME, _TORCH = SharedSetting(_home), SharedSetting(_torch_defaults)
