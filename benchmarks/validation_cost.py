"""What a full validation on a CPU costs, in pairs of runs: this version beside another, the timing left out.

Each version is a Python executable with vconv installed: ``--before`` names the older one, which also exports
the artifacts, with synthetic weights; this one is the newer unless ``--after`` names another. The two take
turns, and each goes first in every other pair. Each run is a separate process, on a fresh copy of the same
artifact, which is in the page cache.

A run's cost is the wall-clock time of its process, imports included, less what it spent on timing: all of
``time_side_by_side``, which prepares batches, warms up and takes the rounds. It is the same function in both
versions, is watched from outside by the same few lines, and takes the same part in both.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import finish

SYSTEMS = ("vit-base-patch16-224-in21k", "vit_small_patch16_dinov3.lvd1689m")
TARGET = 1.5

RUN = """
import json, sys, time

import vconv
from vconv.validators import validation

path, budget = sys.argv[1], float(sys.argv[2])
stock, spent = validation.time_side_by_side, []

def watched(*given, **named):
    start = time.perf_counter()
    try:
        return stock(*given, **named)
    finally:
        spent.append(time.perf_counter() - start)

validation.time_side_by_side = watched
report = vconv.validate(path, budget=budget)
keys = ("variant", "engine", "peak_rss_bytes", "peak_rss_growth_bytes")
rows = [{key: row[key] for key in keys} for row in report["variants"]]
print(json.dumps({"timing_seconds": sum(spent), "passed": report["passed"], "variants": rows}))
"""


def version(python: str) -> str:
    """Return the version of vconv that an executable has."""
    command = [python, "-c", "import vconv; print(vconv.__version__)"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def export(python: str, system: str, folder: Path) -> None:
    """Export an artifact with synthetic weights, by the version that both can read."""
    command = [python, "-m", "vconv", "export", system, "--weights", "synthetic:0", "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True, env=_environment())


def validate(python: str, artifact: Path, budget: float) -> dict[str, Any]:
    """Validate a copy of an artifact; return what that took without timing, and what was found."""
    with tempfile.TemporaryDirectory() as name:
        copy = shutil.copytree(artifact, Path(name) / artifact.name)
        start = time.perf_counter()
        command = [python, "-c", RUN, str(copy), str(budget)]
        done = subprocess.run(command, capture_output=True, text=True, env=_environment())
        seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{python} cannot validate {artifact.name}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if not found["passed"]:
        raise SystemExit(f"{python} finds that {artifact.name} does not pass")
    return {"seconds": seconds - found["timing_seconds"], **found}


def _environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1"}


def ratios(pairs: list[dict[str, dict[str, Any]]]) -> dict[str, float]:
    """Return the least, the median and the greatest ratio of the seconds before to those after."""
    found = [pair["before"]["seconds"] / pair["after"]["seconds"] for pair in pairs]
    return {"min": min(found), "median": statistics.median(found), "max": max(found)}


def measured(artifact: Path, versions: dict[str, str], count: int, budget: float) -> dict[str, Any]:
    """Run pairs of validations, and print each as it is done."""
    pairs = []
    for place in range(count):
        order = list(versions) if place % 2 == 0 else list(versions)[::-1]
        pairs.append({name: validate(versions[name], artifact, budget) for name in order})
        seconds = {name: pairs[-1][name]["seconds"] for name in versions}
        ratio = seconds["before"] / seconds["after"]
        told = ", ".join(f"{name} {taken:.1f} s" for name, taken in seconds.items())
        print(f"{artifact.name}: {told}, ratio {ratio:.2f}", flush=True)
    return {"ratios": ratios(pairs), "pairs": pairs}


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--before", required=True, help="the Python of the older version")
    parser.add_argument("--after", default=sys.executable, help="the Python of the newer version")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs a system")
    parser.add_argument("--budget", type=float, default=1.0, help="seconds that a variant's timing may take")
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, help="what to validate")
    parser.add_argument("--out", type=Path, help="a JSON file to record the result in")
    options = parser.parse_args()
    versions, rows = {"before": options.before, "after": options.after}, {}
    names = {name: version(python) for name, python in versions.items()}
    with tempfile.TemporaryDirectory() as name:
        for system in options.systems:
            artifact = Path(name) / system
            export(options.before, system, artifact)
            rows[system] = measured(artifact, versions, options.pairs, options.budget)
            shutil.rmtree(artifact)
    for system, row in rows.items():
        told = ", ".join(f"{key} {value:.2f}" for key, value in row["ratios"].items())
        print(f"{system}: as many times as fast: {told}; target {TARGET}")
    passed = all(row["ratios"]["median"] >= TARGET for row in rows.values())
    result = {"versions": names, "target": TARGET, "budget_seconds": options.budget, "systems": rows}
    finish(result, passed=passed, out=options.out)


if __name__ == "__main__":
    main()
