"""Makes the model card from a manifest and the newest reports. The same inputs give the same bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from vconv.artifact.manifest import Manifest
from vconv.catalog.literature import HUGGING_FACE
from vconv.convert.libraries.readers import READERS
from vconv.convert.libraries.table import LIBRARIES
from vconv.errors import UnknownNameError
from vconv.runtime.engines.table import ENGINES, engine_versions
from vconv.types import Config
from vconv.validators.report.card import measured, model, reductions, tables
from vconv.validators.report.card.command import export_options
from vconv.validators.report.card.evidence import DeviceEvidence
from vconv.validators.report.card.front_matter import metadata, written
from vconv.validators.report.card.markdown import code, escaped
from vconv.validators.report.card.scripts import scripts_of
from vconv.validators.report.card.templating import environment, tidied
from vconv.validators.report.card.words import words_of

_INSTALLED = ("torch", "torchvision", "transformers", "timm", "onnxruntime", "pillow")
"""Packages that the scripts of a card need, under their names in reports."""
_VERSION = re.compile(r"[0-9][0-9a-z.]*(?=\+|$)")
"""A version as a package registry lists it: without the part after a plus, such as ``+cpu``."""


def render(
    made: Manifest,
    evidence: Sequence[DeviceEvidence],
    language: str,
    unlike: Mapping[str, tuple[Any, Any]] = MappingProxyType({}),
    processor: Config = MappingProxyType({}),
    repository: Mapping[str, Any] | None = None,
) -> str:
    """Return the text of a card.

    Args:
        made: the artifact's manifest.
        evidence: the newest report of each device, as :func:`evidence.newest` chooses it.
        language: one of :data:`vconv.validators.report.card.words.LANGUAGES`.
        unlike: how the network differs from the catalog's system of its name: by entry of the configuration,
            its value and the catalog's. If it differs, nothing is said of it that is known of the system.
        processor: the settings of the image processor: see :func:`recipe`.
        repository: what is said of the repository in which the card is published: see
            :mod:`vconv.validators.report.publishing.readme`; None for the card in an artifact.

    Raises:
        UnknownNameError: the artifact is of a library that this version does not know.
    """
    if made.system.library not in LIBRARIES:
        raise UnknownNameError(
            "library", made.system.library, LIBRARIES, fix="use the version of vconv that made it"
        )
    words = words_of(language)
    system = model.catalog_row(made, bool(unlike))
    context = {
        "made": made,
        "system": made.system,
        "source": made.source,
        "evidence": evidence,
        "unlike": model.differences(unlike, words),
        "family_name": code(made.system.family),
        "repository": repository,
        "front_matter": repository["front_matter"] if repository else written(metadata(made, bool(unlike))),
        "offline": model.offline_model(made),
        "family": words.say("families", model.family(made)),
        "verdicts": [measured.verdict(one, words) for one in evidence if one.asked],
        "model_table": model.model_table(made, words),
        "other_sizes": model.of_other_sizes(made, words),
        "geometry": model.geometry(made),
        "declared": made.system.family in READERS,
        "source_named": model.source_named(made),
        "licence": model.licence(system.licence if made.source.synthetic else made.source.licence),
        "home": HUGGING_FACE.page_of(system.hub_id) if system.hub_id else "",
        "gated": system.gated,
        "mirrors": [(mirror.name, mirror.page_of(system.hub_id)) for mirror in system.mirrors],
        "routes": model.routes(made, bool(unlike)),
        "export_options": export_options(made),
        "calibrated_on": reductions.on_photographs(made),
        "plans": reductions.plans(made, words),
        "planned_losses": reductions.have_losses(made),
        "on_npu": any(one.device.partition(":")[0] == "npu" for one in evidence),
        "unlisted": reductions.of_operators_that_cann_does_not_list(made, words),
        "works": system.works,
        "published_weights": model.published_weights(made),
        "trained_on": system.trained_on,
        "packages": _packages(made, evidence),
        "torch_npu": _torch_npu(evidence),
        "environments": [measured.environment(one, words) for one in evidence],
        **scripts_of(made, evidence, processor, words),
        "summaries": [found for one in evidence for found in measured.summaries(one, words)],
        "performances": [measured.performance(one, words) for one in evidence if one.timed],
        "accuracies": [measured.accuracy(one, words) for one in evidence if one.rows],
        "published": tables.published(system.published, words),
        "notes": model.patch_notes(made, words),
        "files": model.files(made, words),
    }
    return tidied(environment().get_template(f"card.{language}.md").render(context))


def _packages(made: Manifest, evidence: Sequence[DeviceEvidence]) -> str:
    """Return the packages to install, in the versions of the newest report if there is one."""
    wanted = [name for name in _INSTALLED if name != "timm" or made.system.library == "timm"]
    if not evidence:
        return " ".join(wanted)
    timed = {
        ENGINES[row.engine].package
        for one in evidence
        for row in one.rows
        if row.engine in ENGINES and row.latency
    }
    wanted += sorted(timed & engine_versions().keys() - {*wanted})
    found = max(evidence, key=lambda one: one.document.time).document.environment
    versions = {name: str(found.get(name, "")) for name in wanted}
    return " ".join(
        f"{name}=={version[0]}" if (version := _VERSION.match(versions[name])) else name for name in wanted
    )


def _torch_npu(evidence: Sequence[DeviceEvidence]) -> str:
    """Return the version of torch_npu in the newest report that has one; empty if none has."""
    newest = sorted(evidence, key=lambda one: one.document.time)
    found = [str(one.document.environment.get("torch_npu", "")) for one in newest]
    return next((escaped(version) for version in reversed(found) if _VERSION.match(version)), "")
