"""Show how far latencies can be trusted on this machine: what is found, what is made up, what is refused.

A workload of torch is timed as validation times variants: in rounds of random order, beside another one. In
some runs that has a tenth more of the same work, which must be found; in some it is the same work, which must
not be told apart; in some a second process keeps a core busy, and the ranking must be refused; and where
nothing else runs it must not be. For the last, a quiet moment is waited for.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from record import finish, out_option

from vconv.runtime.timing.clocks import Task, TimingPlan, interleaved
from vconv.runtime.timing.machine_load import watching
from vconv.runtime.timing.statistics import SMALLEST_EFFECT, compare_paired
from vconv.types import Status
from vconv.validators.latency.ranking import rank
from vconv.validators.report.rows import LatencyRow, VariantRow

PARTS, MORE = 20, 22
"""Matrix products of a run, and of one that is a tenth slower."""
SIDE = 256
PLAN = TimingPlan(warmups=10, runs=100, budget_seconds=None)
COMPARISONS, WATCHES = 20, 5
FOUND, MADE_UP = 19, 1
"""Of 20: how many slowdowns must be found, and how many may be seen where there is none."""
PATIENCE_SECONDS = 60.0


def workload(parts: int) -> Task:
    """Return so many matrix products, one after the other."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(SIDE, SIDE, generator=generator) for _ in range(2))

    def run() -> None:
        for _ in range(parts):
            torch.mm(left, right)

    return Task(1, run, lambda: None)


def measure(parts: tuple[int, int]) -> dict[str, Any]:
    """Time two workloads side by side; tell whether they differ, and what the ranking says."""
    tasks = {name: workload(number) for name, number in zip("ab", parts, strict=True)}
    with watching() as watch:
        measurements = interleaved(tasks, PLAN)
    rows = [
        # Of a row, a ranking needs no more than this.
        VariantRow.model_construct(
            artifact="",
            variant=name,
            engine="torch",
            device="cpu",
            simulated=False,
            status=Status.PASSED,
            latency=(LatencyRow.model_validate(found.summary()),),
            timing_refused=None,
        )
        for name, found in measurements.items()
    ]
    compared = compare_paired(measurements["a"].seconds, measurements["b"].seconds)
    assert compared is not None
    return {
        "ratio": compared.ratio,
        "interval": list(compared.interval),
        "different": compared.different,
        "p50_ms": rows[0].latency[0].p50_ms,
        "warnings": list(rows[0].latency[0].warnings),
        "others_cores": watch.load.others_cores,
        "steal_cores": watch.load.steal_cores,
        "busy": watch.load.busy,
        "ranking_refused": rank(rows, watch.load).refused,
    }


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    """Keep a core busy with another process."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def quiet_moment() -> Iterator[None]:
    """Wait until nothing else runs, as long as there is patience."""
    end = time.monotonic() + PATIENCE_SECONDS
    busy: bool | None = True
    while busy and time.monotonic() < end:
        with watching() as watch:
            time.sleep(1.0)
        busy = watch.load.busy
    yield


KINDS: dict[str, tuple[int, tuple[int, int], Callable[[], contextlib.AbstractContextManager[None]]]] = {
    "a tenth slower": (COMPARISONS, (PARTS, MORE), contextlib.nullcontext),
    "the same": (COMPARISONS, (PARTS, PARTS), contextlib.nullcontext),
    "beside a busy process": (WATCHES, (PARTS, PARTS), busy_core),
    "quiet": (WATCHES, (PARTS, PARTS), quiet_moment),
}
"""What is tried: how often, with which parts, and in what surroundings."""


def main() -> None:
    out = out_option(__doc__)
    torch.set_num_threads(1)  # Threads that wait for each other would take minutes beside a busy process.
    start = time.monotonic()
    runs: dict[str, list[dict[str, Any]]] = {}
    for kind, (times, parts, surroundings) in KINDS.items():
        runs[kind] = []
        for _ in range(times):
            with surroundings():
                found = measure(parts)
            runs[kind].append(found)
            low, high = found["interval"]
            print(
                f"{kind}: {found['ratio']:.3f} ({low:.3f} to {high:.3f}), different: {found['different']}; "
                f"others took {found['others_cores']:.2f} cores, busy: {found['busy']}",
                flush=True,
            )
    counts = {
        "slowdowns_found": sum(run["different"] and run["ratio"] > 1 for run in runs["a tenth slower"]),
        "slowdowns_made_up": sum(run["different"] for run in runs["the same"]),
        "busy_refused": sum(
            bool(run["busy"] and run["ranking_refused"]) for run in runs["beside a busy process"]
        ),
        "quiet_ranked": sum(run["busy"] is False and not run["ranking_refused"] for run in runs["quiet"]),
        "comparisons_on_a_busy_machine": sum(
            bool(run["busy"]) for kind in ("a tenth slower", "the same") for run in runs[kind]
        ),
    }
    print(", ".join(f"{name} {count}" for name, count in counts.items()))
    passed = counts["slowdowns_found"] >= FOUND and counts["slowdowns_made_up"] <= MADE_UP
    passed = passed and counts["busy_refused"] == counts["quiet_ranked"] == WATCHES
    result = {"counts": counts, "smallest_effect": SMALLEST_EFFECT, "seconds": time.monotonic() - start}
    finish({**result, "runs": runs}, passed=passed, out=out)


if __name__ == "__main__":
    main()
