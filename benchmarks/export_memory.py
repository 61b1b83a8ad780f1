"""Show that exporting graphs costs memory that does not grow with the weights.

vit-base and the same architecture at three times the depth, each from a synthetic checkpoint on disk, each
exported with --golden none in a separate process. What grows with the depth is the graph, by nodes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from record import finish, out_option

from vconv.catalog.systems import find
from vconv.convert.sources.table import Request, open_source
from vconv.types import WEIGHTS_FILE

SYSTEM = "vit-base-patch16-224-in21k"
DEPTHS = (12, 36)
TARGET = 0.1


def measure(depth: int) -> dict[str, float]:
    """Export at one depth; return bytes of weights and of peak memory."""
    system = find(SYSTEM)
    system = replace(system, config={**system.config, "num_hidden_layers": depth})
    with tempfile.TemporaryDirectory() as name:
        weights, artifact = Path(name) / "weights", Path(name) / "artifact"
        weights.mkdir()
        open_source(Request(system, "synthetic"), weights)
        command = [sys.executable, "-m", "vconv", "export", SYSTEM, "--golden", "none", "--json"]
        command += ["--weights", str(weights), "--out", str(artifact)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        document = json.loads(done.stdout)
        return {
            "weights_bytes": (artifact / WEIGHTS_FILE).stat().st_size,
            "peak_rss_bytes": document["peak_rss_bytes"],
            "seconds": document["seconds"],
        }


def main() -> None:
    out = out_option(__doc__)
    found = {depth: measure(depth) for depth in DEPTHS}
    for depth, row in found.items():
        weights, peak = row["weights_bytes"] / 1e6, row["peak_rss_bytes"] / 1e6
        print(f"depth {depth:2}: weights {weights:7.1f} MB, peak {peak:7.1f} MB, {row['seconds']:.1f} s")
    low, high = (found[depth] for depth in DEPTHS)
    grown = {key: high[key] - low[key] for key in ("weights_bytes", "peak_rss_bytes")}
    share = grown["peak_rss_bytes"] / grown["weights_bytes"]
    megabytes = {key: value / 1e6 for key, value in grown.items()}
    print("grown by, in MB: {weights_bytes:.1f} of weights, {peak_rss_bytes:.1f} of peak".format(**megabytes))
    print(f"share {share:.3f}, target at most {TARGET}")
    finish({"by_depth": found, "share": share, "target": TARGET}, passed=share <= TARGET, out=out)


if __name__ == "__main__":
    main()
