"""The scripts of a published repository. They need no vconv, and share the parts of the card's scripts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vconv.artifact.manifest import Manifest
from vconv.artifact.records import VariantRecord
from vconv.convert.architectures.base import CLASSIFIER
from vconv.convert.architectures.layer_outputs import CLS, RAW, find_layer
from vconv.convert.architectures.outputs import TOKENS
from vconv.convert.layouts import convnext
from vconv.precisions import FP32
from vconv.types import Config
from vconv.validators.accuracy.limits import TABLES
from vconv.validators.report.card.evidence import DeviceEvidence
from vconv.validators.report.card.scripts import context_of
from vconv.validators.report.card.templating import environment
from vconv.validators.report.card.words import words_of

INFERENCE, ACCURACY, PERFORMANCE = "inference.py", "eval/eval_accuracy.py", "eval/eval_performance.py"
_TEMPLATES = {
    INFERENCE: "program.inference.txt",
    ACCURACY: "program.eval_accuracy.txt",
    PERFORMANCE: "program.eval_performance.txt",
}
_GAP = re.compile(r"\n{4,}")
_BESIDE = {
    **{"picture": "picture", "folder": "ROOT", "local_dir": 'f"local-dir:{ROOT}"'},
    **{"manifest": '(ROOT / "vconv.json")', "to_device": ""},
}
"""How the scripts of a repository name what they open: they run from any folder."""


def graphs(made: Manifest) -> list[VariantRecord]:
    """List the graphs that ONNX Runtime runs on pixel values, in the order of the manifest."""
    found = (one for one in made.variants if one.graph and not one.offline)
    return [one for one in found if not one.contract.preprocessing]


def programs_of(made: Manifest, evidence: Sequence[DeviceEvidence], processor: Config) -> Mapping[str, str]:
    """Return the scripts of a repository, by path.

    There is no script for the accuracy of an artifact without recorded inputs and outputs.

    Args:
        made: the artifact's manifest.
        evidence: the newest report of each device.
        processor: the settings of the image processor.
    """
    context: dict[str, Any] = {
        **context_of(made, evidence, processor, words_of("en")),
        **_BESIDE,
        "graphs": {one.variant: one.path for one in graphs(made)},
        "limits": _limits(made),
        "golden": made.golden.path if made.golden else "",
        **{"size": made.size, "synthetic": made.source.synthetic},
    }
    context["torch_outputs"] = _given(made, context["backbone"], context["head_output"])
    wanted = [path for path in _TEMPLATES if path != ACCURACY or made.golden]
    texts = {path: environment().get_template(_TEMPLATES[path]).render(context) for path in wanted}
    return {path: _GAP.sub("\n\n\n", text).rstrip() + "\n" for path, text in texts.items()}


def _given(made: Manifest, backbone: bool, head_output: str) -> list[str]:
    """List the outputs of an artifact that its model in PyTorch gives itself; vconv makes the others of them.

    Args:
        made: the artifact's manifest.
        backbone: whether the library returns feature maps.
        head_output: the output of the head in timm.
    """
    if backbone:
        layers = filter(None, map(find_layer, made.outputs))
        maps = [layer for layer in layers if layer.kind.name not in (CLS, RAW + CLS)]
        return [layer.name for layer in sorted(maps, key=lambda layer: layer.block)]
    given = {head_output} if made.system.library == "timm" else {"pooled"}
    if made.system.library == "transformers" and made.system.head == CLASSIFIER:
        given = {"logits"}
    elif (
        made.system.family != convnext.TIMM.family
    ):  # timm gives the map of a ConvNeXt in place of its tokens
        given.add(TOKENS)
    return [name for name in made.outputs if name in given]


def _limits(made: Manifest) -> dict[str, dict[str, dict[str, float]]]:
    """Return the bounds of each graph and of the model in PyTorch, by the name of the table of limits."""
    precisions = {"torch": FP32, **{one.variant: one.precision for one in graphs(made)}}
    return {
        name: {variant: dict(table[precision, precision].bounds) for variant, precision in precisions.items()}
        for name, table in TABLES.items()
    }
