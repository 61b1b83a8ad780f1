from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from vconv.catalog.systems import SYSTEMS, System
from vconv.convert.architectures.base import Observed
from vconv.convert.architectures.layer_outputs import LAYER_OUTPUTS
from vconv.convert.architectures.outputs import OUTPUTS, gelus_needed, meanings, output_names, unused_tensors
from vconv.convert.layouts.derived import Stored, derived
from vconv.convert.libraries.readers import network
from vconv.convert.network import Network
from vconv.convert.sources.asked_outputs import asking, read_outputs
from vconv.errors import InputError, OutputsError, UnknownNameError

Refused = Callable[..., Any]

READ = {
    "pooled": ("pooled",),
    "cls,pooled": ("pooled", "cls"),
    "feature_map:3,6,9,12": ("feature_map_3", "feature_map_6", "feature_map_9", "feature_map_12"),
    "attention:12,cls,feature_map:10,2": ("cls", "feature_map_2", "feature_map_10", "attention_12"),
    " cls , feature_map : 1 , 2 , cls:1": ("cls", "feature_map_1", "feature_map_2", "cls_1"),
    "raw_feature_map:3,raw_tokens:0": ("raw_feature_map_3", "raw_tokens_0"),
    "feature_map_3,raw_feature_map_3": ("feature_map_3", "raw_feature_map_3"),
}


@pytest.mark.parametrize("text", READ)
def test_names_are_read_in_the_order_of_all_outputs(text: str) -> None:
    assert read_outputs(text) == READ[text]


def test_every_name_in_reports_is_read_again() -> None:
    names = (*OUTPUTS, *(f"{kind}_7" for kind in LAYER_OUTPUTS))
    assert read_outputs(",".join(names)) == names


