"""A manifest that lies, with every hash made to fit: each lie that the files can prove is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

import vconv
from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import DIGEST_FILE
from vconv.convert.patches.table import PATCHES
from vconv.errors import ArtifactError
from vconv.runtime.engines import runnable
from vconv.types import CONFIG_FILE, MANIFEST_FILE, Check, Status
from vconv.validators.checks.claims import CLAIMS, OF_OFFLINE_MODELS, Evidence, check_claims
from vconv.validators.checks.inspected_graph import open_graph

Lie = Callable[[dict[str, Any]], object]
small_one = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)


def lie(folder: Path, change: Lie) -> None:
    content = json.loads((folder / MANIFEST_FILE).read_text())
    change(content)
    text = json.dumps(content)
    (folder / MANIFEST_FILE).write_text(text)
    (folder / DIGEST_FILE).write_text(hashlib.sha256(text.encode()).hexdigest())


def checked(folder: Path) -> list[Check]:
    artifact = Artifact.open(folder)
    made = artifact.manifest
    graphs = {
        one.path: open_graph(folder, one.path, one.weights, artifact.network, made.size, one.batch)
        for one in made.variants
        if one.path.endswith(".onnx")
    }
    return check_claims(Evidence(artifact, graphs))


def each(content: dict[str, Any], **fields: Any) -> None:
    for variant in content["variants"][1:]:
        variant.update(fields)


def graphs(content: dict[str, Any], **fields: Any) -> None:
    for variant in content["variants"][1:]:
        variant["graph"].update(fields)


def without_patch(content: dict[str, Any], *names: str) -> None:
    for variant in content["variants"]:
        variant["patches"] = [name for name in variant["patches"] if name not in names]


def swap_paths(one: dict[str, Any], other: dict[str, Any]) -> None:
    one["path"], other["path"] = other["path"], one["path"]


def contract(content: dict[str, Any]) -> Any:
    return content["variants"][0]["contract"]


def library_periods(content: dict[str, Any]) -> None:
    """Say in every place that the authors' periods were left out."""
    name = "rope-periods"
    content["source"]["periods"], content["rope_periods"] = "library", None
    next(patch for patch in content["patches"] if patch["name"] == name)["applied"] = False
    for variant in content["variants"]:
        variant["patches"] = [patch for patch in variant["patches"] if patch != name]


LIES: dict[str, tuple[str, Lie]] = {
    "weights said to be trained": ("source", lambda m: m["source"].update(synthetic=False)),
    "no recording": ("golden", lambda m: m.update(golden=None)),
    "graphs of another precision": ("precision", lambda m: each(m, precision="fp16")),
    "a torch variant of another precision": (
        "precision",
        lambda m: m["variants"][0].update(precision="fp16"),
    ),
    "another size": ("size", lambda m: m.update(size=[224, 224])),
    "another family": ("system", lambda m: m["system"].update(family="vit")),
    "another library": ("system", lambda m: m["system"].update(library="timm")),
    "another pooling": ("system", lambda m: m["system"].update(pooling="avg")),
    "another head": ("system", lambda m: m["system"].update(head="pooler")),
    "the files of two variants swapped": ("variants", lambda m: swap_paths(*m["variants"][1:])),
    "another engine of a variant": ("variants", lambda m: m["variants"][1].update(engine="openvino")),
    "a wider output": ("contracts", lambda m: contract(m)["outputs"]["pooled"].update(shape=["batch", 999])),
    "an output less": ("contracts", lambda m: contract(m)["outputs"].pop("registers")),
    "an output of another type": (
        "contracts",
        lambda m: contract(m)["outputs"]["cls"].update(dtype="float16"),
    ),
    "another order of axes": ("contracts", lambda m: contract(m).update(layout="NHWC")),
    "preprocessing inside": ("contracts", lambda m: contract(m).update(preprocessing=True)),
    "another opset": ("graphs", lambda m: graphs(m, opset=22)),
    "another IR version": ("graphs", lambda m: graphs(m, ir_version=10)),
    "other operators": ("graphs", lambda m: graphs(m, operators={"Conv": 1})),
    "a graph without a description": ("graphs", lambda m: each(m, graph=None)),
    "weights for the authors' code that are not there": (
        "authors",
        lambda m: m.update(authors={"path": "config.json", "ledger": "ledger.json", "family": "dinov2"}),
    ),
    "an output that has a meaning of its own": ("meanings", lambda m: m.update(meanings={"cls": "the mean"})),
    "fewer tensors": ("ledger", lambda m: m["ledger"].update(tensors=1)),
    "fewer parameters": ("parameters", lambda m: m["complexity"].update(parameters=7)),
    "no patches": ("patches", lambda m: (m.update(patches=[]), without_patch(m, *PATCHES))),
    "a patch that was not applied": (
        "patches",
        lambda m: (m["patches"][0].update(applied=False), without_patch(m, m["patches"][0]["name"])),
    ),
    "a patch at fewer places": ("patches", lambda m: m["patches"][0].update(sites=1)),
    "a patch at other places of the configuration": (
        "patches",
        lambda m: m["patches"][0].update(carried_by_config=7),
    ),
    "a patch that nothing carries": ("patches", lambda m: m["patches"][0].update(carriers=[])),
    "a corrective patch said to change nothing": (
        "patches",
        lambda m: m["patches"][1].update(corrective=False),
    ),
    "biases said to be kept": ("patches", lambda m: m["patches"][2].update(applied=False)),
    "a variant without its patches": ("patches", lambda m: m["variants"][1].update(patches=[])),
    "positions by another kernel": ("positions", lambda m: m["source"].update(positions="authors")),
    "other periods": ("periods", lambda m: m.update(rope_periods=[1.0, 2.0])),
    "no periods": ("periods", lambda m: m.update(rope_periods=None)),
    "the library's periods in graphs that hold the authors'": ("periods", library_periods),
}
"""A lie, and the claim that is not true."""


