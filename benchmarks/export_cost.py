"""What an export of dinov2-large costs, side by side with the common ways, each in a separate process.

Every contender gets the same checkpoint on disk, synthetic weights in the true architecture, read once before
so that all find it in the page cache. Seconds are those of the whole process, imports included; memory is its
peak resident memory, as the kernel counts it.

- ``vconv, graphs alone``: the patched checkpoint and two graphs, ``--golden none``.
- ``vconv, whole``: that, the reference in fp32 and float64, and every variant checked against it.
- ``torch.onnx.export``: the stock model loaded, one graph with a dynamic batch, weights beside it.
- ``optimum-cli``: one graph, in a separate virtual environment, by ``--optimum PATH/TO/optimum-cli``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from record import finish

from vconv.types import WEIGHTS_FILE

SYSTEM = "dinov2-large"
GRAPHS, WHOLE, TORCH, OPTIMUM = "vconv, graphs alone", "vconv, whole", "torch.onnx.export", "optimum-cli"

DRAW = """
import sys
from pathlib import Path

from vconv.catalog.systems import find
from vconv.convert.sources.table import Request, open_source

open_source(Request(find(sys.argv[1]), "synthetic:0"), Path(sys.argv[2]))
"""

COMMON = """
import sys
import torch
import transformers

source, target = sys.argv[1:]
model = transformers.AutoModel.from_pretrained(source).eval()
images = torch.zeros(2, 3, 224, 224)
dynamic = {"pixel_values": {0: torch.export.Dim("batch", min=1, max=64)}}
torch.onnx.export(
    model, (images,), target, dynamo=True, dynamic_shapes=dynamic, external_data=True, verbose=False
)
"""


def measure(command: Sequence[str], log: Path) -> dict[str, float]:
    """Run a command; return its seconds and its peak resident memory in bytes."""
    start = time.perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command[:4])} ... failed:\n{log.read_text()[-2000:]}")
    return {"seconds": seconds, "peak_rss_bytes": usage.ru_maxrss * 1024}


def contenders(source: Path, folder: Path, optimum: str | None) -> dict[str, list[str]]:
    """List what is measured, each with its command."""
    export = [sys.executable, "-m", "vconv", "export", SYSTEM, "--weights", str(source), "--json", "--out"]
    (folder / "torch").mkdir()
    found = {
        GRAPHS: [*export, str(folder / "graphs"), "--golden", "none"],
        WHOLE: [*export, str(folder / "whole")],
        TORCH: [sys.executable, "-c", COMMON, str(source), str(folder / "torch" / "model.onnx")],
    }
    if optimum:
        task = ["--task", "feature-extraction", "--no-post-process"]
        found[OPTIMUM] = [optimum, "export", "onnx", "--model", str(source), *task, str(folder / "optimum")]
    return found


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="a JSON file to record the result in")
    parser.add_argument("--optimum", help="optimum-cli of a virtual environment that has it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source"
        source.mkdir()
        # In a separate process: the kernel counts a parent's peak into its children's.
        subprocess.run([sys.executable, "-c", DRAW, SYSTEM, str(source)], check=True)
        weights = (source / WEIGHTS_FILE).stat().st_size
        with (source / WEIGHTS_FILE).open("rb") as file:
            while file.read(2**20):
                pass
        rows = {}
        for kind, command in contenders(source, Path(name), options.optimum).items():
            rows[kind] = measure(command, Path(name) / "log")
            peak = rows[kind]["peak_rss_bytes"] / 1e9
            print(f"{kind:<20} {rows[kind]['seconds']:6.1f} s, peak {peak:5.2f} GB", flush=True)
    targets = {
        GRAPHS: {"seconds": 12.0, "peak_rss_bytes": 1.3e9},
        WHOLE: {"seconds": 60.0, "peak_rss_bytes": 1.5 * weights + 1.2e9},
    }
    missed = [
        f"{kind}: {key} {rows[kind][key]:.4g}, at most {bound:.4g}"
        for kind, bounds in targets.items()
        for key, bound in bounds.items()
        if rows[kind][key] > bound
    ]
    print(f"weights {weights / 1e9:.2f} GB; " + ("; ".join(missed) or "every target is met"))
    result = {"system": SYSTEM, "weights_bytes": weights, "rows": rows, "targets": targets}
    result["optimum"] = "measured" if options.optimum else "not measured: --optimum was not given"
    finish(result, passed=not missed, out=options.out)


if __name__ == "__main__":
    main()
