"""Convert manifests of schema 1, which version 0.1.0 wrote, to schema 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vconv.types import BATCH_AXIS, CHANNELS, INPUT, WEIGHTS_FILE

_MOST = 10_000
"""The greatest product of variants and outputs: in schema 2, each variant has all of its outputs."""
_FLOAT32 = "float32"
"""The type of every input and output of schema 1."""


def upgraded(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest of schema 1 in the form of schema 2; its ``schema_version`` stays 1.

    Version 0.1.0 always made the same kind of artifact, so that missing fields can be filled in: one weights
    file, which every variant but an offline model uses; one size; float32 inputs and outputs. Schema 1 has no
    passes, and of the original it has only the name.

    Raises:
        ValueError: there are more variants and outputs than any artifact has.
        KeyError: a field is missing.
        TypeError: a field has another type.
    """
    if len(content["variants"]) * len(content["outputs"]) > _MOST:
        raise ValueError(f"{len(content['variants'])} variants of {len(content['outputs'])} outputs")
    source, golden = dict(content["source"]), content["golden"]
    source["from_catalog"] = source.pop("published")
    if golden is not None:
        golden = dict(golden)
        golden["path"] = golden.pop("file")
    applied = [patch["name"] for patch in content["patches"] if patch["applied"]]
    upgraded = {
        **content,
        "original": None,
        "source": source,
        "golden": golden,
        "variants": [
            _variant(variant, applied, content["size"], content["outputs"]) for variant in content["variants"]
        ],
    }
    del upgraded["outputs"]
    return upgraded


def _variant(
    record: Mapping[str, Any], applied: list[str], size: list[int], outputs: Mapping[str, list[int | str]]
) -> dict[str, Any]:
    batch = BATCH_AXIS if record["batch"] is None else record["batch"]
    tensors = {
        name: {"name": name, "dtype": _FLOAT32, "shape": [batch, *shape[1:]]}
        for name, shape in outputs.items()
    }
    offline = record.get("offline")
    graph = {"opset": record["opset"], "ir_version": record["ir_version"], "operators": record["operators"]}
    return {
        "variant": record["variant"],
        "engine": record["engine"],
        "path": record["file"],
        "weights": None if offline else WEIGHTS_FILE,
        "precision": record["precision"],
        "patches": applied,
        "contract": {
            "input": {"name": INPUT, "dtype": _FLOAT32, "shape": [batch, CHANNELS, *size]},
            "layout": "NCHW",
            "preprocessing": False,
            "outputs": tensors,
            "axes": {BATCH_AXIS: {"least": 1, "greatest": None}} if record["batch"] is None else {},
        },
        "graph": None if record["opset"] is None else {**graph, "passes": []},
        "offline": offline,
    }
