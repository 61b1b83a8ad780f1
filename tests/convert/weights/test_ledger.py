from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from examples import EXAMPLES

from vconv.convert.files.safetensors_file import TensorEntry
from vconv.convert.layouts.foreign import FOREIGN, ForeignLayout, recognise
from vconv.convert.layouts.table import LAYOUTS
from vconv.convert.libraries.readers import network
from vconv.convert.network import Network
from vconv.convert.sources.base import Source
from vconv.convert.weights import ledger
from vconv.convert.weights.ledger import CASTABLE, Line
from vconv.convert.weights.pieces import Piece
from vconv.errors import ArtifactError, WeightsError

Refused = Callable[..., AbstractContextManager[None]]

PREFIXED = [name for name, system in EXAMPLES.items() if network(system.config).layout.prefix]


def net(source: Source) -> Network:
    return source.network


def test_every_tensor_of_a_checkpoint_is_matched_with_itself(small_source: Source) -> None:
    matches = ledger.match_tensors(net(small_source), small_source.entries)
    assert {pair.source: pair.entry for pair in matches} == small_source.entries
    assert [pair for pair in matches if not pair.source == pair.target == pair.canonical] == []
    assert len(matches) == len(small_source.entries)


@pytest.mark.parametrize("system", PREFIXED, indirect=True)
def test_a_checkpoint_saved_under_other_names_gets_the_names_in_the_ledger(
    small_source: Source, stock: Callable[[Path], Any]
) -> None:
    network, model = net(small_source), stock(small_source.folder)
    in_memory = {f"{network.layout.prefix}{name}" for name in model.state_dict()}
    on_disk = list(small_source.entries)
    lines = [Line(name, name, "copied", "F32", (), "") for name in on_disk]
    by_key = {network.layout.disk_key(name.removeprefix(network.layout.prefix)): name for name in in_memory}
    assert by_key.keys() == set(on_disk)
    entries = {by_key[name]: entry for name, entry in small_source.entries.items()}
    stray = next(iter(small_source.entries.values()))
    found = ledger.renamed(lines, network, {**entries, "a.stray": stray})
    assert found == {**small_source.entries, "a.stray": stray}


@pytest.mark.parametrize("count", [1, 2])
def test_a_missing_tensor_is_refused(small_source: Source, refused: Refused, count: int) -> None:
    entries = dict(small_source.entries)
    names = [name for name in net(small_source).tensors()][:count]
    for name in names:
        del entries[name]
    said = "the missing tensor" if count == 1 else "2 missing tensors, such as"
    with refused(WeightsError, net(small_source).layout.family, f"{said} {', '.join(names)}"):
        ledger.match_tensors(net(small_source), entries)


def test_an_unknown_tensor_is_refused(small_source: Source, refused: Refused) -> None:
    entries = dict(small_source.entries)
    entries["rope.periods"] = next(iter(entries.values()))
    with refused(WeightsError, "the unknown tensor rope.periods"):
        ledger.match_tensors(net(small_source), entries)


@pytest.mark.parametrize("system", PREFIXED, indirect=True)
def test_a_tensor_that_comes_with_and_without_prefix_is_refused(
    small_source: Source, refused: Refused
) -> None:
    name = "embeddings.cls_token"
    entries = {**small_source.entries, net(small_source).layout.prefix + name: small_source.entries[name]}
    with refused(WeightsError, f"the double tensor {name}"):
        ledger.match_tensors(net(small_source), entries)


@pytest.mark.parametrize("system", PREFIXED, indirect=True)
def test_a_backbone_with_prefix_loses_it(small_source: Source) -> None:
    prefix = net(small_source).layout.prefix
    entries = {prefix + name: entry for name, entry in small_source.entries.items()}
    matches = ledger.match_tensors(net(small_source), entries)
    assert {pair.source: pair.target for pair in matches} == {
        name: name.removeprefix(prefix) for name in entries
    }


