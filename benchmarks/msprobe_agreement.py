"""Whether Huawei's msprobe, on files that `vconv msprobe` wrote, computes the table that vconv wrote.

No NPU and no CANN are needed: the target side is simulated, and in the layout that msprobe reads in Python.

--python names a Python that has mindstudio-probe and onnxruntime; without it, both are installed into a
temporary environment. Three artifacts with synthetic weights; one of them also with the GELU of
torch.onnx.export, a division by sqrt(2), which the simulated fusion passes replace. Every cell of the tables
is compared. Then golden tensors with those of `msprobe offline_dump`; a table with one disturbed operator; a
graph with difficult names; and the whole of `msprobe compare -m offline_model`, for which atc and ais_bench
are STAND-INS: they hand over the mapping and the dumps that vconv wrote.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from msprobe_parts.offline_model import run_offline_model
from msprobe_parts.tool import MsProbe, installed, lines
from onnx import numpy_helper
from record import finish

import vconv
from vconv.artifact.artifact import Artifact
from vconv.runtime.devices.base import Settings
from vconv.runtime.devices.table import find_device
from vconv.types import Array
from vconv.validators.faults.workshop import ArtifactCopy
from vconv.validators.msprobe import dump, mapping, table
from vconv.validators.msprobe.dump import Subject

ROOT = Path(__file__).parents[1]
WITH_FUSIONS = "dinov3-vits16"
SYSTEMS = {WITH_FUSIONS: None, "dinov2-small": "224,224", "timm/vit_tiny_patch16_224": None}
"""System -> the size of its images, if not that of its image processor."""
GREATEST_RELATIVE, LEAST_SHOWN = 2e-5, 1.5e-6
"""How far a figure may be from msprobe's: relatively, for sums in float32; or by one in the last digit."""


def output_nodes(model: onnx.ModelProto) -> list[str]:
    wanted = {value.name for value in model.graph.output}
    return [node.name for node in model.graph.node if wanted & set(node.output)]


def agreement(ours: list[list[str]], theirs: list[list[str]]) -> dict[str, Any]:
    """Compare two tables cell by cell; figures that differ are listed by column.

    ``greatest_relative`` is of those that differ by more than one in the last digit.
    """
    columns: dict[str, Any] = {}
    wrong = [] if ours[0] == theirs[0] and len(ours) == len(theirs) else ["headers or numbers of rows differ"]
    for mine, other in zip(ours[1:], theirs[1:], strict=False):
        for name, cell, there in zip(ours[0], mine, other, strict=False):
            if cell == there or name == "CompareFailReason":  # msprobe's words have paths
                continue
            try:
                apart = abs(float(cell) - float(there))
            except ValueError:
                wrong.append(f"{name} of {mine[2]}: {cell}, msprobe {there}")
                continue
            relative = apart / abs(float(there)) if float(there) else 0.0
            found = columns.setdefault(name, {"cells": 0, "greatest": 0.0, "greatest_relative": 0.0})
            found["cells"] += 1
            found["greatest"] = max(found["greatest"], apart)
            if apart > LEAST_SHOWN:  # by more than one in the last digit
                found["greatest_relative"] = max(found["greatest_relative"], relative)
                if not relative <= GREATEST_RELATIVE:
                    wrong.append(f"{name} of {mine[2]}: {cell}, msprobe {there}")
    return {"rows": len(ours) - 1, "cells": sum(map(len, ours[1:])), "differing": columns, "wrong": wrong}


def with_stock_gelus(artifact: Path, copy: Path) -> Path:
    """Copy an artifact, and divide by sqrt(2) in its graph where it multiplies: the pass fires then."""
    shop = ArtifactCopy.open(Artifact.open(artifact), copy)
    model = shop.graph("model.npu.onnx")
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    erfs = {node.input[0] for node in model.graph.node if node.op_type == "Erf"}
    for node in model.graph.node:
        if node.output[0] in erfs:
            node.op_type = "Div"
            root = numpy_helper.from_array(np.array(2**0.5, np.float32), node.input[1])
            weights[node.input[1]].CopyFrom(root)
    shop.save_graph("model.npu.onnx", model)
    shop.rehash()
    return shop.folder


