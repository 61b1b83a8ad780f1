from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from examples import EXAMPLES
from torch import Tensor

from vconv.catalog.systems import SYSTEMS, System
from vconv.convert.files.safetensors_file import read_header
from vconv.convert.libraries.readers import network
from vconv.convert.network import Network
from vconv.convert.patches.base import applied, find_sites
from vconv.convert.patches.qkv_bias import PATCH, Proof, biases, prove
from vconv.convert.sources.base import Source
from vconv.convert.weights import ledger
from vconv.errors import PatchError, WeightsError

Refused = Callable[..., AbstractContextManager[None]]
Distance = Callable[[Any, Any], float]

Named = Callable[[Any, Tensor], dict[str, Tensor]]

PARTS = ("q_proj", "k_proj", "v_proj", "query", "key", "value", "qkv")
WITH_BIASES = [name for name, system in EXAMPLES.items() if network(system.config).layout.biases]
TRANSFORMERS = [name for name in WITH_BIASES if SYSTEMS[name].library == "transformers"]
by_transformers = pytest.mark.parametrize("system", TRANSFORMERS, indirect=True)
in_timm = pytest.mark.parametrize("system", ["vit_small_patch14_reg4_dinov2.lvd142m"], indirect=True)


@pytest.fixture(params=WITH_BIASES)
def system(request: pytest.FixtureRequest) -> System:
    """Every system whose query, key and value projections can have a bias."""
    return SYSTEMS[request.param]


def projections(net: Network) -> int:
    """Count the projections that may have a bias: one in each block if they are fused, else three."""
    return net.blocks * (1 if net.library == "timm" else 3)


def is_bias(name: str) -> bool:
    return name.endswith(tuple(f"{part}.bias" for part in PARTS))


def rewritten(source: Source, change: Callable[[str, Tensor], Tensor]) -> Network:
    """Change a source's weights on disk with the reference library."""
    path = source.folder / "model.safetensors"
    weights = {name: change(name, tensor) for name, tensor in safetensors.torch.load_file(path).items()}
    path.unlink()
    safetensors.torch.save_file(weights, path, metadata={"format": "pt"})
    return network(source.config, weights)


def zeroed(source: Source) -> Network:
    return rewritten(source, lambda name, tensor: tensor * 0 if is_bias(name) else tensor)


def proof_of(source: Source, net: Network) -> Proof:
    return prove(net, ledger.match_tensors(net, read_header(source.folder / "model.safetensors")))


def test_biases_are_those_of_the_stock_model(small_source: Source, stock: Callable[[Path], Any]) -> None:
    net = small_source.network
    names = [name for name, _ in stock(small_source.folder).named_parameters() if is_bias(name)]
    assert sorted(biases(net)) == sorted(map(net.layout.disk_key, names))
    assert len(names) >= projections(net) - net.blocks


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_zeros_of_both_signs_are_proved_zero(small_source: Source, sign: float) -> None:
    net = rewritten(
        small_source, lambda name, value: torch.zeros_like(value) * sign if is_bias(name) else value
    )
    proof = proof_of(small_source, net)
    assert proof.strip
    assert proof.biases == len(biases(net))
    assert str(proof) == f"max|b| = 0 over all {len(biases(net))} query, key and value biases"


def test_one_element_that_is_not_zero_keeps_every_bias(small_source: Source) -> None:
    for chosen in biases(zeroed(small_source)):

        def change(name: str, tensor: Tensor, chosen: str = chosen) -> Tensor:
            tensor = tensor * 0 if is_bias(name) else tensor
            if name == chosen:
                tensor[-1] = -1e-3
            return tensor

        proof = proof_of(small_source, rewritten(small_source, change))
        assert not proof.strip
        assert (proof.worst, proof.greatest) == (chosen, pytest.approx(1e-3))
        assert str(proof) == f"max|b| = 0.001 in {chosen}"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_biases_are_read_without_loss(small_source: Source, dtype: torch.dtype) -> None:
    least = torch.finfo(dtype).tiny
    chosen = biases(zeroed(small_source))[-1]

    def change(name: str, tensor: Tensor) -> Tensor:
        tensor = tensor.to(dtype)
        if name == chosen:
            tensor[0] = least
        return tensor

    proof = proof_of(small_source, rewritten(small_source, change))
    assert (proof.strip, proof.worst, proof.greatest) == (False, chosen, least)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bias_that_is_not_a_number_is_refused(small_source: Source, refused: Refused, bad: float) -> None:
    chosen = biases(zeroed(small_source))[0]
    net = rewritten(small_source, lambda name, value: value * 0 + bad if name == chosen else value)
    with refused(WeightsError, f"NaN or Inf in {chosen}"):
        proof_of(small_source, net)


def test_a_network_without_biases_has_nothing_to_strip(small_source: Source) -> None:
    net = network(PATCH.edit_config(small_source.network, dict(small_source.config)))
    proof = prove(net, [])
    assert biases(net) == []
    assert (proof.strip, str(proof)) == (False, "there are no query, key or value biases")


def test_stripping_zeros_changes_nothing(
    small_source: Source, stock: Callable[[Path], Any], named: Named, pixel_values: Tensor
) -> None:
    net = zeroed(small_source)
    model = stock(small_source.folder)
    expected = named(model, pixel_values)
    with applied(model, net, [PATCH]) as found:
        for output, value in named(model, pixel_values).items():
            assert torch.equal(value, expected[output]), output
        assert [name for name, _ in model.named_parameters() if is_bias(name)] == []
    assert [name for name, _ in model.named_parameters() if is_bias(name)] != []
    carried = projections(net) - len(biases(net))
    assert [(each.sites, each.carried) for each in found] == [(projections(net), carried)]


