"""Hold one graph for batch, height and width against the original, at nine sizes, in two engines.

One system of each structure in the catalog, in its true width and the depth of its miniature. With --out,
each system's figures are recorded as soon as they are known; a run that was interrupted goes on from there.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from encoders.shallow import shallow
from record import finish, out_option

from vconv.artifact.artifact import Artifact
from vconv.artifact.records import AxisRecord
from vconv.catalog import systems
from vconv.catalog.systems import System
from vconv.convert.sources.sizes import DYNAMIC
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.variants import open_variant
from vconv.types import Array
from vconv.validators.accuracy import golden
from vconv.workflows import export, originals

GRIDS = ((2, 2), (3, 11), (7, 5), (14, 14), (16, 16), (25, 9), (19, 30), (37, 37), (41, 46))
"""Rows and columns of patches: the least, the authors' own, and greater ones than in any training."""
BATCHES = (1, 3)
ENGINES = ("onnxruntime", "openvino")
GREATEST = 1e-5
"""The greatest vector relative error of any output."""


def error(actual: Array, expected: Array) -> float:
    difference = actual.astype(np.float64) - expected
    return float(np.linalg.norm(difference) / np.linalg.norm(expected.astype(np.float64)))


def inside(rows: int, columns: int, sides: tuple[AxisRecord, AxisRecord]) -> tuple[int, int]:
    return rows * sides[0].multiple, columns * sides[1].multiple


def measured(system: System, folder: Path) -> dict[str, Any]:
    """Export a system, and return the worst error of any output, by engine and size."""
    export.export(system, "synthetic:0", folder / "artifact", size=DYNAMIC, golden=False)
    artifact = Artifact.open(folder / "artifact")
    (folder / "original").mkdir()
    source, missing = originals.live_source(artifact, None, "huggingface", True, folder / "original", print)
    assert source is not None, missing
    sides, record, cpu = artifact.manifest.sides, artifact.variant("onnx-fp32"), find_device("cpu")
    assert sides is not None and record.graph is not None
    shapes = [
        (BATCHES[place % 2], 3, *inside(rows, columns, sides)) for place, (rows, columns) in enumerate(GRIDS)
    ]
    images = [
        np.random.default_rng(place).standard_normal(shape, dtype=np.float32)
        for place, shape in enumerate(shapes)
    ]
    with golden.running(source) as reference:
        expected = [reference(one) for one in images]
    found: dict[str, dict[str, float]] = {}
    for engine in ENGINES:
        with open_variant(artifact, record, cpu, engine) as session:
            found[engine] = {
                f"{shape[0]}x{shape[2]}x{shape[3]}": max(error(actual[name], wanted[name]) for name in wanted)
                for shape, one, wanted in zip(shapes, images, expected, strict=True)
                for actual in (session(one),)
            }
    return {"errors": found, "operators": record.graph.operators}


def main() -> None:
    out = out_option(__doc__)
    recorded = json.loads(out.read_text())["systems"] if out and out.exists() else {}
    for name, system in systems.structures().items():
        if name not in recorded:
            with tempfile.TemporaryDirectory() as folder:
                recorded[name] = measured(shallow(system), Path(folder))
            if out:
                out.write_text(json.dumps({"systems": recorded}, indent=2) + "\n")
        worst = {engine: max(errors.values()) for engine, errors in recorded[name]["errors"].items()}
        print(f"{name:45}", *(f"{engine} {value:.1e}" for engine, value in worst.items()), flush=True)
    errors = [
        value for one in recorded.values() for sizes in one["errors"].values() for value in sizes.values()
    ]
    print(f"{len(recorded)} systems at {len(GRIDS)} sizes: at most {max(errors):.1e}, target {GREATEST:.0e}")
    finish({"systems": recorded}, max(errors) <= GREATEST, out)


if __name__ == "__main__":
    main()
