from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers

import vconv
from vconv.catalog import families, literature, published
from vconv.catalog.families import FAMILIES, Family, Size
from vconv.catalog.systems import SYSTEMS, System, expand, miniature
from vconv.convert.graphs.passes.table import DYNAMIC, STATIC, TRACED
from vconv.convert.libraries.readers import family_of, find_reader, library_of_config

REFERENCE: list[dict[str, Any]] = json.loads((Path(__file__).parent / "systems-0.1.0.json").read_text())
"""The five systems as version 0.1.0 had them, each a row by itself."""
SMALL = Size("small", {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6})
"""The row by which a new size would come into the catalog."""


def row(system: System) -> dict[str, Any]:
    names = [name for name in dir(published) if getattr(published, name) is system.published]
    return {
        "name": system.name,
        "hub_id": system.hub_id,
        "library": system.library,
        "licence": system.licence,
        "gated": system.gated,
        "trained_on": system.trained_on,
        "works": [work.key for work in system.works],
        "mirrors": [mirror.name for mirror in system.mirrors],
        "published": names[0],
        "config": dict(system.config),
        "preprocessor": dict(system.preprocessor),
    }


def test_the_families_expand_to_the_five_systems_of_the_first_version() -> None:
    assert [system["name"] for system in REFERENCE] == list(SYSTEMS)
    for system, expected in zip(SYSTEMS.values(), REFERENCE, strict=True):
        assert json.dumps(row(system), sort_keys=True) == json.dumps(expected, sort_keys=True)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_familys_name_is_that_of_what_reads_its_configurations(family: Family) -> None:
    for system in expand([family]).values():
        assert find_reader(system.config) is not None
        assert (family_of(system.config), library_of_config(system.config)) == (family.name, family.library)
        assert system.family is family


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_no_size_says_again_what_its_family_says(family: Family) -> None:
    for size in family.sizes:
        assert set(size.config).isdisjoint(family.config)


def test_families_are_frozen() -> None:
    with pytest.raises(AttributeError):
        families.DINOV2.licence = "mit"  # type: ignore[misc]
    with pytest.raises(TypeError):
        families.DINOV2.config["patch_size"] = 16  # type: ignore[index]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_miniature_keeps_all_but_the_numbers_and_the_side(family: Family) -> None:
    for system in expand([family]).values():
        small = miniature(system)
        assert small.input == (family.miniature.side,) * 2
        changed = {name for name in small.config if small.config[name] != system.config.get(name)}
        own = {"num_features", "model_args", "pretrained_cfg"} if family.library == "timm" else set()
        assert changed <= {*family.miniature.numbers, *own}
        kept = {"config": system.config, "preprocessor": system.preprocessor}
        assert replace(small, **kept) == system


def test_a_system_of_no_family_cannot_be_shrunk() -> None:
    with pytest.raises(ValueError, match="mine is of no family"):
        miniature(System("mine", "me/mine", "transformers", {}, "mit"))


def toy() -> System:
    family = replace(families.DINOV2, sizes=(*families.DINOV2.sizes, SMALL))
    return expand([family])["dinov2-small"]


def test_a_new_size_is_one_row() -> None:
    system = toy()
    stock = transformers.AutoConfig.for_model(**system.config)
    assert (stock.hidden_size, stock.num_hidden_layers, stock.num_attention_heads) == (384, 12, 6)
    assert (system.hub_id, system.licence, system.input) == (
        "facebook/dinov2-small", "apache-2.0", (224, 224),
    )  # fmt: skip
    assert (system.published, system.mirrors) == ((), (literature.HF_MIRROR,))
    assert "dinov2-small" not in SYSTEMS


def test_a_new_size_is_exported_from_its_miniature_end_to_end(tmp_path: Path) -> None:
    result = vconv.export(miniature(toy()), "synthetic:1", tmp_path / "artifact")
    assert {row["status"] for row in result["variants"]} == {"passed"}
    assert {check["status"] for check in result["checks"]} == {"passed"}
    assert len(result["variants"]) == 3
    manifest = json.loads((tmp_path / "artifact" / "vconv.json").read_text())
    assert manifest["system"]["name"] == "dinov2-small"
    passes = {
        variant["variant"]: variant["graph"] and tuple(variant["graph"]["passes"])
        for variant in manifest["variants"]
    }
    assert passes == {
        "patched-torch-fp32": None,
        "onnx-fp32": (*TRACED, *DYNAMIC),
        "onnx-fp32-npu": (*TRACED, *STATIC),
    }