def measured(probe: MsProbe, artifact: Path, folder: Path, **options: str) -> dict[str, Any]:
    document = vconv.msprobe(artifact, out=folder, device="npu-sim", force=True, **options)  # type: ignore[arg-type]
    model = onnx.load(artifact / document["graph"], load_external_data=False)
    found = agreement(lines(folder / document["result"]), probe.table(folder, output_nodes(model)))
    fused = len(document["fused"])
    return {**found, "fused": fused, "nodes": document["nodes"], "departs": document["departs"]}


def golden_beside_offline_dump(probe: MsProbe, graph: Path, folder: Path) -> dict[str, Any]:
    """Compare our golden tensors with those of `msprobe offline_dump`, which runs its own ONNX Runtime."""
    results = probe.folder()
    shape = "pixel_values:" + ",".join(map(str, np.load(folder / "input" / "input_0.npy").shape))
    words = ["--input_data", f"{folder}/input/input_0.bin", "--input_shape", shape]
    words += ["--onnx_fusion_switch", "False", "-o", str(results)]
    probe.run(["msprobe", "offline_dump", "--model_path", str(graph), *words])
    theirs = {_key(path): path for path in results.glob("*/dump_data/onnx/*.npy")}
    ours = {_key(path): path for path in (folder / "golden").glob("*.npy")}
    greatest, same = 0.0, 0
    for key in ours.keys() & theirs.keys():
        mine, other = np.load(ours[key]), np.load(theirs[key])
        same += mine.dtype == other.dtype and np.array_equal(mine, other)
        scale = float(np.linalg.norm(other)) or 1.0
        greatest = max(greatest, float(np.linalg.norm(mine - other)) / scale)
    missing = sorted(ours.keys() ^ {key for key in theirs if not key.startswith("input_")})
    return {
        "tensors": len(ours),
        "bit_equal": int(same),
        "greatest_relative_l2": greatest,
        "missing": missing,
    }


def _key(path: Path) -> str:
    return path.name.rsplit(".", 2)[0]


def by_offline_model(probe: MsProbe, artifact: Path, folder: Path) -> dict[str, Any]:
    """Compare our table with that of the mode offline_model, whose target side is that of the folder."""
    path = run_offline_model(probe, artifact / "model.npu.onnx", folder)
    # Its mapping has one operator more, the outputs of the model, of which there is no dump.
    theirs = [line for line in lines(path) if line[1] != "NetOutput"]
    ours = lines(next(folder.glob("result_*.csv")))
    pairs = vconv.msprobe(artifact, out=f"{folder}-beside", device="npu-sim", beside=path)["beside"]
    found = sorted({pair["found"] for pair in pairs})
    return {"standins": ["atc", "ais_bench"], **agreement(ours, theirs), "beside": [len(pairs), *found]}


def with_one_disturbed(probe: MsProbe, artifact: Path, folder: Path) -> dict[str, Any]:
    """Let one operator of the target be wrong, and see which ones each table calls a precision error."""
    real, name = dump.every_value, "node_linear_20"

    def disturbed(model: Any, *rest: Any) -> Iterator[tuple[Any, dict[str, Array]]]:
        for node, values in real(model, *rest):
            wrong = rest[1].simulated and node.name == name
            yield node, {one: value[..., ::-1].copy() if wrong else value for one, value in values.items()}

    dump.every_value = disturbed  # type: ignore[assignment]
    try:
        found = measured(probe, artifact, folder)
    finally:
        dump.every_value = real
    return {**found, "disturbed": name, "named": found["departs"] == [name]}


