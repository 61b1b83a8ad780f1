"""vconv: vision transformers converted, exported to ONNX and proven equal, ready for Ascend NPUs.

    import vconv

    vconv.export("dinov3-vits16", weights="path/to/weights")
    report = vconv.validate("artifacts/dinov3-vits16")
    session = vconv.load("artifacts/dinov3-vits16")
    outputs = session([image])

Importing this package is fast; the first call imports torch and the other libraries.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vconv._version import VERSION as __version__
from vconv.backends import without_autoload
from vconv.errors import VconvError

if TYPE_CHECKING:
    from vconv.workflows.bisect import bisect
    from vconv.workflows.card import card
    from vconv.workflows.compare import compare
    from vconv.workflows.doctor import doctor
    from vconv.workflows.export import export
    from vconv.workflows.fill import fill
    from vconv.workflows.info import info
    from vconv.workflows.list_systems import list_systems
    from vconv.workflows.load import load
    from vconv.workflows.msprobe import msprobe
    from vconv.workflows.reference import reference
    from vconv.workflows.selftest import selftest
    from vconv.workflows.validate import validate

_WORKFLOWS = (
    "bisect",
    "card",
    "compare",
    "doctor",
    "export",
    "fill",
    "info",
    "list_systems",
    "load",
    "msprobe",
    "reference",
    "selftest",
    "validate",
)
"""Functions of :mod:`vconv.workflows`, each in a file of the same name, imported at the first use."""

__all__ = [
    "VconvError",
    "__version__",
    "bisect",
    "card",
    "compare",
    "doctor",
    "export",
    "fill",
    "info",
    "list_systems",
    "load",
    "msprobe",
    "reference",
    "selftest",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name not in _WORKFLOWS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with without_autoload():
        home = importlib.import_module(f"vconv.workflows.{name}")
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted(__all__)
