"""vconv: vision transformers converted, exported to ONNX and proven equal, ready for Ascend NPUs.

    import vconv

    vconv.export("dinov3-vits16", weights="path/to/weights")
    report = vconv.validate("artifacts/dinov3-vits16")
    session = vconv.load("artifacts/dinov3-vits16")
    outputs = session([image])

Importing this is cheap; torch and the rest are imported by the first call.
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
    from vconv.workflows.export import export, fill
    from vconv.workflows.load import load
    from vconv.workflows.reference import reference
    from vconv.workflows.selftest import selftest
    from vconv.workflows.validate import validate

__all__ = [
    "VconvError",
    "__version__",
    "bisect",
    "card",
    "compare",
    "export",
    "fill",
    "load",
    "reference",
    "selftest",
    "validate",
]

_HOMES = {
    "bisect": "vconv.workflows.bisect",
    "card": "vconv.workflows.card",
    "compare": "vconv.workflows.compare",
    "export": "vconv.workflows.export",
    "fill": "vconv.workflows.export",
    "load": "vconv.workflows.load",
    "reference": "vconv.workflows.reference",
    "selftest": "vconv.workflows.selftest",
    "validate": "vconv.workflows.validate",
}
"""Where each of these lives: it is imported when it is first asked for."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with without_autoload():
        home = importlib.import_module(_HOMES[name])
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted(__all__)
