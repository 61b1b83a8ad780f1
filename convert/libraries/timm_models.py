"""timm: models whose ``config.json`` has an ``architecture``, loaded as ``local-dir:``."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import safetensors
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from vconv.convert.architectures.outputs import TOKENS
from vconv.convert.libraries import timm_described, timm_features, timm_sizes
from vconv.convert.libraries.base import Beyond, Library, parameters_without_data, shadowed
from vconv.convert.libraries.timm_described import describe, preprocessing, switched
from vconv.convert.network import Network
from vconv.errors import WeightsError
from vconv.types import CONFIG_FILE, WEIGHTS_FILE, Config

POOLING = {"token": "cls", "avg": "avg"}
"""vconv's name of each pooling by timm's name; other poolings keep timm's name."""
_ZERO_BUFFER = "k_bias"
"""The key bias of ``_qkvb`` models, which no file holds: it is always zero."""
_NORM_FLAGS = {"VisionTransformer": "fc_norm", "Eva": "use_fc_norm"}
"""The argument that adds a norm after pooling, by the class of the model."""


def exact_gelus() -> tuple[type[nn.Module], ...]:
    """Return the classes of the exact GELU: torch's, and timm's, which a configuration can select by name."""
    from timm.layers.activations import GELU

    return nn.GELU, GELU


@contextlib.contextmanager
def _whole_if_declared(folder: Path, network: Network) -> Iterator[Path]:
    """Return a folder from which timm makes the whole of a declared network.

    A configuration may ask for feature maps only. They are then read from its blocks, or stages.
    """
    if network.observed or not timm_features.is_features_only(network.config):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="vconv-") as name:
        found = Path(name)
        (found / CONFIG_FILE).write_text(json.dumps(timm_features.whole(network.config)))
        (found / WEIGHTS_FILE).symlink_to((folder / WEIGHTS_FILE).resolve())
        yield found


def _same_bits(loaded: Tensor, stored: Tensor) -> bool:
    """Compare float32 tensors bit by bit, because a stored value may be NaN, which never equals itself."""
    if not loaded.is_floating_point():
        return torch.equal(loaded, stored)
    return torch.equal(loaded.view(torch.int32), stored.float().view(torch.int32))


def _load(folder: Path, network: Network) -> nn.Module:
    with _whole_if_declared(folder, network) as found:
        model = cast("nn.Module", timm_described.create(found, pretrained=True).float())
    with safetensors.safe_open(folder / WEIGHTS_FILE, "pt") as file:
        stored = set(file.keys())
        keys = _stored_names(model, network.config) if network.observed else {}
        for name, loaded in model.state_dict().items():
            key = keys.get(name, name)
            if key not in stored or not _same_bits(loaded, file.get_tensor(key)):
                raise WeightsError(
                    "timm does not load all of the weights",
                    got=f"{name} with values that are not from the file",
                    expected="every tensor loaded from the file",
                    fix=f"make num_classes, model_args and pretrained_cfg agree in {CONFIG_FILE}",
                )
    return model


def _build(folder: Path, network: Network) -> nn.Module:
    if network.observed:
        with parameters_without_data():
            return cast("nn.Module", timm_described.create(folder, pretrained=False))
    with torch.device("meta"), _whole_if_declared(folder, network) as found:
        model = cast("nn.Module", timm_described.create(found, pretrained=False))
    rope: Any = getattr(model, "rope", None)
    if rope is not None:
        rope.to_empty(device="cpu").reset_parameters()
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name == _ZERO_BUFFER and buffer.is_meta:
                setattr(module, name, torch.zeros(buffer.shape))
    return model


def _run(model: nn.Module, network: Network, pixel_values: Tensor) -> Mapping[str, Tensor]:
    stock: Any = model
    if network.observed:
        only = timm_features.is_features_only(network.config)
        return (timm_features.run if only else _observable)(stock, pixel_values)
    features = stock.forward_features(pixel_values)
    pooled = stock.forward_head(features, pre_logits=True)
    logits = stock.forward_head(features) if network.head == "classifier" else pooled
    tokens = _tokens(stock, features, pooled) if network.stages else features
    return {TOKENS: tokens, "pooled": pooled, "logits": logits}


def _tokens(model: Any, features: Tensor, pooled: Tensor) -> Tensor:
    """Return the tokens of a ConvNeXt: the pooled one, then the normed patches of (B, D, H, W)."""
    patches = model.head.norm(features).flatten(2).transpose(1, 2)
    return torch.cat([pooled.unsqueeze(1), patches], dim=1)


