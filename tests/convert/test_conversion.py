from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from torch import Tensor, nn

from vconv.catalog import SYSTEMS, System
from vconv.convert import conversion, ledger
from vconv.convert.conversion import Conversion, convert_weights, image_size
from vconv.convert.layouts import LAYOUTS, network
from vconv.convert.patches import gelu_erf, table
from vconv.convert.sources import Source, open_source
from vconv.errors import InputError, PatchError, WeightsError
from vconv.types import WEIGHTS_FILE, silent

Refused = Callable[..., AbstractContextManager[None]]
Distance = Callable[[Any, Any], float]
Convert = Callable[..., tuple[Path, Conversion]]
Change = Callable[[str, Tensor], Tensor]

CLASSIFIERS = [
    name
    for name, system in SYSTEMS.items()
    if any(slot.head == "classifier" for slot in LAYOUTS[system.config["model_type"]].slots)
]
WITH_POSITIONS = [name for name, system in SYSTEMS.items() if "rope_theta" not in system.config]
ZERO_BIASES = [name for name, system in SYSTEMS.items() if "query_bias" in system.config]


@pytest.fixture
def convert(small_system: System, small_source: Source, tmp_path: Path) -> Convert:
    """Convert a folder whose weights and configuration were changed with other libraries' tools."""

    def run(change: Change | None = None, config: Any = None) -> tuple[Path, Conversion]:
        given, scratch, folder = (tmp_path / name for name in ("given", "scratch", "artifact"))
        for path in (given, scratch, folder):
            path.mkdir()
        weights = safetensors.torch.load_file(small_source.folder / WEIGHTS_FILE)
        if change:
            weights = {name: change(name, tensor) for name, tensor in weights.items()}
        safetensors.torch.save_file(weights, given / WEIGHTS_FILE, metadata={"format": "pt"})
        (given / "config.json").write_text(json.dumps(config or dict(small_source.config)))
        return folder, convert_weights(folder, open_source(small_system, str(given), scratch), silent)

    return run


def applied_of(found: Conversion) -> dict[str, bool]:
    return {decision.patch.name: decision.applied for decision in found.decisions}


@pytest.mark.parametrize(
    ("size", "expected"),
    [({"height": 224, "width": 224}, (224, 224)), (224, (224, 224)), (None, (224, 224))],
)
def test_the_image_size_is_the_processors(system: System, size: Any, expected: tuple[int, int]) -> None:
    preprocessor = {} if size is None else {"size": size}
    assert image_size(preprocessor, system.config) == expected


def test_a_network_with_rope_takes_any_multiple_of_its_patch() -> None:
    config = SYSTEMS["dinov3-vits16"].config
    assert image_size({"size": {"height": 16, "width": 512}}, config) == (16, 512)


@pytest.mark.parametrize(
    ("height", "width"), [(225, 224), (224, 230), (0, 224), (8, 8), (-16, 224), (None, 224)]
)
def test_a_size_that_is_no_multiple_of_the_patch_is_refused(
    system: System, refused: Refused, height: int | None, width: int
) -> None:
    size = {"width": width} if height is None else {"height": height, "width": width}
    fragments = (f"got {height or 0}x{width}", "multiples of 16", "preprocessor_config.json")
    with refused(InputError, "does not fit the patches", *fragments):
        image_size({"size": size}, system.config)


@pytest.mark.parametrize("system", WITH_POSITIONS, indirect=True)
def test_a_size_that_the_position_embedding_does_not_have_is_refused(
    system: System, refused: Refused
) -> None:
    fragments = ("got 224x240", "expected 224x224", "preprocessor_config.json")
    with refused(InputError, "does not fit the position embedding", *fragments):
        image_size({"size": {"height": 224, "width": 240}}, system.config)


@pytest.mark.parametrize(
    "size", [{"height": "224", "width": "tall"}, [224, 224], "tall", {"shortest_edge": 224}]
)
def test_a_size_that_is_not_understood_is_refused(system: System, refused: Refused, size: Any) -> None:
    with refused(InputError, "image size"):
        image_size({"size": size}, system.config)


