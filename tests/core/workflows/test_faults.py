"""Faults made on purpose, each with every hash rewritten: export or validation must fail each time."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch
from examples import EXAMPLES
from onnx import helper, numpy_helper

import vconv
from vconv.artifact.manifest import DIGEST_FILE
from vconv.catalog.systems import System
from vconv.convert.files.safetensors_file import read_header
from vconv.convert.libraries.readers import network
from vconv.convert.patches import gelu_erf, qkv_bias, rope_periods
from vconv.convert.sources.table import Request, open_source
from vconv.convert.weights import ledger
from vconv.convert.weights.ledger import LEDGER_FILE
from vconv.errors import ArtifactError, ExportCheckError, PatchError
from vconv.types import MANIFEST_FILE, WEIGHTS_FILE

QUICK: dict[str, Any] = {"quick": True, "budget": 1e-3}


def rehash(folder: Path) -> None:
    """Make every hash of an artifact fit, and the operators that its manifest counts, to deceive."""
    entries = read_header(folder / WEIGHTS_FILE)
    digests = {name: hashlib.sha256(b"".join(entry.chunks())).hexdigest() for name, entry in entries.items()}
    lines = ledger.load(folder / LEDGER_FILE)
    ledger.save(
        folder / LEDGER_FILE, [replace(line, sha256=digests.get(line.target, line.sha256)) for line in lines]
    )
    content = json.loads((folder / MANIFEST_FILE).read_text())
    for name, record in content["files"].items():
        raw = (folder / name).read_bytes()
        record.update(sha256=hashlib.sha256(raw).hexdigest(), nbytes=len(raw))
    for record in content["variants"]:
        if record["graph"]:
            nodes = onnx.load(folder / record["path"], load_external_data=False).graph.node
            record["graph"]["operators"] = dict(Counter(node.op_type for node in nodes))
    text = json.dumps(content)
    (folder / MANIFEST_FILE).write_text(text)
    (folder / DIGEST_FILE).write_text(hashlib.sha256(text.encode()).hexdigest())


def forget_the_source(folder: Path) -> None:
    """Make an artifact one whose original is not at hand, so that only what it recorded can judge it."""
    content = json.loads((folder / MANIFEST_FILE).read_text())
    content["source"].update(label="folder:elsewhere", kind="folder", revision="", synthetic=False)
    (folder / MANIFEST_FILE).write_text(json.dumps(content))


EVERY_VARIANT = {"patched-torch-fp32", "fused-torch-fp32", "onnx-fp32", "onnx-fp32-npu"}


def failures(report: dict[str, Any]) -> set[str]:
    failed = {check.name for check in report.checks if check.status == "failed"}
    return failed | {variant.variant for variant in report.variants if variant.status == "failed"}


def edit_weight(
    folder: Path, key: str, change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]
) -> None:
    entry = read_header(folder / WEIGHTS_FILE)[key]
    weight = np.frombuffer(b"".join(entry.chunks()), "<f4").reshape(entry.shape)
    with (folder / WEIGHTS_FILE).open("r+b") as file:
        file.seek(entry.offset)
        file.write(np.ascontiguousarray(change(weight)).tobytes())


def a_square_weight(folder: Path) -> str:
    entries = read_header(folder / WEIGHTS_FILE)
    return next(
        name for name, entry in sorted(entries.items())
        if ".1." in name and len(entry.shape) == 2 and entry.shape[0] == entry.shape[1]
    )  # fmt: skip


def tanh_for_erf(graph: onnx.GraphProto) -> None:
    """Replace every erf(x / sqrt 2) by tanh(sqrt(2 / pi) (x + 0.044715 x^3))."""
    for name, value in (("t_root", math.sqrt(2)), ("t_cubic", 0.044715), ("t_scale", math.sqrt(2 / math.pi))):
        graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    nodes = []
    for node in graph.node:
        if node.op_type != "Erf":
            nodes.append(node)
            continue
        y, out = node.input[0], node.output[0]
        nodes += [
            helper.make_node("Mul", [y, "t_root"], [f"{out}_x"]),
            helper.make_node("Mul", [f"{out}_x", f"{out}_x"], [f"{out}_xx"]),
            helper.make_node("Mul", [f"{out}_xx", f"{out}_x"], [f"{out}_xxx"]),
            helper.make_node("Mul", [f"{out}_xxx", "t_cubic"], [f"{out}_c"]),
            helper.make_node("Add", [f"{out}_x", f"{out}_c"], [f"{out}_s"]),
            helper.make_node("Mul", [f"{out}_s", "t_scale"], [f"{out}_a"]),
            helper.make_node("Tanh", [f"{out}_a"], [out]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def test_a_clean_copy_with_its_hashes_rewritten_passes(copied: Path) -> None:
    rehash(copied)
    assert failures(vconv.validate(copied, **QUICK)) == set()


@pytest.mark.parametrize(
    ("file", "variant"), [("model.onnx", "onnx-fp32"), ("model.npu.onnx", "onnx-fp32-npu")]
)
def test_a_tanh_gelu_in_a_graph_fails_by_its_numbers_and_by_its_operators(
    copied: Path, file: str, variant: str
) -> None:
    model = onnx.load(copied / file, load_external_data=False)
    tanh_for_erf(model.graph)
    (copied / file).write_bytes(model.SerializeToString())
    rehash(copied)
    report = vconv.validate(copied, **QUICK)
    assert report.status == "failed"
    assert failures(report) == {variant, f"{file}: exact GELU"}
    row = next(row for row in report.variants if row.variant == variant)
    errors = [output.vector_relative_error for output in row.outputs.values()]
    assert 5e-5 < max(errors) < 5e-2


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_a_loosened_file_lets_a_tanh_gelu_through_by_its_numbers_and_says_so(
    copied: Path, tmp_path: Path
) -> None:
    model = onnx.load(copied / "model.onnx", load_external_data=False)
    tanh_for_erf(model.graph)
    (copied / "model.onnx").write_bytes(model.SerializeToString())
    rehash(copied)
    loose = tmp_path / "loose.toml"
    loose.write_text("[fp32.fp32]\nvector_relative_error = 5e-2\nsource = 'a test'\n")
    assert failures(vconv.validate(copied, **QUICK)) == {"onnx-fp32", "model.onnx: exact GELU"}
    report = vconv.validate(copied, within=loose, **QUICK)
    assert failures(report) == {"model.onnx: exact GELU"}
    assert report.limits.within == report.limits.file.path == str(loose)
    assert report.limits.file.sha256 == hashlib.sha256(loose.read_bytes()).hexdigest()
    bounds = {"vector_relative_error": 5e-2}
    wanted = {"precision": "fp32", "arithmetic": "fp32", "bounds": bounds, "source": "a test"}
    assert [row.as_json() for row in report.limits.rows] == [wanted]
    log = Path(report.log).read_text()
    assert f"limits     {loose}, sha256 {report.limits.file.sha256}" in log
    assert log.endswith(f"failed, within {loose} limits\n")


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_a_tightened_file_fails_a_clean_artifact_in_what_it_names_and_nothing_else(
    copied: Path, tmp_path: Path
) -> None:
    tight = tmp_path / "tight.toml"
    tight.write_text("[fp32.fp32]\nvector_relative_error = 1e-9\n")
    everything = EVERY_VARIANT
    assert failures(vconv.validate(copied, within=str(tight), **QUICK)) == everything
    tight.write_text("[bf16.bf16]\nvector_relative_error = 1e-9\n")
    report = vconv.validate(copied, within=str(tight), precision=("fp32", "fp16", "bf16"), **QUICK)
    assert failures(report) == {"patched-torch-bf16", "fused-torch-bf16"}
    used = {(row.precision, row.bounds["vector_relative_error"]) for row in report.limits.rows}
    assert used == {("fp32", 1e-5), ("fp16", 5e-3), ("bf16", 1e-9)}
    document = vconv.compare([copied], within=tight, precision=("bf16",), **QUICK)
    rows = {row.variant: row.status for row in document.rows}
    assert rows["patched-torch-bf16"] == "failed" and rows["onnx-fp32"] == "passed"
    assert [row.precision for row in document.limits.rows] == ["fp32", "bf16"]


DAMAGES: dict[str, tuple[str, bytes]] = {
    "a ledger without fields": ("ledger.json", b'[{"source": "a"}]'),
    "a ledger that is no list": ("ledger.json", b"3"),
    "a configuration that is no JSON": ("config.json", b"{"),
    "a configuration that is a list": ("config.json", b"[]"),
    "a graph of other bytes": ("model.onnx", b"\x08\xff\xff\xff not a graph"),
    "a recording of other bytes": ("golden/golden.safetensors", b"not a recording"),
    "a recording without images": (
        "golden/golden.safetensors",
        safetensors.numpy.save({"cls": np.ones(3, np.float32)}),
    ),
}
"""Files that are what no export writes, in an artifact whose hashes fit."""


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
@pytest.mark.parametrize("damage", DAMAGES)
def test_an_artifact_whose_hashes_fit_but_whose_files_are_no_such_things_is_a_sentence(
    copied: Path, damage: str
) -> None:
    name, raw = DAMAGES[damage]
    (copied / name).write_bytes(raw)
    content = json.loads((copied / MANIFEST_FILE).read_text())
    content["files"][name].update(sha256=hashlib.sha256(raw).hexdigest(), nbytes=len(raw))
    text = json.dumps(content)
    (copied / MANIFEST_FILE).write_text(text)
    (copied / DIGEST_FILE).write_text(hashlib.sha256(text.encode()).hexdigest())
    with pytest.raises(ArtifactError, match=f"cannot read .*{name}"):
        vconv.validate(copied, **QUICK)


Tensors = dict[str, np.ndarray[Any, Any]]
RECORDINGS: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "NaN in the inputs": (
        lambda t: {**t, "pixel_values": t["pixel_values"] * np.float32("nan")},
        "NaN or Inf",
    ),
    "Inf in an output": (lambda t: {**t, "cls": t["cls"] + np.float32("inf")}, "NaN or Inf in cls"),
    "no images": (lambda t: {name: value[:0] for name, value in t.items()}, "as [0, "),
    "an image more": (
        lambda t: {name: np.concatenate([value, value[:1]]) for name, value in t.items()},
        "as [3, ",
    ),
    "an output of an image less": (lambda t: {**t, "cls": t["cls"][:1]}, "cls as [1, "),
    "inputs of another type": (
        lambda t: {**t, "pixel_values": t["pixel_values"].astype(np.float64)},
        "pixel_values of float64",
    ),
    "whole numbers": (lambda t: {**t, "cls": t["cls"].astype(np.int32)}, "cls of int32"),
    "images of another size": (
        lambda t: {**t, "pixel_values": np.ascontiguousarray(t["pixel_values"][..., :-1])},
        "pixel_values as [2, 3, 64, 63]",
    ),
    "an output less": (lambda t: {k: v for k, v in t.items() if k != "cls"}, "cls as nothing"),
    "an output more": (lambda t: {**t, "x": t["cls"]}, "in the manifest nothing"),
}
"""Changes of a recording, and what is said of them."""


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
@pytest.mark.parametrize("live", [True, False], ids=["live", "recorded"])
@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recording_that_is_not_what_the_manifest_says_is_a_sentence(
    copied: Path, name: str, live: bool, refused: Callable[..., Any]
) -> None:
    change, said = RECORDINGS[name]
    path = copied / "golden" / "golden.safetensors"
    safetensors.numpy.save_file(change(safetensors.numpy.load_file(path)), path)
    if not live:
        forget_the_source(copied)
    rehash(copied)
    with refused(ArtifactError, "golden.safetensors", said):
        vconv.validate(copied, **QUICK)


@pytest.mark.parametrize("live", [True, False], ids=["live", "recorded"])
def test_one_transposed_weight_fails_every_variant(copied: Path, live: bool) -> None:
    edit_weight(copied, a_square_weight(copied), np.transpose)
    if not live:
        forget_the_source(copied)
    rehash(copied)
    report = vconv.validate(copied, **QUICK)
    everything = EVERY_VARIANT
    assert failures(report) == everything | ({"tensors"} if live else set())


def flip(weight: np.ndarray[Any, Any], bit: int) -> np.ndarray[Any, Any]:
    bits = weight.copy().view(np.uint32)
    bits.flat[bits.size // 2] ^= np.uint32(1 << bit)
    return bits.view(np.float32)


def test_any_exponent_bit_of_a_weight_is_caught_where_the_original_is_live(
    small_name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "a"
    vconv.export(small_name, "synthetic", folder)
    for bit in (23, 26, 30):
        edit_weight(folder, a_norm(folder), lambda weight, bit=bit: flip(weight, bit))
        rehash(folder)
        assert "tensors" in failures(vconv.validate(folder, **QUICK))
        edit_weight(folder, a_norm(folder), lambda weight, bit=bit: flip(weight, bit))
    rehash(folder)
    assert failures(vconv.validate(folder, **QUICK)) == set()


def test_the_top_exponent_bit_of_a_weight_fails_every_variant_even_without_the_original(copied: Path) -> None:
    edit_weight(copied, a_square_weight(copied), lambda weight: flip(weight, 30))
    forget_the_source(copied)
    rehash(copied)
    report = vconv.validate(copied, **QUICK)
    assert report.reference.source == "golden"
    assert failures(report) == EVERY_VARIANT


TRANSFORMERS = sorted(name for name, system in EXAMPLES.items() if system.library == "transformers")
"""The systems whose configuration carries the exact GELU."""
BIASED = sorted(name for name, system in EXAMPLES.items() if network(system.config).layout.biases)
"""The systems that have query, key and value biases."""


@pytest.mark.parametrize("system", TRANSFORMERS, indirect=True)
def test_an_activation_that_is_not_the_exact_gelu_stops_an_export(
    small_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = replace(gelu_erf.PATCH, edit_config=lambda network, config: {**config, "hidden_act": "gelu_new"})
    monkeypatch.setattr("vconv.convert.patches.table.PATCHES", {"gelu-erf": broken})
    with pytest.raises(PatchError, match="gelu-erf does not fit .* got 0 places .* expected 3"):
        vconv.export(small_name, "synthetic", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("system", TRANSFORMERS, indirect=True)
def test_a_gelu_patch_that_carries_nothing_stops_an_export(
    small_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = replace(gelu_erf.PATCH, edit_config=lambda network, config: config)
    monkeypatch.setattr("vconv.convert.patches.table.PATCHES", {"gelu-erf": broken})
    with pytest.raises(PatchError, match="config.json does not carry the patch gelu-erf .* got 0"):
        vconv.export(small_name, "synthetic", tmp_path / "a")


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_a_gelu_patch_that_computes_the_tanh_form_stops_an_export(
    small_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    def tanh(self: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(x, approximate="tanh") + 0 * torch.erf(x)

    monkeypatch.setattr(transformers.activations.GELUActivation, "_gelu_python", tanh)
    monkeypatch.setattr(gelu_erf, "_spelled_out", lambda activation: True)
    with pytest.raises(ExportCheckError, match=r"patched-torch-fp32 \(\w+: vector_relative_error is"):
        vconv.export(small_name, "synthetic", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_untruncated_periods_stop_an_export_and_fail_a_validation(
    small_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def untruncated(theta: float, head_dim: int) -> torch.Tensor:
        return torch.pow(theta, 2 * torch.arange(head_dim // 4) / (head_dim / 2))

    monkeypatch.setattr(rope_periods, "periods", untruncated)
    with pytest.raises(ExportCheckError, match=r"onnx-fp32 .*vector_relative_error is .*the limit 1e-05"):
        vconv.export(small_name, "synthetic", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    vconv.export(small_name, "synthetic", tmp_path / "a", golden=False)
    report = vconv.validate(tmp_path / "a", **QUICK)
    everything = EVERY_VARIANT
    assert failures(report) == everything | {"manifest: patches"}


@pytest.fixture
def nearly_zero_biases(small_system: System, tmp_path: Path) -> Path:
    """Weights whose query, key and value biases are zero but for one element of 1e-3."""
    folder = tmp_path / "weights"
    folder.mkdir()
    open_source(Request(small_system, "synthetic:1"), folder)
    tensors = safetensors.numpy.load_file(folder / WEIGHTS_FILE)
    names = [
        name
        for name in sorted(tensors)
        if name.endswith(("query.bias", "key.bias", "value.bias", "_proj.bias", "attn.qkv.bias"))
    ]
    biases = [name for name in names if "att" in name and "o_proj" not in name]
    for name in biases:
        tensors[name][:] = 0
    tensors[biases[-1]][7] = 1e-3
    safetensors.numpy.save_file(tensors, folder / WEIGHTS_FILE, {"format": "pt"})
    return folder


@pytest.mark.parametrize("system", BIASED, indirect=True)
def test_one_bias_element_of_a_thousandth_keeps_every_bias(
    small_name: str, nearly_zero_biases: Path, tmp_path: Path
) -> None:
    document = vconv.export(small_name, str(nearly_zero_biases), tmp_path / "a")
    patch = next(patch for patch in document["patches"] if patch["name"] == "qkv-bias")
    assert not patch["applied"]
    assert patch["proof"].startswith("max|b| = 0.001 in ")
    assert document["ledger"]["dropped"] == 0


def test_a_gate_that_strips_a_bias_of_a_thousandth_stops_an_export(
    small_name: str, nearly_zero_biases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qkv_bias.Proof, "strip", property(lambda proof: True))
    with pytest.raises(
        ExportCheckError, match=r"tensors: 1 wrong, the first: .*bias was dropped, but max\|b\| is 0.001"
    ):
        vconv.export(small_name, str(nearly_zero_biases), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_weight_that_is_not_a_number_stops_an_export(
    small_name: str, small_system: System, tmp_path: Path
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    open_source(Request(small_system, "synthetic:1"), folder)
    entry = read_header(folder / WEIGHTS_FILE)[a_norm(folder)]
    with (folder / WEIGHTS_FILE).open("r+b") as file:
        file.seek(entry.offset)
        file.write(struct.pack("<f", math.nan))
    with pytest.raises(vconv.VconvError, match="a weight is not finite .*got NaN"):
        vconv.export(small_name, str(folder), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def a_norm(folder: Path) -> str:
    return next(name for name in sorted(read_header(folder / WEIGHTS_FILE)) if "norm" in name)
