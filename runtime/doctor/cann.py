"""The CANN toolkit of this machine: its folder, its version, and the torch_npu that it was released with."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

HOMES = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME")
"""The environment variables in which CANN's set_env.sh puts the toolkit's folder."""
_ROOTS = (Path("/usr/local/Ascend"), Path(os.path.expanduser("~/Ascend")))  # noqa: PTH111 (never raises)
"""The folders into which CANN's installer puts it, for root and for other users."""
_FOLDERS = ("cann", "ascend-toolkit/latest")
"""The toolkit's folder below those: from CANN 8.5 on, and before."""
_VERSIONS = (
    ("*-linux/ascend_toolkit_install.info", "version"),
    ("*/version.info", "version_dir"),
    ("version.info", "version_dir"),
    ("version.info", "Version"),
)
"""Files in the toolkit that have its version, and the line in each; the most reliable first. Any ``Version``
beside a ``version_dir`` is the version of a single component, which is counted differently."""

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
"""By version of torch_npu, the CANN that it was released with. Source: COMPATIBILITY.md in its repository.
According to its release notes (26.1.0), all of these run with any CANN from 8.5 to 9.1, so that another pair
is not a problem by itself."""


@dataclass(frozen=True)
class Toolkit:
    """A CANN toolkit.

    Args:
        folder: its folder.
        version: its version; empty if no file states it.
        set_env: the script that sets the environment up; None if it is not found.
        sourced: whether the script was sourced, so that a variable names the folder.
    """

    folder: Path
    version: str
    set_env: Path | None
    sourced: bool


def find_toolkit(
    environment: Mapping[str, str] = os.environ, roots: Iterable[Path] = _ROOTS
) -> Toolkit | None:
    """Find the toolkit that the environment names, or else one in the installer's default folders.

    Args:
        environment: the environment variables.
        roots: the installer's default folders.
    """
    named = [Path(environment[home]) for home in HOMES if environment.get(home)]
    usual = [root / folder for root in roots for folder in _FOLDERS]
    for folder in (*named, *usual):
        if os.access(folder, os.R_OK | os.X_OK) and folder.is_dir():
            # Before 8.5, the variables name ascend-toolkit/latest, and the script is beside that folder.
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
    """Whether a torch_npu was released with a version of CANN; None if either version is not known."""
    paired = PAIRS.get(torch_npu)
    if paired is None or not version:
        return None
    return version == paired or version.startswith(f"{paired}.")
