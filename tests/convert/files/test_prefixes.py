from __future__ import annotations

import pytest
import torch
from torch import nn

from vconv.convert.files.prefixes import keep, peel

NAMES = ["embeddings.cls_token", "encoder.layer.0.norm1.weight", "layernorm.bias"]
CHAINS = [
    ("_orig_mod.",),
    ("module.",),
    ("module.", "_orig_mod."),
    ("_fsdp_wrapped_module.",),
    ("teacher.", "backbone."),
    ("model.", "_orig_mod.", "module."),
    ("_checkpoint_wrapped_module.",),
]


@pytest.mark.parametrize("chain", CHAINS)
def test_declared_prefixes_that_every_name_has_are_removed(chain: tuple[str, ...]) -> None:
    new, removed = peel("".join(chain) + name for name in NAMES)
    assert list(new.values()) == NAMES
    assert list(new) == ["".join(chain) + name for name in NAMES]
    assert sorted(removed) == sorted(chain)


def test_a_wrapped_part_of_a_model_gets_its_own_name_back() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    plain = list(model.state_dict())
    model["a"] = torch.compile(model["a"])
    assert "a._orig_mod.weight" in model.state_dict()
    assert peel(model.state_dict()) == (dict(zip(model.state_dict(), plain, strict=True)), ("_orig_mod.",))
    inner = ["_fsdp_wrapped_module.x.0._fsdp_wrapped_module.weight", "_fsdp_wrapped_module.x.bias"]
    assert list(peel(inner)[0].values()) == ["x.0.weight", "x.bias"]
    own = ["_orig_mod.my_orig_mod.weight", "_orig_mod.bias"]
    assert list(peel(own)[0].values()) == ["my_orig_mod.weight", "bias"]


@pytest.mark.parametrize(
    "names",
    [
        NAMES,
        [],
        ["backbone.a", "head.a"],
        ["teacher.backbone.a", "student.backbone.a"],
        ["encoder.a", "encoder.b"],
        ["my_orig_mod.a", "b"],
        ["_orig_mod.a", "a"],
        ["model.", "model.a"],
    ],
)
def test_other_names_are_kept(names: list[str]) -> None:
    """Among them two names that would become one."""
    assert peel(names) == keep(names) == (dict(zip(names, names, strict=True)), ())
