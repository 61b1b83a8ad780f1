"""The page of a published repository: the card of the artifact, and what lies beside it there."""

from __future__ import annotations

from collections.abc import Sequence

from vconv.artifact.artifact import Artifact
from vconv.types import WEIGHTS_FILE
from vconv.validators.report.card.card import render
from vconv.validators.report.card.evidence import DeviceEvidence
from vconv.validators.report.card.front_matter import metadata, written
from vconv.validators.report.card.markdown import code, escaped, table
from vconv.validators.report.card.words import Words, words_of
from vconv.validators.report.publishing.npu import npu_evidence
from vconv.validators.report.publishing.platforms import Platform
from vconv.validators.report.publishing.programs import ACCURACY, graphs


def readme(
    artifact: Artifact,
    platform: Platform,
    evidence: Sequence[DeviceEvidence],
    language: str,
    files: Sequence[str],
) -> str:
    """Return the text of a page.

    Args:
        artifact: the artifact.
        platform: where it is published.
        evidence: the newest report of each device.
        language: the language of the page.
        files: the paths of the files beside the page that the manifest does not list.
    """
    words, npu = words_of(language), npu_evidence(evidence)
    made, unlike = artifact.manifest, artifact.unlike
    first = graphs(made)[:1]
    repository = {
        "front_matter": written(platform.metadata(metadata(made, bool(unlike)), npu.passed)),
        "hashtag": platform.hashtag if npu.passed else "",
        "measured": npu.measured,
        "passed": npu.passed,
        "npus": [
            {"device": code(one.device), "model": escaped(one.model), "file": one.file} for one in npu.reports
        ],
        "simulated": any(one.simulated for one in evidence),
        "files": table(
            [words.say("headings", key) for key in ("file", "content")],
            [[code(path), _meaning(path, platform, words)] for path in files],
        ),
        "golden": ACCURACY in files,
        "weights": (artifact.folder / WEIGHTS_FILE).is_file(),
        "graph": first[0].variant if first else "",
        "images": len(made.golden.images) if made.golden else 0,
    }
    return render(made, evidence, language, unlike, artifact.processor, repository)


def _meaning(path: str, platform: Platform, words: Words) -> str:
    """Return what a file of a repository is."""
    return words.of_file(path, "repository", "files").format(platform=platform.title)
