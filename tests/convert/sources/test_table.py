from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from examples import EXAMPLES
from torch import Tensor

from vconv.catalog.systems import System
from vconv.convert.hubs import table as hubs
from vconv.convert.hubs.base import Snapshot
from vconv.convert.sources.base import PERIODS, Source
from vconv.convert.sources.table import DEFAULT_HUB, POOLS, Request, open_source, ways
from vconv.errors import InputError, WeightsError

Refused = Callable[..., AbstractContextManager[None]]
Named = Callable[[Any, Tensor], dict[str, Tensor]]
COMMIT = "0123456789abcdef" + 24 * "0"
TIMM = [name for name, system in EXAMPLES.items() if system.library == "timm"]
TRANSFORMERS = [name for name in EXAMPLES if name not in TIMM]
by_timm = pytest.mark.parametrize("system", TIMM, indirect=True)


@pytest.fixture
def asked(given: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a hub is asked for; it answers with the folder, and goes nowhere."""
    found: list[dict[str, Any]] = []

    def download(hub: str, repository: str, revision: str | None = None, **rest: Any) -> Snapshot:
        found.append({"hub": hub, "repository": repository, "revision": revision, **rest})
        return Snapshot(given, hub, repository, COMMIT)

    monkeypatch.setattr(hubs, "download", download)
    return found


@pytest.mark.parametrize(
    ("weights", "label"),
    [("synthetic", "synthetic:0"), ("synthetic:0", "synthetic:0"), ("synthetic:42", "synthetic:42")],
)
def test_a_seed_is_a_source(small_system: System, scratch: Path, weights: str, label: str) -> None:
    lines: list[str] = []
    source = open_source(Request(small_system, weights), scratch, lines.append)
    assert source.origin.label == label
    assert source.origin.synthetic
    assert lines == [f"drawing synthetic weights from seed {label.partition(':')[2]}"]


@pytest.mark.parametrize(
    "weights", ["synthetic:-1", "synthetic:", "synthetic:x", "synthetic:1234567890", "synthetic:1.0"]
)
def test_what_is_not_a_seed_is_refused(system: System, scratch: Path, weights: str, refused: Refused) -> None:
    with refused(WeightsError, "not a seed", repr(weights), "synthetic:SEED", "synthetic:0"):
        open_source(Request(system, weights), scratch)
    assert list(scratch.iterdir()) == []


def test_a_folder_and_a_file_are_sources(small_system: System, given: Path, tmp_path: Path) -> None:
    kinds = {}
    for path in (given, given / "model.safetensors"):
        scratch = tmp_path / f"scratch-{len(kinds)}"
        scratch.mkdir()
        source = open_source(Request(small_system, str(path)), scratch)
        kinds[source.origin.kind] = source.files
    assert set(kinds) == {"folder", "file"}
    assert kinds["folder"] == kinds["file"]


def test_a_path_with_nothing_there_is_refused(system: System, scratch: Path, refused: Refused) -> None:
    missing = scratch / "nowhere"
    with refused(WeightsError, f"no weights at {missing}", "no such file or folder", ways(system)):
        open_source(Request(system, str(missing)), scratch)


def test_every_way_to_give_weights_is_named(system: System) -> None:
    said = ways(system)
    assert f"hf download {system.hub_id}" in said
    assert "--weights FOLDER" in said
    assert "--weights FILE" in said
    assert "--weights synthetic" in said


@pytest.mark.parametrize("gated", [True, False])
def test_a_licence_is_asked_for_only_where_the_hub_does(system: System, gated: bool) -> None:
    said = ways(replace(system, gated=gated))
    assert (f"accept its licence on the hub first: {system.licence}" in said) is gated


def test_without_weights_the_systems_own_repository_is_asked_for(
    small_system: System, scratch: Path, asked: list[dict[str, Any]]
) -> None:
    lines: list[str] = []
    source = open_source(Request(small_system), scratch, lines.append)
    (request,) = asked
    assert (request["hub"], request["repository"], request["revision"]) == (
        DEFAULT_HUB, small_system.hub_id, None,
    )  # fmt: skip
    assert (request["gated"], request["licence"]) == (small_system.gated, small_system.licence)
    assert request["offline"] is False
    assert source.origin.label == f"{DEFAULT_HUB}:{small_system.hub_id}@{COMMIT[:12]}"
    assert (source.origin.revision, source.origin.synthetic) == (COMMIT, False)
    assert lines == ["reading model.safetensors"]


@pytest.mark.parametrize(
    ("weights", "repository", "revision"),
    [
        ("hub:me/mine", "me/mine", None),
        ("hub:me/mine@v1.0", "me/mine", "v1.0"),
        (f"hub:me/mine@{COMMIT}", "me/mine", COMMIT),
        ("hub:me/mine@refs/pr/1@2", "me/mine", "refs/pr/1@2"),
    ],
)
def test_another_repository_and_revision_can_be_named(
    small_system: System,
    scratch: Path,
    asked: list[dict[str, Any]],
    weights: str,
    repository: str,
    revision: str | None,
) -> None:
    request = Request(replace(small_system, gated=True), weights, "modelscope", offline=True)
    source = open_source(request, scratch)
    assert (asked[0]["hub"], asked[0]["repository"], asked[0]["revision"]) == (
        "modelscope", repository, revision,
    )  # fmt: skip
    assert (asked[0]["offline"], asked[0]["gated"]) == (True, False)
    assert source.origin.label == f"modelscope:{repository}@{COMMIT[:12]}"


def test_what_a_hub_gives_is_read_as_a_folder_is(
    small_system: System, given: Path, scratch: Path, asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    (given / "config.json").write_text(json.dumps({**small_system.config, "mine": 1}))
    (given / "README.md").write_text("---\nlicense: mit\n---\n")
    source = open_source(Request(small_system, "hub:me/mine"), scratch)
    (tmp_path / "second").mkdir()
    folder = open_source(Request(small_system, str(given)), tmp_path / "second")
    assert source.config["mine"] == 1
    assert source.licence == "mit"
    assert (source.files, source.config, source.from_catalog) == (
        folder.files,
        folder.config,
        folder.from_catalog,
    )


@pytest.mark.parametrize("pool", POOLS)
@by_timm
def test_a_chosen_pooling_is_that_of_the_stock_model_of_the_source(
    small_system: System,
    scratch: Path,
    tmp_path: Path,
    stock: Callable[[Path], Any],
    named: Named,
    pixel_values: Tensor,
    distance: Callable[[Any, Any], float],
    pool: str,
) -> None:
    (tmp_path / "own").mkdir()
    own = open_source(Request(small_system, "synthetic:1"), tmp_path / "own")
    source = open_source(Request(small_system, "synthetic:1", pool=pool), scratch)
    expected = named(stock(own.folder), pixel_values)
    found = named(stock(source.folder), pixel_values)
    assert torch.equal(found["last_hidden_state"], expected["last_hidden_state"])
    tokens, first = expected["last_hidden_state"], 1 + own.network.registers
    by_hand = {"cls": tokens[:, 0], "avg": tokens[:, first:].sum(dim=1) / (tokens.shape[1] - first)}
    assert distance(found["pooled"], by_hand[pool]) < 1e-6
    assert (distance(found["pooled"], expected["pooled"]) > 1e-2) is (pool != own.network.numbers.pooling)
    assert source.network.numbers.pooling == pool
    assert json.loads((source.folder / "config.json").read_text()) == source.config
    assert source.files == own.files


@pytest.mark.parametrize("pool", POOLS)
@by_timm
def test_a_classifier_can_be_pooled_otherwise_too(
    small_system: System,
    classifier_folder: Path,
    scratch: Path,
    stock: Callable[[Path], Any],
    pixel_values: Tensor,
    distance: Callable[[Any, Any], float],
    pool: str,
) -> None:
    source = open_source(Request(small_system, str(classifier_folder), pool=pool), scratch)
    weights = safetensors.torch.load_file(classifier_folder / "model.safetensors")
    with torch.no_grad():
        tokens = stock(classifier_folder).forward_features(pixel_values)
        logits = stock(source.folder)(pixel_values)
    pooled = tokens[:, 0] if pool == "cls" else tokens[:, 5:].mean(dim=1)
    assert distance(logits, pooled @ weights["head.weight"].T + weights["head.bias"]) < 1e-5


@pytest.mark.parametrize("system", TRANSFORMERS, indirect=True)
@pytest.mark.parametrize("pool", POOLS)
def test_where_there_is_one_pooling_alone_the_choice_is_refused(
    small_system: System, scratch: Path, refused: Refused, pool: str
) -> None:
    own = {"vit-base-patch16-224-in21k": "pooler"}.get(small_system.name, "cls")
    fragments = ("transformers", f"is always {own}", "expected a system of timm", "omit --pool")
    with refused(InputError, "--pool does not apply to this system", *fragments):
        open_source(Request(small_system, "synthetic", pool=pool), scratch)


@pytest.mark.parametrize("pool", ["token", "mean", "CLS", "map"])
def test_an_unknown_pooling_is_refused(
    small_system: System, scratch: Path, refused: Refused, pool: str
) -> None:
    with refused(InputError, "--pool is not known", repr(pool), "expected cls or avg"):
        open_source(Request(small_system, "synthetic", pool=pool), scratch)


@pytest.mark.parametrize("periods", PERIODS)
def test_periods_can_be_chosen_where_there_is_rope_and_only_there(
    small_system: System, scratch: Path, refused: Refused, periods: str
) -> None:
    request = Request(small_system, "synthetic", periods=periods)
    if small_system.name in ("dinov3-vits16", "vit_small_patch16_dinov3.lvd1689m"):
        assert open_source(request, scratch).periods == periods
        return
    with refused(InputError, "--periods does not apply to this system", "has no RoPE", "omit --periods"):
        open_source(request, scratch)


def test_unknown_periods_are_refused(small_system: System, scratch: Path, refused: Refused) -> None:
    with refused(InputError, "--periods is not known", "'mine'", "expected authors or library"):
        open_source(Request(small_system, "synthetic", periods="mine"), scratch)


@pytest.mark.parametrize("weights", ["hub:", "hub:@main", "hub:one", "hub:a/b/c"])
def test_a_hub_without_a_repository_is_refused(
    small_system: System, scratch: Path, refused: Refused, weights: str
) -> None:
    with refused(WeightsError, "not the name of a repository", "expected OWNER/NAME"):
        open_source(Request(small_system, weights), scratch)


def test_a_revision_that_is_empty_is_refused(small_system: System, scratch: Path, refused: Refused) -> None:
    with refused(WeightsError, "the revision is empty", "'hub:a/b@'", "omit the @"):
        open_source(Request(small_system, "hub:a/b@"), scratch)


def test_without_a_choice_the_source_is_as_it_came(small_source: Source, small_system: System) -> None:
    assert small_source.config == dict(small_system.config)
