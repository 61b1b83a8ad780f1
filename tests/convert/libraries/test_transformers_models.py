from __future__ import annotations

import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from examples import EXAMPLES
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from vconv.catalog.systems import SYSTEMS, System
from vconv.convert.libraries import transformers_models
from vconv.convert.libraries.readers import network
from vconv.convert.libraries.transformers_models import LIBRARY
from vconv.convert.sources.base import Source
from vconv.errors import InputError, WeightsError

Distance = Callable[[Any, Any], float]
Refused = Callable[..., AbstractContextManager[None]]
FUSED = "scaled_dot_product"
TRANSFORMERS = [name for name, system in EXAMPLES.items() if system.library == "transformers"]
CROPPED = "dinov2-large"
HEADS = {"", *(head for name in TRANSFORMERS for head in network(SYSTEMS[name].config).layout.heads)}
each = pytest.mark.parametrize("system", TRANSFORMERS, indirect=True)


def test_every_head_has_a_class_to_load_it_with() -> None:
    assert set(transformers_models._CLASSES) == HEADS | {""}


def heads(seed: int) -> Tensor:
    return torch.randn(2, 3, 11, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_plain_attention_agrees_with_attention_in_torch(distance: Distance) -> None:
    query, key, value = map(heads, range(3))
    found, weights = transformers_models._plain_attention(nn.Module(), query, key, value, None, 0.7)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=0.7)
    assert found.shape == (2, 11, 3, 8)
    assert weights.shape == (2, 3, 11, 11)
    assert distance(found, expected.transpose(1, 2)) < 1e-14
    assert distance(weights.sum(-1), torch.ones(2, 3, 11)) < 1e-14


@pytest.mark.parametrize(("mask", "dropout"), [(torch.zeros(1), 0.0), (None, 0.1), (torch.zeros(1), 0.1)])
def test_a_mask_or_dropout_is_refused(mask: Tensor | None, dropout: float) -> None:
    with pytest.raises(ValueError, match="plain attention takes neither a mask nor dropout"):
        transformers_models._plain_attention(nn.Module(), heads(0), heads(1), heads(2), mask, 1.0, dropout)


@each
def test_a_model_computes_the_same_with_plain_attention(
    small_source: Source,
    stock: Callable[[Path], Any],
    pixel_values: Tensor,
    distance: Distance,
    executed: Callable[[nn.Module, Tensor], Counter[str]],
) -> None:
    model = stock(small_source.folder)
    with torch.no_grad():
        expected = model(pixel_values).last_hidden_state
        with LIBRARY.plain_attention(model, small_source.network):
            found = model(pixel_values).last_hidden_state
            inside = executed(model, pixel_values)
        after = model(pixel_values).last_hidden_state
    assert 0 < distance(found, expected) < 1e-5
    assert torch.equal(after, expected)
    assert inside["_softmax"] == model.config.num_hidden_layers
    assert [name for name in inside if FUSED in name] == []


@each
def test_a_models_attention_is_restored_after_an_error(
    small_source: Source,
    stock: Callable[[Path], Any],
    pixel_values: Tensor,
    executed: Callable[[nn.Module, Tensor], Counter[str]],
) -> None:
    model = stock(small_source.folder)
    before = executed(model, pixel_values)
    assert any(FUSED in name for name in before)
    with pytest.raises(RuntimeError, match="inside"), LIBRARY.plain_attention(model, small_source.network):
        raise RuntimeError("inside")
    assert executed(model, pixel_values) == before
    assert transformers_models._PLAIN not in ALL_ATTENTION_FUNCTIONS


@each
def test_the_registry_is_left_as_it_was(small_source: Source, stock: Callable[[Path], Any]) -> None:
    before = dict(ALL_ATTENTION_FUNCTIONS)
    model = stock(small_source.folder)
    with LIBRARY.plain_attention(model, small_source.network):
        assert ALL_ATTENTION_FUNCTIONS[transformers_models._PLAIN] is transformers_models._plain_attention
        assert model.config._attn_implementation == transformers_models._PLAIN
    assert dict(ALL_ATTENTION_FUNCTIONS) == before


