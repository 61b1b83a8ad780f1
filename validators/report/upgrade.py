"""Reads reports of this version, and reports of 0.1.0, which are converted to this version's schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from vconv import documents
from vconv.types import Status
from vconv.validators.report.bisection import Bisection
from vconv.validators.report.comparison import Comparison
from vconv.validators.report.document import Report
from vconv.validators.report.model import SCHEMA_VERSION

FIRST_VERSIONS = (None, 1)
"""Schema versions of 0.1.0: its earliest reports have no version."""
Content = Mapping[str, Any]

_UNKNOWN = {
    **dict.fromkeys(("gelu", "prediction", "depth", "patch_maps", "launches", "fallbacks", "timing_refused")),
    **dict.fromkeys(("load_ms", "first_ms", "peak_memory_is", "peak_rss_bytes", "peak_rss_growth_bytes")),
    **{"peak_device_bytes": None, "peak_memory_reason": "", "depth_reason": "", "patch_maps_reason": ""},
    **{"reason": "", "batches": [], "diagnosis": [], "latency": [], "skipped_batches": []},
}
"""Keys that a variant of 0.1.0 may lack, with their defaults: results that were not measured."""


class UnreadableReportError(ValueError):
    """A report whose schema this version does not read, or that does not conform to its schema."""


def read_report(content: object, kind: str) -> Report | Comparison | Bisection:
    """Read a report from its JSON form.

    Args:
        content: the content of its JSON file.
        kind: the command that made it: ``validate``, ``compare`` or ``bisect``.

    Raises:
        UnreadableReportError: the content is not a report of this kind that this version can read.
    """
    if kind not in _KINDS:
        raise UnreadableReportError(f"no reports of kind {kind!r} are known")
    if not isinstance(content, Mapping):
        raise UnreadableReportError("it is not an object")
    model, upgrade = _KINDS[kind]
    version = content.get("schema_version")
    try:
        if version in FIRST_VERSIONS:
            content = upgrade(content)
        elif version != SCHEMA_VERSION:
            raise UnreadableReportError(f"schema version {version}")
        # Not strictly: the validator of an output turns its JSON into Python, which has no tuples.
        return model.model_validate(content)
    except UnreadableReportError:
        raise
    except ValidationError as error:
        raise UnreadableReportError(documents.first_of(error)) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableReportError(f"{type(error).__name__}: {error}") from error


def _validation(content: Content) -> dict[str, Any]:
    """Convert the report of a validation by 0.1.0 to this version."""
    limits = {(row["precision"], row["arithmetic"]): row for row in content["limits"]["rows"]}
    return {
        "timing": None,
        "dataset": None,
        **content,
        "schema_version": SCHEMA_VERSION,
        "variants": [_variant(row, limits) for row in content["variants"]],
    }


def _variant(row: Content, limits: Mapping[tuple[str, str], Content]) -> dict[str, Any]:
    """Convert a variant of 0.1.0: the limits were in a separate table, and the summary was ``smoke``."""
    kept = {key: value for key, value in row.items() if key != "smoke"}
    judged = row["status"] != Status.SKIPPED or any(
        output["status"] != Status.SKIPPED for output in row["outputs"].values()
    )
    limit = limits.get((row["precision"], row["arithmetic"])) if judged else None
    return {**_UNKNOWN, **kept, "limit": limit, "output_summary": row["smoke"]}


def _comparison(content: Content) -> dict[str, Any]:
    """Convert a comparison by 0.1.0: the earliest comparisons name devices only in their rows."""
    devices = dict.fromkeys((row["device"] for row in content["rows"]), "")
    return {
        "devices": devices,
        "device_settings": {},
        "winner_reason": None,
        **content,
        "schema_version": SCHEMA_VERSION,
    }


def _bisection(content: Content) -> dict[str, Any]:
    return {**content, "schema_version": SCHEMA_VERSION}


_KINDS: Mapping[
    str, tuple[type[Report] | type[Comparison] | type[Bisection], Callable[[Content], dict[str, Any]]]
] = {
    "validate": (Report, _validation),
    "compare": (Comparison, _comparison),
    "bisect": (Bisection, _bisection),
}
"""By kind of report: its model, and the function that converts a report of 0.1.0."""
