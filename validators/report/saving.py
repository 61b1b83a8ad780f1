"""The report of a validation: one JSON document, saved beside the artifact and entered in its index."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import platform
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vconv.artifact import results
from vconv.artifact.manifest import digest as manifest_digest
from vconv.artifact.results import REPORTS_FOLDER
from vconv.errors import ArtifactError
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import KINDS
from vconv.runtime.doctor.cann import find_toolkit
from vconv.runtime.engines.table import engine_versions
from vconv.types import Check, Status
from vconv.validators.accuracy.limits import Limit
from vconv.validators.accuracy.verdicts import OutputVerdict


@dataclass(frozen=True)
class ReportFile:
    """A report as it lies on disk.

    Args:
        name: of its file.
        sha256: of its bytes.
    """

    name: str
    sha256: str


Picture = bytes | Callable[[Mapping[str, Any], ReportFile], bytes]
"""What is saved beside a report: as it is, or drawn of the report as it was saved."""

_PACKAGES = (
    *("vconv", "torch", "torchvision", "transformers", "timm", "torch_npu", "onnx", "onnxscript"),
    *("matplotlib", "onnx-ir", "safetensors", "numpy", "pillow"),
)
"""What vconv stands on, beside the engines."""


def environment(devices: Sequence[Device] = ()) -> dict[str, str | int]:
    """Describe this machine and what is installed on it.

    Args:
        devices: what was run on: of each accelerator's kind, it is told how many there are.
    """
    found: dict[str, str | int] = {"python": platform.python_version(), "machine": platform.machine()}
    found["cores"] = len(os.sched_getaffinity(0))
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    found |= engine_versions()
    toolkit = find_toolkit()
    found["cann"] = (toolkit.version or "of unknown version") if toolkit else "not installed"
    for kind in {device.kind for device in devices if device.kind != "cpu" and not device.simulated}:
        found[f"{kind} devices"] = KINDS[kind].count()
    return found


def output_rows(
    verdicts: Mapping[str, OutputVerdict],
    limit: Limit | None,
    floor: Mapping[str, float],
    to_stock_original: Mapping[str, float],
) -> dict[str, dict[str, Any]]:
    """Lay out what is known of each output of a variant.

    Args:
        verdicts: how each output did.
        limit: what it was held to; None where it was measured but not judged.
        floor: by output, the reference's own distance from float64.
        to_stock_original: by output, the reference's distance from the stock original.
    """
    bound = limit.bounds.get("vector_relative_error") if limit else None
    rows = {}
    for name, verdict in verdicts.items():
        row: dict[str, Any] = {"status": verdict.status, "shape": list(verdict.shape)}
        row |= {"floor": floor.get(name), "limit": bound}
        row |= verdict.metrics
        least = floor.get(name)
        if bound is not None and least is not None and bound < least:
            row["reasons"] = [f"the limit {bound:.1e} lies under the floor {least:.1e}", *verdict.reasons]
        elif verdict.reasons:
            row["reasons"] = list(verdict.reasons)
        if name in to_stock_original:
            row["to_stock_original"] = to_stock_original[name]
        rows[name] = row
    return rows


def whole(variants: Iterable[Mapping[str, Any]], checks: Iterable[Check]) -> Status:
    """Judge a validation: one failure fails it, and without one comparison that passed it is incomplete."""
    statuses = [variant["status"] for variant in variants]
    if Status.FAILED in (*statuses, *(check.status for check in checks)):
        return Status.FAILED
    return Status.PASSED if Status.PASSED in statuses else Status.INCOMPLETE


def finite(document: Any) -> Any:
    """Copy a document with None for every number that JSON cannot hold: an infinite metric, or NaN."""
    if isinstance(document, Mapping):
        return {key: finite(value) for key, value in document.items()}
    if isinstance(document, (list, tuple)):
        return [finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


def probe(folder: Path) -> None:
    """Make sure, before anything is run, that a report can be saved.

    Raises:
        ArtifactError: the folder cannot be written, or its index of reports is damaged.
    """
    with _sentence(folder):
        reports = folder / REPORTS_FOLDER
        probe = (reports if reports.exists() else folder) / f".probe-{uuid.uuid4().hex}"
        results.replace(probe, b"")
        probe.unlink()
        results.read(folder)


@contextlib.contextmanager
def _sentence(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"cannot write a report into {folder}",
            got=error.strerror or "an error",
            expected="a folder that can be written, with room in it",
            fix="mend its permissions, or work on a copy",
        ) from error


def save(
    folder: Path,
    report: Mapping[str, Any],
    kind: str,
    log: str,
    pictures: Mapping[str, Picture] = MappingProxyType({}),
) -> Path:
    """Write a report and its log under ``reports/`` and enter it in ``results.json``.

    Args:
        folder: the artifact.
        report: the report.
        kind: what was done: ``validate``.
        log: the same in plain text, with what was done.
        pictures: what is saved beside it, by ending: ``.svg``.

    Returns:
        The report's path.

    Raises:
        ArtifactError: the artifact's folder cannot be written, or its index is damaged.
    """
    with _sentence(folder):
        return _save(folder, report, kind, {".log": log.encode(), **pictures})


def _save(folder: Path, report: Mapping[str, Any], kind: str, beside: Mapping[str, Picture]) -> Path:
    reports = folder / REPORTS_FOLDER
    reports.mkdir(exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    known = {"schema_version": results.SCHEMA_VERSION, "time": stamp, "host": platform.node()}
    text = json.dumps(finite({**known, **report}), indent=2) + "\n"
    path = _reserved(reports, f"{stamp}-{kind}")
    digest = hashlib.sha256(text.encode()).hexdigest()
    written = {ending: content for ending, content in beside.items() if isinstance(content, bytes)}
    try:
        for ending, content in written.items():
            results.replace(path.with_suffix(ending), content)
        results.replace(path, text.encode())
        with results.locked(folder):
            found = results.read(folder)
            name = f"{REPORTS_FOLDER}/{path.name}"
            simulated = any(row["simulated"] for row in report.get("variants", report.get("rows", ())))
            entry = {"file": name, "sha256": digest, "status": report["status"], "simulated": simulated}
            found["reports"].append({**entry, "artifact": str(folder), "manifest": manifest_digest(folder)})
            results.write(folder, found)
    except OSError:
        for ending in (*written, path.suffix):
            with contextlib.suppress(OSError):
                path.with_suffix(ending).unlink()
        raise
    # What is drawn of a report can be drawn again: nothing of the report is lost with it.
    for ending, draw in beside.items():
        if not isinstance(draw, bytes):
            results.replace(path.with_suffix(ending), draw(json.loads(text), ReportFile(path.name, digest)))
    return path


def _reserved(reports: Path, stem: str) -> Path:
    """Return the path of a report that nobody else has, or will be given: its log is there from now on."""
    for count in itertools.count(1):
        path = reports / f"{stem}{f'-{count}' if count > 1 else ''}.json"
        with contextlib.suppress(FileExistsError):
            if not path.exists():
                path.with_suffix(".log").open("x").close()
                return path
    raise AssertionError("there is always another number")
