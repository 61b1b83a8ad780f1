from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import safetensors.torch
import torch
import transformers
from examples import EXAMPLES
from torch import Tensor, nn

from vconv.catalog.systems import System
from vconv.convert import conversion
from vconv.convert.conversion import Conversion
from vconv.convert.files.safetensors_file import read_header
from vconv.convert.graphs.tracing import TracedGraph
from vconv.convert.libraries.readers import network
from vconv.convert.patches import gelu_erf, table
from vconv.convert.sources.base import Source
from vconv.convert.sources.table import Request, open_source
from vconv.convert.weights import ledger
from vconv.errors import ArtifactError, InputError, PatchError, WeightsError
from vconv.types import WEIGHTS_FILE, silent

Refused = Callable[..., AbstractContextManager[None]]
Distance = Callable[[Any, Any], float]
Convert = Callable[..., tuple[Path, Conversion]]
Change = Callable[[str, Tensor], Tensor]
Named = Callable[[Any, Tensor], dict[str, Tensor]]

CLASSIFIERS = [
    name for name, system in EXAMPLES.items() if "classifier" in network(system.config).layout.heads
]
TRANSFORMERS = [name for name, system in EXAMPLES.items() if system.library == "transformers"]
TIMM = [name for name in EXAMPLES if name not in TRANSFORMERS]
QKV_BIAS = {
    "dinov3-vits16": "layer.1.attention.q_proj.bias",
    "dinov2-large": "encoder.layer.1.attention.attention.query.bias",
    "vit_small_patch14_reg4_dinov2.lvd142m": "blocks.1.attn.qkv.bias",
    "vit-base-patch16-224-in21k": "encoder.layer.1.attention.attention.query.bias",
}
"""One of the biases that may be stripped."""
by_transformers = pytest.mark.parametrize("system", TRANSFORMERS, indirect=True)
with_classifier = pytest.mark.parametrize("system", CLASSIFIERS, indirect=True)


@pytest.fixture
def convert(
    small_system: System, small_source: Source, tmp_path: Path, convert_weights: Callable[..., Conversion]
) -> Convert:
    """Convert a folder after a change to its weights and configuration, made without code of vconv."""

    def run(change: Change | None = None, config: Any = None) -> tuple[Path, Conversion]:
        given, scratch, folder = (tmp_path / name for name in ("given", "scratch", "artifact"))
        for path in (given, scratch, folder):
            path.mkdir()
        weights = safetensors.torch.load_file(small_source.folder / WEIGHTS_FILE)
        if change:
            weights = {name: change(name, tensor) for name, tensor in weights.items()}
        safetensors.torch.save_file(weights, given / WEIGHTS_FILE, metadata={"format": "pt"})
        (given / "config.json").write_text(json.dumps(config or dict(small_source.config)))
        source = open_source(Request(small_system, str(given)), scratch)
        return folder, convert_weights(folder, source)

    return run


def is_qkv_bias(name: str) -> bool:
    return name.endswith(
        tuple(f"{part}.bias" for part in ("q_proj", "v_proj", "query", "key", "value", "qkv"))
    )


def applied_of(found: Conversion) -> dict[str, bool]:
    return {decision.patch.name: decision.applied for decision in found.decisions}


def test_the_stock_library_loads_the_artifact_with_every_tensor_of_the_source_and_no_other(
    converted: Any, stock: Callable[[Path], Any]
) -> None:
    source = safetensors.torch.load_file(converted.source.folder / WEIGHTS_FILE)
    stored = safetensors.torch.load_file(converted.folder / WEIGHTS_FILE)
    disk_key = converted.conversion.network.layout.disk_key
    held = {disk_key(name): value for name, value in stock(converted.folder).named_parameters()}
    assert set(held) == set(stored) <= set(source)
    for name, value in held.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, source[name]), name
    assert [name for name in set(source) - set(held) if source[name].any()] == []


