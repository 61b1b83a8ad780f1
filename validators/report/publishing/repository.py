"""All that vconv writes into a published repository, besides the artifact's own files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vconv import documents
from vconv.artifact import results
from vconv.artifact.artifact import Artifact
from vconv.artifact.results import CARD_FILE, RESULTS_FILE
from vconv.convert.ascend.fusions.switch_file import RESULT_FILE
from vconv.regular_files import open_regular
from vconv.validators.report.card.evidence import DeviceEvidence, newest, saved_reports
from vconv.validators.report.card.front_matter import metadata
from vconv.validators.report.publishing.figures import accuracy_results
from vconv.validators.report.publishing.platforms import Platform
from vconv.validators.report.publishing.programs import programs_of
from vconv.validators.report.publishing.readme import readme

MARK_FILE = "vconv-page.json"
"""The file by which a folder is known that vconv wrote; it lists the files in it, with their hashes."""
ACCURACY_RESULTS = "results/accuracy_eval.json"


@dataclass(frozen=True)
class Measurements:
    """The saved validations on which a page is based.

    Args:
        evidence: the newest report of each device.
        raw: the bytes of the JSON file of each report, by the report's path.
        left_out: a sentence for each report that is damaged.
    """

    evidence: Sequence[DeviceEvidence]
    raw: Mapping[str, bytes]
    left_out: Sequence[str]


def measurements(folder: Path) -> Measurements:
    """Read the newest validation of each device.

    Raises:
        ArtifactError: the index of the reports is damaged.
    """
    reports, left_out = saved_reports(folder)
    evidence = newest(reports)
    files = dict.fromkeys(one.file for one in evidence)
    return Measurements(
        evidence, {file: documents.read(folder / file, documents.REPORT) for file in files}, left_out
    )


def written_files(
    artifact: Artifact,
    platform: Platform,
    found: Measurements,
    language: str,
    whole: bool,
) -> dict[str, bytes]:
    """Return the files that vconv writes, by path, the page first.

    Args:
        artifact: the artifact.
        platform: where it is published.
        found: its validations.
        language: the language of the page.
        whole: whether the artifact's own files are in the same folder; then its reports are there too.
    """
    made, evidence, folder = artifact.manifest, found.evidence, artifact.folder
    fields = metadata(made, bool(artifact.unlike))
    contents = {
        file: documents.parse(folder / file, raw, documents.REPORT) for file, raw in found.raw.items()
    }
    figures = accuracy_results(made, artifact.digest, evidence, contents)
    texts = {
        **programs_of(made, evidence, artifact.processor),
        ACCURACY_RESULTS: json.dumps(figures, indent=2, ensure_ascii=False) + "\n",
        **platform.files(fields),
    }
    files = {path: text.encode() for path, text in texts.items()}
    files |= _beside(folder, found.raw, ".log", "logs")
    if whole:
        files |= {**found.raw, **_beside(folder, found.raw, ".html", results.REPORTS_FOLDER)}
        files[RESULTS_FILE] = _index(folder, found.raw)
    text = readme(artifact, platform, evidence, language, [*made_later(artifact), *files, MARK_FILE])
    return {CARD_FILE: text.encode(), **files}


def made_later(artifact: Artifact) -> list[str]:
    """List the files that exist and that the manifest does not list: the offline model, and atc's report."""
    made = artifact.manifest
    names = [one.path for one in made.made_later]
    names += [f"{PurePosixPath(one.path).parent}/{RESULT_FILE}" for one in made.made_later]
    return [name for name in names if (artifact.folder / name).is_file()]


def _beside(folder: Path, reports: Mapping[str, bytes], ending: str, place: str) -> dict[str, bytes]:
    """Return the files that lie beside reports and have this ending; a report may lack one."""
    paths = [(folder / file).with_suffix(ending) for file in reports]
    found = {}
    for path in paths:
        if path.is_file():
            with open_regular(path) as file:
                found[f"{place}/{path.name}"] = file.read()
    return found


def _index(folder: Path, reports: Mapping[str, bytes]) -> bytes:
    """Return the index of the copied reports. It names no card: the page is not rewritten by a validation."""
    entries = [entry for entry in results.read(folder)["reports"] if _file_of(entry) in reports]
    return (json.dumps({"reports": entries, "card": {}}, indent=2) + "\n").encode()


def _file_of(entry: Any) -> str:
    return str(entry.get("file")) if isinstance(entry, dict) else ""