@small_one
@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_found_by_what_the_files_say(name: str, copied: Path) -> None:
    claim, change = LIES[name]
    lie(copied, change)
    assert f"manifest: {claim}" in {check.name for check in checked(copied) if check.status is Status.FAILED}


@small_one
def test_a_patch_that_the_configuration_does_not_carry_is_found(copied: Path) -> None:
    content = json.loads((copied / CONFIG_FILE).read_text())
    assert content["hidden_act"] == "gelu_python"
    (copied / CONFIG_FILE).write_text(json.dumps({**content, "hidden_act": "gelu"}))
    (check,) = checked(copied)
    assert (check.name, check.status) == ("manifest: patches", Status.FAILED)
    assert check.detail == "gelu-erf is applied, but config.json does not carry it"


def test_there_is_a_lie_for_every_claim() -> None:
    of_offline_models = {name.removeprefix("manifest: ") for name in OF_OFFLINE_MODELS}
    assert {claim for claim, _ in LIES.values()} == set(CLAIMS) - of_offline_models
    assert of_offline_models < set(CLAIMS)  # the lies about them are in test_offline_claims.py


def test_the_claims_of_every_system_are_true(small_artifact: Path) -> None:
    (check,) = checked(small_artifact)
    assert (check.name, check.status) == ("manifest", Status.PASSED)
    assert check.detail == f"the files prove its {', '.join(CLAIMS)}"


@small_one
@pytest.mark.parametrize(("change", "found"), [(0.0, True), (1e-6, True), (1e-4, False)])
def test_one_column_of_a_table_with_another_period_is_found(change: float, found: bool, copied: Path) -> None:
    model = onnx.load(copied / "model.onnx", load_external_data=False)
    (table,) = (tensor for tensor in model.graph.initializer if tensor.name == "cos")
    values = onnx.numpy_helper.to_array(table).copy()
    values[:, 1] += change
    table.CopyFrom(onnx.numpy_helper.from_array(values, table.name))
    (copied / "model.onnx").write_bytes(model.SerializeToString())
    checks = checked(copied)
    assert [check.status is Status.PASSED for check in checks] == [found]
    if not found:
        reason = "a difference of 1.0e-04 in the tables of model.onnx"
        assert checks[0].detail == f"onnx-fp32 was traced with other RoPE periods: {reason}"


@small_one
def test_a_precision_that_loosens_the_limit_fails_the_validation(copied: Path) -> None:
    lie(copied, lambda m: each(m, precision="fp16"))
    report = vconv.validate(copied, quick=True, budget=1e-3)
    assert report.status == "failed"
    (check,) = (check for check in report.checks if check.status == "failed")
    assert check.name == "manifest: precision"
    assert check.detail == "the precision of onnx-fp32 is fp16, its files say fp32"
    assert check.fault == "manifest"


@small_one
def test_a_network_whose_patches_are_larger_than_its_images_is_no_bug(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "patch_size": 8 * config["image_size"]}))
    assert "manifest: contracts" in {one.name for one in checked(copied) if one.status is Status.FAILED}


@small_one
@pytest.mark.parametrize("key", ["variant", "path"])
def test_a_variant_that_is_there_twice_is_refused(
    key: str, copied: Path, refused: Callable[..., Any]
) -> None:
    lie(copied, lambda m: m["variants"].append({**m["variants"][1], "variant": "b", "path": "b"}))
    assert len(Artifact.open(copied).manifest.variants) == 4
    lie(copied, lambda m: m["variants"][-1].update({key: m["variants"][1][key]}))
    with refused(ArtifactError, "cannot read", "is there twice"):
        Artifact.open(copied)


def test_the_bounds_of_a_graph_hold_for_every_graph_as_exported(small: Artifact) -> None:
    for record in small.manifest.variants[1:]:
        path = small.path(record)
        assert runnable.broken_bound(path, record, frozenset({""})) == ("", "")