def test_stock_transformers_loads_the_artifact_with_nothing_missing_or_left_over(converted: Any) -> None:
    model, info = transformers.AutoModel.from_pretrained(converted.folder, output_loading_info=True)
    assert {key: list(value) for key, value in info.items() if value} == {}
    stored = safetensors.torch.load_file(converted.folder / WEIGHTS_FILE)
    net = converted.conversion.network
    for name, value in model.named_parameters():
        assert value.dtype == torch.float32
        assert torch.equal(value, stored[net.layout.disk_key(name)]), name
    assert len(dict(model.named_parameters())) == len(stored)


def test_the_artifact_runs_as_the_original_does_but_for_its_gelu(
    converted: Any,
    stock: Callable[[Path], Any],
    pixel_values: Tensor,
    distance: Distance,
    executed: Callable[[nn.Module, Tensor], Counter[str]],
) -> None:
    original, model = stock(converted.source.folder), stock(converted.folder)
    blocks = converted.conversion.network.blocks
    with torch.no_grad():
        expected, found = original(pixel_values), model(pixel_values)
    assert distance(found.last_hidden_state, expected.last_hidden_state) < 1e-5
    assert distance(found.pooler_output, expected.pooler_output) < 1e-5
    before, after = executed(original, pixel_values), executed(model, pixel_values)
    assert (before["gelu"], before["erf"]) == (blocks, 0)
    assert (after["gelu"], after["erf"]) == (0, blocks)


def test_every_patch_that_the_architecture_calls_for_is_decided_on(converted: Any) -> None:
    net, decisions = converted.conversion.network, converted.conversion.decisions
    assert [decision.patch for decision in decisions] == table.called_for(net)
    for decision in decisions:
        assert decision.proof
        expected = decision.patch.expected(net) if decision.applied else 0
        in_config = decision.applied and "config" in decision.patch.carriers
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
    names = {"config.json", "ledger.json", "model.safetensors", "preprocessor_config.json"}
    assert {path.name for path in converted.folder.iterdir()} == names
    preprocessor = json.loads((converted.folder / "preprocessor_config.json").read_text())
    assert preprocessor == converted.source.preprocessor


@pytest.mark.parametrize("system", ZERO_BIASES, indirect=True)
def test_zero_biases_are_dropped(converted: Any) -> None:
    assert applied_of(converted.conversion)["qkv-bias"]
    stored = safetensors.torch.load_file(converted.folder / WEIGHTS_FILE)
    assert [name for name in stored if name.endswith(("q_proj.bias", "v_proj.bias"))] == []
    assert ledger.summary(converted.conversion.lines)["dropped"] == 2 * converted.conversion.network.blocks


@pytest.mark.parametrize("system", ZERO_BIASES, indirect=True)
def test_one_element_of_one_query_bias_keeps_them_all(
    convert: Convert, stock: Callable[[Path], Any], tmp_path: Path, pixel_values: Tensor, distance: Distance
) -> None:
    chosen = "layer.1.attention.q_proj.bias"

    def change(name: str, tensor: Tensor) -> Tensor:
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
    assert json.loads((folder / "config.json").read_text())["query_bias"] is True
    with torch.no_grad():
        expected = stock(tmp_path / "given")(pixel_values).last_hidden_state
        assert distance(stock(folder)(pixel_values).last_hidden_state, expected) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_a_half_precision_source_becomes_float32_for_stock_users_too(
    convert: Convert, small_source: Source, dtype: torch.dtype, key: str
) -> None:
    config = {**small_source.config, key: str(dtype).removeprefix("torch.")}
    folder, found = convert(lambda _, tensor: tensor.to(dtype), config)
    source = safetensors.torch.load_file(small_source.folder / WEIGHTS_FILE)
    for name, tensor in safetensors.torch.load_file(folder / WEIGHTS_FILE).items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, source[name].to(dtype).float()), name
    assert {line.action for line in found.lines} <= {"cast", "dropped"}
    assert transformers.AutoModel.from_pretrained(folder).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused(
    convert: Convert, refused: Refused, dtype: torch.dtype, bad: float
) -> None:
    def change(name: str, tensor: Tensor) -> Tensor:
        tensor = tensor.to(dtype)
        if name == "embeddings.cls_token":
            tensor[0, 0, 7] = bad
        return tensor

    with refused(WeightsError, "NaN or Inf in embeddings.cls_token"):
        convert(change)


