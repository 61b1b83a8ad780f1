from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from vconv.artifact.artifact import Artifact
from vconv.convert.graphs import flat_model as room
from vconv.convert.graphs.flat_model import FlatModel, flat_model
from vconv.convert.libraries import models
from vconv.convert.patches.table import PATCHES

BATCH = 2


def flat(small: Artifact) -> FlatModel:
    patches = [PATCHES[name] for name in PATCHES if small.applies(name)]
    return flat_model(small.folder, small.network, patches, small.manifest.size, BATCH)


def operators(model: FlatModel) -> list[str]:
    nodes = [node for node in model.module.graph.nodes if node.op == "call_function"]
    return [str(node.target).removeprefix("aten.").split(".")[0] for node in nodes]


def test_the_flat_model_computes_what_the_patched_model_does_and_depends_on_images_alone(
    small: Artifact,
) -> None:
    made = flat(small)
    images = torch.randn(BATCH, 3, *small.manifest.size, generator=torch.Generator().manual_seed(0))
    stock = models.load(small.folder, small.network)
    with torch.no_grad():
        found = made.module(images)
        model = models.Outputs(stock, small.network)
        for name in PATCHES:
            if small.applies(name):
                for site in PATCHES[name].sites(stock, small.network):
                    if not site.done:
                        site.apply()
        expected = model(images)
    assert len(found) == len(expected) == len({id(tensor) for tensor in found})
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    graph = made.module.graph
    moving = {node for node in graph.nodes if node.op == "placeholder"}
    for node in graph.nodes:
        moving |= {node} if moving & {*node.all_input_nodes} else set()
    assert [node for node in graph.nodes if node.op == "call_function" and node not in moving] == []


def test_every_gelu_is_an_erf_of_a_product_and_no_kernel(small: Artifact) -> None:
    made = flat(small)
    found = operators(made)
    gelus = sum(patch.sites for patch in small.manifest.patches if patch.name == "gelu-erf" and patch.applied)
    assert (found.count("erf"), found.count("gelu"), made.tanh_gelus) == (gelus, 0, 0)
    for node in made.module.graph.nodes:
        if "erf" in str(node.target):
            (operand,) = node.all_input_nodes
            assert operand.target is torch.ops.aten.mul.Tensor


class Toy(nn.Module):
    """Two equal outputs, a table that no image changes, and a GELU in each form."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        table = torch.arange(3, dtype=torch.float32).cos() * self.weight
        found = nn.functional.gelu(images * table, approximate="tanh")
        return found, found


def test_what_no_image_changes_is_computed_and_equal_outputs_are_two_tensors() -> None:
    images = torch.randn(2, 3)
    module: Any = torch.export.export(Toy(), (images,)).module(check_guards=False)
    room._fold(module)
    made = FlatModel(module, images)
    assert operators(made) == ["mul", "gelu", "clone"] and made.tanh_gelus == 1
    one, other = module(images)
    expected = Toy()(images)[0]
    assert one is not other
    torch.testing.assert_close(one, expected)
    torch.testing.assert_close(other, expected)


def test_a_value_that_is_written_to_is_not_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Writing(nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
            table = torch.zeros(2, 3)
            table[:, 1] = images[:, 1]
            return (table + images,)

    images = torch.randn(2, 3)
    program = torch.export.export(Writing(), (images,))
    assert any(room._writes(node) for node in program.graph.nodes)
    module: Any = program.run_decompositions({}).module(check_guards=False)
    room._fold(module)
    for seed in range(2):
        given = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(module(given), Writing()(given))
