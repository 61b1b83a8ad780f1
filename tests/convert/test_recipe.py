from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vconv.catalog import SYSTEMS, System
from vconv.convert import recipe, safetensors_file
from vconv.convert.layouts import LAYOUTS, network
from vconv.convert.sources import Source, open_source

Distance = Callable[[Any, Any], float]

UNUSED = ("embeddings.mask_token", "q_proj.bias", "v_proj.bias")
"""Used in training only, or zero by the recipe, as in the files that the authors released."""


def drawn(system: System, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    net = network(system.config)
    return {key: recipe.draw(tensor, net, seed) for key, tensor in net.tensors().items()}


def test_every_role_has_a_rule_and_every_rule_is_used() -> None:
    assert {slot.role for layout in LAYOUTS.values() for slot in layout.slots} == set(recipe.RECIPE)


def test_every_tensor_is_finite_and_of_its_shape(small_system: System) -> None:
    tensors = network(small_system.config).tensors()
    for key, weight in drawn(small_system, 0).items():
        assert weight.dtype == np.float32, key
        assert weight.shape == tensors[key].shape, key
        assert weight.flags.c_contiguous, key
        assert np.isfinite(weight).all(), key
        assert not np.signbit(weight[weight == 0]).any(), key


def test_a_tensor_does_not_depend_on_the_others(small_system: System) -> None:
    net = network(small_system.config)
    forth = drawn(small_system, 5)
    for key, tensor in reversed(net.tensors().items()):
        np.testing.assert_array_equal(recipe.draw(tensor, net, 5), forth[key])


def test_the_same_seed_gives_the_same_bytes(small_system: System, tmp_path: Path) -> None:
    net = network(small_system.config)
    hashes = {safetensors_file.write(tmp_path / f"{i}", recipe.planned(net, 3)) for i in range(2)}
    assert len(hashes) == 1
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()


def test_two_seeds_differ_in_every_tensor_that_is_not_zero(small_system: System) -> None:
    first, second = drawn(small_system, 0), drawn(small_system, 1)
    same = [key for key in first if np.array_equal(first[key], second[key])]
    assert [key for key in same if first[key].any()] == []


def test_no_two_tensors_are_drawn_from_one_stream(system: System) -> None:
    keys = list(network(system.config).tensors())
    assert len({zlib.crc32(key.encode()) for key in keys}) == len(keys)


def test_what_is_planned_is_what_is_drawn(small_system: System, tmp_path: Path) -> None:
    safetensors_file.write(tmp_path / "file", recipe.planned(network(small_system.config), 2))
    loaded = safetensors.torch.load_file(tmp_path / "file")
    expected = drawn(small_system, 2)
    assert set(loaded) == set(expected)
    for key, weight in expected.items():
        np.testing.assert_array_equal(loaded[key].numpy(), weight)


def test_only_biases_of_that_role_are_zero(small_system: System) -> None:
    tensors = network(small_system.config).tensors()
    for key, weight in drawn(small_system, 0).items():
        assert weight.any() == (tensors[key].role != "zero_bias"), key


def test_every_tensor_that_inference_uses_shows_at_the_output(
    small_source: Source, stock: Callable[[Path], Any], pixel_values: Tensor, distance: Distance
) -> None:
    net = network(small_source.config)
    model = stock(small_source.folder)
    image, silent = pixel_values[:1], []
    with torch.no_grad():
        expected = model(image)
        for name, parameter in model.named_parameters():
            key = net.layout.disk_key(name)
            before = parameter.clone()
            parameter.zero_()
            found = model(image)
            parameter.copy_(before)
            moved = max(
                distance(found.last_hidden_state, expected.last_hidden_state),
                distance(found.pooler_output, expected.pooler_output),
            )
            if moved < 1e-4 and not key.endswith(UNUSED):
                silent.append(key)
    without_rope = [key for key in net.tensors() if key.endswith("attention.key.bias")]
    assert silent == without_rope, "softmax cancels a key bias where there is no RoPE, and nothing else"


class _Inside(TorchDispatchMode):
    """Keeps the inputs of every softmax and every GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.logits: list[Tensor] = []
        self.pre_gelu: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kept = {"_softmax": self.logits, "gelu": self.pre_gelu}.get(func.overloadpacket.__name__)
        if kept is not None:
            kept.append(args[0].clone())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["dinov3-vits16"])
def test_a_real_size_network_has_the_statistics_that_the_recipe_claims(name: str, tmp_path: Path) -> None:
    source = open_source(SYSTEMS[name], "synthetic:0", tmp_path)
    model = transformers.AutoModel.from_pretrained(
        source.folder, dtype=torch.float32, attn_implementation="eager"
    )
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), _Inside() as inside:
        states = model.eval()(images, output_hidden_states=True).hidden_states
    blocks = network(source.config).blocks
    assert len(inside.logits) == len(inside.pre_gelu) == blocks
    stds = [float(logits.std()) for logits in inside.logits]
    assert all(1.0 < std < 3.5 for std in stds), stds
    means = [float(values.mean()) for values in inside.pre_gelu]
    assert all(abs(mean - recipe.PRE_GELU_MEAN) < 0.2 for mean in means), means
    spreads = [float(values.std()) for values in inside.pre_gelu]
    assert all(abs(spread - recipe.PRE_GELU_STD) < 0.5 for spread in spreads), spreads
    channels = states[-2][0].abs().mean(dim=0)
    loud = [channel for channel, _ in recipe.OUTLIERS[:2]]
    assert sorted(channels.topk(len(loud)).indices.tolist()) == loud
    assert float(channels[loud].min() / channels.median()) > 5


def test_what_a_block_adds_is_scaled_once_by_layer_scale_or_by_its_projections(system: System) -> None:
    net = network(system.config)
    by_role = {tensor.role: tensor for tensor in net.tensors().values()}
    projection = recipe.draw(by_role["proj"], net, 0)
    gain = float(projection.std()) * projection.shape[1] ** 0.5
    if "layer_scale" in by_role:
        gain *= float(np.median(recipe.draw(by_role["layer_scale"], net, 0)))
    assert gain == pytest.approx(recipe.RESIDUAL_GAIN, rel=0.1)
