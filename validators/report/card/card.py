"""Makes the model card from a manifest and the newest reports. The same inputs give the same bytes."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vconv.artifact.manifest import Manifest
from vconv.catalog.literature import HUGGING_FACE
from vconv.convert.architectures.base import CLASSIFIER
from vconv.convert.libraries.readers import READERS
from vconv.convert.libraries.table import LIBRARIES
from vconv.convert.libraries.transformers_backbones import BACKBONES
from vconv.errors import UnknownNameError
from vconv.printable import printable
from vconv.types import Config
from vconv.validators.report.card import measured, model, tables
from vconv.validators.report.card.evidence import DeviceEvidence
from vconv.validators.report.card.markdown import code, escaped
from vconv.validators.report.card.recipe import InexpressibleError, recipe
from vconv.validators.report.card.words import TEMPLATES, Words, words_of

if TYPE_CHECKING:
    from jinja2 import Environment

_INSTALLED = ("torch", "torchvision", "transformers", "timm", "onnxruntime", "pillow")
"""Packages that the scripts of a card need, under their names in reports."""
_INSIDE = {
    **{"picture": "sys.argv[1]", "folder": '"."', "local_dir": '"local-dir:."'},
    **{"manifest": 'Path("vconv.json")', "to_device": ".to(device)"},
}
"""How the scripts of a card name what they open: they run inside the artifact's folder."""
_VERSION = re.compile(r"[0-9][0-9a-z.]*(?=\+|$)")
"""A version as a package registry lists it: without the part after a plus, such as ``+cpu``."""


def render(
    made: Manifest,
    evidence: Sequence[DeviceEvidence],
    language: str,
    unlike: Mapping[str, tuple[Any, Any]] = MappingProxyType({}),
    processor: Config = MappingProxyType({}),
) -> str:
    """Return the text of a card.

    Args:
        made: the artifact's manifest.
        evidence: the newest report of each device, as :func:`evidence.newest` chooses it.
        language: one of :data:`vconv.validators.report.card.words.LANGUAGES`.
        unlike: how the network differs from the catalog's system of its name: by entry of the configuration,
            its value and the catalog's. If it differs, nothing is said of it that is known of the system.
        processor: the settings of the image processor: see :func:`recipe`.

    Raises:
        UnknownNameError: the artifact is of a library that this version does not know.
    """
    if made.system.library not in LIBRARIES:
        raise UnknownNameError(
            "library", made.system.library, LIBRARIES, fix="use the version of vconv that made it"
        )
    words, environment = words_of(language), _environment()
    system = model.catalog_row(made, bool(unlike))
    context = {
        "made": made,
        "system": made.system,
        "source": made.source,
        "evidence": evidence,
        "unlike": model.differences(unlike, words),
        "family_name": code(made.system.family),
        "front_matter": model.front_matter(made, bool(unlike)),
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
        "export_options": model.export_options(made),
        "works": system.works,
        "published_weights": model.published_weights(made),
        "trained_on": system.trained_on,
        "packages": _packages(made, evidence),
        "torch_npu": _torch_npu(evidence),
        "environments": [measured.environment(one, words) for one in evidence],
        **_scripts(made, evidence, processor, words, environment),
        "summaries": [found for one in evidence for found in measured.summaries(one, words)],
        "performances": [measured.performance(one, words) for one in evidence if one.timed],
        "accuracies": [measured.accuracy(one, words) for one in evidence if one.rows],
        "published": tables.published(system.published, words),
        "notes": model.patch_notes(made, words),
        "files": model.files(made, words),
    }
    return _tidied(environment.get_template(f"card.{language}.md").render(context))


@functools.cache  # to compile the templates takes longer than to render them
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    # The card is Markdown, not HTML. Text that others wrote is escaped where it is added.
    environment = Environment(
        loader=FunctionLoader(lambda name: (TEMPLATES / name).read_text("utf-8")),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
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


def _is_backbone(made: Manifest) -> bool:
    """Return whether the library itself returns feature maps: then nobody asked, or no block is known."""
    return bool(made.meanings) and (not made.source.outputs or made.system.family not in READERS)


def _auto_class(made: Manifest) -> str:
    if _is_backbone(made) and made.system.family in BACKBONES:
        return BACKBONES[made.system.family].name
    return "AutoModelForImageClassification" if made.system.head == CLASSIFIER else "AutoModel"


def _scripts(
    made: Manifest,
    evidence: Sequence[DeviceEvidence],
    processor: Config,
    words: Words,
    environment: Environment,
) -> dict[str, Any]:
    """Return the scripts, and the settings because of which there is no script for ONNX Runtime alone."""
    newest = max(evidence, key=lambda one: one.document.time).document.environment if evidence else {}
    classic = str(newest.get("transformers", "")).startswith("4.")
    classified = "logits" in made.outputs
    context: dict[str, Any] = {
        "library": made.system.library,
        "rope": made.rope_periods is not None,
        "asked": made.source.resampling_asked,
        "gelu": any(patch.name == "gelu-erf" and patch.applied for patch in made.patches),
        "auto_class": _auto_class(made),
        "backbone": _is_backbone(made),
        "head_output": "logits" if classified else "pooled",
        "say": words.tables["comments"],
        "keeps_mode": False,
        **_INSIDE,
    }
    names = {"vconv": "vconv", "library": made.system.library}
    inexpressible = ""
    try:
        found = recipe(made.system.library, processor, made.size, classic)
    except InexpressibleError as error:
        inexpressible = escaped(str(error))
    else:
        names["onnxruntime"] = "onnxruntime"
        edge = isinstance(found.scaled, int)
        context |= {"recipe": found, "scaled_is_edge": edge, "cropped": edge or found.scaled != found.size}
        context["keeps_mode"] = found.white
    scripts = {
        key: environment.get_template(f"script.{name}.txt").render(context).strip()
        for key, name in names.items()
    }
    return {"scripts": {"onnxruntime": "", **scripts}, "inexpressible": inexpressible}