@by_transformers
def test_stock_transformers_finds_nothing_missing_or_left_over(converted: Any) -> None:
    _, info = transformers.AutoModel.from_pretrained(converted.folder, output_loading_info=True)
    assert {key: list(value) for key, value in info.items() if value} == {}


@pytest.mark.parametrize("system", TIMM, indirect=True)
def test_stock_timm_initialises_no_tensor_itself(converted: Any, stock: Callable[[Path], Any]) -> None:
    first, second = (stock(converted.folder).state_dict() for _ in range(2))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert set(first) == set(converted.conversion.network.tensors())


def test_the_artifact_runs_the_same_operators_as_the_original_except_gelu(
    converted: Any,
    stock: Callable[[Path], Any],
    named: Named,
    pixel_values: Tensor,
    distance: Distance,
    executed: Callable[[nn.Module, Tensor], Counter[str]],
) -> None:
    original, model = stock(converted.source.folder), stock(converted.folder)
    net = converted.conversion.network
    expected, found = named(original, pixel_values), named(model, pixel_values)
    assert list(found) == list(expected)
    assert max(distance(found[name], expected[name]) for name in expected) < 1e-5
    before, after = executed(original, pixel_values), executed(model, pixel_values)
    in_config = "config" in gelu_erf.PATCH.carriers(net)
    assert (before["gelu"], before["erf"]) == (net.blocks, 0)
    assert (after["gelu"], after["erf"]) == ((0, net.blocks) if in_config else (net.blocks, 0))


def test_there_is_a_decision_for_every_patch_of_the_architecture(converted: Any) -> None:
    net, decisions = converted.conversion.network, converted.conversion.decisions
    assert [decision.patch for decision in decisions] == table.called_for(net)
    for decision in decisions:
        assert decision.proof
        expected = decision.patch.expected(net) if decision.applied else 0
        in_config = decision.applied and "config" in decision.patch.carriers(net)
        assert (decision.sites, decision.carried) == (expected, expected if in_config else 0)
    assert converted.conversion.patches == [each.patch for each in decisions if each.applied]


def test_the_ledger_accounts_for_every_tensor(converted: Any) -> None:
    lines = converted.conversion.lines
    source = safetensors.torch.load_file(converted.source.folder / WEIGHTS_FILE)
    stored = safetensors.torch.load_file(converted.folder / WEIGHTS_FILE)
    assert {line.source for line in lines} == set(source)
    assert {line.target for line in lines if line.target} == set(stored)
    assert all((line.action == "dropped") is not bool(line.target) for line in lines)
    for line in lines:
        tensor = stored[line.target] if line.target else source[line.source]
        assert line.sha256 == hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        assert line.target or (line.proof and not source[line.source].any())
    assert tuple(ledger.load(converted.folder / "ledger.json")) == lines


def test_the_hash_is_that_of_the_weights_file(converted: Any) -> None:
    content = (converted.folder / WEIGHTS_FILE).read_bytes()
    assert converted.conversion.sha256 == hashlib.sha256(content).hexdigest()


def test_nothing_but_the_checkpoint_is_written(converted: Any) -> None:
    names = {"ledger.json", "model.safetensors", *converted.source.library.files}
    assert {path.name for path in converted.folder.iterdir()} == names
    if converted.source.preprocessor:
        preprocessor = json.loads((converted.folder / "preprocessor_config.json").read_text())
        assert preprocessor == converted.source.preprocessor


def test_licences_are_copied(
    small_source: Source, tmp_path: Path, convert_weights: Callable[..., Conversion]
) -> None:
    (tmp_path / "artifact").mkdir()
    licences = []
    for name in ("LICENSE", "NOTICE.txt"):
        (tmp_path / name).write_text(f"the text of {name}")
        licences.append(tmp_path / name)
    convert_weights(tmp_path / "artifact", replace(small_source, licence_files=tuple(licences)))
    for path in licences:
        assert (tmp_path / "artifact" / path.name).read_bytes() == path.read_bytes()


