"""Exports one model with one exporter, in a process for this alone: ``python -m ... REQUEST.json``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from vconv.convert.exporters.base import Job
from vconv.convert.exporters.table import EXPORTERS
from vconv.convert.sources.names import find_system
from vconv.convert.sources.table import DEFAULT_HUB, Request, open_source
from vconv.errors import VconvError
from vconv.runtime.devices.memory import peak_of_tree

VCONV = "vconv"
"""The name of vconv's own exporter."""


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Export a model.

    Args:
        request: ``folder``, which the stock library loads; ``exporter``; ``target``, an empty folder;
            ``scratch``, another; ``environment``, a virtual environment or None; ``periods``, or None.

    Returns:
        ``graph``, the path; or ``reason``, why there is none; and ``seconds``, without the imports.
    """
    folder, target = request["folder"], Path(request["target"])
    start = time.perf_counter()
    try:
        if request["exporter"] == VCONV:
            graph = _by_vconv(folder, target, request["periods"])
        else:
            system, place = find_system(folder, DEFAULT_HUB, None)
            source = open_source(Request(system, place), Path(request["scratch"]))
            environment = request["environment"]
            job = Job(
                source.folder,
                source.network,
                source.image_size,
                target,
                Path(environment) if environment else None,
            )
            graph = EXPORTERS[request["exporter"]].export(job)
    except VconvError as error:
        return {"reason": f"{error.what}: {error.got}", "seconds": time.perf_counter() - start}
    except Exception as error:
        if request["exporter"] == VCONV:
            raise
        said = (str(error).strip().splitlines() or [""])[0]
        return {"reason": f"{type(error).__name__}: {said:.200}", "seconds": time.perf_counter() - start}
    return {"graph": str(graph), "seconds": time.perf_counter() - start}


def _by_vconv(folder: str, target: Path, periods: str | None) -> Path:
    from vconv.workflows.export import export

    made = export(folder, out=target / "artifact", periods=periods, golden=False)
    return Path(made["artifact"]) / "model.onnx"


if __name__ == "__main__":
    place = Path(sys.argv[1])
    found = main(json.loads(place.read_text()))
    found["peak_rss_bytes"] = peak_of_tree()
    place.with_suffix(".result").write_text(json.dumps(found))
