"""The straight line behind `vconv doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from vconv.runtime import doctor
from vconv.types import Say, silent


def diagnose(say: Say = silent) -> dict[str, Any]:
    """Find out what is installed here, and what of it works.

    Args:
        say: takes a line of progress.

    Returns:
        ``findings``, each with ``name``, ``state`` (ok, note or problem), ``found`` and ``mend``; and
        ``passed``: whether none is a problem.
    """
    say("importing every library, in processes of their own")
    found = doctor.examine()
    return {"passed": found.passed, "findings": [asdict(finding) for finding in found.findings]}
