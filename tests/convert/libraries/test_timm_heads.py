"""Heads of timm models whose architecture is not declared, each of another form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from examples import EXAMPLES

from vconv.convert.architectures.base import Observed
from vconv.convert.libraries.readers import network
from vconv.convert.libraries.timm_models import LIBRARY
from vconv.convert.libraries.watch import Watch

MODELS: dict[str, dict[str, Any]] = {
    "mambaout_femto": dict(depths=(1, 1, 1, 1), dims=(8, 16, 16, 16)),
    "efficientvit_m0": dict(depth=(1, 1, 1), num_heads=(2, 2, 2), embed_dim=(16, 16, 16)),
    "deit_tiny_distilled_patch16_224": dict(depth=1, embed_dim=24),
    "resnet18": dict(layers=(1, 1, 1, 1), channels=(8, 8, 16, 16), num_classes=0),
}
"""A GELU in the head; a BatchNorm after ``pre_logits``; two classifiers; no classifier."""


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_timms_and_no_gelu_of_a_head_counts_twice(name: str) -> None:
    torch.manual_seed(0)
    model: Any = timm.create_model(name, **MODELS[name]).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean = torch.randn_like(module.running_mean)
    system = next(system for system in EXAMPLES.values() if system.library == "timm")
    seen = Observed(3, 0, True, (), 0, 0, lambda size: {})
    unknown = replace(network(system.config), known=seen)
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        with Watch() as alone:
            whole = model(images)
        with Watch() as watch:
            found = LIBRARY.run(model, unknown, images)
        features = model.forward_features(images)
        expected = {"last_hidden_state": features, "pooled": model.forward_head(features, pre_logits=True)}
    if model.num_classes:
        expected["logits"] = whole
    assert watch.kernels == alone.kernels
    assert set(found) == set(expected)
    for output, value in expected.items():
        assert torch.equal(found[output], value), output
