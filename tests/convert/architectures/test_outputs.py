from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vconv.catalog.systems import SYSTEMS, System
from vconv.convert.architectures import outputs
from vconv.convert.architectures.base import Observed
from vconv.convert.architectures.outputs import (
    OUTPUTS,
    TOKENS,
    Output,
    named_outputs,
    output_names,
    output_shapes,
)
from vconv.convert.layouts.derived import Stored, derived
from vconv.convert.libraries.readers import network
from vconv.convert.network import Network


def with_registers(registers: int) -> Network:
    net = network(SYSTEMS["dinov3-vits16"].config)
    return replace(net, known=replace(net.numbers, registers=registers))


@pytest.mark.parametrize("registers", [0, 1, 4])
def test_tokens_are_sliced_in_order_and_none_is_lost(registers: int) -> None:
    tokens = torch.arange(2 * 10 * 3).reshape(2, 10, 3)
    found = named_outputs(with_registers(registers), {TOKENS: tokens, "pooled": tokens[:, 0]})
    assert found[TOKENS] is tokens
    assert ("registers" in found) is (registers > 0)
    parts = [found["cls"][:, None], found.get("registers", tokens[:, :0]), found["patches"]]
    assert [part.shape[1] for part in parts] == [1, registers, 9 - registers]
    assert torch.equal(torch.cat(parts, dim=1), tokens)


def test_outputs_have_these_names_in_this_order() -> None:
    assert list(OUTPUTS) == ["pooled", "cls", "registers", "patches", "last_hidden_state", "logits"]
    assert {name: output.name for name, output in OUTPUTS.items()} == {name: name for name in OUTPUTS}


def test_a_pooler_is_needed_only_by_networks_that_pool_with_it(system: System) -> None:
    net = network(system.config)
    classified = replace(net, head="classifier")
    assert "pooled" in output_names(net)
    assert ("pooled" in output_names(classified)) is (net.numbers.pooling != "pooler")


def test_a_network_that_is_not_declared_has_the_outputs_that_were_observed() -> None:
    net = network(SYSTEMS["dinov3-vits16"].config)
    seen = {"pooled": (1, 7), "last_hidden_state": (1, 7, 3, 5)}
    known = Observed(3, 0, False, tuple(seen), 0, 0, lambda size: {**seen, "pooled": (1, size[0])})
    toy = replace(net, layout=derived("toy", "timm", [Stored("a.weight", (3, 3))]), known=known)
    assert output_names(toy) == ("pooled", "last_hidden_state")
    assert output_shapes(toy, 4, (64, 96)) == {"pooled": (4, 64), "last_hidden_state": (4, 7, 3, 5)}


def test_a_new_output_that_is_a_slice_of_the_tokens_needs_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    last = Output(
        "last_patch",
        lambda net, grid: (net.numbers.width,),
        lambda net: True,
        lambda tokens, net: tokens[:, -1],
    )
    monkeypatch.setattr(outputs, "OUTPUTS", {**OUTPUTS, last.name: last})
    net, tokens = with_registers(4), torch.randn(2, 21, 384)
    assert output_names(net)[-1] == "last_patch"
    assert output_shapes(net, 2, (64, 64))["last_patch"] == (2, 384)
    found = named_outputs(net, {TOKENS: tokens, "pooled": tokens[:, 0]})
    assert torch.equal(found["last_patch"], tokens[:, 20])


def test_a_new_output_of_a_library_needs_its_row_and_that_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mean = Output("mean", lambda net, patches: (net.numbers.width,), lambda net: net.library == "timm")
    monkeypatch.setattr(outputs, "OUTPUTS", {**OUTPUTS, mean.name: mean})
    net, tokens = with_registers(4), torch.randn(2, 21, 384)
    given = {TOKENS: tokens, "pooled": tokens[:, 0], "mean": tokens.mean(1)}
    assert "mean" not in named_outputs(net, given)
    assert named_outputs(replace(net, library="timm"), given)["mean"] is given["mean"]
