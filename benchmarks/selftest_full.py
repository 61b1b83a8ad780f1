"""Run `vconv selftest` on full-sized artifacts of three families, and on the miniatures of every system."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from record import finish, out_option

import vconv

SYSTEMS = ("dinov3-vits16", "dinov2-large", "vit-base-patch16-224-in21k")
CLEAN_RUNS = 2
LEAST_FAULTS, LEAST_CLEAN_RUNS = 14, 30


def measure(path: Path | None, clean_runs: int) -> dict:
    """Run it once; return what matters."""
    start = time.perf_counter()
    document = vconv.selftest(path, clean_runs=clean_runs)
    keys = ("artifacts", "passed", "faults", "lacking", "clean_runs", "false_alarms")
    return {**{key: document[key] for key in keys}, "seconds": time.perf_counter() - start}


def main() -> None:
    out = out_option(__doc__)
    found = {"miniatures": measure(None, clean_runs=6)}
    for system in SYSTEMS:
        with tempfile.TemporaryDirectory() as name:
            vconv.export(system, "synthetic", Path(name) / system)
            found[system] = measure(Path(name) / system, CLEAN_RUNS)
    for name, row in found.items():
        right = sum(one["caught"] and one["class"] == one["expected"] for one in row["faults"])
        print(f"{name}: {right} of {len(row['faults'])} faults caught with the right class, ", end="")
        print(f"{row['false_alarms']} alarms in {row['clean_runs']} clean runs, {row['seconds']:.0f} s")
    enough = all(len(found[system]["faults"]) >= LEAST_FAULTS for system in SYSTEMS)
    clean = sum(row["clean_runs"] for row in found.values())
    passed = enough and clean >= LEAST_CLEAN_RUNS and all(row["passed"] for row in found.values())
    finish({"runs": found}, passed=passed, out=out)


if __name__ == "__main__":
    main()