@each
def test_exact_gelus_are_those_of_the_stock_model(small_source: Source, stock: Callable[[Path], Any]) -> None:
    found = [module for module in stock(small_source.folder).modules()
             if isinstance(module, LIBRARY.exact_gelus())]  # fmt: skip
    assert len(found) == small_source.network.blocks


@each
def test_flags_are_switched_in_a_copy(system: System) -> None:
    before = dict(system.config)
    found = LIBRARY.switched(before, {"qkv_bias": False, "new": True})
    assert found == {**system.config, "qkv_bias": False, "new": True}
    assert before == dict(system.config)


@each
@pytest.mark.parametrize(
    ("preprocessor", "expected"),
    [
        ({"size": {"height": 32, "width": 48}}, (32, 48)),
        ({"size": 32}, (32, 32)),
        ({"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": 32}, (32, 32)),
        (
            {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 48}},
            (32, 48),
        ),
        (
            {
                "size": {"height": 64, "width": 48},
                "do_center_crop": False,
                "crop_size": {"height": 9, "width": 9},
            },
            (64, 48),
        ),
    ],
)
def test_the_image_size_is_the_size_after_the_crop(
    system: System, preprocessor: Any, expected: tuple[int, int]
) -> None:
    assert LIBRARY.image_size(system.config, preprocessor) == expected


@each
def test_without_a_processor_the_image_size_is_the_configurations(system: System) -> None:
    assert LIBRARY.image_size(system.config, {}) == (system.config["image_size"],) * 2
    assert LIBRARY.image_size({**system.config, "image_size": [64, 96]}, {}) == (64, 96)


@each
@pytest.mark.parametrize(
    "preprocessor",
    [
        {"size": {"shortest_edge": 224}},
        {"size": {"height": "224", "width": "tall"}},
        {"size": [224, 224]},
        {"size": "tall"},
        {"size": None},
        {"size": 224, "do_center_crop": True, "crop_size": {"shortest_edge": 224}},
    ],
)
def test_an_invalid_size_is_refused(system: System, refused: Refused, preprocessor: Any) -> None:
    with refused(
        InputError, "the preprocessing does not give a valid image size", "size", "preprocessor_config.json"
    ):
        LIBRARY.image_size(system.config, preprocessor)


@pytest.mark.parametrize("system", TRANSFORMERS, indirect=True)
def test_a_configuration_that_asks_for_tuples_gives_the_same_outputs(
    small_source: Source, pixel_values: torch.Tensor, tmp_path: Path
) -> None:
    folder = shutil.copytree(small_source.folder, tmp_path / "folder")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "return_dict": False}))
    found = []
    for place in (small_source.folder, folder):
        model = LIBRARY.load(place, small_source.network).eval()
        with torch.no_grad():
            found.append(LIBRARY.run(model, small_source.network, pixel_values))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


@pytest.mark.parametrize("system", TRANSFORMERS[:1], indirect=True)
@pytest.mark.parametrize("step", ["load", "build"])
def test_code_that_a_configuration_names_is_not_run_and_causes_no_question(
    step: str,
    small_source: Source,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = shutil.copytree(small_source.folder, tmp_path / "folder")
    ran = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Foo: pass\n")
    content = json.loads((folder / "config.json").read_text())
    auto = ("AutoConfig", "AutoModel", "AutoModelForImageClassification", "AutoImageProcessor")
    (folder / "config.json").write_text(json.dumps({**content, "auto_map": dict.fromkeys(auto, "evil.Foo")}))
    monkeypatch.setattr("builtins.input", lambda *prompt: print(*prompt) or "y")
    with contextlib.suppress(WeightsError):
        getattr(LIBRARY, step)(folder, small_source.network)
    assert not ran.exists()
    assert capfd.readouterr() == ("", "")
