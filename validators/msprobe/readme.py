"""The README of a folder for msprobe: what is in it, and the commands that run Huawei's tool on it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE, SIMULATED_FILE = "README.txt", "SIMULATED.txt"
_SAFE = re.compile(r"[_A-Za-z0-9/.,-]*")
"""What paths may be made of for msprobe (``msaccucmp/cmp_utils/utils.py``, safe_path_string)."""


@dataclass(frozen=True)
class Facts:
    """What the commands depend on.

    Args:
        graph: the absolute path of the graph.
        folder: the absolute path of the folder for msprobe.
        model: that of the artifact's offline model, which may have to be made first; None if it has none.
        target: whether the folder has a target side.
    """

    graph: Path
    folder: Path
    model: Path | None
    target: bool


def commands(facts: Facts) -> dict[str, Sequence[str]]:
    """Return the commands, as words, by what they are for."""
    here, results = facts.folder, f"{facts.folder}-results"
    om = str(facts.model or "MODEL.om")
    golden = ("-gp", f"{here}/golden")
    compare = ("msprobe", "compare", "-m")
    found: dict[str, Sequence[str]] = {"results": ("mkdir", "-m", "750", results)}
    if facts.target:
        simulated = ("-tp", f"{here}/target", *golden, "-fr", f"{here}/operators.json", "-o", results)
        found["simulated"] = (*compare, "offline_data", *simulated)
    dump = ("-tp", "NPU_DUMP", *golden, "-fr", "om.json", "-o", results)
    data, graph = f"{here}/input/input_0.bin", str(facts.graph)
    whole = ("-tp", om, "-gp", graph, "--input_data", data, "-ofs", "False", "-o", results)
    return found | {
        "mapping": ("atc", "--mode=1", f"--om={om}", "--json=om.json"),
        "dumped": (*compare, "offline_data", *dump),
        "offline_model": (*compare, "offline_model", *whole),
    }


_TITLES = {
    "results": "msprobe needs an existing folder for its results:",
    "simulated": "On any machine, without CANN: the simulated NPU beside the golden side. msprobe computes\n"
    "the figures of result_TIME.csv itself (all but the last three columns).",
    "mapping": "On a machine with CANN: the mapping of a real offline model, and its dump beside the golden\n"
    "side. NPU_DUMP is the folder with one file an operator.",
    "dumped": "",
    "offline_model": "On a machine with CANN, an NPU and ais_bench: dump, golden side and comparison in one "
    "command.\nIt writes result_TIME.csv with all columns, which `vconv msprobe --beside` reads.",
}


def text(facts: Facts, document: Mapping[str, Any]) -> str:
    """Return the README.

    Args:
        facts: what the commands depend on.
        document: the result of `vconv msprobe`.
    """
    synthetic = " (synthetic: not trained weights)" if document["synthetic"] else ""
    lines = [
        f"{document['artifact']}: {document['graph']}, for msprobe (PyPI: mindstudio-probe)",
        f"weights: {document['weights']}{synthetic}",
        f"images: {', '.join(document['images'])}",
        "",
        "input/   the images, as bytes and as an array",
        f"golden/  what each of {document['nodes']} nodes gives in ONNX Runtime on the CPU, not optimised",
    ]
    if facts.target:
        lines += [
            "target/  SIMULATED: what the simulated NPU computes; no NPU wrote these files. They are in the",
            "         layout that msprobe calls nano, which it reads without CANN.",
            "operators.json   SIMULATED: the operators of target/, and the nodes that each stands for",
            f"{document['result']}   SIMULATED: the table of `msprobe compare -m offline_model`, computed by",
            "         vconv in float64",
        ]
    for name, words in commands(facts).items():
        lines += ["", *_TITLES[name].split("\n")] if _TITLES[name] else []
        lines.append(f"    {shlex.join(words)}")
    unsafe = [path for path in map(str, (facts.folder, facts.graph)) if not _SAFE.fullmatch(path)]
    if unsafe:
        lines += ["", "msprobe refuses paths with other characters than letters, digits and _ / . , - ."]
        lines += ["Move this folder, or use a link: " + ", ".join(unsafe)]
    if document["renamed"]:
        lines += ["", "Nodes whose names msprobe would refuse or confuse have other names in golden/:"]
        lines += [f"    {node} -> {name}" for node, name in document["renamed"].items()]
    return "\n".join(lines) + "\n"


def simulated(model: str) -> str:
    """Return the text that marks the folder as simulated.

    Args:
        model: the simulated device in words.
    """
    return (
        f"target/, operators.json and result_*.csv are SIMULATED: {model}.\n"
        "They are a prediction from documented arithmetic, computed on a CPU. No NPU was used.\n"
    )
