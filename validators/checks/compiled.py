"""Check which fusion passes CANN's compiler ran when it made an offline model."""

from __future__ import annotations

from pathlib import Path

from vconv.artifact.artifact import Artifact
from vconv.artifact.records import VariantRecord
from vconv.convert.ascend.atc import SCRIPT_FILE
from vconv.convert.ascend.fusions.report import WAY_OUT, CompilerReport
from vconv.convert.ascend.fusions.switch_file import RESULT_FILE
from vconv.regular_files import kind_of
from vconv.types import Check, Status

UNREADABLE = "compiler's report"
"""The class of fault of a report that cannot be read."""


def check_compiled(artifact: Artifact) -> list[Check]:
    """Check every offline model that exists, by what the compiler wrote of its passes."""
    return [
        _checked(artifact, variant)
        for variant in artifact.manifest.variants
        if variant.offline and artifact.path(variant).is_file()
    ]


def _checked(artifact: Artifact, variant: VariantRecord) -> Check:
    name, path = f"{variant.path}: fusions", artifact.path(variant).parent / RESULT_FILE
    if not kind_of(path):
        detail = f"there is no {RESULT_FILE} beside it, so which passes atc ran is not known"
        return Check(name, Status.SKIPPED, detail)
    try:
        report = CompilerReport.read(path)
    except (OSError, ValueError) as error:
        return Check(name, Status.FAILED, _unreadable(artifact, path, error), UNREADABLE)
    if not report.effects:
        return Check(name, Status.SKIPPED, f"{RESULT_FILE} names no pass, so which ones atc ran is not known")
    if report.harm:
        return Check(
            name, Status.FAILED, f"{report.harm}; {WAY_OUT}", "activation" if report.gelu else "graph"
        )
    fired = ", ".join(f"{fusion} {count} times" for fusion, count in report.effects.items() if count)
    return Check(name, Status.PASSED, f"atc ran no pass that changes a result; it ran {fired or 'none'}")


def _unreadable(artifact: Artifact, path: Path, error: OSError | ValueError) -> str:
    """Say why the compiler's report cannot be read, and how to get another one."""
    place = path.parent.relative_to(artifact.folder).as_posix()
    reason = error.strerror if isinstance(error, OSError) else f"{error!s:.120}"
    again = f"run {place}/{SCRIPT_FILE} again" if (path.parent / SCRIPT_FILE).is_file() else "export it again"
    return (
        f"{place}/{RESULT_FILE} cannot be read, so which passes atc ran is not known: {reason}; "
        f"to get another one, {again}"
    )