def with_difficult_names(probe: MsProbe, folder: Path) -> dict[str, Any]:
    """The graph of the tests with names that msprobe would refuse or confuse, an int64 and a fused GELU."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from difficult_names import IMAGES, graph

    subject = Subject(graph(), Path(), {"images": IMAGES}, 1796036488926994)
    for name in ("golden", "target"):
        (folder / name).mkdir(parents=True)
    golden = dump.write_golden(subject, find_device("cpu"), folder / "golden")
    place = find_device("npu-sim", Settings(profile="310p", fusions="on"))
    assert place.simulates is not None
    found = dump.write_target(subject, place.simulates, place, golden, folder / "target")
    (folder / "operators.json").write_text(json.dumps(mapping.document(["images"], found.operators)))
    table.write(folder / "result.csv", ["images"], found.rows)
    nodes = [
        name.node
        for name, node in zip(subject.nodes, subject.model.graph.node, strict=True)
        if {*node.output} & {value.name for value in subject.model.graph.output}
    ]
    return agreement(lines(folder / "result.csv"), probe.table(folder, nodes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="a JSON file to record the result in")
    parser.add_argument("--python", type=Path, help="a Python with mindstudio-probe and onnxruntime")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="msprobe-") as made:
        scratch = Path(made)
        probe = MsProbe((options.python or installed(scratch)).absolute(), scratch)
        result: dict[str, Any] = {"msprobe, onnxruntime": probe.version(), "tables": {}}
        for name, size in SYSTEMS.items():
            artifact, folder = scratch / name.replace("/", "-"), scratch / "dumps"
            vconv.export(name, "synthetic:0", artifact, size=size)
            for fusions in ("off", "on"):
                result["tables"][f"{name}, fusions {fusions}"] = measured(
                    probe, artifact, folder, fusions=fusions
                )
                told(f"{name}, fusions {fusions}", result["tables"][f"{name}, fusions {fusions}"])
            if name == WITH_FUSIONS:
                stock = with_stock_gelus(artifact, scratch / "stock")
                for profile in ("910b", "310p"):
                    case = f"{name} with the GELU of torch.onnx.export, {profile}, fusions on"
                    result["tables"][case] = measured(probe, stock, folder, fusions="on", profile=profile)
                    told(case, result["tables"][case])
                result["disturbed"] = with_one_disturbed(probe, artifact, folder)
                told("one disturbed", result["disturbed"])
                result["offline_model with stand-ins"] = by_offline_model(probe, artifact, folder)
                told("offline_model with stand-ins", result["offline_model with stand-ins"])
                result["golden"] = golden_beside_offline_dump(probe, artifact / "model.npu.onnx", folder)
                print(f"golden beside offline_dump: {result['golden']}", flush=True)
                shutil.rmtree(f"{folder}-beside")
            shutil.rmtree(artifact)
        result["difficult names"] = with_difficult_names(probe, scratch / "names")
        told("difficult names", result["difficult names"])
    single = [result[name] for name in ("disturbed", "offline_model with stand-ins", "difficult names")]
    right = not any(one["wrong"] for one in (*result["tables"].values(), *single))
    golden = result["golden"]
    fires = all(one["fused"] for name, one in result["tables"].items() if "GELU" in name)
    same = golden["greatest_relative_l2"] < 1e-5 and not golden["missing"]
    finish(result, right and fires and same and result["disturbed"]["named"], options.out)


def told(case: str, found: dict[str, Any]) -> None:
    cells = sum(one["cells"] for one in found["differing"].values())
    wrong = "; ".join(found["wrong"][:3]) or "no cell wrong"
    print(
        f"{case}: {found['rows']} rows, {found['cells']} cells, {cells} in other digits, {wrong}", flush=True
    )
    for name, one in found["differing"].items():
        apart, relative = one["greatest"], one["greatest_relative"]
        print(f"  {name}: {one['cells']}, at most {apart:.2e}, relatively {relative:.1e}")


if __name__ == "__main__":
    main()
