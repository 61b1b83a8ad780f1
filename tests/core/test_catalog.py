from __future__ import annotations

import json

import pytest

from vconv import catalog
from vconv.catalog import SYSTEMS, System
from vconv.convert.layouts import LAYOUTS
from vconv.errors import UnknownNameError


def test_a_system_is_found_by_short_name_and_by_hub_id(system: System) -> None:
    assert catalog.find(system.name) is system
    assert catalog.find(system.hub_id) is system


def test_an_unknown_system_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown system .*'dinov3-vits' .*dinov3-vits16"):
        catalog.find("dinov3-vits")


def test_no_two_systems_share_a_name_or_a_repository() -> None:
    names = [name for system in SYSTEMS.values() for name in (system.name, system.hub_id)]
    assert len(names) == len(set(names))


def test_every_system_has_a_layout_and_configurations_that_are_json(system: System) -> None:
    assert system.config["model_type"] in LAYOUTS
    assert json.loads(json.dumps(dict(system.config))) == dict(system.config)
    assert json.loads(json.dumps(dict(system.preprocessor))) == dict(system.preprocessor)


def test_a_row_of_the_catalog_cannot_be_changed(system: System) -> None:
    with pytest.raises(TypeError):
        system.config["hidden_size"] = 1  # type: ignore[index]
