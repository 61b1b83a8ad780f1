"""vconv: vision transformers converted, exported to ONNX and proven equal, ready for Ascend NPUs.

    import vconv

    vconv.export("dinov3-vits16", weights="path/to/weights")
    report = vconv.validate("artifacts/dinov3-vits16")
    session = vconv.load("artifacts/dinov3-vits16")
    outputs = session([image])

Importing this is cheap; torch and the rest are imported by the first call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vconv._version import VERSION as __version__
from vconv.errors import VconvError

if TYPE_CHECKING:
    from vconv.judging import compare, validate
    from vconv.workflows import export, fill, load

__all__ = ["VconvError", "__version__", "compare", "export", "fill", "load", "validate"]


def __getattr__(name: str) -> Any:
    if name in ("compare", "validate"):
        from vconv import judging

        return getattr(judging, name)
    if name in ("export", "fill", "load"):
        from vconv import workflows

        return getattr(workflows, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
