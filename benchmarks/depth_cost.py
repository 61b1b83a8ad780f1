"""Time what error against depth costs a validation: the reference once, and each variant of dinov3-vits16."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from unittest.mock import Mock

from record import finish, out_option

from vconv.artifact.artifact import Artifact
from vconv.catalog.systems import SYSTEMS
from vconv.convert.sources.table import Request, open_source
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.variants import open_variant
from vconv.runtime.stages.torch_model import TorchStages
from vconv.validators.accuracy import golden
from vconv.validators.bisect.depth import Depths
from vconv.workflows import export
from vconv.workflows.bisected_variant import open_reference

SYSTEM, REPEATS, MOST = "dinov3-vits16", 3, 5.0
"""What is timed, how often, and the seconds that a variant may take."""


def main() -> None:
    out, cpu = out_option(__doc__), find_device("cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / SYSTEM
        export.export(SYSTEM, "synthetic:0", folder)
        artifact = Artifact.open(folder)
        made = artifact.manifest
        assert made.golden
        images = golden.load(folder / made.golden.path)[0]
        (Path(name) / "weights").mkdir()
        source = open_source(Request(SYSTEMS[SYSTEM], "synthetic:0"), Path(name) / "weights")
        start = time.perf_counter()
        _, session = open_reference(artifact, source)
        with session:
            depths = Depths.of(TorchStages(session, plain=False), images, artifact.network)
        rows = {"the reference": time.perf_counter() - start}
        for record in made.variants:
            with open_variant(artifact, record, cpu) as opened:
                taken = []
                for _ in range(REPEATS):
                    start = time.perf_counter()
                    assert depths.look(Mock(device=cpu), opened, {}).rows
                    taken.append(time.perf_counter() - start)
            rows[record.variant] = sorted(taken)[REPEATS // 2]
    for variant, seconds in rows.items():
        print(f"{variant:24} {seconds:6.2f} s")
    passed = max(rows.values()) < MOST
    print(f"each takes less than {MOST:.0f} s: {passed}")
    finish({"system": SYSTEM, "seconds": rows}, passed=passed, out=out)


if __name__ == "__main__":
    main()