def test_biases_are_dropped_only_if_all_of_them_are_zero(converted: Any) -> None:
    """The recipe sets the biases of DINOv3 to zero, as in the released files."""
    source = safetensors.torch.load_file(converted.source.folder / WEIGHTS_FILE)
    zero = not any(source[name].any() for name in source if is_qkv_bias(name))
    zero = zero and any(is_qkv_bias(name) for name in source)
    assert applied_of(converted.conversion).get("qkv-bias", False) is zero
    stored = safetensors.torch.load_file(converted.folder / WEIGHTS_FILE)
    assert [name for name in source if name not in stored] == [
        name for name in source if zero and is_qkv_bias(name)
    ]
    assert zero is (converted.system.name == "dinov3-vits16")


@pytest.mark.parametrize("system", QKV_BIAS, indirect=True)
def test_zero_biases_are_dropped_whatever_the_system(
    convert: Convert, stock: Callable[[Path], Any], named: Named, tmp_path: Path, pixel_values: Tensor,
    distance: Distance,
) -> None:  # fmt: skip
    folder, found = convert(lambda name, tensor: tensor * 0 if is_qkv_bias(name) else tensor)
    assert applied_of(found)["qkv-bias"]
    given = safetensors.torch.load_file(tmp_path / "given" / WEIGHTS_FILE)
    stored = safetensors.torch.load_file(folder / WEIGHTS_FILE)
    assert set(given) - set(stored) == {name for name in given if is_qkv_bias(name)}
    model = stock(folder)
    assert [name for name, _ in model.named_parameters() if is_qkv_bias(name)] == []
    expected, actual = named(stock(tmp_path / "given"), pixel_values), named(model, pixel_values)
    limit = 0.0 if "config" not in gelu_erf.PATCH.carriers(found.network) else 1e-5
    assert max(distance(actual[name], expected[name]) for name in expected) <= limit


@pytest.mark.parametrize("system", QKV_BIAS, indirect=True)
def test_one_element_of_one_bias_keeps_them_all(
    convert: Convert,
    system: System,
    stock: Callable[[Path], Any],
    named: Named,
    tmp_path: Path,
    pixel_values: Tensor,
    distance: Distance,
) -> None:
    chosen = QKV_BIAS[system.name]

    def change(name: str, tensor: Tensor) -> Tensor:
        tensor = tensor * 0 if is_qkv_bias(name) else tensor
        if name == chosen:
            tensor[5] = 1e-3
        return tensor

    folder, found = convert(change)
    decision = next(each for each in found.decisions if each.patch.name == "qkv-bias")
    assert (decision.applied, decision.sites, decision.carried) == (False, 0, 0)
    assert decision.proof == f"max|b| = 0.001 in {chosen}"
    stored = safetensors.torch.load_file(folder / WEIGHTS_FILE)
    assert float(stored[chosen][5]) == pytest.approx(1e-3)
    assert ledger.summary(found.lines)["dropped"] == 0
    assert set(found.network.layout.biases.values()) <= found.network.numbers.flags | {"key_bias"}
    expected = named(stock(tmp_path / "given"), pixel_values)["last_hidden_state"]
    assert distance(named(stock(folder), pixel_values)["last_hidden_state"], expected) < 1e-5


