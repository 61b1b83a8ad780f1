"""What an export costs from the smallest DINOv3 to the one of 7 billion parameters, in bfloat16.

Every size gets synthetic weights in bfloat16, in shards, drawn and written as a stream. Then, each in a
separate process:

- ``graphs``: the checkpoint (``--keep-dtype``) and two graphs, ``--golden none``.
- ``reference``: the reference in float32 and in float64, on one image.
- ``onnxruntime``: the dynamic graph on the same image, and its vector relative error to that reference.

Seconds are those of the whole process. Memory is the peak of its resident memory, and of the anonymous part
of it, which leaves out the pages of mapped files, sampled every 50 ms.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from record import finish

from vconv.catalog import systems
from vconv.convert.files import safetensors_file
from vconv.convert.files.safetensors_file import PlannedTensor
from vconv.convert.files.shards import SAFETENSORS_INDEX
from vconv.convert.libraries.readers import network
from vconv.convert.sources.base import write_configurations
from vconv.convert.sources.recipes.table import LATEST, RECIPES
from vconv.types import WEIGHTS_FILE

SYSTEMS = ("dinov3-vits16", "dinov3-vitb16", "dinov3-vitl16", "dinov3-vith16plus", "dinov3-vit7b16")
SHARD_BYTES = 4 * 10**9
GRAPHS_RSS, ANONYMOUS = 2.0e9, 4.0e9
"""Targets in bytes: the peak of an export of graphs, and the anonymous memory of the two others."""
ERROR = 1e-5
INTERVAL = 0.05

REFERENCE = """
import json, sys, tempfile, time
from pathlib import Path
import numpy as np
from vconv.catalog.systems import find
from vconv.convert.sources.table import Request, open_source
from vconv.validators.accuracy.golden import run_reference

name, weights, images, target = sys.argv[1:]
with tempfile.TemporaryDirectory() as scratch:
    source = open_source(Request(find(name), weights), Path(scratch))
    start = time.perf_counter()
    reference = run_reference(source, np.load(images))
    seconds = time.perf_counter() - start
np.savez(target, **reference.outputs)
print(json.dumps({"running_s": seconds, "floor": dict(reference.floor)}))
"""

GRAPH = """
import json, sys, time
import numpy as np
import vconv

artifact, images, expected = sys.argv[1:]
start = time.perf_counter()
with vconv.load(artifact, variant="onnx-fp32", engine="onnxruntime") as session:
    opened = time.perf_counter()
    found = session(np.load(images))
    seconds = time.perf_counter() - opened
wanted = np.load(expected)
errors = {
    name: float(np.linalg.norm(found[name] - wanted[name]) / np.linalg.norm(wanted[name])) for name in found
}
print(json.dumps({"opening_s": opened - start, "running_s": seconds, "errors": errors}))
"""


def narrowed(tensor: PlannedTensor) -> Iterator[bytes]:
    """Yield the bytes of a float32 tensor in bfloat16, rounded half to even."""
    for chunk in tensor.chunks():
        bits = np.frombuffer(chunk, "<u4").astype(np.uint64)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        yield rounded.astype("<u2").tobytes()


def draw(name: str, folder: Path) -> int:
    """Write synthetic weights in bfloat16, in shards; return their number of bytes."""
    system = systems.find(name)
    shards: list[list[PlannedTensor]] = [[]]
    for tensor in RECIPES[LATEST].planned(network(system.config), 0):
        if sum(one.nbytes for one in shards[-1]) + tensor.nbytes // 2 > SHARD_BYTES:
            shards.append([])
        narrow = PlannedTensor(tensor.name, "BF16", tensor.shape, lambda tensor=tensor: narrowed(tensor))
        shards[-1].append(narrow)
    names = {place: f"model-{place:05}.safetensors" for place in range(len(shards))}
    for place, held in enumerate(shards):
        safetensors_file.write(folder / names[place], held)
    weight_map = {tensor.name: names[place] for place, held in enumerate(shards) for tensor in held}
    (folder / SAFETENSORS_INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    write_configurations(folder, system.config, system.preprocessor)
    return sum(tensor.nbytes for held in shards for tensor in held)


def measure(command: Sequence[str]) -> dict[str, Any]:
    """Run a command that prints JSON; return that, its seconds, and its peaks of memory in bytes."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peaks = {"VmRSS": 0, "RssAnon": 0}

    def sample() -> None:
        while process.poll() is None:
            try:
                lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            except OSError:
                break
            for line in lines:
                key, _, value = line.partition(":")
                if key in peaks:
                    peaks[key] = max(peaks[key], int(value.split()[0]) * 1024)
            time.sleep(INTERVAL)

    watcher = threading.Thread(target=sample)
    watcher.start()
    out, errors = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:4])} ... failed:\n{errors[-2000:]}")
    seconds = time.perf_counter() - start
    memory = {"peak_rss_bytes": peaks["VmRSS"], "peak_anonymous_bytes": peaks["RssAnon"]}
    return {"seconds": seconds, **memory, "printed": json.loads(out)}


