from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import vconv
from vconv.artifact.artifact import Artifact
from vconv.convert.sources.table import Request, open_source
from vconv.errors import InputError, UnknownNameError
from vconv.runtime.devices.table import find_device
from vconv.types import Check, Status, silent
from vconv.validators.faults.operators import alter
from vconv.validators.faults.workshop import ArtifactCopy
from vconv.validators.report.document import InputsRow
from vconv.workflows.bisect import explain_failures
from vconv.workflows.checks import CheckedArtifact

ONE = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)


@pytest.mark.parametrize("variant", ["onnx-fp32", "onnx-fp32-npu", "patched-torch-fp32"])
def test_a_sound_variant_keeps_to_its_reference(copied: Path, variant: str) -> None:
    document = vconv.bisect(copied, variant)
    assert (document.passed, document.status) == (True, "passed")
    assert [row.stage for row in document.stages] == [
        "embeddings",
        "block 0",
        "block 1",
        "block 2",
        "head",
    ]
    assert all(row.own <= document.bound >= row.total for row in document.stages)
    assert document.sentence.startswith(f"{variant} keeps to its reference")
    assert document.reference.source == "live"


@ONE
def test_the_stock_original_of_dinov3_departs_from_the_authors_network(copied: Path) -> None:
    document = vconv.bisect(copied, "original-torch-fp32")
    assert not document.passed
    total = [row.total for row in document.stages]
    assert total[0] < 1e-6
    assert total[1] > 1e-5


@ONE
def test_what_was_found_is_reported_with_a_log_and_a_picture(copied: Path) -> None:
    document = vconv.bisect(copied)
    report, log, picture = (Path(getattr(document, key)) for key in ("report", "log", "picture"))
    assert json.loads(report.read_text())["sentence"] == document.sentence
    assert document.sentence in log.read_text()
    drawn = picture.read_text()
    assert drawn.startswith("<?xml")
    for words in ("stage alone", "accumulated", "limit", "block 2", "dinov3-vits16: onnx-fp32 against"):
        assert words in drawn
    (entry,) = json.loads((copied / "results.json").read_text())["reports"]
    assert entry["file"] == f"reports/{report.name}"
    # What bisect leaves in an artifact is nothing that validation takes offence at.
    assert vconv.validate(copied, quick=True, budget=1e-3).passed


@ONE
def test_the_picture_of_the_same_figures_is_the_same_bytes(copied: Path) -> None:
    first, second = (Path(vconv.bisect(copied).picture).read_bytes() for _ in range(2))
    assert first == second


@ONE
def test_a_wrong_operator_is_named_and_fails(copied: Path, tmp_path: Path) -> None:
    shop = ArtifactCopy.open(Artifact.open(copied), tmp_path / "shop")
    model = shop.graph("model.onnx")
    node = [node.name for node in model.graph.node if node.op_type == "Softmax"][1]
    alter(model, node, shop.value_of)
    shop.save_graph("model.onnx", model)
    shop.rehash()
    document = vconv.bisect(shop.folder)
    assert (document.passed, document.worst_stage) == (False, "block 1")
    assert document.culprit.node == node
    assert re.match(r"onnx-fp32 departs in block 1, by .* at Mul ", document.sentence)
    validated = vconv.validate(shop.folder, quick=True, budget=1e-3)
    assert [row.fault for row in validated.diagnosis] == ["operator"]
    assert validated.diagnosis[0].where == "onnx-fp32"


@pytest.fixture
def without_original(small_name: str, small_system: Any, tmp_path: Path) -> Path:
    (tmp_path / "weights").mkdir()
    folder = open_source(Request(small_system, "synthetic:5"), tmp_path / "weights").folder
    vconv.export(small_name, folder, tmp_path / "a")
    return tmp_path / "a"


@ONE
def test_without_the_original_a_graph_is_held_against_the_patched_model_which_is_said(
    without_original: Path,
) -> None:
    document = vconv.bisect(without_original)
    assert document.passed
    assert document.reference.source == "none"
    assert "the original's weights are not here" in document.reference.name


@ONE
def test_without_the_original_a_torch_variant_is_refused(without_original: Path) -> None:
    with pytest.raises(InputError, match="cannot be held against its reference .*give --weights"):
        vconv.bisect(without_original, "patched-torch-fp32")


@ONE
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"variant": "onnx-fp64"}, "'onnx-fp64'"),
        ({"variant": "patched-torch-fp8"}, "'patched-torch-fp8'"),
        ({"engine": "tensorrt"}, "'tensorrt'"),
        ({"variant": "patched-torch-fp32", "engine": "openvino"}, "is not run by openvino"),
        ({"within": "lax.toml"}, "no limits at lax.toml"),
        ({"device": "tpu"}, "'tpu'"),
    ],
)
def test_wrong_use_is_a_sentence(copied: Path, arguments: dict[str, str], words: str) -> None:
    with pytest.raises((InputError, UnknownNameError), match=words):
        vconv.bisect(copied, **arguments)  # type: ignore[arg-type]
    assert not (copied / "reports").exists()


@ONE
def test_limits_that_do_not_say_when_a_variant_departs_are_refused(copied: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("[fp32.fp32]\ncosine = 0.99\n")
    with pytest.raises(InputError, match="does not say when a variant departs .*vector_relative_error"):
        vconv.bisect(copied, within=str(file))


@ONE
def test_photographs_are_looked_at_where_they_are_given(copied: Path, photographs: list[str]) -> None:
    document = vconv.bisect(copied, images=photographs)
    assert document.inputs == InputsRow(source="photographs", images=("one.png", "two.jpg"))
    assert document.passed


@ONE
@pytest.mark.parametrize(
    ("check", "looks"),
    [
        ("model.uint8.onnx: preprocessing", True),
        ("facebook/model.safetensors: tensors", True),
        ("golden", True),
        ("model.onnx: GELU", False),
        ("tensors", False),
    ],
)
def test_a_check_of_what_no_variant_uses_does_not_explain_a_failure(
    check: str, looks: bool, small: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    located: list[object] = []

    def locate(*given: object) -> list[object]:
        located.append(given)
        return []

    monkeypatch.setattr("vconv.workflows.bisect._located", locate)
    failed = Check(check, Status.FAILED, "it differs", "graph")
    found: Any = CheckedArtifact(small, SimpleNamespace(), SimpleNamespace(), {}, (failed,))  # type: ignore[arg-type]
    row: Any = SimpleNamespace(
        variant="onnx-fp32",
        device="cpu",
        status=Status.FAILED,
        limit="a limit",
        diagnosis=(),
        device_simulated=False,
    )
    row.outputs = {}
    explain_failures(found, [row], silent, [find_device("cpu")])
    assert bool(located) is looks
