"""Count what one forward pass of every full-sized system launches: as its library has it, and patched.

Weights are drawn at random: how often an operator runs does not depend on them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from record import finish, out_option

from vconv.catalog.systems import SYSTEMS, System
from vconv.convert.conversion import image_size
from vconv.convert.libraries import models
from vconv.convert.patches import table
from vconv.convert.sources.base import Source
from vconv.convert.sources.table import Request, open_source
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.torch_model import TorchSession
from vconv.runtime.timing.launches import Launches

GELU = 4
"""Operators that the spelled-out GELU runs more than the fused one, in each block."""

BY_WEIGHTS = ("qkv-bias",)
"""Patches that these weights do not allow. A layer without a bias is one operator too."""


def counted(source: Source, names: tuple[str, ...]) -> Launches:
    net, size = source.network, image_size(source)
    patches = table.named(names)
    model = models.load(source.folder, net)
    with TorchSession(model, net, find_device("cpu"), patches, source.folder, size) as session:
        images = np.random.default_rng(0).standard_normal((1, 3, *size), dtype=np.float32)
        found = session.launches(images)
    assert found is not None
    return found


def measured(system: System) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        source = open_source(Request(system, "synthetic:0"), Path(folder))
        called_for = (patch.name for patch in table.called_for(source.network))
        patches = tuple(name for name in called_for if name not in BY_WEIGHTS)
        found = {"original": counted(source, ()), "patched": counted(source, patches)}
    rows = {name: {"total": each.total, "operators": dict(each.operators)} for name, each in found.items()}
    return {"blocks": source.network.blocks, "patches": patches, "how": found["original"].how, **rows}


def main() -> None:
    out = out_option(__doc__)
    rows = {name: measured(system) for name, system in SYSTEMS.items()}
    for name, row in rows.items():
        totals = f"original {row['original']['total']:4}, patched {row['patched']['total']:4}"
        print(f"{name:34} {totals} {row['how']}")
    passed = all(
        row["patched"]["total"] == row["original"]["total"] + GELU * row["blocks"] for row in rows.values()
    )
    print(f"the spelled-out GELU launches {GELU} more a block and nothing else changes: {passed}")
    finish({"systems": rows}, passed=passed, out=out)


if __name__ == "__main__":
    main()
