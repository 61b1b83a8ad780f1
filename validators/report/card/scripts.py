"""The scripts of a card: with vconv, with the library alone, and with ONNX Runtime alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vconv.artifact.manifest import Manifest
from vconv.convert.architectures.base import CLASSIFIER
from vconv.convert.libraries.readers import READERS
from vconv.convert.libraries.transformers_backbones import BACKBONES
from vconv.types import Config
from vconv.validators.report.card.evidence import DeviceEvidence
from vconv.validators.report.card.markdown import escaped
from vconv.validators.report.card.recipe import InexpressibleError, recipe
from vconv.validators.report.card.templating import environment
from vconv.validators.report.card.words import Words

_INSIDE = {
    **{"picture": "sys.argv[1]", "folder": '"."', "local_dir": '"local-dir:."'},
    **{"manifest": 'Path("vconv.json")', "to_device": ".to(device)"},
}
"""How the scripts of a card name what they open: they run inside the artifact's folder."""


def _is_backbone(made: Manifest) -> bool:
    """Return whether the library itself returns feature maps: then nobody asked, or no block is known."""
    return bool(made.meanings) and (not made.source.outputs or made.system.family not in READERS)


def _auto_class(made: Manifest) -> str:
    if _is_backbone(made) and made.system.family in BACKBONES:
        return BACKBONES[made.system.family].name
    return "AutoModelForImageClassification" if made.system.head == CLASSIFIER else "AutoModel"


def context_of(
    made: Manifest, evidence: Sequence[DeviceEvidence], processor: Config, words: Words
) -> dict[str, Any]:
    """Return what the templates of scripts need to know of an artifact.

    ``inexpressible`` names the settings because of which NumPy cannot preprocess; it is empty if NumPy can.
    """
    newest = max(evidence, key=lambda one: one.document.time).document.environment if evidence else {}
    classic = str(newest.get("transformers", "")).startswith("4.")
    found: dict[str, Any] = {
        "library": made.system.library,
        "rope": made.rope_periods is not None,
        "asked": made.source.resampling_asked,
        "gelu": any(patch.name == "gelu-erf" and patch.applied for patch in made.patches),
        "auto_class": _auto_class(made),
        "backbone": _is_backbone(made),
        "head_output": "logits" if "logits" in made.outputs else "pooled",
        "say": words.tables["comments"],
        **{"keeps_mode": False, "inexpressible": ""},
    }
    try:
        steps = recipe(made.system.library, processor, made.size, classic)
    except InexpressibleError as error:
        return {**found, "inexpressible": escaped(str(error))}
    edge = isinstance(steps.scaled, int)
    found |= {"recipe": steps, "scaled_is_edge": edge, "cropped": edge or steps.scaled != steps.size}
    return {**found, "keeps_mode": steps.white}


def scripts_of(
    made: Manifest, evidence: Sequence[DeviceEvidence], processor: Config, words: Words
) -> dict[str, Any]:
    """Return the scripts, and the settings because of which there is no script for ONNX Runtime alone."""
    context = {**context_of(made, evidence, processor, words), **_INSIDE}
    names = {"vconv": "vconv", "library": made.system.library}
    if not context["inexpressible"]:
        names["onnxruntime"] = "onnxruntime"
    scripts = {
        key: environment().get_template(f"script.{name}.txt").render(context).strip()
        for key, name in names.items()
    }
    return {"scripts": {"onnxruntime": "", **scripts}, "inexpressible": context["inexpressible"]}
