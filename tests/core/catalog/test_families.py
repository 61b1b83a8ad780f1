from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from examples import EXAMPLES, FURTHER

import vconv
from vconv.catalog import literature, published
from vconv.catalog.families import FAMILIES, dinov2
from vconv.catalog.families.base import Family, Size
from vconv.catalog.systems import SYSTEMS, System, expand, miniature, structures
from vconv.convert.graphs.passes.table import DYNAMIC, STATIC, TRACED
from vconv.convert.libraries.readers import READERS, family_of, find_reader, library_of_config, network

REFERENCE: list[dict[str, Any]] = json.loads((Path(__file__).parent / "systems-0.1.0.json").read_text())
"""The five systems as version 0.1.0 had them, each a row by itself."""
TINY = Size("tiny", {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3})
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


def test_the_five_systems_of_the_first_version_are_what_they_were() -> None:
    for expected in REFERENCE:
        assert json.dumps(row(SYSTEMS[expected["name"]]), sort_keys=True) == json.dumps(
            expected, sort_keys=True
        )


FAMILY = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"{family.title}, {family.library}")


def test_every_layout_has_a_family_and_an_example_that_tests_run_over() -> None:
    assert {family.name for family in FAMILIES} == set(READERS)
    assert {family_of(system.config) for system in {**EXAMPLES, **FURTHER}.values()} == set(READERS)


def roles(system: System) -> set[str]:
    """Return the roles of a network's tensors, but for biases that are zero, which one size does not have."""
    return {tensor.role for tensor in network(system.config).tensors().values()} - {"zero_bias"}


def test_a_structure_has_the_tensors_of_its_sizes_in_every_block() -> None:
    """Sizes that differ in numbers alone have the same tensors in a block: one of them stands for all."""
    for system in SYSTEMS.values():
        if system.library == "transformers":
            assert roles(system) in [
                roles(one)
                for one in structures().values()
                if one.family and system.family and one.family.name == system.family.name
            ]


MILLIONS = {
    **{"dinov3-vits16": 21, "dinov3-vitb16": 86, "dinov3-vitl16": 300, "dinov3-vitl16-sat493m": 300},
    **{"dinov2-small": 21, "dinov2-base": 86, "dinov2-large": 300},
    **{
        f"vit-base-patch{kind}": 86 for kind in ("16-224-in21k", "32-224-in21k", "16-224", "16-384", "32-384")
    },
    **{
        f"vit-large-patch{kind}": 307
        for kind in ("16-224-in21k", "32-224-in21k", "16-224", "16-384", "32-384")
    },
    "vit-huge-patch14-224-in21k": 632,
    **{"dinov3-convnext-tiny": 29, "dinov3-convnext-small": 50},
    **{"dinov3-convnext-base": 89, "dinov3-convnext-large": 198},
    **{"dinov3-vits16plus": 29, "dinov3-vith16plus": 840, "dinov3-vit7b16": 6716},
    **{"dinov3-vit7b16-sat493m": 6716, "dinov2-giant": 1100, "dinov2-with-registers-small": 21},
    **{
        f"dinov2-with-registers-{size}": count
        for size, count in (("base", 86), ("large", 300), ("giant", 1100))
    },
}
"""Parameters in millions, as the authors give them: model cards of DINOv2 and DINOv3, table 1 of ViT."""


@pytest.mark.parametrize("name", [name for name, one in SYSTEMS.items() if one.library == "transformers"])
def test_a_size_has_as_many_parameters_as_its_authors_say(name: str) -> None:
    tensors = network(SYSTEMS[name].config).tensors().values()
    assert sum(math.prod(tensor.shape) for tensor in tensors) / 1e6 == pytest.approx(MILLIONS[name], rel=0.06)


@pytest.mark.parametrize("name", [name for name, one in SYSTEMS.items() if one.library == "timm"])
def test_a_size_of_timm_has_the_configuration_that_timm_has_for_it(name: str) -> None:
    system = SYSTEMS[name]
    theirs = timm.get_pretrained_cfg(name, allow_unregistered=False)
    assert theirs.hf_hub_id == system.hub_id
    given = dict(system.config["pretrained_cfg"])
    known = {key: value for key, value in theirs.to_dict().items() if key in given}
    listed = {key: list(value) if isinstance(value, tuple) else value for key, value in known.items()}
    # timm's own entry may name a file of NumPy arrays, which needs custom code; the hub has none.
    assert given == {**listed, "tag": name.partition(".")[2], "custom_load": False}
    assert system.licence == theirs.license
    # One block is enough to see the width and the pooling.
    with torch.device("meta"):
        model = timm.create_model(name, **({"depth": 1} if name.startswith("vit") else {}))
    pool = model.global_pool if name.startswith("vit") else model.head.global_pool.pool_type
    assert (system.config["num_features"], system.config["global_pool"]) == (model.num_features, pool)


@FAMILY
def test_a_familys_name_is_that_of_what_reads_its_configurations(family: Family) -> None:
    for system in expand([family]).values():
        assert find_reader(system.config) is not None
        assert (family_of(system.config), library_of_config(system.config)) == (family.name, family.library)
        assert system.family is family


@FAMILY
def test_no_size_says_again_what_its_family_says(family: Family) -> None:
    for size in family.sizes:
        repeated = {key for key, value in size.config.items() if family.config.get(key) == value}
        assert repeated == set()


def test_families_are_frozen() -> None:
    with pytest.raises(AttributeError):
        dinov2.DINOV2.licence = "mit"  # type: ignore[misc]
    with pytest.raises(TypeError):
        dinov2.DINOV2.config["patch_size"] = 16  # type: ignore[index]


@FAMILY
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
    family = replace(dinov2.DINOV2, sizes=(*dinov2.DINOV2.sizes, TINY))
    return expand([family])["dinov2-tiny"]


def test_a_new_size_is_one_row() -> None:
    system = toy()
    stock = transformers.AutoConfig.for_model(**system.config)
    assert (stock.hidden_size, stock.num_hidden_layers, stock.num_attention_heads) == (192, 12, 3)
    assert (system.hub_id, system.licence, system.input) == (
        "facebook/dinov2-tiny", "apache-2.0", (224, 224),
    )  # fmt: skip
    assert (system.published, system.mirrors) == ((), (literature.HF_MIRROR,))
    assert "dinov2-tiny" not in SYSTEMS


def test_a_new_size_is_exported_from_its_miniature_end_to_end(tmp_path: Path) -> None:
    result = vconv.export(miniature(toy()), "synthetic:1", tmp_path / "artifact")
    assert {row["status"] for row in result["variants"]} == {"passed"}
    assert {check["status"] for check in result["checks"]} == {"passed"}
    assert len(result["variants"]) == 3
    manifest = json.loads((tmp_path / "artifact" / "vconv.json").read_text())
    assert manifest["system"]["name"] == "dinov2-tiny"
    passes = {
        variant["variant"]: variant["graph"] and tuple(variant["graph"]["passes"])
        for variant in manifest["variants"]
    }
    assert passes == {
        "patched-torch-fp32": None,
        "onnx-fp32": (*TRACED, *DYNAMIC),
        "onnx-fp32-npu": (*TRACED, *STATIC),
    }
