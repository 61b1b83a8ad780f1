from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import Manifest
from vconv.artifact.results import CARD_FILE, RESULTS_FILE
from vconv.convert.weights import ledger
from vconv.convert.weights.ledger import LEDGER_FILE
from vconv.types import CONFIG_FILE, WEIGHTS_FILE
from vconv.validators.checks.integrity import verify_files, verify_ledger
from vconv.validators.faults.graphs import GRAPH
from vconv.validators.faults.workshop import ArtifactCopy


def digests(folder: Path) -> dict[str, str]:
    """Hash what an artifact is, and not what was found out about it since."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (CARD_FILE, RESULTS_FILE)
    }


@pytest.fixture
def shop(small_artifact: Path, tmp_path: Path) -> ArtifactCopy:
    return ArtifactCopy.open(Artifact.open(small_artifact), tmp_path / "shop")


def spoil(shop: ArtifactCopy) -> None:
    key = next(name for name, entry in shop.entries.items() if len(entry.shape) == 2)
    shop.weight(key, lambda weight: weight * 2)
    shop.configuration(CONFIG_FILE, lambda config: {**config, "more": 1})
    model = shop.graph(GRAPH)
    model.producer_name = "another"
    shop.save_graph(GRAPH, model)
    shop.rehash()


def test_a_workshop_is_a_whole_copy(shop: ArtifactCopy, small_artifact: Path) -> None:
    assert digests(shop.folder) == digests(small_artifact)


def test_what_is_made_wrong_has_hashes_that_fit_and_the_artifact_is_as_it_was(
    shop: ArtifactCopy, small_artifact: Path
) -> None:
    before = digests(small_artifact)
    spoil(shop)
    assert verify_files(Artifact.open(shop.folder)).status == "passed"
    assert verify_ledger(ledger.load(shop.folder / LEDGER_FILE), shop.entries).status == "passed"
    after = digests(shop.folder)
    changed = {name for name in before if before[name] != after[name]}
    assert {WEIGHTS_FILE, CONFIG_FILE, GRAPH} <= changed
    assert digests(small_artifact) == before


def test_what_was_made_wrong_is_mended(shop: ArtifactCopy, small_artifact: Path) -> None:
    spoil(shop)
    shop.restore()
    assert digests(shop.folder) == digests(small_artifact)
    assert not shop.changed


def test_reports_are_not_copied(copied: Path, tmp_path: Path, made: Manifest) -> None:
    (copied / "reports").mkdir()
    (copied / "reports" / "x.json").write_text("{}")
    shop = ArtifactCopy.open(Artifact.open(copied), tmp_path / "shop")
    assert not (shop.folder / "reports").exists()
    assert shop.made == made


def test_a_changed_weight_is_changed_alone(shop: ArtifactCopy, small_artifact: Path) -> None:
    keys = [name for name, entry in shop.entries.items() if len(entry.shape) == 2]
    before = {name: b"".join(entry.chunks()) for name, entry in shop.entries.items()}
    shop.weight(keys[0], lambda weight: weight * 2)
    after = {name: b"".join(entry.chunks()) for name, entry in shop.entries.items()}
    assert {name for name in before if before[name] != after[name]} == {keys[0]}
    np.testing.assert_array_equal(
        np.frombuffer(after[keys[0]], "<f4"), 2 * np.frombuffer(before[keys[0]], "<f4")
    )
