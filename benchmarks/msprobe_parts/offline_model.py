"""The mode offline_model of msprobe with stand-ins for atc and ais_bench. No offline model is run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from msprobe_parts.tool import MsProbe

STANDIN_ATC = """#!{python}
# A STAND-IN for atc: it copies a mapping that vconv wrote.
import pathlib, shutil, sys
for word in sys.argv:
    if word.startswith("--json="):
        pathlib.Path(word[7:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("{mapping}", word[7:])
"""
STANDIN_AIS_BENCH = """# A STAND-IN for ais_bench: it copies dumps that vconv wrote.
import pathlib, shutil, sys
import numpy as np
out = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
place = out / "20261130110000" / "0" / "model" / "1" / "0"
place.mkdir(parents=True, mode=0o750)
for path in pathlib.Path("{folder}", "target").iterdir():
    shutil.copy(path, place)
results = out / "2026_11_30-11_00_00"
results.mkdir(mode=0o750)
for number, path in enumerate({outputs}):
    np.load(path).tofile(results / f"model_{{number}}.bin")
"""


def run_offline_model(probe: MsProbe, graph: Path, folder: Path) -> Path:
    """Run `msprobe compare -m offline_model` with stand-ins, on the target side of a folder.

    Returns:
        The table that msprobe wrote.
    """
    place, results = probe.folder(), probe.folder()
    model = onnx.load(graph, load_external_data=False)
    makers = {name: node.name for node in model.graph.node for name in node.output}
    outputs = [next((folder / "golden").glob(f"{makers[one.name]}.0.*")) for one in model.graph.output]
    _write_mapping(folder, place / "om.json", model, [np.load(path).shape for path in outputs])
    atc = place / "cann" / "compiler" / "bin" / "atc"
    atc.parent.mkdir(parents=True, mode=0o750)
    atc.write_text(STANDIN_ATC.format(python=sys.executable, mapping=place / "om.json"))
    atc.chmod(0o750)
    bench = place / "modules" / "ais_bench"
    bench.mkdir(parents=True)
    (bench / "__init__.py").touch()
    code = STANDIN_AIS_BENCH.format(folder=folder, outputs=list(map(str, outputs)))
    (bench / "__main__.py").write_text(code)
    (place / "model.om").write_bytes(b"a stand-in for an offline model")
    shape = ",".join(map(str, np.load(folder / "input" / "input_0.npy").shape))
    words = ["-tp", f"{place}/model.om", "-gp", str(graph), "--input_shape", f"pixel_values:{shape}"]
    words += ["--input_data", f"{folder}/input/input_0.bin", "-ofs", "False", "-o", str(results)]
    variables = {"PYTHONPATH": str(place / "modules"), "ASCEND_TOOLKIT_HOME": str(place / "cann")}
    probe.run(["msprobe", "compare", "-m", "offline_model", *words], **variables)
    return next(results.glob("*/result_*.csv"))


def _write_mapping(folder: Path, path: Path, model: onnx.ModelProto, shapes: list[Any]) -> None:
    """Add to a mapping what `offline_model` reads besides: descriptions of the input and the outputs."""
    found = json.loads((folder / "operators.json").read_text())
    operators = found["graph"][0]["op"]
    image = list(np.load(folder / "input" / "input_0.npy").shape)
    operators[0] |= {
        "attr": [],
        "input_desc": [{"dtype": "DT_FLOAT", "shape": {"dim": image}, "layout": "NCHW"}],
    }
    makers = {name: (node.name, i) for node in model.graph.node for i, name in enumerate(node.output)}
    names = [(value.name, *makers[value.name]) for value in model.graph.output]
    described = [{"dtype": "DT_FLOAT", "shape": {"dim": list(shape)}} for shape in shapes]
    last = {"name": "NetOutput", "type": "NetOutput", "id": len(operators), "attr": []}
    operators.append(last | {"input": [f"{node}:{i}" for _, node, i in names], "input_desc": described})
    given = {"list": {"s": [f"{node}:{i}:{name}" for name, node, i in names]}}
    command = f"atc --input_shape=pixel_values:{','.join(map(str, image))}"
    found["attr"] = [
        {"key": "atc_cmdline", "value": {"s": command}},
        {"key": "attr_model_out_nodes_name", "value": given},
    ]
    path.write_text(json.dumps(found))