@pytest.mark.parametrize(
    ("text", "kind", "fragments"),
    [
        ("", InputError, ["--outputs lacks a name"]),
        ("cls,,pooled", InputError, ["--outputs lacks a name"]),
        ("cls,cls", InputError, ["names an output twice", "got cls"]),
        ("feature_map:3,3", InputError, ["names an output twice", "got feature_map_3"]),
        ("feature_map:3,03", InputError, ["names an output twice", "got feature_map_3"]),
        ("feature_map", InputError, ["does not name a block", "feature_map:3"]),
        ("feature_map:", InputError, ["does not name a block", "got feature_map: "]),
        ("feature_map:last", InputError, ["got feature_map:last"]),
        ("feature_map:-1", InputError, ["got feature_map:-1"]),
        ("attention:123456", InputError, ["got attention:123456"]),
        ("pooled,3", UnknownNameError, ["unknown output", "'3'"]),
        ("clss", UnknownNameError, ["unknown output", "cls"]),
        ("feature_map_03", UnknownNameError, ["unknown output", "feature_map_03"]),
        ("cls_" + "9" * 5000, UnknownNameError, ["unknown output"]),
        ("features:3", UnknownNameError, ["unknown output of a block", "feature_map"]),
        ("logits:3", UnknownNameError, ["unknown output of a block", "'logits'"]),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    text: str, kind: Any, fragments: list[str], refused: Refused
) -> None:
    with refused(kind, *fragments):
        read_outputs(text)


def test_a_network_has_the_outputs_that_it_is_asked_for(system: System) -> None:
    net = network(system.config)
    if net.stages:
        return
    asked = asking(net, ("cls", "feature_map_1", "attention_2"))
    assert output_names(asked) == ("cls", "feature_map_1", "attention_2")
    assert meanings(asked) == {
        "feature_map_1": "the patch tokens as (D, rows, columns) after block 1 of "
        f"{net.blocks}, with the final norm",
        "attention_2": f"the attention probabilities of block 2 of {net.blocks}",
    }
    assert meanings(net) == {}


DINOV2 = "dinov2-small"
LACKING = [
    (DINOV2, ("registers",), "no output registers"),
    (DINOV2, ("logits",), "no output logits"),
    (DINOV2, ("feature_map_13",), "block 13 of a network with the blocks 0 to 12"),
    (DINOV2, ("attention_0",), "block 0 of a network with the blocks 1 to 12"),
    (DINOV2, ("feature_map_0",), "names nothing that a block computes"),
    ("dinov3-convnext-tiny", ("feature_map_5",), "stage 5 of a network with the stages 1 to 4"),
    ("dinov3-convnext-tiny", ("feature_map_0",), "stage 0 of a network with the stages 1 to 4"),
    ("dinov3-convnext-tiny", ("tokens_1",), "stages have feature_map and raw_feature_map"),
]


@pytest.mark.parametrize(("name", "asked", "fragment"), LACKING)
def test_an_output_that_a_network_has_not_is_refused_in_one_line(
    name: str, asked: tuple[str, ...], fragment: str, refused: Refused
) -> None:
    with refused(InputError, fragment):
        asking(network(SYSTEMS[name].config), asked)


def test_a_norm_that_a_network_has_not_is_not_left_out_without_a_word(refused: Refused) -> None:
    system = SYSTEMS["vit_small_patch14_reg4_dinov2.lvd142m"]
    net = network({**system.config, "model_args": {"global_pool": "avg"}, "global_pool": "avg"})
    with refused(InputError, "no final norm of its tokens", "raw_feature_map:3"):
        asking(net, ("feature_map_3",))
    assert output_names(asking(net, ("raw_feature_map_3",))) == ("raw_feature_map_3",)


def test_a_network_that_is_not_declared_has_only_what_its_library_returns(refused: Refused) -> None:
    known = Observed(3, 0, False, ("pooled", "last_hidden_state"), 0, 0, lambda size: {})
    net = replace(network(SYSTEMS[DINOV2].config), known=known)
    toy = replace(net, layout=derived("toy", "timm", [Stored("a.weight", (3, 3))]))
    assert asking(toy, ("pooled", "last_hidden_state")) == toy
    with refused(InputError, "the roles of its weights are not known"):
        asking(toy, ("pooled",))
    with refused(InputError, "its division into blocks is not known"):
        asking(toy, ("feature_map_1",))


def needed(net: Network, *asked: str) -> set[str]:
    """Return the keys of the tensors that a network needs for outputs."""
    keys = {net.stored_key(tensor) for tensor in net.tensors().values()}
    return keys - unused_tensors(asking(net, asked))


def test_only_what_outputs_need_must_be_in_a_graph() -> None:
    net = network(SYSTEMS[DINOV2].config)
    assert needed(net, "cls") == needed(net, "feature_map_12", "attention_1")
    whole, third = needed(net, "cls"), needed(net, "feature_map_3")
    assert {key.split(".")[2] for key in third if key.startswith("encoder.layer.")} == {"0", "1", "2"}
    assert {key for key in whole if not key.startswith("encoder.layer.")} <= third
    assert third - needed(net, "raw_feature_map_3") == {"layernorm.weight", "layernorm.bias"}
    of_fourth = needed(net, "raw_feature_map_3", "attention_4") - needed(net, "raw_feature_map_3")
    parts = {key.removeprefix("encoder.layer.3.").rpartition(".")[0] for key in of_fourth}
    assert parts == {"norm1", "attention.attention.query", "attention.attention.key"}
    counts = {
        ("cls",): 12,
        ("feature_map_3",): 3,
        ("attention_4",): 3,
        ("attention_4", "cls"): 12,
        ("feature_map_5", "attention_4"): 5,
    }
    assert {asked: gelus_needed(asking(net, asked)) for asked in counts} == counts


@pytest.mark.parametrize("system", ["dinov3-convnext-tiny"], indirect=True)
def test_the_same_feature_map_under_two_names_is_refused(system: System, refused: Refused) -> None:
    with refused(OutputsError, "the same output twice", "feature_map_2 and raw_feature_map_2", "leave one"):
        asking(network(system.config), ("feature_map_2", "raw_feature_map_1", "raw_feature_map_2"))
