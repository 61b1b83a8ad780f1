"""Validations that tests put into a copied artifact: a saved report that was changed, entered as its own."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from made_reports import STAMP, output, report, timing, variant

from vconv.validators.accuracy.metrics import METRICS

FILE = f"reports/{STAMP}-validate.json"
_BOUNDS = {"vector_relative_error": 1e-5, "relative_error": 1e-2, "cosine": 0.999}
_LIMIT = {"precision": "fp32", "arithmetic": "fp32", "bounds": _BOUNDS, "source": "a measurement"}
_SUMMARY = {"shape": [1, 2], "dtype": "float32", "device": "cpu", "min": 0.5, "max": 1.5, "mean": 1.0}
SETTINGS = {"profile": "910b", "gelu": "tanh", "convolution": "hf32", "matmul": "fp32"}
NEWER = "reports/29991231T000000-validate.json"


def validate(folder: Path) -> None:
    """Put a validation on the CPU into an artifact, its figures made up, each another."""
    metrics = {name: (place + 1) * 1.1e-7 for place, name in enumerate(METRICS) if name != "top1_match"}
    outputs = {
        name: output(**{**metrics, "floor": 2.5e-7, "limit": 1e-5, "cosine": 0.99 + place / 1000})
        for place, name in enumerate(("cls", "patches"))
    }
    rows = [
        variant(
            name,
            timing(p50_ms=2.5 + place, min_ms=2.25 + place, max_ms=3.25 + place),
            artifact=str(folder),
            engine="torch" if "torch" in name else "onnxruntime",
            outputs=outputs,
            limit=_LIMIT,
            output_summary={"cls": {**_SUMMARY, "first": [0.5, 1.5]}},
        )
        for place, name in enumerate(("original-torch-fp32", "patched-torch-fp32", "onnx-fp32"))
    ]
    (folder / "reports").mkdir()
    put(folder, FILE, report(*rows, artifact=str(folder)).as_json())
    (folder / FILE).with_suffix(".html").write_text("a page")


def saved(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the path in the artifact, and the content, of the report that :func:`validate` made."""
    return FILE, json.loads((folder / FILE).read_text())


def put(folder: Path, file: str, content: Mapping[str, Any]) -> None:
    """Save a report, with a log beside it, and enter it in the index."""
    path = folder / file
    path.write_text(json.dumps(content, indent=2) + "\n")
    path.with_suffix(".log").write_text(f"the log of {file}\n")
    index = json.loads((folder / "results.json").read_text())
    entries = {entry["file"]: entry for entry in index["reports"]}
    known = entries.get(file, {"file": file, "status": content["status"], "simulated": False})
    entries[file] = {**known, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    (folder / "results.json").write_text(json.dumps({**index, "reports": list(entries.values())}))


def moved(content: Mapping[str, Any], device: str, model: str, **row_values: Any) -> dict[str, Any]:
    """Return a report as if it had been measured on another device."""
    found = copy.deepcopy(dict(content))
    found["devices"], found["device_settings"] = {device: model}, {device: SETTINGS}
    for row in found["variants"]:
        row |= {"device": device, **row_values}
    return found


def change(content: Any, keys: tuple[Any, ...], value: Any) -> None:
    """Change one value of a report in place."""
    for key in keys[:-1]:
        content = content[key]
    content[keys[-1]] = value
