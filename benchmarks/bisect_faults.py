"""Show that `vconv bisect` finds one wrong operator, wherever it is, and what that costs.

One operator of dinov3-vits16's dynamic graph, drawn by chance from all blocks, is made wrong, with every hash
made to fit; bisect, in a separate process, must name the block and the operator. Twenty times. Its peak
memory is set beside that of `vconv validate --quick` on the sound artifact.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import finish, out_option

import vconv
from vconv.artifact.artifact import Artifact
from vconv.runtime.devices.table import find_device
from vconv.runtime.stages.graph import GraphStages
from vconv.validators.faults.operators import alter
from vconv.validators.faults.workshop import ArtifactCopy

SYSTEM, GRAPH = "dinov3-vits16", "model.onnx"
FAULTS = 20
LEAST_OPERATORS = 19
GREATEST_SECONDS = 120.0
GREATEST_MEMORY_RATIO = 1.5


def run(*arguments: str) -> tuple[dict, float, int]:
    """Run a command of vconv in a separate process; return its document, seconds, and peak bytes."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
        command = [sys.executable, "-m", "vconv", *arguments, "--json"]
        process = subprocess.Popen(command, stdout=out, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        out.seek(0)
        said.seek(0)
        if os.waitstatus_to_exitcode(status) not in (0, 1):
            raise RuntimeError(said.read()[-2000:])
        return json.load(out), time.perf_counter() - start, usage.ru_maxrss * 1024


def main() -> None:
    out = out_option(__doc__)
    chance = random.Random(0)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        sound = Path(name) / "sound"
        vconv.export(SYSTEM, "synthetic", sound)
        network = Artifact.open(sound).network
        stages = GraphStages(sound / GRAPH, network, find_device("cpu"))
        places = [
            (stages.names[s], node) for s in range(1, network.blocks + 1) for node in stages.operators(s)
        ]
        for number in range(FAULTS):
            block, node = chance.choice(places)
            shop = ArtifactCopy.open(Artifact.open(sound), Path(name) / str(number))
            model = shop.graph(GRAPH)
            what = alter(model, node, shop.value_of)
            shop.save_graph(GRAPH, model)
            shop.rehash()
            document, seconds, peak = run("bisect", str(shop.folder))
            culprit = document["culprit"] or {}
            rows.append(
                {
                    "fault": what,
                    "block": block,
                    "node": node,
                    "found_block": document["worst_stage"],
                    "found_node": culprit.get("node"),
                    "failed": not document["passed"],
                    "seconds": seconds,
                    "peak_rss_bytes": peak,
                    "sentence": document["sentence"],
                }
            )
            print(f"{block:9} {node:24} {what:48} -> {rows[-1]['found_block']:9} {rows[-1]['found_node']}")
        _, _, plain = run("validate", str(sound), "--quick")
        _, clean_seconds, clean = run("bisect", str(sound))
    blocks = sum(row["found_block"] == row["block"] and row["failed"] for row in rows)
    operators = sum(row["found_node"] == row["node"] for row in rows)
    slowest = max(row["seconds"] for row in rows)
    ratio = max(clean, *(row["peak_rss_bytes"] for row in rows)) / plain
    print(f"block right {blocks} of {FAULTS}, operator right {operators}, at most {slowest:.1f} s")
    print(f"peak memory {ratio:.2f} times that of a plain validation ({plain / 1e9:.2f} GB)")
    passed = blocks == FAULTS and operators >= LEAST_OPERATORS
    finish(
        {
            "rows": rows,
            "blocks_right": blocks,
            "operators_right": operators,
            "slowest_seconds": slowest,
            "clean_seconds": clean_seconds,
            "validate_peak_rss_bytes": plain,
            "clean_peak_rss_bytes": clean,
            "memory_ratio": ratio,
        },
        passed=passed and slowest <= GREATEST_SECONDS and ratio <= GREATEST_MEMORY_RATIO,
        out=out,
    )


if __name__ == "__main__":
    main()
