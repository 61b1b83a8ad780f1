from __future__ import annotations

from typing import Any

import pytest
from huggingface_hub import ModelCard

from vconv.artifact.manifest import Manifest
from vconv.catalog.systems import SYSTEMS, System
from vconv.validators.report.card import model
from vconv.validators.report.card.card import render
from vconv.validators.report.card.front_matter import metadata
from vconv.validators.report.card.words import LANGUAGES, words_of


def trained(made: Manifest, licence: str, identity: str = "", revision: str = "") -> Manifest:
    """Return a manifest as of weights that were trained."""
    told = {"synthetic": False, "kind": "huggingface" if revision else "folder", "licence": licence}
    told |= {
        "label": f"hub:{identity}" if identity else "weights",
        "identity": identity,
        "revision": revision,
    }
    return made.model_copy(update={"source": made.source.model_copy(update=told)})


def test_trained_weights_have_a_licence_and_a_base_and_nothing_is_called_synthetic(
    made: Manifest, system: System
) -> None:
    found = trained(made, system.licence)
    for language in LANGUAGES:
        text = render(found, [], language)
        data = ModelCard(text).data
        assert data.base_model == system.hub_id
        if system.licence == "dinov3-license":
            assert (data.license, data.license_name) == ("other", "dinov3-license")
            assert data.license_link.startswith("https://ai.meta.com/")
        else:
            assert data.license == system.licence
        assert "synthetic-weights" not in data.tags
        assert "synthetic" not in text.lower().replace("synthetic:", "")
        assert "合成" not in text


def test_a_fine_tune_names_its_own_repository_and_one_way_to_get_it(made: Manifest, system: System) -> None:
    found = trained(made, "mit", identity="someone/fine-tune", revision="0123abc")
    text = render(found, [], "en")
    assert ModelCard(text).data.base_model == "someone/fine-tune"
    assert ModelCard(text).data.license == "mit"
    (route,) = model.routes(found)
    assert route["command"].startswith("hf download someone/fine-tune")
    assert f"hf download {system.hub_id}" not in text


def test_a_network_of_another_size_is_based_on_a_repository_only_if_its_weights_came_from_one(
    made: Manifest,
) -> None:
    for identity, revision in (("", ""), ("someone/fine-tune", "0123abc")):
        found = trained(made, "mit", identity, revision)
        assert "base_model" in metadata(found)
        assert ("base_model" in metadata(found, unlike=True)) is bool(revision)
        assert bool(model.routes(found, unlike=True)) is bool(revision)


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        ({}, ""),
        ({"periods": "stored"}, ""),
        ({"size": (336, 224)}, " --size 336,224"),
        ({"dynamic_size": True}, " --size dynamic"),
        ({"dynamic_size": True, "size": (336, 224)}, " --size dynamic:336,224"),
        (
            {"pool": "avg", "periods": "library", "positions": "authors", "outputs": ("cls", "attention:1")},
            " --pool avg --periods library --positions authors --outputs cls,attention:1",
        ),
    ],
)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_command_in_a_card_asks_for_what_the_artifact_was_asked_for(
    made: Manifest, system: System, asked: dict[str, Any], options: str, language: str
) -> None:
    found = made.model_copy(update={"source": made.source.model_copy(update=asked)})
    command = f"vconv export {system.name} --weights weights/{system.name}{options} --batch 2"
    assert command in render(found, [], language).splitlines()


def test_an_image_is_as_many_tokens_as_the_outputs_say(made: Manifest) -> None:
    found = model.geometry(made)
    assert found is not None
    assert found["rows"] * found["columns"] == found["patches"]
    assert found["tokens"] == 1 + found["registers"] + found["patches"]
    assert found["patch"] * found["rows"] == made.size[0]


def test_every_patch_that_was_applied_has_a_note(made: Manifest) -> None:
    for language in LANGUAGES:
        notes = model.patch_notes(made, words_of(language))
        assert len(notes) == sum(patch.applied for patch in made.patches)


def test_what_carries_a_patch_is_listed_as_in_a_sentence(made: Manifest) -> None:
    patch = next(one for one in made.patches if one.applied and one.name == "gelu-erf")
    for language, carriers, expected in (
        ("en", ("graph",), "carried by the ONNX graphs."),
        ("en", ("config", "graph"), "carried by `config.json` and the ONNX graphs."),
        ("en", ("config", "checkpoint", "graph"), "by `config.json`, the weights file and the ONNX graphs."),
        ("zh", ("config", "graph"), "改动写入：`config.json`、ONNX 计算图。"),  # noqa: RUF001
    ):
        told = made.model_copy(update={"patches": (patch.model_copy(update={"carriers": carriers}),)})
        (note,) = model.patch_notes(told, words_of(language))
        assert expected in note


def test_every_system_says_where_it_comes_from() -> None:
    for system in SYSTEMS.values():
        assert system.works
        assert system.trained_on
        for work in system.works:
            assert work.bibtex.startswith(f"@{work.kind}{{{work.key},\n")
            assert work.bibtex.count("{") == work.bibtex.count("}")
            assert work.url.startswith("https://")
        for mirror in system.mirrors:
            assert system.hub_id in mirror.page_of(system.hub_id)
            assert system.hub_id in mirror.command_of(system.hub_id, "weights")
