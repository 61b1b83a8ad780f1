"""One system of each further structure, shrunk, from its weights to a model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import transformers
from examples import FURTHER, FURTHER_FIRST

import vconv
from vconv.artifact.manifest import Manifest
from vconv.catalog.systems import System
from vconv.convert.sources.base import Source

pytestmark = pytest.mark.every_system


@pytest.fixture(
    params=[
        pytest.param(name, marks=() if name in FURTHER_FIRST else pytest.mark.full)
        for name in sorted(FURTHER)
    ]
)
def system(request: pytest.FixtureRequest) -> System:
    return FURTHER[request.param]


def test_it_is_exported_and_validated_without_a_false_alarm(copied: Path, made: Manifest) -> None:
    report = vconv.validate(copied)
    failed = [check for check in report.checks if check.status != "passed"]
    assert failed == []
    rows = {row.variant: row for row in report.variants if row.variant != "original-torch-fp32"}
    if made.system.family == "dinov3_convnext":
        fused = rows.pop("fused-torch-fp32")
        assert fused.status == "skipped" and "stage" in fused.reason
    assert {row.status for row in rows.values()} == {"passed"}
    assert report.status == "passed"
    assert set(vconv.info(copied)["outputs"]) == set(made.outputs)
    assert made.system.name in (copied / "README.md").read_text()


def test_the_ledger_has_every_tensor_of_the_source(copied: Path, small_source: Source) -> None:
    ledger = json.loads((copied / "ledger.json").read_text())
    assert sorted(line["source"] for line in ledger) == sorted(small_source.entries)
    assert {line["action"] for line in ledger} <= {"copied", "dropped"}
    assert all(line["proof"] for line in ledger if line["action"] == "dropped")


def with_authors_periods(model: Any) -> Any:
    """Give a stock DINOv3 the RoPE periods of the authors' files: 100^(2i / (head_dim / 2)) in bfloat16."""
    holder = getattr(model, "rope_embeddings", None) or getattr(model, "rope", None)
    for name in ("inv_freq", "periods"):
        buffer = getattr(holder, name, None)
        if buffer is not None:
            count = len(buffer)
            periods = (100.0 ** (torch.arange(count) / count)).bfloat16().float()
            setattr(holder, name, 1 / periods if name == "inv_freq" else periods)
    return model


def stock_outputs(system: System, folder: Path, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Run a source with its library alone; return what the library's own functions give."""
    if system.library == "timm":
        model = with_authors_periods(timm.create_model(f"local-dir:{folder}", pretrained=True).eval())
        tokens = model.forward_features(images)
        found = {"last_hidden_state": tokens, "pooled": model.forward_head(tokens, pre_logits=True)}
        return {**found, "logits": model(images)} if system.classes else found
    (factory,) = system.config["architectures"]
    model = with_authors_periods(getattr(transformers, factory).from_pretrained(folder).eval())
    given = model(images)
    if system.classes:
        return {"logits": given.logits}
    return {"last_hidden_state": given.last_hidden_state, "pooled": given.pooler_output}


def test_the_recorded_reference_is_what_the_stock_library_gives(
    small_system: System, small_source: Source, copied: Path
) -> None:
    golden = safetensors.torch.load_file(copied / "golden" / "golden.safetensors")
    with torch.no_grad():
        expected = stock_outputs(small_system, small_source.folder, golden["pixel_values"])
    for name, value in expected.items():
        torch.testing.assert_close(golden[name], value, rtol=0, atol=1e-5)
        assert value.std() > 0.01


def test_a_classifier_has_the_names_of_its_classes(small_system: System, copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    if not small_system.classes:
        assert not {"id2label", "label_names", "label_descriptions"} & set(config)
    elif small_system.library == "transformers":
        assert {number: config["id2label"][number] for number in ("0", "281")} == {
            "0": "tench, Tinca tinca", "281": "tabby, tabby cat",
        }  # fmt: skip
        assert (len(config["id2label"]), config["label2id"]["tabby, tabby cat"]) == (1000, 281)
    else:
        assert (len(config["label_names"]), config["label_names"][281]) == (1000, "n02123045")
        assert config["label_descriptions"]["n02123045"] == "tabby, tabby cat"


@pytest.mark.full
def test_every_fault_is_caught_and_named(small_artifact: Path) -> None:
    document = vconv.selftest(small_artifact, clean_runs=1)
    assert [row for row in document["faults"] if not row["caught"] or row["class"] != row["expected"]] == []
    assert (document["passed"], document["false_alarms"]) == (True, 0)
