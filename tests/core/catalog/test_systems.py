from __future__ import annotations

import json

import pytest
from examples import EXAMPLES

from vconv.catalog import systems
from vconv.catalog.systems import SYSTEMS, System
from vconv.convert.architectures.outputs import OUTPUTS
from vconv.convert.libraries.readers import library_of_config
from vconv.errors import UnknownNameError
from vconv.runtime.devices.table import KINDS
from vconv.validators.accuracy.metrics import METRICS


def test_a_system_is_found_by_short_name_and_by_hub_id(system: System) -> None:
    assert systems.find(system.name) is system
    assert systems.find(system.hub_id) is system


def test_an_unknown_system_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown system .*'dinov3-vits' .*dinov3-vits16"):
        systems.find("dinov3-vits")


def test_no_two_systems_share_a_name_or_a_repository() -> None:
    names = [name for system in SYSTEMS.values() for name in (system.name, system.hub_id)]
    assert len(names) == len(set(names))


def test_every_system_has_a_layout_and_configurations_that_are_json(system: System) -> None:
    assert library_of_config(system.config) == system.library
    assert json.loads(json.dumps(dict(system.config))) == dict(system.config)
    assert json.loads(json.dumps(dict(system.preprocessor))) == dict(system.preprocessor)


def test_a_row_of_the_catalog_cannot_be_changed(system: System) -> None:
    with pytest.raises(TypeError):
        system.config["hidden_size"] = 1  # type: ignore[index]


def test_published_figures_have_a_source_a_known_device_and_names_that_reports_use(system: System) -> None:
    latency = {"mean_ms", "p50_ms", "p50_ms_per_image", "images_per_second"}
    assert system.published, "every example has figures"
    for row in system.published:
        assert row.source
        assert row.kind in KINDS
        assert (row.batch is None) == bool(row.output)
        assert set(row.figures) <= (set(METRICS) if row.output else latency)
        assert row.output in ("", *OUTPUTS)
        assert all(value > 0 for value in row.figures.values())


def test_five_systems_are_there_by_the_names_that_users_know() -> None:
    assert {name: SYSTEMS[name].hub_id for name in EXAMPLES} == {
        "dinov3-vits16": "facebook/dinov3-vits16-pretrain-lvd1689m",
        "vit_small_patch16_dinov3.lvd1689m": "timm/vit_small_patch16_dinov3.lvd1689m",
        "dinov2-large": "facebook/dinov2-large",
        "vit_small_patch14_reg4_dinov2.lvd142m": "timm/vit_small_patch14_reg4_dinov2.lvd142m",
        "vit-base-patch16-224-in21k": "google/vit-base-patch16-224-in21k",
    }
