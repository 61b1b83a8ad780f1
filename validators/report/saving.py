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

from vconv import documents
from vconv.artifact import results
from vconv.artifact.artifact import INSIDE, is_inside
from vconv.artifact.manifest import digest as manifest_digest
from vconv.artifact.results import REPORTS_FOLDER, RESULTS_FILE
from vconv.errors import ArtifactError
from vconv.printable import printable
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import KINDS
from vconv.runtime.doctor.cann import find_toolkit
from vconv.runtime.engines.table import engine_versions
from vconv.types import Check, Status
from vconv.validators.accuracy.limits import Limits
from vconv.validators.report.bisection import Bisection
from vconv.validators.report.comparison import Comparison
from vconv.validators.report.document import CheckRow, LimitsFileRow, LimitsUsed, Report
from vconv.validators.report.rows import LimitRow, VariantRow

SavedDocument = Report | Comparison | Bisection
"""The kinds of report that are saved."""


@dataclass(frozen=True)
class ReportFile:
    """A saved report.

    Args:
        name: the name of its file.
        sha256: the hash of its bytes.
    """

    name: str
    sha256: str


Picture = bytes | Callable[[ReportFile], bytes]
"""A file that is saved beside a report: its bytes, or a function that makes them from the saved report."""

_TOO_LARGE = "read its log, which is beside it; compare fewer artifacts at once, or time fewer batches"
_PACKAGES = (
    *("vconv", "torch", "torchvision", "transformers", "timm", "torch_npu", "onnx", "onnxscript"),
    *("matplotlib", "onnx-ir", "safetensors", "numpy", "pillow"),
)
"""Packages whose versions a report records, besides those of the engines."""


def environment(devices: Sequence[Device] = ()) -> dict[str, str | int]:
    """Describe this machine and the software that is installed on it.

    Args:
        devices: the devices that were used; the number of each kind of accelerator is counted.
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


def whole(variants: Iterable[VariantRow], checks: Iterable[Check | CheckRow]) -> Status:
    """Judge a validation: failed with any failure; else passed if a variant passed; else incomplete.

    It is incomplete, too, if a variant could not be judged because it ran out of memory.
    """
    statuses = [variant.status for variant in variants]
    if Status.FAILED in (*statuses, *(check.status for check in checks)):
        return Status.FAILED
    if Status.INCOMPLETE in statuses:
        return Status.INCOMPLETE
    return Status.PASSED if Status.PASSED in statuses else Status.INCOMPLETE


def finite(document: Any) -> Any:
    """Copy a document, and replace every number that JSON cannot hold, infinite or NaN, by None."""
    if isinstance(document, Mapping):
        return {key: finite(value) for key, value in document.items()}
    if isinstance(document, (list, tuple)):
        return [finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


def probe(*folders: Path, elsewhere: str | Path | None = None) -> None:
    """Check, before anything is run, that a report can be saved: in each artifact, or in a folder elsewhere.

    Raises:
        ArtifactError: the folder cannot be written, or its index of reports is damaged; or the folder
            elsewhere is inside an artifact.
    """
    if elsewhere is not None:
        if any(is_inside(elsewhere, folder) for folder in folders):
            raise ArtifactError(
                f"cannot write the report into {elsewhere}",
                got=INSIDE,
                expected="a folder outside of the artifact",
                fix=f"choose another --reports, or leave it out: {RESULTS_FILE} then lists the report",
            )
        with _sentence(Path(elsewhere)):
            Path(elsewhere).mkdir(parents=True, exist_ok=True)
            probe = Path(elsewhere) / f".probe-{uuid.uuid4().hex}"
            results.replace(probe, b"")
            probe.unlink()
        return
    for folder in folders:
        with _sentence(folder):
            reports = folder / REPORTS_FOLDER
            if os.path.lexists(reports):
                reports = results.reports_folder(folder)
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
            fix="repair its permissions, or name another folder with --reports",
        ) from error


def now() -> str:
    """Return the time, in UTC, in the format of reports: ``20261121T184025``."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S")


def limits_used(limits: Limits, used: Iterable[LimitRow]) -> LimitsUsed:
    """Return the source of the limits and the limits that were used, each once, in the order of the table."""
    rows = {(row.precision, row.arithmetic): row for row in used}
    ordered = tuple(rows[pair] for pair in limits.table if pair in rows)
    file = LimitsFileRow.model_validate(limits.file) if limits.file else None
    return LimitsUsed(within=limits.within, file=file, rows=ordered)


