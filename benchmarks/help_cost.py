"""Compare the cost of `vconv --help` with that of importing click, alternating, in one run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from record import finish, out_option

ROUNDS = 15
TARGET = 4.0
COMMANDS = {
    "import click": [sys.executable, "-c", "import click"],
    "vconv --help": [sys.executable, "-m", "vconv", "--help"],
}


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    out = out_option(__doc__)
    samples: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for command in COMMANDS.values():
        seconds(command)
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            samples[name].append(seconds(command))
    medians = {name: statistics.median(taken) for name, taken in samples.items()}
    ratio = medians["vconv --help"] / medians["import click"]
    for name, median in medians.items():
        print(f"{name:14} median of {ROUNDS}: {1e3 * median:6.1f} ms")
    print(f"ratio {ratio:.2f}, target at most {TARGET}")
    finish({"median_seconds": medians, "ratio": ratio, "target": TARGET}, passed=ratio <= TARGET, out=out)


if __name__ == "__main__":
    main()