def test_the_shape_of_every_tensor_is_checked(small_source: Source, refused: Refused) -> None:
    for name, entry in small_source.entries.items():
        shape = (*entry.shape[:-1], entry.shape[-1] + 1)
        entries = {**small_source.entries, name: replace(entry, shape=shape)}
        with refused(WeightsError, f"the tensor {name} ", f"got F32 {list(shape)}", str(list(entry.shape))):
            ledger.match_tensors(net(small_source), entries)


def test_a_tensor_with_an_additional_dimension_is_refused(small_source: Source, refused: Refused) -> None:
    name, entry = next(iter(small_source.entries.items()))
    entries = {**small_source.entries, name: replace(entry, shape=(1, *entry.shape))}
    with refused(WeightsError, f"the tensor {name} "):
        ledger.match_tensors(net(small_source), entries)


@pytest.mark.parametrize("dtype", ["I64", "I32", "F8_E4M3", "BOOL"])
def test_a_type_that_fp32_cannot_hold_is_refused(small_source: Source, refused: Refused, dtype: str) -> None:
    name, entry = next(iter(small_source.entries.items()))
    entries = {**small_source.entries, name: replace(entry, dtype=dtype)}
    with refused(WeightsError, f"the tensor {name} ", f"got {dtype} ", "expected F32, F16, BF16 or F64"):
        ledger.match_tensors(net(small_source), entries)


@pytest.mark.parametrize("dtype", ["F32", *CASTABLE])
def test_types_that_fp32_holds_are_matched(small_source: Source, dtype: str) -> None:
    entries: dict[str, TensorEntry] = {
        name: replace(entry, dtype=dtype) for name, entry in small_source.entries.items()
    }
    assert len(ledger.match_tensors(net(small_source), entries)) == len(entries)


LINES = [
    Line("a", "a", "copied", "F32", (1, 2), "0a"),
    Line("x.b", "b", "renamed", "F32", (3,), "0b"),
    Line("c", "c", "cast", "BF16", (), "0c"),
    Line("d", "", "dropped", "F16", (4,), "0d", 'max|b| = 0, "proved"'),
    Line("e", "e", "copied", "F32", (5,), "0e"),
]


def test_a_summary_counts_every_action() -> None:
    assert ledger.summary(iter(LINES)) == {"tensors": 5, "copied": 2, "renamed": 1, "cast": 1, "dropped": 1}


def test_a_summary_of_nothing_is_all_zero() -> None:
    assert ledger.summary([]) == {"tensors": 0, "copied": 0, "renamed": 0, "cast": 0, "dropped": 0}


@pytest.mark.parametrize("lines", [LINES, LINES[:1], []])
def test_a_ledger_is_read_back_as_it_was_saved(tmp_path: Path, lines: list[Line]) -> None:
    ledger.save(tmp_path / "ledger.json", lines)
    assert ledger.load(tmp_path / "ledger.json") == lines


