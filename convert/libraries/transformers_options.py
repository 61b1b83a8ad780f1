"""Options of a transformers ``config.json`` that vconv accepts. Others are refused by name."""

from __future__ import annotations

from collections.abc import Mapping

from vconv.convert.libraries.transformers_backbones import BACKBONES, asks_for_backbone
from vconv.errors import WeightsError
from vconv.types import Config

EXACT_GELU = ("gelu", "gelu_python")
"""Values of ``hidden_act`` that mean the exact GELU."""
ACTIVATIONS = (
    *EXACT_GELU,
    *("gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh", "quick_gelu"),
    *("relu", "relu2", "relu6", "leaky_relu", "silu", "swish", "sigmoid", "tanh", "linear"),
)
"""Activations that are exported. The others of transformers have trained weights, use ``erf`` outside
the exact GELU, or need an operator that CANN does not list."""
CLASSES: Mapping[str, tuple[str, ...]] = {
    "dinov3_vit": ("DINOv3ViTModel",),
    "dinov3_convnext": ("DINOv3ConvNextModel",),
    "dinov2": ("Dinov2Model", "Dinov2ForImageClassification"),
    "dinov2_with_registers": (
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersForImageClassification",
    ),
    "vit": ("ViTModel", "ViTForImageClassification"),
}
"""The classes that are exported, by family: the plain model, then the classifier if there is one."""
ATTENTIONS = (None, "eager", "sdpa")
"""Values that a configuration may give for the implementation of attention. transformers would load others
from a package, or from a hub."""
_ATTENTION_KEYS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")


def asks_for_classifier(config: Config, family: str) -> bool:
    """Return whether a configuration names the class that has a classifier."""
    return CLASSES[family][1:2] == tuple(config.get("architectures") or ())


def refuse_class(config: Config, family: str, classified: bool) -> None:
    """Refuse a configuration that asks for a class that is not exported, or for a head that the weights lack.

    Args:
        config: a ``config.json``.
        family: its family, of :data:`CLASSES`.
        classified: whether the weights have a classifier.

    Raises:
        WeightsError: the class is not exported, or the weights do not fit it.
    """
    known, named = CLASSES[family], config.get("architectures")
    if not named or (asks_for_backbone(config, family) and not classified):
        return
    backbones = [BACKBONES[family].name] if family in BACKBONES else []
    if not isinstance(named, list) or not set(map(str, named)) <= {*known, *backbones}:
        raise WeightsError(
            f"config.json asks for a class of {family} that is not exported",
            got=f"architectures = {named!r:.120}",
            expected=" or ".join(f"[{name!r}]" for name in (*known, *backbones)),
            fix=f"to export the plain model of these weights instead, set architectures to [{known[0]!r}]",
        )
    asked = known[1:2] == tuple(named)
    if asked and not classified:
        raise WeightsError(
            f"the weights have no classifier, but config.json asks for {named[0]}",
            got="no classifier.weight",
            expected="the tensors of the classifier",
            fix=f"to export the plain model, set architectures to [{known[0]!r}] in config.json",
        )
    if classified and not asked and known[1:]:
        raise WeightsError(
            f"the weights have a classifier, but config.json asks for {named[0]}",
            got=f"classifier.weight beside architectures = {named!r}",
            expected="weights without a classifier, or the class that has one",
            fix=f"to export it, set architectures to [{known[1]!r}] and num_labels to its number of classes; "
            "to leave it out, remove classifier.weight and classifier.bias from the weights",
        )


def refuse_options(config: Config) -> None:
    """Refuse a configuration that asks for what transformers can do, and vconv cannot.

    Raises:
        WeightsError: the configuration asks for quantised weights, an attention that is not declared, an
            activation that cannot be exported, or a pooler of another width.
    """
    for key in _ATTENTION_KEYS:
        if config.get(key) not in ATTENTIONS:
            raise WeightsError(
                "config.json asks for an implementation of attention that vconv does not run",
                got=f"{key} = {config[key]!r:.120}",
                expected="eager or sdpa, or none",
                fix=f"remove {key} from config.json: the weights do not depend on it",
            )
    quantisation = config.get("quantization_config")
    if quantisation is not None:
        method = quantisation.get("quant_method") if isinstance(quantisation, Mapping) else quantisation
        raise WeightsError(
            "config.json describes quantised weights",
            got=f"quantization_config of the method {method!r:.120}",
            expected="weights in float32, float16 or bfloat16",
            fix="use the weights from before the quantisation, and their config.json",
        )
    for key in ("hidden_act", "pooler_act"):
        if config.get(key, ACTIVATIONS[0]) not in ACTIVATIONS:
            raise WeightsError(
                "config.json asks for an activation that cannot be exported",
                got=f"{key} = {config[key]!r:.120}",
                expected="one of " + ", ".join(ACTIVATIONS),
                fix="if the weights were trained with one of these, name it; others are not supported",
            )
    width = config.get("pooler_output_size")
    if width not in (None, config.get("hidden_size")):
        raise WeightsError(
            "config.json asks for a pooler of another width than the network",
            got=f"pooler_output_size = {width!r:.120} for hidden_size = {config.get('hidden_size')!r:.120}",
            expected="the same for both",
            fix="remove pooler_output_size, and pooler.dense from the weights, to export without the pooler",
        )
