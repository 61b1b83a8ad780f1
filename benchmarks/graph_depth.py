"""How the time of an artifact's graphs grows with the number of blocks, traced with three and with all.

A narrow DINOv2 of each depth is exported in one process, both graphs each time, without the reference and
without checks. The first export of the process, which also imports, is not counted. Rounds are interleaved.

Target: the graphs of 40 blocks take at most 1.3 times as long as those of 4.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

from record import finish, out_option

from vconv.catalog.systems import find, miniature
from vconv.convert.conversion import Prepared, export_graphs, image_size, prepare
from vconv.convert.graphs import tracing
from vconv.convert.sources.table import Request, open_source
from vconv.types import silent

SYSTEM, DEPTHS, ROUNDS = "dinov2-large", (4, 12, 24, 40), 3
MOST = 1.3
"""The greatest ratio of the time at the greatest depth to that at the least."""


def prepared(depth: int, folder: Path) -> tuple[Prepared, tuple[int, int]]:
    """Write the checkpoint of a narrow network of some depth; return it, and the size of its images."""
    small = miniature(find(SYSTEM))
    system = replace(small, config={**small.config, "num_hidden_layers": depth})
    (folder / "source").mkdir(parents=True)
    (folder / "artifact").mkdir()
    source = open_source(Request(system, "synthetic:0"), folder / "source")
    made = prepare(folder / "artifact", source, silent)
    made.write(Event())
    return made, image_size(source)


@contextlib.contextmanager
def with_every_block() -> Iterator[None]:
    """Trace with all blocks while the context is open."""
    before = tracing._shortened
    tracing._shortened = lambda *_: contextlib.nullcontext()
    try:
        yield
    finally:
        tracing._shortened = before


def seconds(made: Prepared, size: tuple[int, int]) -> float:
    """Time both graphs."""
    start = time.perf_counter()
    export_graphs(made.plan.path.parent, made, size, 1, tracing.DEFAULT_OPSET, silent)
    return time.perf_counter() - start


def main() -> None:
    """Measure, print, record."""
    out = out_option(__doc__)
    short: dict[int, list[float]] = {depth: [] for depth in DEPTHS}
    whole: dict[int, list[float]] = {depth: [] for depth in DEPTHS}
    with tempfile.TemporaryDirectory() as name:
        made = {depth: prepared(depth, Path(name, str(depth))) for depth in DEPTHS}
        seconds(*made[DEPTHS[0]])
        for _ in range(ROUNDS):
            for depth in DEPTHS:
                short[depth].append(seconds(*made[depth]))
                with with_every_block():
                    whole[depth].append(seconds(*made[depth]))
    rows = {
        depth: {
            "seconds": statistics.median(short[depth]),
            "seconds_with_every_block": statistics.median(whole[depth]),
        }
        for depth in DEPTHS
    }
    for depth, row in rows.items():
        told = f"{row['seconds']:5.1f} s; with every block {row['seconds_with_every_block']:5.1f} s"
        print(f"{depth:3} blocks: {told}")
    ratios = [last / first for first, last in zip(short[DEPTHS[0]], short[DEPTHS[-1]], strict=True)]
    ratio = statistics.median(ratios)
    print(f"{DEPTHS[-1]} blocks take {ratio:.2f} times as long as {DEPTHS[0]}; at most {MOST} is the target")
    document = {"system": SYSTEM, "rounds": ROUNDS, "depths": rows, "ratio": ratio}
    finish(document, ratio <= MOST, out)


if __name__ == "__main__":
    main()