@pytest.mark.parametrize("key", ["hidden_act", "rope_theta", "query_bias", "qkv_bias"])
def test_a_value_left_to_the_librarys_default_changes_nothing(
    convert: Convert, converted: Any, small_source: Source, tmp_path: Path, key: str
) -> None:
    (tmp_path / "artifact").rename(tmp_path / "expected")
    config = {name: value for name, value in small_source.config.items() if name != key}
    _, found = convert(config=config)
    assert applied_of(found) == applied_of(converted.conversion)


@pytest.mark.parametrize("system", CLASSIFIERS, indirect=True)
def test_a_classifier_keeps_its_prefix_and_its_logits(
    small_system: System, classifier_folder: Path, tmp_path: Path, pixel_values: Tensor, distance: Distance
) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "artifact").mkdir()
    source = open_source(small_system, str(classifier_folder), tmp_path / "scratch")
    found = convert_weights(tmp_path / "artifact", source, silent)
    assert (found.network.head, found.network.prefix) == ("classifier", found.network.layout.prefix)
    stored = safetensors.torch.load_file(tmp_path / "artifact" / WEIGHTS_FILE)
    assert set(stored) == set(safetensors.torch.load_file(classifier_folder / WEIGHTS_FILE))
    factory = transformers.AutoModelForImageClassification
    with torch.no_grad():
        expected = factory.from_pretrained(classifier_folder).eval()(pixel_values).logits
        logits = factory.from_pretrained(tmp_path / "artifact").eval()(pixel_values).logits
    assert logits.shape == (3, 5)
    assert distance(logits, expected) < 1e-5


def test_a_configuration_that_does_not_carry_its_patch_is_refused(
    convert: Convert, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgetful = replace(gelu_erf.PATCH, edit_config=dict)
    monkeypatch.setattr(table, "PATCHES", {forgetful.name: forgetful})
    with refused(PatchError, "config.json does not carry the patch gelu-erf", "got 0 places", "expected 3"):
        convert()


def test_progress_is_told_line_by_line(small_source: Source, tmp_path: Path) -> None:
    lines: list[str] = []
    (tmp_path / "artifact").mkdir()
    found = convert_weights(tmp_path / "artifact", small_source, lines.append)
    dropped = ledger.summary(found.lines)["dropped"]
    kept, every = len(small_source.entries) - dropped, len(small_source.entries)
    assert lines == [f"model.safetensors: {kept} of {every} tensors, the others dropped with proof"]


def test_graphs_are_named_with_their_batch(converted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, Any, int]] = []

    def export(path: Path, net: Any, patches: Any, size: Any, batch: int | None, opset: int) -> None:
        made.append((path.name, batch, opset))

    monkeypatch.setattr(conversion.onnx_export, "export_graph", export)
    monkeypatch.setattr(
        conversion.onnx_export, "export_npu_graph", lambda path, *rest: made.append((path.name, rest[-1], 0))
    )
    lines: list[str] = []
    found = conversion.export_graphs(converted.folder, converted.conversion, (64, 64), 4, 19, lines.append)
    assert found == {"model.onnx": None, "model.npu.onnx": 4}
    assert made == [("model.onnx", None, 19), ("model.npu.onnx", 4, 0)]
    assert lines == ["model.onnx: dynamic batch, opset 19", "model.npu.onnx: batch 4"]


def test_the_network_that_comes_out_is_the_one_that_was_written(converted: Any) -> None:
    config = json.loads((converted.folder / "config.json").read_text())
    assert converted.conversion.network == network(config)
