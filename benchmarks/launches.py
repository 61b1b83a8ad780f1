"""Count what one forward pass of full-sized systems launches: as its library has it, patched, and fused.

Weights are drawn at random: how often an operator runs does not depend on them. Beside the launches stand the
distances of the original and of the fused blocks to the original in float64.

Targets: the spelled-out GELU launches four more operators a block and nothing else changes. With fused
blocks, transformers' DINOv3-S launches at most half, and no output is further from float64 than 2e-6.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from exporters import SYSTEMS
from numpy.typing import NDArray
from record import finish, out_option

from vconv.catalog.systems import System, find
from vconv.convert.architectures.outputs import output_names
from vconv.convert.conversion import image_size
from vconv.convert.libraries import fused_blocks, models
from vconv.convert.patches import table
from vconv.convert.sources.base import Source
from vconv.convert.sources.table import Request, open_source
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.torch_model import TorchSession
from vconv.runtime.timing.launches import Launches
from vconv.validators.accuracy.metrics import vector_relative_error

GELU = 4
"""Operators that the spelled-out GELU runs more than the fused one, in each block."""

HALVED, MOST_ERROR = "dinov3-vits16", 2e-6
"""The system of which fused blocks launch at most half, and the greatest distance to float64."""

BY_WEIGHTS = ("qkv-bias",)
"""Patches that these weights do not allow. A layer without a bias is one operator too."""


def counted(
    source: Source, names: tuple[str, ...], fused: bool = False
) -> tuple[Launches, dict[str, NDArray[np.float32]]]:
    """Return what a forward pass launches, and its outputs."""
    net, size = source.network, image_size(source)
    model = models.load(source.folder, net)
    if fused:
        fused_blocks.fuse(model, net)
    patches = table.named(names)
    with TorchSession(model, net, find_device("cpu"), patches, source.folder, size) as session:
        images = images_of(size)
        found = session.launches(images)
        assert found is not None
        return found, session.run(images)


def images_of(size: tuple[int, int]) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((1, 3, *size), dtype=np.float32)


def in_float64(source: Source) -> dict[str, NDArray[np.float64]]:
    """Return the outputs of the original in float64."""
    net = source.network
    model = models.Outputs(models.load(source.folder, net).double(), net).eval()
    with torch.inference_mode():
        found = model(torch.from_numpy(images_of(image_size(source))).double())
    return {name: value.numpy() for name, value in zip(output_names(net), found, strict=True)}


def measured(system: System) -> dict[str, Any]:
    """Count and compare one system."""
    with tempfile.TemporaryDirectory() as folder:
        source = open_source(Request(system, "synthetic:0"), Path(folder))
        called_for = (patch.name for patch in table.called_for(source.network))
        patches = tuple(name for name in called_for if name not in BY_WEIGHTS)
        found = {
            "original": counted(source, ()),
            "patched": counted(source, patches),
            "fused": counted(source, (), fused=True),
        }
        exact = in_float64(source)
    rows: dict[str, Any] = {
        name: {"total": each.total, "operators": dict(each.operators)} for name, (each, _) in found.items()
    }
    for name in ("original", "fused"):
        outputs = found[name][1]
        rows[name]["error_to_float64"] = max(
            vector_relative_error(outputs[key].astype(np.float64), value) for key, value in exact.items()
        )
    return {"blocks": source.network.blocks, "patches": patches, "how": found["original"][0].how, **rows}


def main() -> None:
    """Measure, print, record."""
    out = out_option(__doc__)
    rows = {name: measured(find(name)) for name in SYSTEMS}
    for name, row in rows.items():
        totals = ", ".join(f"{kind} {row[kind]['total']:4}" for kind in ("original", "patched", "fused"))
        errors = " and ".join(f"{row[kind]['error_to_float64']:.1e}" for kind in ("original", "fused"))
        print(f"{name:38} {totals} {row['how']}; to float64 {errors}")
    spelled = all(
        row["patched"]["total"] == row["original"]["total"] + GELU * row["blocks"] for row in rows.values()
    )
    print(f"the spelled-out GELU launches {GELU} more a block and nothing else changes: {spelled}")
    halved = 2 * rows[HALVED]["fused"]["total"] <= rows[HALVED]["original"]["total"]
    near = all(row["fused"]["error_to_float64"] < MOST_ERROR for row in rows.values())
    print(f"fused blocks of {HALVED} launch at most half: {halved}; all are within {MOST_ERROR}: {near}")
    finish({"systems": rows}, passed=spelled and halved and near, out=out)


if __name__ == "__main__":
    main()
