"""Recording a benchmark's result."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from vconv.validators.report import environment


def finish(result: dict[str, Any], passed: bool) -> None:
    """Write the result where --out says, with the environment, and exit 1 if the target was missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    if out:
        out.write_text(
            json.dumps({**result, "passed": passed, "environment": environment()}, indent=2) + "\n"
        )
    sys.exit(0 if passed else 1)
