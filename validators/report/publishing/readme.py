"""The page of a published repository: the card of the artifact, and what lies beside it there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vconv.artifact.manifest import Manifest
from vconv.types import Config
from vconv.validators.report.card.card import render
from vconv.validators.report.card.evidence import DeviceEvidence
from vconv.validators.report.card.front_matter import metadata, written
from vconv.validators.report.card.markdown import code, escaped, table
from vconv.validators.report.card.words import Words, words_of
from vconv.validators.report.publishing.npu import npu_evidence
from vconv.validators.report.publishing.platforms import Platform
from vconv.validators.report.publishing.programs import ACCURACY, graphs


def readme(
    platform: Platform,
    made: Manifest,
    evidence: Sequence[DeviceEvidence],
    language: str,
    unlike: Mapping[str, tuple[Any, Any]],
    processor: Config,
    files: Iterable[str],
    weights: bool,
) -> str:
    """Return the text of a page.

    Args:
        platform: where it is published.
        made: the artifact's manifest.
        evidence: the newest report of each device.
        language: the language of the page.
        unlike: see :func:`vconv.validators.report.card.card.render`.
        processor: the settings of the image processor.
        files: the paths of the files that vconv writes beside the page.
        weights: whether the weights are in the artifact.
    """
    words, npu = words_of(language), npu_evidence(evidence)
    files = list(files)
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
        "weights": weights,
        "graph": first[0].variant if first else "",
        "images": len(made.golden.images) if made.golden else 0,
    }
    return render(made, evidence, language, unlike, processor, repository)


def _meaning(path: str, platform: Platform, words: Words) -> str:
    """Return what a file is: by its path, or by its folder and ending, such as ``logs/*.log``."""
    known = words.tables["repository"]
    kind = f"{path.partition('/')[0]}/*.{path.rpartition('.')[2]}"
    return known.get(path, known.get(kind, "")).format(platform=platform.title)
