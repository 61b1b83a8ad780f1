"""Show that a validation on a folder of images takes memory that does not grow with their number.

A miniature of a catalog system with synthetic weights, as the images' number is what matters, is validated
with --dataset on folders of 20 and of 2,000 made-up photographs, each in a separate process whose peak
resident memory the kernel tells. What the two peaks have in common, mostly libraries, would hide a small
growth: the growth for the 1,980 further images is given separately.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from record import finish, out_option

from vconv.catalog.systems import find, miniature
from vconv.convert.sources.table import Request, open_source
from vconv.runtime.inputs.images import natural_image

SYSTEM = "dinov3-vits16"
COUNTS = (20, 2000)
SIZE = (320, 240)
SOURCES = 20
"""Made-up images that all are cut from: shifted, each is another one."""
TARGET = 1.3


def make_images(folder: Path, count: int) -> None:
    """Write images that all differ."""
    folder.mkdir()
    sources = [np.asarray(natural_image(seed).resize(SIZE)) for seed in range(SOURCES)]
    for index in range(count):
        shift = (7 * (index // SOURCES) % SIZE[1], 11 * (index // SOURCES) % SIZE[0])
        pixels = np.roll(sources[index % SOURCES], shift, axis=(0, 1))
        Image.fromarray(pixels).save(folder / f"{index:05}.jpg", quality=90)


def vconv(*arguments: str | Path) -> tuple[bytes, int]:
    """Run vconv in a separate process; return what it printed, and its peak resident memory in bytes."""
    command = [sys.executable, "-m", "vconv", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} exited with {process.returncode}")
    return printed, usage.ru_maxrss * 1024


def main() -> None:
    """Export once, validate on both folders, compare."""
    out = out_option(__doc__)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        weights, artifact = place / "weights", place / "artifact"
        weights.mkdir()
        open_source(Request(miniature(find(SYSTEM)), "synthetic:0"), weights)
        vconv("export", SYSTEM, "--weights", weights, "--out", artifact)
        rows = []
        for count in COUNTS:
            make_images(place / str(count), count)
            start = time.perf_counter()
            validate = ("validate", artifact, "--weights", weights, "--quick", "--json")
            printed, peak = vconv(*validate, "--dataset", place / str(count))
            found = json.loads(printed)["dataset"]
            variants = [row["variant"] for row in found["variants"]]
            rows.append(
                {
                    "images": found["images"],
                    "variants": variants,
                    "peak_rss_bytes": peak,
                    "seconds": time.perf_counter() - start,
                    "dataset_seconds": found["seconds"],
                }
            )
            print(f"{found['images']:5} images: peak {peak / 1e6:.1f} MB, {rows[-1]['seconds']:.1f} s")
    few, many = rows
    ratio = many["peak_rss_bytes"] / few["peak_rss_bytes"]
    added = many["peak_rss_bytes"] - few["peak_rss_bytes"]
    print(f"ratio {ratio:.3f}, target at most {TARGET}; {added / 1e6:.1f} MB more")
    result = {"system": f"miniature of {SYSTEM}", "synthetic": True, "image_size": SIZE, "runs": rows}
    result |= {"ratio": ratio, "added_bytes": added, "target": TARGET}
    finish(result, passed=ratio <= TARGET, out=out)


if __name__ == "__main__":
    main()
