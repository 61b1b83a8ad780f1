from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import pytest
import transformers
from transformers.activations import ACT2FN

from vconv.catalog.systems import SYSTEMS
from vconv.convert.libraries.readers import network, refuse_unfit
from vconv.convert.libraries.transformers_options import ACTIVATIONS, CLASSES
from vconv.errors import WeightsError

Refused = Callable[..., AbstractContextManager[None]]

_ALL = reversed(SYSTEMS.values())
CONFIGS = {system.config["model_type"]: system.config for system in _ALL if system.preprocessor}
CLASSIFIER = ["classifier.weight", "classifier.bias"]
VIT = CONFIGS["vit"]


def test_every_family_has_its_classes_and_transformers_has_them() -> None:
    assert CLASSES.keys() == CONFIGS.keys()
    assert [name for names in CLASSES.values() for name in names if not hasattr(transformers, name)] == []


@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.parametrize("named", [None, []])
def test_a_configuration_need_not_name_a_class(family: str, named: object) -> None:
    config = {**CONFIGS[family], "architectures": named}
    refuse_unfit(config, ["x"])
    refuse_unfit(config, CLASSIFIER)


@pytest.mark.parametrize(("family", "name"), [(key, name) for key in CLASSES for name in CLASSES[key]])
def test_a_class_that_is_exported_is_accepted(family: str, name: str) -> None:
    refuse_unfit({**CONFIGS[family], "architectures": [name]}, CLASSIFIER if "Class" in name else ["x"])


OTHERS = [
    ("dinov2", ["Dinov2PreTrainedModel"]),
    ("dinov3_vit", ["Dinov2Backbone"]),
    ("vit", ["ViTForMaskedImageModeling"]),
    ("vit", ["ViTModel", "Mine"]),
    ("vit", "ViTModel"),
    ("dinov3_vit", [["DINOv3ViTModel"]]),
    ("dinov2", {"a": 1}),
    ("vit", {"ViTModel": 1}),
]


@pytest.mark.parametrize(("family", "named"), OTHERS)
def test_another_class_is_refused_by_name(family: str, named: object, refused: Refused) -> None:
    with refused(WeightsError, f"a class of {family} that is not exported", f"{named!r}", *CLASSES[family]):
        refuse_unfit({**CONFIGS[family], "architectures": named}, ["x"])


def test_a_classifier_that_the_weights_lack_is_refused(refused: Refused) -> None:
    config = {**VIT, "architectures": ["ViTForImageClassification"]}
    with refused(WeightsError, "the weights have no classifier", "['ViTModel']"):
        refuse_unfit(config, ["vit.layernorm.weight"])


def test_a_classifier_that_the_configuration_does_not_ask_for_is_refused(refused: Refused) -> None:
    with refused(
        WeightsError, "the weights have a classifier", "remove classifier.weight and classifier.bias"
    ):
        refuse_unfit({**VIT, "architectures": ["ViTModel"]}, CLASSIFIER)


ATTENTIONS = [
    ("attn_implementation", "evil/kernels"),
    ("_attn_implementation", "flash_attention_2"),
    ("attn_implementation", {"": "evil/kernels"}),
    ("_attn_implementation_internal", "vconv_plain"),
]


@pytest.mark.parametrize(("key", "value"), ATTENTIONS)
def test_an_attention_that_is_not_declared_is_refused(key: str, value: object, refused: Refused) -> None:
    with refused(WeightsError, "implementation of attention", f"got {key} = {value!r}", f"remove {key}"):
        network({**VIT, key: value})


@pytest.mark.parametrize("value", [None, "eager", "sdpa"])
def test_a_declared_attention_is_accepted(value: object) -> None:
    assert network({**VIT, "attn_implementation": value}).tensors() == network(VIT).tensors()


@pytest.mark.parametrize(
    ("given", "method"), [({"quant_method": "bitsandbytes"}, "'bitsandbytes'"), (3, "3")]
)
def test_quantised_weights_are_refused_by_their_method(given: object, method: str, refused: Refused) -> None:
    with refused(WeightsError, "quantised weights", f"of the method {method}", "before the quantisation"):
        network({**VIT, "quantization_config": given})


def test_a_pooler_of_another_width_is_refused(refused: Refused) -> None:
    with refused(WeightsError, "pooler of another width", "pooler_output_size = 32 for hidden_size = 768"):
        network({**VIT, "pooler_output_size": 32})
    assert network({**VIT, "pooler_output_size": 768}).tensors() == network(VIT).tensors()


def _but(names: Iterable[str]) -> list[str]:
    return sorted(set(ACT2FN) - set(names))


def test_the_declared_activations_are_all_known_to_transformers() -> None:
    assert set(ACTIVATIONS) - set(ACT2FN) == set()
    assert {"gelu_10", "laplace", "mish", "prelu", "xielu"} <= set(_but(ACTIVATIONS))


@pytest.mark.parametrize("key", ["hidden_act", "pooler_act"])
@pytest.mark.parametrize("act", ["gelu_10", "laplace", "mish", "unknown", 5, ["gelu"]])
def test_another_activation_is_refused(key: str, act: object, refused: Refused) -> None:
    with refused(WeightsError, "activation that cannot be exported", f"got {key} = {act!r}", "quick_gelu"):
        network({**VIT, key: act})
