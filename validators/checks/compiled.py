"""Check which fusion passes CANN's compiler ran when it made an offline model."""

from __future__ import annotations

from vconv.artifact.artifact import Artifact
from vconv.artifact.records import VariantRecord
from vconv.convert.ascend.fusions.report import CompilerReport
from vconv.convert.ascend.fusions.switch_file import RESULT_FILE
from vconv.types import Check, Status


def check_compiled(artifact: Artifact) -> list[Check]:
    """Check every offline model that exists, by what the compiler wrote of its passes."""
    return [
        _checked(artifact, variant)
        for variant in artifact.manifest.variants
        if variant.offline and artifact.path(variant).is_file()
    ]


def _checked(artifact: Artifact, variant: VariantRecord) -> Check:
    name, path = f"{variant.path}: fusions", artifact.path(variant).parent / RESULT_FILE
    if not path.is_file():
        detail = f"there is no {RESULT_FILE} beside it, so which passes atc ran is not known"
        return Check(name, Status.SKIPPED, detail)
    try:
        report = CompilerReport.read(path)
    except ValueError as error:
        detail = f"{path.relative_to(artifact.folder).as_posix()} cannot be read: {error!s:.120}"
        return Check(name, Status.FAILED, detail, "files")
    if not report.effects:
        return Check(name, Status.SKIPPED, f"{RESULT_FILE} names no pass, so which ones atc ran is not known")
    if report.harm:
        return Check(name, Status.FAILED, report.harm, "activation" if report.gelu else "graph")
    fired = ", ".join(f"{fusion} {count} times" for fusion, count in report.effects.items() if count)
    return Check(name, Status.PASSED, f"atc ran no pass that changes a result; it ran {fired or 'none'}")