@pytest.mark.parametrize("place", ["a line", "a piece"])
def test_a_ledger_has_no_other_fields(place: str, tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "ledger.json"
    ledger.save(path, [Line("a", "", "split", "F32", (2,), "0a", pieces=(Piece("b", (2,), 0, 2),))])
    rows = json.loads(path.read_text())
    assert len(ledger.load(path)) == 1
    (rows[0] if place == "a line" else rows[0]["pieces"][0])["colour"] = "red"
    path.write_text(json.dumps(rows))
    with refused(ArtifactError, f"cannot read {path}", "colour: "):
        ledger.load(path)


def test_a_ledger_is_plain_json_with_one_line_per_tensor(tmp_path: Path) -> None:
    ledger.save(tmp_path / "ledger.json", LINES)
    text = (tmp_path / "ledger.json").read_text()
    assert [row["source"] for row in json.loads(text)] == [line.source for line in LINES]
    assert len(text.splitlines()) == 2 + len(LINES)


@pytest.mark.parametrize("system", ["vit-base-patch16-224-in21k", "dinov2-large"], indirect=True)
def test_a_state_dict_with_names_in_memory_is_matched(small_source: Source) -> None:
    import transformers

    model = transformers.AutoModel.from_pretrained(small_source.folder)
    in_memory = dict(
        zip(map(small_source.network.layout.disk_key, model.state_dict()), model.state_dict(), strict=True)
    )
    renamed = {
        in_memory[name]: replace(entry, name=in_memory[name]) for name, entry in small_source.entries.items()
    }
    matches = ledger.match_tensors(small_source.network, renamed)
    assert {pair.source: pair.target for pair in matches} == {name: key for key, name in in_memory.items()}


def without(source: Source, *endings: str) -> dict[str, TensorEntry]:
    return {name: entry for name, entry in source.entries.items() if not name.endswith(endings)}


def test_unknown_tensors_are_shown_beside_missing_ones(small_source: Source, refused: Refused) -> None:
    names = list(small_source.entries)[:5]
    entries = {f"x.{name}" if name in names else name: entry for name, entry in small_source.entries.items()}
    missing = [name for name in net(small_source).tensors() if name in names]
    with refused(
        WeightsError, f"5 missing tensors, such as {missing[0]}", f"5 unknown tensors, such as x.{names[0]}"
    ):
        ledger.match_tensors(net(small_source), entries)


@pytest.mark.parametrize(
    ("system", "fix"),
    [
        ("dinov2-large", "inference does not use it: set use_mask_token to false in config.json"),
        ("dinov3-vits16", "inference does not use it: add it as zeros"),
    ],
    indirect=["system"],
)
def test_a_missing_mask_token_is_refused_with_what_to_do(
    small_source: Source, refused: Refused, fix: str
) -> None:
    with refused(WeightsError, "the missing tensor embeddings.mask_token", fix):
        ledger.match_tensors(net(small_source), without(small_source, "mask_token"))


@pytest.mark.parametrize("system", ["dinov2-large"], indirect=True)
def test_without_use_mask_token_there_is_none(small_source: Source, refused: Refused) -> None:
    network = replace(small_source, config={**small_source.config, "use_mask_token": False}).network
    assert len(ledger.match_tensors(network, without(small_source, "mask_token"))) == len(network.tensors())
    with refused(WeightsError, "the unknown tensor embeddings.mask_token", "set use_mask_token to true"):
        ledger.match_tensors(network, small_source.entries)


@pytest.mark.parametrize("system", ["vit-base-patch16-224-in21k"], indirect=True)
def test_a_mask_token_that_the_family_does_not_store_is_refused_with_what_to_do(
    small_source: Source, refused: Refused
) -> None:
    entries = {**small_source.entries, "embeddings.mask_token": next(iter(small_source.entries.values()))}
    with refused(WeightsError, "inference does not use it: remove it from the file"):
        ledger.match_tensors(net(small_source), entries)


def test_a_left_over_head_is_refused_with_what_to_do(small_source: Source, refused: Refused) -> None:
    entries = {**small_source.entries, "dino_head.mlp.0.weight": next(iter(small_source.entries.values()))}
    with refused(WeightsError, "the unknown tensor dino_head.mlp.0.weight", "remove what belongs to a head"):
        ledger.match_tensors(net(small_source), entries)


@pytest.mark.parametrize("system", ["dinov2-large"], indirect=True)
def test_a_classifier_of_another_number_of_classes_is_refused_with_what_to_do(
    small_source: Source, refused: Refused
) -> None:
    entry = next(iter(small_source.entries.values()))
    head = {
        "classifier.weight": replace(entry, shape=(5, 192)),
        "classifier.bias": replace(entry, shape=(5,)),
    }
    source = replace(small_source, entries={**small_source.entries, **head})
    with refused(WeightsError, "the tensor classifier.weight", "[5, 192]", "[2, 192]", "set num_labels"):
        ledger.match_tensors(source.network, source.entries)


META = {
    "a DINOv2 as its authors publish it": [
        "cls_token",
        "pos_embed",
        "mask_token",
        "blocks.0.attn.qkv.weight",
    ],
    "a DINOv3 as its authors publish it": ["cls_token", "storage_tokens", "mask_token", "rope_embed.periods"],
    "in the layout of OpenAI's CLIP, which is not read": [
        "visual.class_embedding",
        "visual.conv1.weight",
        "logit_scale",
    ],
    "in the layout of Google's own ViT files, which is not read": ["cls", "embedding/kernel", "head/bias"],
}


@pytest.mark.parametrize("system", ["vit-base-patch16-224-in21k"], indirect=True)
@pytest.mark.parametrize("layout", META)
def test_files_of_other_networks_are_refused_by_what_they_are(
    small_source: Source, refused: Refused, layout: str
) -> None:
    entry = next(iter(small_source.entries.values()))
    with refused(WeightsError, f"the checkpoint is {layout} | ", "unknown", "`vconv list`"):
        ledger.match_tensors(net(small_source), dict.fromkeys(META[layout], entry))


@pytest.mark.parametrize(
    ("system", "layout", "telling"),
    [
        ("dinov3-vits16", "a ViT or a DINOv2 of timm", "pos_embed"),
        ("vit-base-patch16-224-in21k", "a DINOv3 of timm", "reg_token"),
    ],
    indirect=["system"],
)
def test_timms_names_are_recognised_only_where_timm_is_not_asked_for(
    small_source: Source, refused: Refused, layout: str, telling: str
) -> None:
    entry = next(iter(small_source.entries.values()))
    names = ["cls_token", telling, "patch_embed.proj.weight"]
    with refused(WeightsError, f"the checkpoint is {layout} | "):
        ledger.match_tensors(net(small_source), dict.fromkeys(names, entry))
    assert recognise(names, LAYOUTS["timm dinov2"]) is None


@pytest.mark.parametrize("row", FOREIGN, ids=lambda row: row.name)
def test_a_layout_is_recognised_by_all_of_its_telling_names(row: ForeignLayout) -> None:
    theirs = (layout for layout in LAYOUTS.values() if layout.home == "transformers")
    wanted = next(layout for layout in theirs if layout.architecture.name not in row.architectures)
    assert recognise([*row.telling, "more"], wanted) == row
    assert recognise(row.telling[:1], wanted) is None


def test_a_file_that_is_not_whole_is_to_be_fetched_again(small_source: Source, refused: Refused) -> None:
    entries = dict(small_source.entries)
    entries.pop(sorted(name for name in entries if "mask_token" not in name)[0])
    with refused(WeightsError, "the missing tensor", "fix: the weights are not whole: save or download them"):
        ledger.match_tensors(net(small_source), entries)


@pytest.mark.parametrize("system", ["dinov3-vits16", "vit_base_patch16_224.orig_in21k"], indirect=True)
def test_blocks_that_the_weights_lack_are_counted(small_source: Source, refused: Refused) -> None:
    network = net(small_source)
    last = {network.stored_key(one) for one in network.tensors().values() if one.block == network.blocks - 1}
    entries = {name: entry for name, entry in small_source.entries.items() if name not in last}
    assert len(entries) < len(small_source.entries)
    told = f"the weights have {network.blocks - 1} of the {network.blocks} blocks of config.json"
    with refused(WeightsError, "missing tensors", told):
        ledger.match_tensors(network, entries)


def test_the_one_missing_and_the_one_unknown_tensor_may_be_the_same(
    small_source: Source, refused: Refused
) -> None:
    entries = dict(small_source.entries)
    name = next(name for name in entries if "norm" in name)
    entries["another.name"] = entries.pop(name)
    with refused(WeightsError, "the missing tensor", "the unknown tensor", "fix: rename another.name to "):
        ledger.match_tensors(net(small_source), entries)
