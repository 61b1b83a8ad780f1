"""Run `vconv selftest` on full-sized artifacts of three families, and on the miniatures of every system."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from record import finish, out_option

import vconv
from vconv.convert.sources.recipes.table import LATEST

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
    found = {}
    for system in ("", *SYSTEMS):
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / system if system else None
            if path:
                vconv.export(system, "synthetic", path)
            row = found[system or "miniatures"] = measure(path, CLEAN_RUNS if path else 6)
        right = sum(one["caught"] and one["class"] == one["expected"] for one in row["faults"])
        print(
            f"{system or 'miniatures'}: {right} of {len(row['faults'])} faults caught with the right class, ",
            end="",
        )
        print(
            f"{row['false_alarms']} alarms in {row['clean_runs']} clean runs, {row['seconds']:.0f} s",
            flush=True,
        )
    enough = all(len(found[system]["faults"]) >= LEAST_FAULTS for system in SYSTEMS)
    clean = sum(row["clean_runs"] for row in found.values())
    passed = enough and clean >= LEAST_CLEAN_RUNS and all(row["passed"] for row in found.values())
    finish({"recipe": LATEST, "runs": found}, passed=passed, out=out)


if __name__ == "__main__":
    main()
