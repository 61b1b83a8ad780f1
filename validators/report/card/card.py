"""Makes the model card from a manifest and the newest reports. The same inputs give the same bytes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vconv.artifact.manifest import Manifest
from vconv.catalog.literature import HUGGING_FACE
from vconv.convert.libraries.table import LIBRARIES
from vconv.errors import UnknownNameError
from vconv.printable import printable
from vconv.validators.report.card import measured, model, tables
from vconv.validators.report.card.evidence import DeviceEvidence
from vconv.validators.report.card.markdown import code, escaped
from vconv.validators.report.card.words import TEMPLATES, words_of

if TYPE_CHECKING:
    from jinja2 import Environment

_INSTALLED = ("torch", "torchvision", "transformers", "timm", "onnxruntime", "pillow")
"""Packages that the scripts of a card need, under their names in reports."""
_VERSION = re.compile(r"[0-9][0-9a-z.]*(?=\+|$)")
"""A version as a package registry lists it: without the part after a plus, such as ``+cpu``."""


def render(made: Manifest, evidence: Sequence[DeviceEvidence], language: str) -> str:
    """Return the text of a card.

    Args:
        made: the artifact's manifest.
        evidence: the newest report of each device, as :func:`evidence.newest` chooses it.
        language: one of :data:`vconv.validators.report.card.words.LANGUAGES`.

    Raises:
        UnknownNameError: the artifact is of a library that this version does not know.
    """
    if made.system.library not in LIBRARIES:
        raise UnknownNameError(
            "library", made.system.library, LIBRARIES, fix="use the version of vconv that made it"
        )
    words, environment = words_of(language), _environment()
    system = model.catalog_row(made)
    context = {
        "made": made,
        "system": made.system,
        "source": made.source,
        "evidence": evidence,
        "front_matter": model.front_matter(made),
        "family": words.say("families", model.family(made)),
        "verdicts": [measured.verdict(one, words) for one in evidence if one.asked],
        "model_table": model.model_table(made, words),
        "geometry": model.geometry(made),
        "source_named": model.source_named(made),
        "licence": model.licence(system.licence if made.source.synthetic else made.source.licence),
        "home": HUGGING_FACE.page_of(system.hub_id),
        "gated": system.gated,
        "mirrors": [(mirror.name, mirror.page_of(system.hub_id)) for mirror in system.mirrors],
        "routes": model.routes(made),
        "works": system.works,
        "published_weights": model.published_weights(made),
        "trained_on": system.trained_on,
        "packages": _packages(made, evidence),
        "torch_npu": _torch_npu(evidence),
        "environments": [measured.environment(one, words) for one in evidence],
        "scripts": _scripts(made, environment),
        "summaries": [found for one in evidence for found in measured.summaries(one, words)],
        "performances": [measured.performance(one, words) for one in evidence if one.timed],
        "accuracies": [measured.accuracy(one, words) for one in evidence if one.rows],
        "published": tables.published(system.published, words),
        "notes": model.patch_notes(made, words),
        "files": model.files(made, words),
    }
    return _tidied(environment.get_template(f"card.{language}.md").render(context))


def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    # The card is Markdown, not HTML. Text that others wrote is escaped where it is added.
    environment = Environment(
        loader=FunctionLoader(lambda name: (TEMPLATES / name).read_text("utf-8")),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"escaped": escaped, "code": code, "quoted": _quoted}
    return environment


def _quoted(text: str) -> str:
    """Return a text as one word of a shell, on one line."""
    return shlex.quote(" ".join(text.split()))


def _tidied(text: str) -> str:
    """Replace several empty lines by one, and remove those at the beginning and the end."""
    lines = [line.rstrip() for line in printable(text).splitlines()]
    kept = [line for place, line in enumerate(lines) if line or (place and lines[place - 1])]
    return "\n".join(kept).strip() + "\n"


def _packages(made: Manifest, evidence: Sequence[DeviceEvidence]) -> str:
    """Return the packages to install, in the versions of the newest report if there is one."""
    wanted = [name for name in _INSTALLED if name != "timm" or made.system.library == "timm"]
    if not evidence:
        return " ".join(wanted)
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


def _scripts(made: Manifest, environment: Environment) -> dict[str, str]:
    classified = "logits" in made.outputs
    context = {
        "library": made.system.library,
        "rope": made.rope_periods is not None,
        "gelu": any(patch.name == "gelu-erf" and patch.applied for patch in made.patches),
        "auto_class": "AutoModelForImageClassification" if classified else "AutoModel",
        "head_output": "logits" if classified else "pooled",
    }
    names = {"vconv": "vconv", "library": made.system.library, "onnxruntime": "onnxruntime"}
    return {
        key: environment.get_template(f"script.{name}.txt").render(context).strip()
        for key, name in names.items()
    }
