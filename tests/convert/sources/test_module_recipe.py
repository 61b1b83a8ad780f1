"""Synthetic weights by the kind of module: every kind has a rule, and no fresh weight hides a fault."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from vconv.convert.libraries.module_kinds import ModuleKind, kind_of
from vconv.convert.network import TensorSpec
from vconv.convert.sources import module_recipe


class Owner(nn.Module):
    """A module with parameters under names that libraries use."""

    def __init__(self) -> None:
        super().__init__()
        shapes = {
            "gamma": (8,),
            "lambda1": (8, 1, 1),
            "q_bias": (8,),
            "relative_position_bias_table": (9, 2),
            "attention_biases": (2, 9),
            "pos_embed": (1, 5, 8),
            "cls_token": (1, 1, 8),
            "logit_scale": (2, 1, 1),
            "in_proj_weight": (24, 8),
        }
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        self.register_buffer("relative_position_index", torch.zeros(9, dtype=torch.int64))


KINDS = [
    (nn.Linear(3, 3), "weight", "WEIGHT"),
    (nn.Linear(3, 3), "bias", "BIAS"),
    (nn.Conv2d(3, 3, 1), "weight", "WEIGHT"),
    (nn.LayerNorm(3), "weight", "NORM_WEIGHT"),
    (nn.GroupNorm(1, 3), "bias", "NORM_BIAS"),
    (nn.BatchNorm2d(3), "running_mean", "RUNNING_MEAN"),
    (nn.BatchNorm2d(3), "running_var", "RUNNING_VARIANCE"),
    (nn.BatchNorm2d(3), "num_batches_tracked", "WHOLE"),
    (nn.Embedding(3, 3), "weight", "EMBEDDING"),
    (Owner(), "gamma", "SCALE"),
    (Owner(), "lambda1", "SCALE"),
    (Owner(), "q_bias", "BIAS"),
    (Owner(), "relative_position_bias_table", "TABLE"),
    (Owner(), "attention_biases", "TABLE"),
    (Owner(), "pos_embed", "EMBEDDING"),
    (Owner(), "cls_token", "EMBEDDING"),
    (Owner(), "logit_scale", "TEMPERATURE"),
    (Owner(), "in_proj_weight", "WEIGHT"),
    (Owner(), "relative_position_index", "WHOLE"),
]


@pytest.mark.parametrize(("module", "name", "kind"), KINDS, ids=lambda value: str(value)[:30])
def test_a_tensor_has_the_kind_of_its_module_and_name(module: nn.Module, name: str, kind: str) -> None:
    assert kind_of(module, name) is ModuleKind[kind]


def drawn(kind: ModuleKind, shape: tuple[int, ...] = (64, 256), key: str = "a", seed: int = 0) -> np.ndarray:
    return module_recipe.draw(TensorSpec(key, kind, shape, None, ""), seed)


def test_every_kind_but_whole_numbers_has_a_rule() -> None:
    assert set(module_recipe.RULES) == set(ModuleKind) - {ModuleKind.WHOLE}


def test_a_tensor_depends_on_the_seed_and_on_its_key_alone() -> None:
    first = drawn(ModuleKind.WEIGHT)
    assert np.array_equal(first, drawn(ModuleKind.WEIGHT))
    assert not np.array_equal(first, drawn(ModuleKind.WEIGHT, seed=1))
    assert not np.array_equal(first, drawn(ModuleKind.WEIGHT, key="b"))


def test_a_product_keeps_the_variance() -> None:
    assert drawn(ModuleKind.WEIGHT).std() == pytest.approx(256**-0.5, rel=0.02)


@pytest.mark.parametrize("kind", ["NORM_WEIGHT", "SCALE", "RUNNING_VARIANCE", "TEMPERATURE"])
def test_a_factor_is_above_0_and_differs_between_channels(kind: str) -> None:
    found = drawn(ModuleKind[kind], (256,))
    assert 0.2 < found.min() < found.max() < 2.0
    assert found.std() > 0.05


def test_no_bias_is_zero() -> None:
    for kind in (ModuleKind.BIAS, ModuleKind.NORM_BIAS, ModuleKind.TABLE):
        assert (drawn(kind, (256,)) != 0).all()