class _Once(TorchFunctionMode):
    """Computes a function of the same tensors only once, while it is active; then it returns that result."""

    def __init__(self) -> None:
        super().__init__()
        self._results: dict[Any, Tensor] = {}
        self._arguments: list[Any] = []  # kept, so that no other object gets the identity of one of them

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves, form = tree_flatten((args, kwargs or {}))
        values = (leaf if isinstance(leaf, int | float | str) else id(leaf) for leaf in leaves)
        key = (func, form, *((type(leaf), value) for leaf, value in zip(leaves, values, strict=True)))
        if key in self._results:
            return self._results[key]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self._results[key] = result
            self._arguments.append(leaves)
        return result


def _observable(stock: Any, pixel_values: Tensor) -> Mapping[str, Tensor]:
    """Run a model whose architecture is not declared; return what it gives as single tensors.

    Its head gives two outputs, and is run for each. What both runs compute is computed once: it may have
    GELUs, which would be counted twice, but which a graph has once.
    """
    features = stock.forward_features(pixel_values)
    with _Once():
        found = {TOKENS: features, "pooled": stock.forward_head(features, pre_logits=True)}
        if stock.num_classes:
            found["logits"] = stock.forward_head(features)
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


@contextlib.contextmanager
def _plain(model: nn.Module, network: Network) -> Iterator[None]:
    """Switch fused attention off in every module, and on again on exit."""
    fused: list[Any] = [module for module in model.modules() if getattr(module, "fused_attn", False)]
    for module in fused:
        module.fused_attn = False
    try:
        yield
    finally:
        for module in fused:
            module.fused_attn = True


def _expose_attention(model: nn.Module, blocks: Sequence[nn.Module]) -> list[nn.Module]:
    """Switch fused attention off in these blocks; return their dropouts, which follow the softmax."""
    modules: list[Any] = [block.get_submodule("attn") for block in blocks]
    for module in modules:
        module.fused_attn = False
    return [module.attn_drop for module in modules]


@contextlib.contextmanager
def _symbolic_sizes(model: nn.Module) -> Iterator[None]:
    """Keep the symbols of a size where timm's grid for RoPE divides by ``float(size)``."""
    from timm.layers import pos_embed_sincos

    with shadowed([pos_embed_sincos], "float", float):
        yield


def _pooled_by(config: Config, pool: str) -> dict[str, Any]:
    """Set timm's pooling, but keep the norms of the checkpoint, which timm would move with the pooling."""
    stock: Any = describe(timm_features.whole(config))
    normed = not isinstance(stock.fc_norm, nn.Identity)
    word = next(theirs for theirs, ours in POOLING.items() if ours == pool)
    flags = {"global_pool": word, _NORM_FLAGS[type(stock).__name__]: normed}
    return {**switched(config, flags), "global_pool": word}


def _knows(name: str) -> bool:
    import timm

    return bool(timm.is_model(name))


def _names() -> Collection[str]:
    import timm

    names: list[str] = timm.list_models()
    return names


def _images(config: Config) -> tuple[int, int, int]:
    channels, height, width = preprocessing(config)["input_size"]
    return int(channels), int(height), int(width)


def _stored_names(model: nn.Module, config: Config) -> Mapping[str, str]:
    """Return the stored key of every tensor: its name in memory, unless timm kept a part of a network."""
    complete = _whole(config)
    if complete is None:
        return {name: name for name in model.state_dict()}
    return timm_features.stored_names(model, complete)


def _features(config: Config, names: tuple[str, ...]) -> dict[str, Any]:
    complete: Any = _whole(config) or describe(config)
    return timm_features.asking(config, names, len(getattr(complete, "feature_info", ())))


def _whole(config: Config) -> nn.Module | None:
    return describe(timm_features.whole(config)) if timm_features.is_features_only(config) else None


LIBRARY = Library(
    name="timm",
    files=(CONFIG_FILE,),
    load=_load,
    build=_build,
    run=_run,
    plain_attention=_plain,
    expose_attention=_expose_attention,
    symbolic_sizes=_symbolic_sizes,
    exact_gelus=exact_gelus,
    image_size=timm_sizes.image_size,
    switched=switched,
    encoder=lambda config: config,
    beyond=Beyond(
        knows=_knows,
        names=_names,
        head=lambda config: "",
        images=_images,
        stored=_stored_names,
        whole=_whole,
        is_one_of_several=lambda model: False,
        spelled_out=lambda config: config,
        resized=timm_sizes.resized_beyond,
        unasked_size=lambda model: None,
    ),
    resized=timm_sizes.resized,
    stored_for=timm_sizes.stored_for,
    features=_features,
    pooled_by=_pooled_by,
)