@by_transformers
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_a_half_precision_source_becomes_float32_for_stock_users_too(
    convert: Convert, small_source: Source, dtype: torch.dtype, key: str
) -> None:
    config = {**small_source.config, key: str(dtype).removeprefix("torch.")}
    folder, _ = convert(lambda _, tensor: tensor.to(dtype), config)
    assert transformers.AutoModel.from_pretrained(folder).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_source_keeps_its_values(
    convert: Convert, small_source: Source, dtype: torch.dtype
) -> None:
    folder, found = convert(lambda _, tensor: tensor.to(dtype))
    source = safetensors.torch.load_file(small_source.folder / WEIGHTS_FILE)
    for name, tensor in safetensors.torch.load_file(folder / WEIGHTS_FILE).items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, source[name].to(dtype).float()), name
    assert {line.action for line in found.lines} <= {"cast", "dropped"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused(
    convert: Convert, refused: Refused, dtype: torch.dtype, bad: float
) -> None:
    def change(name: str, tensor: Tensor) -> Tensor:
        tensor = tensor.to(dtype)
        if name.endswith("cls_token"):
            tensor[0, 0, 7] = bad
        return tensor

    with refused(WeightsError, "NaN or Inf in ", "cls_token"):
        convert(change)


@by_transformers
@pytest.mark.parametrize("key", ["hidden_act", "rope_theta", "query_bias", "qkv_bias"])
def test_a_missing_value_with_a_default_in_the_library_changes_nothing(
    convert: Convert, converted: Any, small_source: Source, tmp_path: Path, key: str
) -> None:
    (tmp_path / "artifact").rename(tmp_path / "expected")
    config = {name: value for name, value in small_source.config.items() if name != key}
    _, found = convert(config=config)
    assert applied_of(found) == applied_of(converted.conversion)


def test_if_the_published_configuration_does_not_fit_the_error_asks_for_that_of_the_weights(
    small_source: Source, tmp_path: Path, refused: Refused
) -> None:
    entries = dict(small_source.entries)
    entries.popitem()
    source = replace(small_source, entries=entries, from_catalog=("config.json",))
    with refused(WeightsError, "the missing tensor ", "put the config.json of these weights beside them"):
        conversion.prepare(tmp_path, source, silent)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_network_that_does_not_take_colour_images_is_refused(
    small_system: System, small_source: Source, refused: Refused, channels: int
) -> None:
    changed = {"num_channels": channels}
    if small_system.library == "timm":
        changed = {"model_args": {**small_system.config["model_args"], "in_chans": channels}}
    source = replace(small_source, config={**small_source.config, **changed})
    with refused(InputError, "does not take colour images", f"{channels} channels", "expected 3 channels"):
        conversion.image_size(source)


@with_classifier
def test_a_classifier_keeps_its_prefix_and_its_logits(
    small_system: System,
    classifier_folder: Path,
    stock: Callable[[Path], Any],
    tmp_path: Path,
    pixel_values: Tensor,
    distance: Distance,
    convert_weights: Callable[..., Conversion],
) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "artifact").mkdir()
    source = open_source(Request(small_system, str(classifier_folder)), tmp_path / "scratch")
    found = convert_weights(tmp_path / "artifact", source)
    assert (found.network.head, found.network.prefix) == ("classifier", found.network.layout.prefix)
    given = safetensors.torch.load_file(classifier_folder / WEIGHTS_FILE)
    stored = safetensors.torch.load_file(tmp_path / "artifact" / WEIGHTS_FILE)
    assert set(stored) == set(given)
    assert [name for name in given if not torch.equal(given[name], stored[name])] == []
    logits = []
    for folder in (classifier_folder, tmp_path / "artifact"):
        with torch.no_grad():
            result = stock(folder)(pixel_values)
        logits.append(result if isinstance(result, Tensor) else result.logits)
    assert logits[0].shape == (3, 5)
    assert distance(logits[1], logits[0]) < 1e-5


