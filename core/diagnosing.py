"""The straight line behind `vconv doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from vconv.runtime import doctor


def diagnose() -> dict[str, Any]:
    """Find out what is installed here, and what of it works.

    Returns:
        ``findings``, each with ``name``, ``state`` (ok, note or problem), ``found`` and ``mend``; and
        ``passed``: whether none is a problem.
    """
    found = doctor.examine()
    return {"passed": found.passed, "findings": [asdict(finding) for finding in found.findings]}
