from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vconv.catalog.systems import SYSTEMS, System
from vconv.convert.architectures.base import GATED_MLP, PLAIN_MLP, Architecture, Capability, Part, norm
from vconv.convert.architectures.table import ARCHITECTURES
from vconv.convert.files.safetensors_file import read_header
from vconv.convert.layouts import base
from vconv.convert.layouts.base import Layout, one
from vconv.convert.layouts.table import LAYOUTS
from vconv.convert.libraries import readers
from vconv.convert.libraries.readers import READERS, Reader, network
from vconv.convert.sources import synthetic
from vconv.convert.sources.recipes.table import LATEST, RECIPES
from vconv.convert.weights.ledger import match_tensors
from vconv.types import Config, silent


def test_every_architecture_is_listed_under_its_own_name_and_is_stored_by_a_layout() -> None:
    assert {name: one.name for name, one in ARCHITECTURES.items()} == {name: name for name in ARCHITECTURES}
    assert {layout.architecture.name for layout in LAYOUTS.values()} == set(ARCHITECTURES)


def test_every_reader_reads_into_a_layout_of_the_table() -> None:
    built = {family: layout for family, layout in LAYOUTS.items() if layout.home != "facebook"}
    assert {family: reader.layout for family, reader in READERS.items()} == built


def test_every_part_has_a_role_that_the_recipe_knows_and_is_stored_somewhere() -> None:
    for architecture in ARCHITECTURES.values():
        layouts = [layout for layout in LAYOUTS.values() if layout.architecture is architecture]
        stored = {part for layout in layouts for rule in layout.rules for part in rule.parts}
        assert {part.role for part in architecture.parts.values()} <= set(RECIPES[LATEST].rules)
        assert stored <= set(architecture.parts)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.family)
def test_no_layout_stores_a_part_or_a_key_twice(layout: Layout) -> None:
    for other in (PLAIN_MLP, GATED_MLP):
        rules = [rule for rule in layout.rules if other not in rule.when.split()]
        parts = [part for rule in rules for part in rule.parts]
        keys = [key for rule in rules for key in rule.stored]
        assert len(parts) == len(set(parts))
        assert len(keys) == len(set(keys))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.family)
def test_a_rule_with_a_block_number_has_parts_with_a_block_number(layout: Layout) -> None:
    for rule in layout.rules:
        assert {"{i}" in name for name in (*rule.stored, *rule.parts)} == {rule.in_block}


TOY = Architecture(
    "toy",
    {
        "token": Part("token", (1, 1, "width")),
        "blocks.{i}.mix": Part("fc1", ("hidden", "width")),
        **norm("norm"),
    },
)
TOY_LAYOUT = Layout(
    "toy", "timm", TOY, (one("t", "token"), one("b.{i}.mix", "blocks.{i}.mix"), *base.norm("n", "norm"))
)


def _numbers(config: Config) -> object:
    numbers = network(SYSTEMS["dinov3-vits16"].config).numbers
    return replace(numbers, width=4, hidden=6, blocks=config["depth"], flags=frozenset())


def test_a_new_architecture_needs_its_parts_a_layout_and_a_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = Reader(TOY_LAYOUT, "timm", lambda config: config.get("architecture") == "toy", _numbers)  # type: ignore[arg-type]
    monkeypatch.setattr(readers, "READERS", {**READERS, "toy": toy})
    config = {"architecture": "toy", "depth": 2}
    net = network(config)
    assert {key: tensor.shape for key, tensor in net.tensors().items()} == {
        "t": (1, 1, 4), "b.0.mix": (6, 4), "b.1.mix": (6, 4), "n.weight": (4,), "n.bias": (4,),
    }  # fmt: skip
    assert net.capabilities == frozenset(Capability)
    source = synthetic.draw(System("toy", "me/toy", "timm", config, "mit"), 1, LATEST, tmp_path, silent)
    assert [match.target for match in match_tensors(source.network, source.entries)] == list(source.entries)
    drawn = np.frombuffer(b"".join(read_header(tmp_path / "model.safetensors")["b.1.mix"].chunks()), "<f4")
    assert drawn.std() > 0
