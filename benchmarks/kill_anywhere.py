"""Kill an export at random points: nothing half-made is ever taken for an artifact, and a retry is whole.

An undisturbed export tells how long one takes and what its files are. Then exports to one target are killed
with SIGKILL at random moments. After each, the target must not be there, or be refused as an artifact; and
at the end an undisturbed retry to that target must give the same files, byte by byte, with nothing beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import finish

SYSTEM = "dinov3-vits16"


def command(target: Path) -> list[str]:
    """Return the export that is killed."""
    export = ["export", SYSTEM, "--weights", "synthetic:0", "--out", str(target), "--json"]
    return [sys.executable, "-m", "vconv", *export]


def files(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file in a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def accepted(target: Path) -> bool:
    """Tell whether vconv takes a folder for an artifact."""
    info = [sys.executable, "-m", "vconv", "info", str(target), "--json"]
    return subprocess.run(info, capture_output=True, check=False).returncode == 0


def killed(target: Path, after: float) -> bool:
    """Start an export and kill it after some seconds; tell whether it was still running."""
    process = subprocess.Popen(command(target), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def main() -> None:
    """Kill, look, retry, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="a JSON file to record the result in")
    parser.add_argument("--times", type=int, default=20, help="how often to kill")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        whole, target = Path(name) / "whole" / SYSTEM, Path(name) / "killed" / SYSTEM
        start = time.perf_counter()
        subprocess.run(command(whole), check=True, capture_output=True)
        seconds, expected = time.perf_counter() - start, files(whole)
        rows = []
        while sum(row["killed"] for row in rows) < options.times:
            after = moments.uniform(0.0, seconds)
            was_killed = killed(target, after)
            half = target.exists() and was_killed and files(target) != expected
            row = {"after_seconds": after, "killed": was_killed, "half": half and accepted(target)}
            rows.append(row)
            print(f"{after:5.1f} s: {'killed' if was_killed else 'ended before'}, half made: {row['half']}")
            if target.exists() and not was_killed:
                subprocess.run(["rm", "-r", str(target)], check=True)
        left = sorted(path.name for path in target.parent.iterdir()) if target.parent.exists() else []
        subprocess.run([*command(target), "--force"], check=True, capture_output=True)
        same = files(target) == expected
        beside = sorted(path.name for path in target.parent.iterdir())
    result = {"system": SYSTEM, "undisturbed_seconds": seconds, "kills": rows, "left_by_the_last": left}
    result |= {"retry_is_the_same": same, "beside_the_retry": beside}
    passed = same and beside == [SYSTEM] and not any(row["half"] for row in rows)
    print(f"retry is the same: {same}; beside it: {beside}")
    finish(result, passed=passed, out=options.out)


if __name__ == "__main__":
    main()
