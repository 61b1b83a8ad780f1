"""The figures of ``results/accuracy_eval.json``, each with its report and its place in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vconv.artifact.manifest import Manifest
from vconv.validators.accuracy.metrics import METRICS
from vconv.validators.report.card.evidence import DeviceEvidence
from vconv.validators.report.rows import VariantRow
from vconv.validators.report.sentences import word

FIGURES = ("floor", *METRICS, "to_stock_original")
"""The figures of an output, by their names in reports."""


def accuracy_results(
    made: Manifest, manifest_sha256: str, evidence: Sequence[DeviceEvidence], contents: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the results of an artifact's newest reports.

    Args:
        made: the artifact's manifest.
        manifest_sha256: its hash.
        evidence: the newest report of each device.
        contents: the content of each report's JSON file, by the report's path.

    Returns:
        ``artifact``; ``recorded``, a list with one entry per figure; and ``recomputed``, empty, to which
        ``eval/eval_accuracy.py`` adds. The ``path`` of a figure is a JSON Pointer (RFC 6901) into its report.
    """
    return {
        "schema_version": 1,
        "artifact": {
            "system": made.system.name,
            "weights": made.source.label,
            "synthetic": made.source.synthetic,
            "manifest_sha256": manifest_sha256,
            "vconv": made.vconv,
        },
        "recorded": [
            figure for one in evidence for figure in _figures(one, contents[one.file], made.source.synthetic)
        ],
        "recomputed": [],
    }


def _figures(one: DeviceEvidence, content: Any, synthetic: bool) -> Iterator[dict[str, Any]]:
    for place, row in enumerate(one.document.variants):
        if row.device == one.device:
            for output in row.outputs:
                yield from _of_output(one, content, place, row, output, synthetic)


def _of_output(
    one: DeviceEvidence, content: Any, place: int, row: VariantRow, output: str, synthetic: bool
) -> Iterator[dict[str, Any]]:
    status = word(row.outputs[output].status, row.reason, measured=True)
    described = {
        **{"device": one.device, "device_model": one.model, "variant": row.variant, "engine": row.engine},
        **{"output": output, "status": status, "judged": row.judged},
        **{"simulated": row.simulated, "synthetic": synthetic, "report": one.file},
    }
    for metric in FIGURES:
        path = pointer("variants", place, "outputs", output, metric)
        value = resolved(content, path)
        if value is not None:
            bound = pointer("variants", place, "limit", "bounds", metric)
            limit = resolved(content, bound)
            found = {"metric": metric, "value": value, "path": path}
            yield {**described, **found, "limit": limit, "limit_path": None if limit is None else bound}


def pointer(*keys: str | int) -> str:
    """Return a JSON Pointer (RFC 6901) to the value under these keys."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


def resolved(content: Any, path: str) -> Any:
    """Return the value that a JSON Pointer names; None if there is none."""
    for part in path.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(content, list) and key.isdigit() and int(key) < len(content):
            content = content[int(key)]
        elif isinstance(content, Mapping) and key in content:
            content = content[key]
        else:
            return None
    return content
