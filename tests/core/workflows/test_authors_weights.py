"""An artifact with weights for the authors' own code: exported, validated, and each fault of it named."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import safetensors.torch
import torch
from layout_files import TIMM3, TRANSFORMERS3
from published_formulas import DINOV3, State, drawn

import vconv
from vconv.artifact.artifact import Artifact
from vconv.catalog.systems import SYSTEMS, miniature
from vconv.convert.sources.authors import AUTHORS_LEDGER, AUTHORS_WEIGHTS
from vconv.convert.sources.table import Request, open_source
from vconv.errors import ArtifactError, InputError, WeightsError
from vconv.types import WEIGHTS_FILE, Check, Status
from vconv.workflows.authors_weights import check_with_ledger, check_with_original
from vconv.workflows.export import export
from vconv.workflows.validate import validate

Refused = Callable[..., AbstractContextManager[None]]


def weights() -> State:
    """Draw a file of the authors whose biases all are zero, as theirs are."""
    return drawn(DINOV3, bias=0.0)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as the authors publish it."""
    path = tmp_path_factory.mktemp("given") / "weights.pth"
    torch.save(weights(), path)
    return path


@pytest.fixture
def made(given: Path, once: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of an artifact with weights for the authors' code."""
    system = miniature(SYSTEMS[TRANSFORMERS3])
    folder = once(
        "for-authors", lambda part: export(system, given, part / "made", layout="facebook", golden=False)
    )
    return shutil.copytree(folder / "made", tmp_path / "made")


def rehashed(folder: Path, name: str) -> None:
    """Let the manifest agree with a changed file."""
    content = json.loads((folder / "vconv.json").read_text())
    content["files"][name]["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    content["files"][name]["nbytes"] = (folder / name).stat().st_size
    text = json.dumps(content)
    (folder / "vconv.json").write_text(text)
    (folder / "vconv.json.sha256").write_text(hashlib.sha256(text.encode()).hexdigest())


def test_the_authors_code_gets_every_tensor_although_the_artifact_drops_the_biases(
    made: Path, given: Path
) -> None:
    found, expected = safetensors.torch.load_file(made / AUTHORS_WEIGHTS), weights()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value.float()) for name, value in expected.items())
    assert not [name for name in safetensors.torch.load_file(made / WEIGHTS_FILE) if "q_proj.bias" in name]
    record = vconv.info(made)["authors"]
    assert record == {
        "path": AUTHORS_WEIGHTS,
        "ledger": AUTHORS_LEDGER,
        "family": "facebook dinov3",
        "losses": [],
    }
    report = validate(made, given, quick=True)
    assert report.passed
    named = {check.name: check.detail for check in report.checks}
    assert "all 53 tensors match" in named[f"{AUTHORS_WEIGHTS}: ledger"]
    assert "all 53 source tensors" in named[f"{AUTHORS_WEIGHTS}: tensors"]


def checks(made: Path, given: Path, scratch: Path) -> list[Check]:
    scratch.mkdir()
    artifact = Artifact.open(made)
    source = open_source(Request(miniature(SYSTEMS[TRANSFORMERS3]), str(given)), scratch)
    return [*check_with_ledger(artifact), *check_with_original(artifact, source)]


@pytest.mark.parametrize("name", ["blocks.1.attn.qkv.weight", "blocks.1.attn.qkv.bias_mask", "mask_token"])
def test_one_changed_element_is_found_without_the_original_and_with_it(
    name: str, made: Path, given: Path, tmp_path: Path
) -> None:
    assert [check.status for check in checks(made, given, tmp_path / "a")] == [Status.PASSED] * 2
    tensors = safetensors.torch.load_file(made / AUTHORS_WEIGHTS)
    tensors[name].view(-1)[7] += 1e-3
    safetensors.torch.save_file(tensors, made / AUTHORS_WEIGHTS, {"format": "pt"})
    found = checks(made, given, tmp_path / "b")
    assert [(check.name, check.status) for check in found] == [
        (f"{AUTHORS_WEIGHTS}: ledger", Status.FAILED),
        (f"{AUTHORS_WEIGHTS}: tensors", Status.FAILED),
    ]
    assert all(name in check.detail for check in found)


def test_a_file_that_was_changed_with_its_hash_fails_the_validation(made: Path, given: Path) -> None:
    tensors = safetensors.torch.load_file(made / AUTHORS_WEIGHTS)
    tensors["norm.bias"][7] += 1e-3
    safetensors.torch.save_file(tensors, made / AUTHORS_WEIGHTS, {"format": "pt"})
    with pytest.raises(ArtifactError, match=f"{AUTHORS_WEIGHTS} was changed"):
        validate(made, given, quick=True)
    rehashed(made, AUTHORS_WEIGHTS)
    assert not validate(made, given, quick=True).passed


def test_a_manifest_that_names_other_files_than_those_is_found(made: Path, given: Path) -> None:
    tensors = safetensors.torch.load_file(made / AUTHORS_WEIGHTS)
    tensors["norm.bias"][7] += 1e-3
    safetensors.torch.save_file(tensors, made / AUTHORS_WEIGHTS, {"format": "pt"})
    content = json.loads((made / "vconv.json").read_text())
    content["authors"].update(path=WEIGHTS_FILE, ledger="ledger.json")
    (made / "vconv.json").write_text(json.dumps(content))
    rehashed(made, AUTHORS_WEIGHTS)
    failed = {check.name for check in validate(made, given, quick=True).checks if check.status == "failed"}
    assert "manifest: authors" in failed


def test_a_ledger_that_drops_what_the_authors_code_needs_is_found(
    made: Path, given: Path, tmp_path: Path
) -> None:
    tensors = safetensors.torch.load_file(made / AUTHORS_WEIGHTS)
    del tensors["rope_embed.periods"]
    safetensors.torch.save_file(tensors, made / AUTHORS_WEIGHTS, {"format": "pt"})
    lines = json.loads((made / AUTHORS_LEDGER).read_text())
    for line in lines:
        if line["source"] == "rope_embed.periods":
            line.update(target="", action="dropped", proof="nobody needs it")
    (made / AUTHORS_LEDGER).write_text(json.dumps(lines))
    ledger, original = checks(made, given, tmp_path / "a")
    assert ledger.status is Status.PASSED
    assert original.status is Status.FAILED and "rope_embed.periods" in original.detail


def test_an_output_that_the_authors_code_computes_otherwise_needs_consent(
    tmp_path: Path, refused: Refused
) -> None:
    system = miniature(SYSTEMS[TIMM3])
    with refused(
        WeightsError, "this conversion changes the outputs", "pooled is cls, not avg", "--allow-lossy"
    ):
        export(system, "synthetic:1", tmp_path / "made", layout="facebook", golden=False)
    assert not (tmp_path / "made").exists()


def test_weights_for_the_authors_code_are_not_left_out(tmp_path: Path, refused: Refused) -> None:
    with refused(InputError, "--without-weights is not used with --layout facebook"):
        export(TRANSFORMERS3, "synthetic:1", tmp_path, layout="facebook", without_weights=True)


@pytest.mark.parametrize("name", ["vit-base-patch16-224", "timm/resnet18"])
def test_a_network_without_such_a_layout_is_refused_before_its_weights_are_drawn(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setattr("vconv.workflows.export.open_source", None)
    with refused(InputError, "--layout facebook does not apply to this network", "fix: omit --layout"):
        export(name, "synthetic", tmp_path / "made", layout="facebook")
