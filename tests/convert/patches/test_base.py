from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest
from torch import nn

from vconv.catalog.systems import System
from vconv.convert.libraries.readers import network
from vconv.convert.network import Network
from vconv.convert.patches.base import Applied, Patch, Site, Undo, WeightsFinding, applied, find_sites
from vconv.errors import PatchError

Refused = Callable[..., AbstractContextManager[None]]
Patching = Callable[..., Patch]


@pytest.fixture
def net(small_system: System) -> Network:
    return network(small_system.config)


@pytest.fixture
def log() -> list[str]:
    """The actions of the patches, in order."""
    return []


@pytest.fixture
def patching(log: list[str]) -> Patching:
    """Return a function that makes a patch whose sites log each action."""

    def make(name: str, *done: bool, expected: int | None = None, breaks: int | None = None) -> Patch:
        def site(number: int, already: bool) -> Site:
            where = f"{name}{number}"

            def apply() -> Undo:
                if number == breaks:
                    raise RuntimeError(f"{where} breaks")
                log.append(f"+{where}")
                return lambda: log.append(f"-{where}")

            return Site(where, already, apply)

        return Patch(
            name=name,
            reason="a test",
            corrective=False,
            carriers=lambda _: ("config",),
            applies=lambda _: True,
            expected=lambda _: len(done) if expected is None else expected,
            sites=lambda _model, _network: [site(number, already) for number, already in enumerate(done)],
        )

    return make


def test_sites_are_applied_in_order_and_undone_in_reverse(
    net: Network, patching: Patching, log: list[str]
) -> None:
    with applied(nn.Module(), net, [patching("a", False, False), patching("b", False)]) as found:
        assert log == ["+a0", "+a1", "+b0"]
        assert found == [Applied("a", 2, 0), Applied("b", 1, 0)]
    assert log == ["+a0", "+a1", "+b0", "-b0", "-a1", "-a0"]


def test_places_that_already_have_the_change_are_counted_and_not_changed(
    net: Network, patching: Patching, log: list[str]
) -> None:
    with applied(nn.Module(), net, [patching("a", True, False, True)]) as found:
        assert found == [Applied("a", 3, 2)]
    assert log == ["+a1", "-a1"]


def test_an_error_inside_undoes_everything_and_is_not_swallowed(
    net: Network, patching: Patching, log: list[str]
) -> None:
    with pytest.raises(KeyError, match="inside"), applied(nn.Module(), net, [patching("a", False, False)]):
        raise KeyError("inside")
    assert log == ["+a0", "+a1", "-a1", "-a0"]


def test_if_one_site_fails_the_sites_before_it_are_undone(
    net: Network, patching: Patching, log: list[str]
) -> None:
    patches = [patching("a", False), patching("b", False, False, breaks=1)]
    with pytest.raises(RuntimeError, match="b1 breaks"), applied(nn.Module(), net, patches):
        pytest.fail("the patches were not all applied")
    assert log == ["+a0", "+b0", "-b0", "-a0"]


@pytest.mark.parametrize("expected", [0, 1, 3, 24])
def test_another_number_of_places_is_refused_and_undone(
    net: Network, patching: Patching, log: list[str], refused: Refused, expected: int
) -> None:
    patches = [patching("a", False), patching("odd", False, True, expected=expected)]
    fragments = ("the patch odd does not fit this Module", "2 places", f"expected {expected}, the number in")
    with refused(PatchError, *fragments, net.layout.family), applied(nn.Module(), net, patches):
        pytest.fail("the patches were not all applied")
    assert log == ["+a0", "-a0"]


def test_finding_sites_changes_nothing(net: Network, patching: Patching, log: list[str]) -> None:
    sites = find_sites(patching("a", False, True), nn.Module(), net)
    assert [(site.name, site.done) for site in sites] == [("a0", False), ("a1", True)]
    assert log == []


def test_without_patches_nothing_changes(net: Network) -> None:
    with applied(nn.Module(), net, []) as found:
        assert found == []


def test_a_patch_without_a_config_edit_leaves_the_configuration(net: Network, patching: Patching) -> None:
    config = {"hidden_act": "gelu"}
    assert patching("a").edit_config(net, config) == {"hidden_act": "gelu"}


def test_a_patch_that_does_not_look_at_weights_is_applied(net: Network, patching: Patching) -> None:
    assert patching("a").decide(net, []) == WeightsFinding(apply=True, proof="", drops=())


def test_a_patch_cannot_be_changed(patching: Patching) -> None:
    patch = patching("a")
    with pytest.raises(AttributeError):
        patch.name = "b"  # type: ignore[misc]
    assert replace(patch, name="b").name == "b"
