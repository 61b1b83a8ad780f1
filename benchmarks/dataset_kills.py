"""Kill a validation on a folder of images at random moments: what is resumed gives the same figures.

An undisturbed `vconv validate --dataset` of a miniature with synthetic weights tells how long one takes and
what it finds. Then the same command is killed with SIGKILL at a random moment and run again to its end, some
times over. Each time the second run must find the same, bit by bit, and leave nothing beside the reports; and
some of them must have had something to resume.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dataset_memory import SYSTEM, make_images
from record import finish, out_option

from vconv.catalog.systems import find, miniature
from vconv.convert.sources.table import Request, open_source

IMAGES, KILLS, SEED = 800, 8, 0
FOLLOWS_THE_RUN = ("resumed", "seconds")
"""What is rightly another after a kill."""


def vconv(*arguments: str | Path) -> list[str]:
    """Return a command."""
    return [sys.executable, "-m", "vconv", *map(str, arguments)]


def validated(command: list[str]) -> dict[str, Any]:
    """Run a validation to its end; return what it found on the images."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)["dataset"]
    return found


def killed(command: list[str], after: float) -> tuple[bool, str]:
    """Start a validation and kill it after some seconds; tell whether it ran then, and how far it was."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, said = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
    last = (said.strip().splitlines() or ["nothing was said"])[-1]
    return process.returncode == -signal.SIGKILL, last.split("s  ", 1)[-1]


def main() -> None:
    """Validate undisturbed, then kill and kill, then resume and compare."""
    out = out_option(__doc__)
    moments = random.Random(SEED)
    with tempfile.TemporaryDirectory() as name:
        weights, artifact, folder = (Path(name) / part for part in ("weights", "artifact", "images"))
        weights.mkdir()
        open_source(Request(miniature(find(SYSTEM)), "synthetic:0"), weights)
        export = vconv("export", SYSTEM, "--weights", weights, "--out", artifact)
        subprocess.run(export, check=True, capture_output=True)
        make_images(folder, IMAGES)
        command = vconv("validate", artifact, "--weights", weights, "--quick", "--json", "--dataset", folder)
        start = time.perf_counter()
        whole = validated(command)
        seconds = time.perf_counter() - start
        rows = []
        while len(rows) < KILLS:
            after = moments.uniform(0.0, seconds)
            was_killed, last = killed(command, after)
            found = validated(command)
            same = all(found[key] == value for key, value in whole.items() if key not in FOLLOWS_THE_RUN)
            left = [path.name for path in (artifact / "reports").iterdir() if path.name.startswith(".")]
            row = {"after_seconds": after, "killed": was_killed, "last_said": last}
            rows.append(row | {"resumed": found["resumed"], "same": same, "left": left})
            what = "killed" if was_killed else "ended before"
            print(f"{after:5.1f} s: {what} at: {last}; resumed: {found['resumed']}; the same: {same}")
    passed = all(row["same"] and not row["left"] for row in rows) and any(row["resumed"] for row in rows)
    result = {"system": f"miniature of {SYSTEM}", "synthetic": True, "images": IMAGES}
    finish(result | {"undisturbed_seconds": seconds, "kills": rows}, passed=passed, out=out)


if __name__ == "__main__":
    main()
