"""An installed msprobe, and the tables that it writes."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

LAST_COLUMNS = """
import pathlib, sys
import msprobe
sys.path.insert(0, str(pathlib.Path(msprobe.__file__).parent / "msaccucmp"))
from msprobe.infer.offline.compare.msquickcmp.cmp_process import _append_column_to_csv
_append_column_to_csv(sys.argv[1], sys.argv[2].split(","))
"""
"""Adds the last three columns, which msprobe adds in the mode offline_model alone, by its own function."""


class MsProbe:
    """An installed msprobe.

    Args:
        python: its Python.
        scratch: a folder for its results.
    """

    def __init__(self, python: Path, scratch: Path) -> None:
        self.python, self.scratch, self._count = python, scratch, 0

    def version(self) -> str:
        """Return the versions of msprobe and of its ONNX Runtime."""
        code = "from importlib.metadata import version as v; print(v('mindstudio-probe'), v('onnxruntime'))"
        return self.run([str(self.python), "-c", code]).strip()

    def run(self, command: list[str], **variables: str) -> str:
        """Run a command with msprobe on its path; end with what it printed if it fails."""
        path = f"{self.python.parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, **variables}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=self.scratch)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def folder(self) -> Path:
        """Make an empty folder for results, which msprobe wants to exist."""
        self._count += 1
        made = self.scratch / f"results{self._count}"
        made.mkdir(mode=0o750)
        return made

    def table(self, folder: Path, output_nodes: list[str]) -> list[list[str]]:
        """Compare what vconv wrote into a folder; return the lines of msprobe's table."""
        results = self.folder()
        sides = ["-tp", f"{folder}/target", "-gp", f"{folder}/golden", "-fr", f"{folder}/operators.json"]
        self.run(["msprobe", "compare", "-m", "offline_data", *sides, "-o", str(results)])
        self.run([str(self.python), "-c", LAST_COLUMNS, str(results), ",".join(output_nodes)])
        return lines(next(results.glob("result_*.csv")))


def lines(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def installed(scratch: Path) -> Path:
    """Install msprobe into a separate environment, and return its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(scratch / "venv")], check=True)
    python = scratch / "venv" / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "-q", "mindstudio-probe", "onnxruntime"]
    subprocess.run(command, check=True)
    return python
