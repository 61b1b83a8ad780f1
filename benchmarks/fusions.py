"""Which GELUs CANN's published fusion passes replace by the tanh form, in the graphs of several exporters.

dinov3-vits16 in full size, and one system of each other structure of the catalog in true width and the depth
of its miniature. The graphs are those of vconv, of torch.onnx.export at opset 18, and of
transformers.exporters. With --old, the graphs of an artifact that vconv 0.1.0 made are counted too.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from encoders import UNSUPPORTED
from encoders.exporters import WEIGHTS, Case
from encoders.shallow import shallow
from record import finish

import vconv
from vconv.catalog import systems
from vconv.convert.ascend import operators as cann
from vconv.convert.ascend.fusions.table import harmful
from vconv.convert.sources.table import Request, open_source

FULL = "dinov3-vits16"
OPSET = 18


def read(model: ir.Model) -> dict[str, Any]:
    """Count the GELUs of a graph and those that a pass replaces, and say what CANN does not list of it."""
    kinds = [node.op_type for node in model.graph.all_nodes()]
    replaced = {name: len(matches) for name, matches in harmful(model).items()}
    opset = model.opset_imports.get("", 0)
    unlisted = sorted(set(kinds) - cann.SUPPORTED)
    return {
        "gelus": kinds.count("Erf") + kinds.count("Gelu"),
        "replaced": replaced,
        "opset": opset,
        "refused": [*([f"opset {opset}"] if opset > cann.GREATEST_OPSET else []), *unlisted],
    }


def by_vconv(case: Case) -> dict[str, Any]:
    made = case.scratch / "artifact"
    vconv.export(case.system, WEIGHTS, made, golden=False)
    return {name: read(ir.load(made / name)) for name in ("model.onnx", "model.npu.onnx")}


def by_torch(case: Case) -> dict[str, Any]:
    images = torch.from_numpy(case.images)
    program = torch.onnx.export(case.stock(), (images,), dynamo=True, opset_version=OPSET, verbose=False)
    assert program is not None
    return read(program.model)


def by_transformers(case: Case) -> dict[str, Any]:
    from transformers.exporters import OnnxConfig, OnnxExporter

    given = {"pixel_values": torch.from_numpy(case.images)}
    exported = OnnxExporter().export(case.stock(), given, config=OnnxConfig())
    exported.save_pretrained(str(case.scratch / "exported"))
    return read(ir.load(next((case.scratch / "exported").glob("*.onnx"))))


def measured(name: str) -> dict[str, Any]:
    system = systems.SYSTEMS[name] if name == FULL else shallow(systems.SYSTEMS[name])
    with tempfile.TemporaryDirectory() as folder:
        source, scratch = Path(folder, "source"), Path(folder, "scratch")
        source.mkdir()
        scratch.mkdir()
        case = Case(system, open_source(Request(system, WEIGHTS), source).folder, scratch, None)
        found = {"vconv": by_vconv(case), "torch.onnx": by_torch(case)}
        other = by_transformers(case) if system.library == "transformers" else UNSUPPORTED
        return {**found, "transformers.exporters": other}


def told(found: Any) -> str:
    if not isinstance(found, dict):
        return str(found)
    refused = f", refused: {', '.join(found['refused'])}" if found["refused"] else ""
    return f"{sum(found['replaced'].values())} of {found['gelus']}{refused}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="a JSON file to record the result in")
    parser.add_argument("--old", type=Path, help="an artifact of vconv 0.1.0")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for name in systems.structures():
        found[name] = measured(name)
        row = {**found[name]["vconv"], **{key: found[name][key] for key in list(found[name])[1:]}}
        print(name, "; ".join(f"{path}: {told(one)}" for path, one in row.items()), sep=": ", flush=True)
    old = None
    if options.old:
        old = {name: read(ir.load(options.old / name)) for name in ("model.onnx", "model.npu.onnx")}
        print("vconv 0.1.0", "; ".join(f"{path}: {told(one)}" for path, one in old.items()), sep=": ")
    ours = [graph for one in found.values() for graph in one["vconv"].values()]
    passed = all(not one["replaced"] and not one["refused"] for one in ours)
    passed &= sum(found[FULL]["torch.onnx"]["replaced"].values()) == found[FULL]["torch.onnx"]["gelus"] > 0
    finish({"systems": found, "0.1.0": old}, passed, options.out)


if __name__ == "__main__":
    main()