@by_transformers
def test_a_configuration_that_does_not_carry_its_patch_is_refused(
    convert: Convert, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgetful = replace(gelu_erf.PATCH, edit_config=lambda network, config: config)
    monkeypatch.setattr(table, "PATCHES", {forgetful.name: forgetful})
    with refused(PatchError, "config.json does not carry the patch gelu-erf", "got 0 places", "expected 3"):
        convert()


def test_progress_is_reported_line_by_line(
    small_source: Source, tmp_path: Path, convert_weights: Callable[..., Conversion]
) -> None:
    lines: list[str] = []
    (tmp_path / "artifact").mkdir()
    found = convert_weights(tmp_path / "artifact", small_source, lines.append)
    dropped = ledger.summary(found.lines)["dropped"]
    kept, every = len(small_source.entries) - dropped, len(small_source.entries)
    others = ", the others dropped with proof" if dropped else ""
    assert lines == [f"model.safetensors: {kept} of {every} tensors{others}"]


@pytest.mark.parametrize(("opset", "traces"), [(18, 1), (19, 2)])
def test_graphs_are_named_with_their_batch_and_each_opset_is_traced_once(
    converted: Any, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], opset: int, traces: int
) -> None:
    traced: list[tuple[Any, ...]] = []
    written: list[tuple[Any, ...]] = []

    def trace(*given: Any) -> str:
        traced.append(given)
        return f"opset {given[4]}"

    def write_graph(path: Path, trace: str, batch: int | None, patch: int = 0, **options: Any) -> TracedGraph:
        assert patch == 0
        assert options == ({"npu_opset": 15, "rank3": False} if batch else {})
        written.append((path, trace, batch))
        return TracedGraph(ir.Model(ir.Graph([], [], nodes=[]), ir_version=8), (trace, f"batch {batch}"))

    monkeypatch.setattr(conversion.tracing, "trace", trace)
    monkeypatch.setattr(conversion.tracing, "write_graph", write_graph)
    lines: list[str] = []
    found, folder = converted.conversion, converted.folder
    passes = conversion.export_graphs(folder, found, size, 4, opset, lines.append, npu_opset=15)
    assert passes == {
        "model.onnx": (f"opset {opset}", "batch None"),
        "model.npu.onnx": ("opset 18", "batch 4"),
    }
    entries = read_header(folder / WEIGHTS_FILE)
    assert traced == [
        (folder, found.network, found.patches, size, version, entries, False)
        for version in (opset, 18)[:traces]
    ]
    assert written == [
        (folder / "model.onnx", f"opset {opset}", None),
        (folder / "model.npu.onnx", "opset 18", 4),
    ]
    assert lines == [f"model.onnx: dynamic batch, opset {opset}", "model.npu.onnx: batch 4, opset 15"]


def test_preparing_writes_all_files_except_the_weights_and_knows_their_positions(
    small_source: Source, tmp_path: Path
) -> None:
    prepared = conversion.prepare(tmp_path, small_source, silent)
    assert {path.name for path in tmp_path.iterdir()} == set(small_source.library.files) | {"source"}
    planned = prepared.plan.entries
    prepared = prepared.counted()
    found = prepared.written(*prepared.write())
    assert planned == read_header(tmp_path / WEIGHTS_FILE)
    assert (found.network, found.decisions, found.patches) == (
        prepared.network, prepared.decisions, prepared.patches,
    )  # fmt: skip
    assert prepared.plan.nbytes == sum(entry.nbytes for entry in planned.values())


def test_nothing_is_written_if_the_disk_is_full(
    small_source: Source, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "artifact").mkdir()
    asked: list[int] = []

    def full(folder: Path, nbytes: int) -> None:
        asked.append(nbytes)
        raise ArtifactError("full", got="a", expected="b", fix="c")

    monkeypatch.setattr(conversion, "require_space", full)
    with refused(ArtifactError, "full"):
        conversion.prepare(tmp_path / "artifact", small_source, silent)
    assert not (tmp_path / "artifact" / WEIGHTS_FILE).exists()
    kept = small_source.network.tensors().values()
    assert 0 < asked[0] <= sum(4 * math.prod(tensor.shape) for tensor in kept)


def test_the_returned_network_is_the_one_that_was_written(converted: Any) -> None:
    config = json.loads((converted.folder / "config.json").read_text())
    stored = safetensors.torch.load_file(converted.folder / WEIGHTS_FILE)
    assert converted.conversion.network == network(config, stored)
    assert set(converted.conversion.network.tensors()) == set(stored)
