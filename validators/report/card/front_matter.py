"""The metadata at the head of a card, which a hub reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vconv.artifact.manifest import Manifest
from vconv.catalog.literature import LICENCES
from vconv.validators.report.card.model import MODELSCOPE_KIND, family, repository

_KNOWN = (
    "",
    "unknown",
    "apache-2.0",
    "mit",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-sa-4.0",
    "openrail",
    "gpl-3.0",
    "unlicense",
)
"""Licences that have an identifier on the hub: https://huggingface.co/docs/hub/repositories-licenses."""


def metadata(made: Manifest, unlike: bool = False) -> dict[str, Any]:
    """Return the metadata of an artifact, in the fields of https://huggingface.co/docs/hub/model-cards.

    Synthetic weights come from no model and have no licence. A network that is unlike the catalog's system of
    its name is based on no repository that is known here, unless its weights came from one.
    """
    system, source = made.system, made.source
    tags = ["vconv", "ascend", "npu", "onnx", "safetensors", family(made)]
    named: dict[str, Any] = {}
    if source.synthetic:
        tags.append("synthetic-weights")
    else:
        named = {"license": source.licence or "unknown"}
        if source.licence not in _KNOWN:
            named |= {
                "license": "other",
                "license_name": source.licence,
                "license_link": LICENCES.get(source.licence),
            }
        if source.kind != MODELSCOPE_KIND and (source.revision or not unlike) and repository(made):
            named |= {"base_model": repository(made)}
    return {
        **named,
        "library_name": system.library,
        "pipeline_tag": "image-classification" if "logits" in made.outputs else "image-feature-extraction",
        "tags": tags,
    }


def written(fields: Mapping[str, Any]) -> str:
    """Return metadata as a hub reads it from a card: YAML between two lines of ``---``."""
    from huggingface_hub import ModelCardData

    return f"---\n{ModelCardData(**fields).to_yaml()}\n---"
