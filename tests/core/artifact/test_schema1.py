from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vconv.artifact.manifest import Manifest
from vconv.artifact.schema1 import upgraded

FILE = Path(__file__).parents[2] / "data" / "artifact-0.1.0" / "vconv.json"


@pytest.fixture
def written() -> dict[str, Any]:
    """A manifest as version 0.1.0 wrote it."""
    content: dict[str, Any] = json.loads(FILE.read_text())
    return content


def test_upgrading_changes_nothing_in_what_was_read(written: dict[str, Any]) -> None:
    upgraded(written)
    assert written == json.loads(FILE.read_text())


def test_what_both_schemas_have_stays_as_it_was(written: dict[str, Any]) -> None:
    made = Manifest.model_validate(upgraded(written))
    document = json.loads(made.model_dump_json())
    for key in ("vconv", "system", "size", "ledger", "patches", "rope_periods", "files", "without_weights"):
        assert document[key] == written[key], key


def test_an_offline_model_has_its_weights_inside(written: dict[str, Any]) -> None:
    command = {"soc": "Ascend910B4", "precision_mode": "origin", "gears": [], "command": ["atc"]}
    om = {**written["variants"][2], "variant": "om-fp32", "engine": "acl", "file": "om/model.om"}
    made = Manifest.model_validate(
        upgraded({**written, "variants": [*written["variants"], {**om, "offline": command}]})
    )
    assert [one.weights for one in made.variants] == [*["model.safetensors"] * 3, None]
    assert (made.variants[3].path, made.variants[3].batch) == ("om/model.om", 2)
    assert made.made_later == (made.variants[3],)


def test_more_variants_and_outputs_than_any_artifact_has_are_refused(written: dict[str, Any]) -> None:
    outputs = dict.fromkeys(map(str, range(101)), next(iter(written["outputs"].values())))
    with pytest.raises(ValueError, match="100 variants of 101 outputs"):
        upgraded({**written, "variants": written["variants"][:1] * 100, "outputs": outputs})


def test_without_recorded_outputs_there_are_none(written: dict[str, Any]) -> None:
    assert upgraded({**written, "golden": None})["golden"] is None
