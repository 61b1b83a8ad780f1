"""The CANN toolkit of this machine: where it lies, its version, and the torch_npu that goes with it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

HOMES = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME")
"""The variables in which its set_env.sh says where it is."""
_ROOTS = (Path("/usr/local/Ascend"), Path(os.path.expanduser("~/Ascend")))  # noqa: PTH111 (never raises)
"""Where its installer puts it for root, and for others."""
_FOLDERS = ("cann", "ascend-toolkit/latest")
"""Below those: from CANN 8.5 on, and before."""
_VERSIONS = (
    ("*-linux/ascend_toolkit_install.info", "version"),
    ("*/version.info", "version_dir"),
    ("version.info", "version_dir"),
    ("version.info", "Version"),
)
"""Files below the toolkit and the line of each that has its version, the surest first. A ``Version`` beside a
``version_dir`` is that of one component, counted otherwise."""

PAIRS: Mapping[str, str] = {
    "2.9.0": "8.5.0",
    "2.9.0.post2": "9.0.0",
    "2.9.0.post6": "9.1.0",
    "2.9.0.post8": "9.1",
    "2.10.0": "9.0.0",
    "2.10.0.post4": "9.1.0",
    "2.10.0.post6": "9.1",
    "2.11.0": "9.1.0",
    "2.11.0.post2": "9.1",
    "2.12.0": "9.1.0",
    "2.12.0.post2": "9.1",
}
"""From a version of torch_npu to the CANN that it is released with: COMPATIBILITY.md of its repository. Its
release notes (26.1.0) hold all of these to run with any CANN from 8.5 to 9.1: another pair is no fault by
itself."""


@dataclass(frozen=True)
class Toolkit:
    """A CANN toolkit.

    Args:
        folder: where it lies.
        version: its version; empty where no file tells.
        set_env: the script that sets its environment; None where it is not found.
        sourced: whether that was done: a variable names the folder.
    """

    folder: Path
    version: str
    set_env: Path | None
    sourced: bool


def find_toolkit(
    environment: Mapping[str, str] = os.environ, roots: Iterable[Path] = _ROOTS
) -> Toolkit | None:
    """Find the toolkit that the environment names, or else one where its installer puts it.

    Args:
        environment: variables.
        roots: where to look for it.
    """
    named = [Path(environment[home]) for home in HOMES if environment.get(home)]
    usual = [root / folder for root in roots for folder in _FOLDERS]
    for folder in (*named, *usual):
        if os.access(folder, os.R_OK | os.X_OK) and folder.is_dir():
            # Before 8.5, the variables name ascend-toolkit/latest, and the script lies beside that.
            scripts = [place / "set_env.sh" for place in (folder, folder.parent)]
            script = next((script for script in scripts if os.access(script, os.R_OK)), None)
            return Toolkit(folder, _version(folder), script, folder in named)
    return None


def _version(folder: Path) -> str:
    for pattern, key in _VERSIONS:
        for file in sorted(folder.glob(pattern)):
            text = file.read_text(errors="replace") if os.access(file, os.R_OK) else ""
            line = re.search(rf"^{key}=(\S+)", text, re.MULTILINE)
            if line:
                return line[1]
    return ""


def goes_with(torch_npu: str, version: str) -> bool | None:
    """Tell whether a torch_npu was released with a version of CANN; None where either is not known."""
    paired = PAIRS.get(torch_npu)
    if paired is None or not version:
        return None
    return version == paired or version.startswith(f"{paired}.")