def limits_applied(limits: Limits, rows: Iterable[VariantRow]) -> LimitsUsed:
    """Return the limits of all variants that have a verdict, from their rows."""
    return limits_used(limits, (row.limit for row in rows if row.limit and row.judged))


def save(
    folder: Path,
    report: SavedDocument,
    kind: str,
    log: str,
    pictures: Mapping[str, Picture] = MappingProxyType({}),
    elsewhere: str | Path | None = None,
) -> Path:
    """Write a report and its log under ``reports/`` and enter it in ``results.json``, or save it elsewhere.

    Args:
        folder: the artifact.
        report: the report.
        kind: the command that made it: ``validate``.
        log: the log in plain text.
        pictures: the other files that are saved beside it, by ending: ``.svg``.
        elsewhere: a folder that gets the files instead; the artifact then stays as it is.

    Returns:
        The report's path.

    Raises:
        ArtifactError: the artifact's folder cannot be written, or its index is damaged, or the report is
            larger than what is read back; its log is then kept.
    """
    written = {".log": printable(log).encode(), **pictures}
    if elsewhere is None:
        with _sentence(folder):
            return _save(results.reports_folder(folder), folder, report, kind, written)
    with _sentence(Path(elsewhere)):
        Path(elsewhere).mkdir(parents=True, exist_ok=True)
        return _save(Path(elsewhere), None, report, kind, written)


def _save(
    reports: Path, entered: Path | None, report: SavedDocument, kind: str, beside: Mapping[str, Picture]
) -> Path:
    """Write a report and what is beside it, and enter it in the index of an artifact, if there is one."""
    raw = (json.dumps(report.as_json(), indent=2, allow_nan=False) + "\n").encode()
    path = _reserved(reports, f"{report.time}-{kind}")
    digest = hashlib.sha256(raw).hexdigest()
    written = {ending: content for ending, content in beside.items() if isinstance(content, bytes)}
    try:
        for ending, content in written.items():
            results.replace(path.with_suffix(ending), content)
        documents.require_readable(path, raw, documents.REPORT, _TOO_LARGE)
        results.replace(path, raw)
        if entered:
            _enter(entered, path.name, digest, report)
    except OSError:
        for ending in (*written, path.suffix):
            with contextlib.suppress(OSError):
                path.with_suffix(ending).unlink()
        raise
    # Pages and pictures can be made again from the report, so a failure here loses no results.
    for ending, draw in beside.items():
        if not isinstance(draw, bytes):
            results.replace(path.with_suffix(ending), draw(ReportFile(path.name, digest)))
    return path


def _enter(folder: Path, file: str, digest: str, report: SavedDocument) -> None:
    """Enter a report in an artifact's index."""
    with results.locked(folder):
        found = results.read(folder)
        name = f"{REPORTS_FOLDER}/{file}"
        entry: dict[str, Any] = {
            "file": name,
            "sha256": digest,
            "status": report.status,
            "simulated": report.simulated,
        }
        entry |= {"artifact": str(folder), "manifest": manifest_digest(folder)}
        if winners := _winners(folder, report):
            entry["winners"] = winners
        found["reports"].append(entry)
        results.write(folder, found)


def _winners(folder: Path, report: SavedDocument) -> list[dict[str, str]]:
    """Return the winners of a report that belong to an artifact, as its index has them."""
    if isinstance(report, Bisection):
        return []
    named = report.winners if isinstance(report, Report) else filter(None, [report.winner])
    return [
        {"variant": one.variant, "engine": one.engine, "device": one.device, "load": one.load}
        for one in named
        if one.load and one.artifact == str(folder)
    ]


def _reserved(reports: Path, stem: str) -> Path:
    """Return an unused path for a report; creating its log reserves the path for this process."""
    for count in itertools.count(1):
        path = reports / f"{stem}{f'-{count}' if count > 1 else ''}.json"
        with contextlib.suppress(FileExistsError):
            if not path.exists():
                path.with_suffix(".log").open("x").close()
                return path
    raise AssertionError("there is always another number")
