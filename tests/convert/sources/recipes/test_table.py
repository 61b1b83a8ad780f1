from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import transformers
from examples import EXAMPLES
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vconv.catalog.systems import SYSTEMS, System
from vconv.convert.files import safetensors_file
from vconv.convert.layouts.table import LAYOUTS
from vconv.convert.libraries.readers import network
from vconv.convert.network import TensorSpec
from vconv.convert.sources import recipe
from vconv.convert.sources.base import Source
from vconv.convert.sources.table import Request, open_source

Distance = Callable[[Any, Any], float]
Named = Callable[[Any, Tensor], dict[str, Tensor]]

FUSED = [name for name, system in EXAMPLES.items() if system.library == "timm"]
WITH_POSITIONS = [
    name
    for name, system in EXAMPLES.items()
    if any("positions" in rule.parts for rule in network(system.config).layout.rules)
]
UNUSED = ("embeddings.mask_token", "q_proj.bias", "v_proj.bias")
"""Used in training only, or zero by the recipe, as in the files that the authors released."""


def parts_of(key: str, values: Tensor) -> list[tuple[str, Tensor]]:
    """Take a fused projection apart: each third must show by itself."""
    if ".qkv." not in key:
        return [(key, values)]
    return [
        (f"{key} ({name})", part)
        for name, part in zip(("query", "key", "value"), values.chunk(3), strict=True)
    ]


def drawn(system: System, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    net = network(system.config)
    return {key: recipe.draw(tensor, net, seed) for key, tensor in net.tensors().items()}


def test_every_role_has_a_rule_and_every_rule_is_used() -> None:
    roles = {
        rule.role or layout.architecture.parts[rule.parts[0]].role
        for layout in LAYOUTS.values()
        for rule in layout.rules
    }
    assert roles == set(recipe.RECIPE)


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
    small_source: Source,
    stock: Callable[[Path], Any],
    named: Named,
    pixel_values: Tensor,
    distance: Distance,
) -> None:
    net = small_source.network
    model = stock(small_source.folder)
    image, silent = pixel_values[:1], []
    expected = named(model, image)
    for name, parameter in model.named_parameters():
        key = net.layout.disk_key(name)
        for part, values in parts_of(key, parameter.data):
            before = values.clone()
            values.zero_()
            found = named(model, image)
            values.copy_(before)
            moved = max(
                distance(found[output], expected[output]) for output in ("pooled", "last_hidden_state")
            )
            if moved < 1e-4 and not key.endswith(UNUSED):
                silent.append(part)
    without_rope = [key for key in net.tensors() if key.endswith("attention.key.bias")]
    without_rope += [f"{key} (key)" for key in net.tensors() if key.endswith("qkv.bias")]
    assert silent == without_rope, "softmax cancels a key bias where there is no RoPE, and nothing else"


@pytest.mark.parametrize("system", FUSED, indirect=True)
def test_each_third_of_a_fused_projection_is_drawn_as_it_would_be_alone(system: System) -> None:
    net = network(system.config)
    (fused, *_) = (tensor for tensor in net.tensors().values() if tensor.role == "qkv")
    width = net.numbers.width
    weight = recipe.draw(fused, net, 3)
    thirds = dict(zip(("query", "key", "value"), weight.reshape(3, width, width), strict=True))
    assert fused.shape == (3 * width, width)
    for role, third in thirds.items():
        alone = recipe.draw(TensorSpec(f"alone.{role}", role, (width, width), 0, ""), net, 3)
        assert third.std() == pytest.approx(alone.std(), rel=0.02), role
        assert abs(third.mean()) < 0.01 * third.std()
    assert thirds["query"].std() / thirds["value"].std() == pytest.approx(recipe.QUERY_KEY_GAIN, rel=0.02)
    assert not np.array_equal(thirds["query"], thirds["key"])


@pytest.mark.parametrize("system", FUSED, indirect=True)
def test_the_noise_of_a_fused_projection_is_one_stream_over_all_thirds(small_system: System) -> None:
    net = network(small_system.config)
    for tensor in net.tensors().values():
        if tensor.role == "qkv":
            weight = recipe.draw(tensor, net, 3).astype(np.float64)
            thirds = weight.reshape(3, -1) / np.array(
                [[recipe.QUERY_KEY_GAIN], [recipe.QUERY_KEY_GAIN], [1.0]]
            )
            assert thirds.std(axis=1) == pytest.approx(1 / np.sqrt(tensor.shape[1]), rel=0.05)
            assert np.abs(np.corrcoef(thirds) - np.eye(3)).max() < 0.05


@pytest.mark.parametrize("system", WITH_POSITIONS, indirect=True)
def test_neighbouring_positions_look_alike_and_distant_ones_do_not(system: System) -> None:
    net = network(system.config)
    (tensor,) = (tensor for tensor in net.tensors().values() if tensor.role == "position")
    side = math.isqrt(tensor.shape[1])
    grid = recipe.draw(tensor, net, 0)[0, -side * side :].reshape(side, side, -1)
    assert grid.shape[2] == net.numbers.width
    near = np.mean(grid[1:] * grid[:-1]) / np.mean(grid * grid)
    far = np.mean(grid[side // 2 :] * grid[: side - side // 2]) / np.mean(grid * grid)
    assert near > 0.5
    assert abs(far) < 0.3


def eager(source: Source, side: int) -> tuple[Any, list[torch.nn.Module]]:
    """Load a stock model with attention in plain operators, and list its blocks."""
    if source.library.name == "transformers":
        model: Any = transformers.AutoModel.from_pretrained(
            source.folder, dtype=torch.float32, attn_implementation="eager"
        )
        blocks = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    else:
        model = timm.create_model(f"local-dir:{source.folder}", pretrained=True, img_size=side)
        blocks = model.blocks
        for block in blocks:
            block.attn.fused_attn = False
    return model.eval(), list(blocks)


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


REAL = ["dinov3-vits16", *FUSED]


@pytest.mark.parametrize("name", REAL)
def test_a_real_size_network_has_the_statistics_that_the_recipe_claims(name: str, tmp_path: Path) -> None:
    source = open_source(Request(SYSTEMS[name], "synthetic:0"), tmp_path)
    side = 14 * source.network.numbers.patch
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    model, blocks = eager(source, side)
    states: list[Tensor] = []
    for block in blocks:
        block.register_forward_hook(lambda *found: states.append(found[-1]))
    with torch.no_grad(), _Inside() as inside:
        model(images)
    assert len(inside.logits) == len(inside.pre_gelu) == source.network.blocks
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