def test_stripping_refuses_a_nonzero_bias(
    small_source: Source, stock: Callable[[Path], Any], refused: Refused
) -> None:
    net = zeroed(small_source)
    model = stock(small_source.folder)
    with torch.no_grad():
        last = [value for name, value in model.named_parameters() if is_bias(name)][-1]
        last[3] = -0.25
    state = {name: value for name, value in model.named_parameters()}
    fragments = ("qkv-bias would change the model", "up to 0.25", "zero in every layer")
    with refused(PatchError, *fragments), applied(model, net, [PATCH]):
        pytest.fail("the patch was applied")
    assert all(value is state[name] for name, value in model.named_parameters())
    assert len(dict(model.named_parameters())) == len(state)


def test_stripping_refuses_a_bias_that_is_not_a_number(
    small_source: Source, stock: Callable[[Path], Any], refused: Refused
) -> None:
    net, model = zeroed(small_source), stock(small_source.folder)
    with torch.no_grad():
        next(value for name, value in model.named_parameters() if is_bias(name))[0] = float("nan")
    with refused(PatchError, "qkv-bias would change the model"), applied(model, net, [PATCH]):
        pytest.fail("the patch was applied")


def test_a_nonzero_query_bias_changes_the_output(
    small_source: Source, stock: Callable[[Path], Any], named: Named, pixel_values: Tensor, distance: Distance
) -> None:
    zeroed(small_source)
    model = stock(small_source.folder)
    expected = named(model, pixel_values)["last_hidden_state"]
    for name, value in model.named_parameters():
        if is_bias(name) and name.split(".")[-2] in ("q_proj", "query", "qkv"):
            value.data[: small_source.network.numbers.width] = 1e-3
    assert distance(named(model, pixel_values)["last_hidden_state"], expected) > 1e-5


def test_the_configuration_alone_makes_the_stock_library_build_the_patched_model(
    small_source: Source,
    stock: Callable[[Path], Any],
    build: Callable[[Any], Any],
    named: Named,
    pixel_values: Tensor,
) -> None:
    net = zeroed(small_source)
    original = stock(small_source.folder)
    model = build(PATCH.edit_config(net, dict(small_source.config)))
    assert [name for name, _ in model.named_parameters() if is_bias(name)] == []
    kept = {name: value for name, value in original.state_dict().items() if not is_bias(name)}
    assert model.load_state_dict(kept, strict=True)
    expected = named(original, pixel_values)
    for name, value in named(model, pixel_values).items():
        assert torch.equal(value, expected[name]), name
    assert all(site.done for site in find_sites(PATCH, model, net))


@in_timm
def test_stock_timm_loads_a_folder_without_the_biases(
    small_source: Source, stock: Callable[[Path], Any], named: Named, pixel_values: Tensor, tmp_path: Path
) -> None:
    net = zeroed(small_source)
    expected = named(stock(small_source.folder), pixel_values)
    config = PATCH.edit_config(net, dict(small_source.config))
    assert config["model_args"] == {**small_source.config["model_args"], "qkv_bias": False}
    stored = safetensors.torch.load_file(small_source.folder / "model.safetensors")
    kept = {name: value for name, value in stored.items() if not is_bias(name)}
    assert len(stored) - len(kept) == net.blocks
    safetensors.torch.save_file(kept, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = stock(tmp_path)
    assert set(model.state_dict()) == set(kept)
    for name, value in named(model, pixel_values).items():
        assert torch.equal(value, expected[name]), name


def test_the_config_edit_touches_only_those_flags(small_source: Source) -> None:
    before = dict(small_source.config)
    after = PATCH.edit_config(small_source.network, dict(before))
    flags = set(small_source.network.layout.biases.values())
    old, new = (config.get("model_args", config) for config in (before, after))
    assert {key for key in new if new[key] != old.get(key)} >= {key for key in flags if old.get(key)}
    assert {key for key in new if new[key] != old.get(key)} <= flags
    assert [flag for flag in flags if new[flag] is not False] == []
    assert {key for key in after if after[key] != before.get(key)} <= flags | {"model_args"}
    assert json.dumps(before, sort_keys=True) == json.dumps(dict(small_source.config), sort_keys=True)


@by_transformers
def test_the_config_edit_writes_a_flag_that_had_the_librarys_default(small_source: Source) -> None:
    flags = set(small_source.network.layout.biases.values())
    config = {key: value for key, value in small_source.config.items() if key not in flags}
    edited = transformers.AutoConfig.for_model(**PATCH.edit_config(small_source.network, config))
    assert [flag for flag in sorted(flags) if getattr(edited, flag)] == []


def test_a_missing_projection_is_refused(
    small_source: Source, stock: Callable[[Path], Any], refused: Refused
) -> None:
    net, model = zeroed(small_source), stock(small_source.folder)
    parent, child = next(
        (parent, child)
        for parent in model.modules()
        for child, module in parent.named_children()
        if child in PARTS and isinstance(module, torch.nn.Linear)
    )
    delattr(parent, child)
    expected = f"expected {projections(net)},"
    with refused(PatchError, "qkv-bias does not fit", f"{projections(net) - 1} places", expected):
        find_sites(PATCH, model, net)


def test_a_system_without_such_biases_does_not_need_the_patch() -> None:
    without = [system for name, system in EXAMPLES.items() if name not in WITH_BIASES]
    assert [system.name for system in without] == ["vit_small_patch16_dinov3.lvd1689m"]
    assert not PATCH.applies(network(without[0].config))
