from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from vconv.convert.files.safetensors_file import read_header
from vconv.convert.sources.base import Origin, Source, digest_of


@pytest.mark.parametrize(
    ("origin", "label"),
    [
        (Origin("synthetic", "0"), "synthetic:0"),
        (Origin("folder", "0123456789ab"), "folder:0123456789ab"),
        (Origin("file", "0123456789ab"), "file:0123456789ab"),
        (Origin("huggingface", "timm/vit"), "huggingface:timm/vit"),
        (Origin("modelscope", "timm/vit", "main"), "modelscope:timm/vit@main"),
        (Origin("huggingface", "timm/vit", "0123456789" * 4), "huggingface:timm/vit@012345678901"),
    ],
)
def test_a_label_says_what_the_weights_are(origin: Origin, label: str) -> None:
    assert origin.label == label


def test_a_seed_is_never_mistaken_for_training() -> None:
    assert Origin("synthetic", "7").synthetic
    for kind in ("file", "folder", "huggingface", "modelscope"):
        assert not Origin(kind, "synthetic").synthetic


def test_one_files_digest_is_its_own_and_several_have_one_whatever_their_order() -> None:
    first, second = (hashlib.sha256(text).hexdigest() for text in (b"first", b"second"))
    assert digest_of({"a": first}) == first[:12]
    both = digest_of({"a": first, "b": second})
    assert both == digest_of({"b": second, "a": first})
    assert len({both, first[:12], second[:12], digest_of({"a": first, "b": first})}) == 4


def test_entries_are_those_of_the_file(small_source: Source) -> None:
    assert small_source.entries == read_header(small_source.folder / "model.safetensors")


def test_a_source_knows_its_network_and_its_library(small_source: Source) -> None:
    assert small_source.network.config == small_source.config
    assert small_source.network.library == small_source.library.name
    assert small_source.network is small_source.network


def test_either_configuration_changes_the_hash_of_both_and_the_order_of_keys_does_not(
    small_source: Source,
) -> None:
    shuffled = dict(reversed(list(small_source.config.items())))
    same = replace(small_source, config=shuffled)
    other = replace(small_source, config={**small_source.config, "new": 1})
    processed = replace(small_source, preprocessor={**small_source.preprocessor, "new": 1})
    assert same.configuration_sha256 == small_source.configuration_sha256
    assert len({source.configuration_sha256 for source in (small_source, other, processed)}) == 3
    text = json.dumps([dict(small_source.config), dict(small_source.preprocessor)], sort_keys=True)
    assert small_source.configuration_sha256 == hashlib.sha256(text.encode()).hexdigest()