def row(name: str, folder: Path) -> dict[str, Any]:
    """Measure one system."""
    weights, artifact = folder / "weights", folder / "artifact"
    weights.mkdir()
    start = time.perf_counter()
    nbytes = draw(name, weights)
    drawn = time.perf_counter() - start
    height, width = systems.find(name).input
    np.save(
        folder / "images.npy", np.random.default_rng(0).standard_normal((1, 3, height, width), np.float32)
    )
    images, expected = str(folder / "images.npy"), str(folder / "expected.npz")
    export = [sys.executable, "-m", "vconv", "export", name, "--weights", str(weights), "--keep-dtype"]
    graphs = measure([*export, "--golden", "none", "--json", "--out", str(artifact)])
    written = (artifact / WEIGHTS_FILE).stat().st_size
    del graphs["printed"]
    reference = measure([sys.executable, "-c", REFERENCE, name, str(weights), images, expected])
    engine = measure([sys.executable, "-c", GRAPH, str(artifact), images, expected])
    return {
        "source_bytes": nbytes,
        "artifact_bytes": written,
        "drawing_s": drawn,
        "graphs": graphs,
        "reference": reference,
        "onnxruntime": engine,
    }


def missed(name: str, found: dict[str, Any]) -> list[str]:
    """List the targets that one system misses."""
    worst = max(found["onnxruntime"]["printed"]["errors"].values())
    bounds = {
        "graphs, resident memory": (found["graphs"]["peak_rss_bytes"], GRAPHS_RSS),
        "reference, anonymous memory": (found["reference"]["peak_anonymous_bytes"], ANONYMOUS),
        "onnxruntime, anonymous memory": (found["onnxruntime"]["peak_anonymous_bytes"], ANONYMOUS),
        "onnxruntime, error": (worst, ERROR),
    }
    return [f"{name}: {what} {value:.3g}" for what, (value, bound) in bounds.items() if value > bound]


KINDS = {
    "graphs": ("checkpoint and graphs", "peak_rss_bytes"),
    "reference": ("reference in fp32 and fp64", "peak_anonymous_bytes"),
    "onnxruntime": ("graph in ONNX Runtime", "peak_anonymous_bytes"),
}
"""By measured process: its name in the plot, and the peak that has a target: resident or anonymous memory."""


def draw_plot(systems: Mapping[str, dict[str, Any]], picture: Path) -> None:
    """Draw memory and time of each process over the size of the weights."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    memory, time_ = figure.subplots(1, 2)
    sizes = [found["source_bytes"] / 1e9 for found in systems.values()]
    for kind, (label, peak) in KINDS.items():
        costs = [found[kind] for found in systems.values()]
        kept = "resident" if peak == "peak_rss_bytes" else "anonymous"
        memory.plot(sizes, [cost[peak] / 1e9 for cost in costs], "o-", label=f"{label} ({kept})")
        time_.plot(sizes, [cost["seconds"] for cost in costs], "o-", label=label)
    memory.plot(sizes, sizes, ":", color="grey", label="the weights themselves")
    for axes, what in ((memory, "peak memory, GB"), (time_, "seconds")):
        axes.set(xscale="log", yscale="log", xlabel="weights in bfloat16, GB", ylabel=what)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    for name, size in zip(systems, sizes, strict=True):
        place = (size, memory.get_ylim()[0] * 1.15)
        memory.annotate(
            name.removeprefix("dinov3-"), place, rotation=90, fontsize="small", ha="center", va="bottom"
        )
    figure.savefig(picture, dpi=110)


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="a JSON file to record the result in")
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, help="the systems to measure")
    parser.add_argument("--scratch", type=Path, help="a folder with 30 GB of free space for 7B")
    parser.add_argument("--picture", type=Path, help="draw the plot of what --out has, instead of measuring")
    options = parser.parse_args()
    if options.picture:
        draw_plot(json.loads(options.out.read_text())["systems"], options.picture)
        return
    rows, failures = {}, []
    for name in options.systems:
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            rows[name] = found = row(name, Path(folder))
        failures += missed(name, found)
        costs = {kind: found[kind] for kind in ("graphs", "reference", "onnxruntime")}
        print(
            f"{name:<18} {found['source_bytes'] / 1e9:6.2f} GB drawn in {found['drawing_s']:.0f} s; "
            + "; ".join(
                f"{kind} {cost['seconds']:.1f} s, {cost['peak_rss_bytes'] / 1e9:.2f} GB "
                f"({cost['peak_anonymous_bytes'] / 1e9:.2f} anonymous)"
                for kind, cost in costs.items()
            )
            + f"; error {max(found['onnxruntime']['printed']['errors'].values()):.1e}",
            flush=True,
        )
    print("; ".join(failures) or "every target is met")
    finish({"recipe": LATEST, "systems": rows}, passed=not failures, out=options.out)


if __name__ == "__main__":
    main()
