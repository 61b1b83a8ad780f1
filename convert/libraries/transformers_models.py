"""transformers: models whose ``config.json`` has a ``model_type``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from vconv.convert.architectures.base import CLASSIFIER, POOLER
from vconv.convert.architectures.outputs import OUTPUTS, TOKENS, unused_tensors
from vconv.convert.architectures.sizes import unasked_size
from vconv.convert.libraries import transformers_beyond, transformers_sizes
from vconv.convert.libraries.base import (
    Library,
    parameters_without_data,
    quiet,
    shadowed,
    stock_transformers,
    understood,
)
from vconv.convert.libraries.transformers_backbones import BACKBONES, is_backbone, named_maps
from vconv.convert.network import Network
from vconv.errors import WeightsError
from vconv.types import CONFIG_FILE, PREPROCESSOR_FILE

_CLASSES = {**transformers_beyond.AUTO, POOLER: transformers_beyond.AUTO[""]}
"""The class that loads a model in stock transformers, by the head of the network."""
_PLAIN = "vconv_plain"
_WHOLE = "torch_int"
"""The function of transformers that makes a whole number of a size."""
_ATTENDS = "is_causal"
"""The attribute of the modules of transformers that call a function of attention, and return its results."""
_STRICTLY: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False, "return_dict": True}
"""Arguments for reading a folder: no download, no code from the folder, and outputs with names."""


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _heads(network: Network) -> dict[str, bool]:
    """Return the arguments of a class that would make a pooler, for a network without one."""
    return {"add_pooling_layer": False} if POOLER in network.layout.heads and not network.head else {}


def _class(network: Network) -> str:
    return BACKBONES[network.layout.family].name if is_backbone(network) else _CLASSES[network.head]


def _load(folder: Path, network: Network) -> nn.Module:
    # Of the tensors that it does not use, the ledger and the error below speak.
    heard = quiet("transformers") if network.observed else contextlib.nullcontext()
    with understood("transformers"), stock_transformers() as transformers, _without_progress_bars(), heard:
        factory = getattr(transformers, _class(network))
        model, notes = factory.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, **_heads(network), **_STRICTLY
        )
    if network.observed:  # the ledger judges every tensor of the file that the network does not have
        notes.pop("unexpected_keys", None)
    if is_backbone(network):  # that of a ConvNeXt leaves the final norm of a whole checkpoint out
        notes["unexpected_keys"] = set(notes["unexpected_keys"]) - unused_tensors(network)
    wrong = {kind: sorted(map(str, found)) for kind, found in notes.items() if found}
    if wrong:
        raise WeightsError(
            "transformers does not load all of the weights",
            got=", ".join(f"{len(found)} {kind}, such as {found[0]}" for kind, found in wrong.items()),
            expected="every tensor loaded from the file",
            fix="check that the weights belong to this config.json",
        )
    return cast("nn.Module", model)


def _build(folder: Path, network: Network) -> nn.Module:
    if network.observed:
        return _build_undeclared(folder, network)
    with understood("transformers"), stock_transformers() as transformers, torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(folder, **_STRICTLY)
        factory = getattr(transformers, _class(network))
        if is_backbone(network):
            model = cast("nn.Module", factory(config))
        else:
            model = cast("nn.Module", factory.from_config(config, trust_remote_code=False, **_heads(network)))
    for name, child in list(model.named_children()):
        if any(buffer.is_meta for buffer in child.buffers(recurse=False)):
            setattr(model, name, type(child)(config))
    for name, module in list(model.named_modules()):
        if network.layout.stores_packed(name) and hasattr(module, "gate_proj"):
            model.set_submodule(name, _PackedGatedMlp(module))
    return model


class _PackedGatedMlp(nn.Module):
    """A gated MLP with the gate and up projections as one layer, as its file and older versions have it.

    transformers 5 splits this layer when it loads DINOv2. A graph refers to tensors of the file. So it is
    traced from one layer; the products are the same.

    Args:
        module: the gated MLP of transformers 5.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        gate, down = module.gate_proj, module.down_proj
        self.weights_in = nn.Linear(gate.in_features, 2 * gate.out_features, device="meta")
        self.weights_out = nn.Linear(down.in_features, down.out_features, device="meta")
        self.act_fn = module.act_fn

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute down(act(gate(x)) * up(x)) of (B, N, D)."""
        gate, up = self.weights_in(tokens).chunk(2, dim=-1)
        return cast("Tensor", self.weights_out(self.act_fn(gate) * up))


def _build_undeclared(folder: Path, network: Network) -> nn.Module:
    """Build a model with parameters on the meta device; its own eager attention needs no other operators."""
    with (
        understood("transformers"),
        stock_transformers() as transformers,
        transformers_beyond.without_initialising(),
        parameters_without_data(),
    ):
        config = transformers.AutoConfig.from_pretrained(folder, **_STRICTLY)
        factory = getattr(transformers, _CLASSES[network.head])
        model = factory.from_config(config, trust_remote_code=False, attn_implementation="eager")
    return cast("nn.Module", model)


def _run(model: nn.Module, network: Network, pixel_values: Tensor) -> Mapping[str, Tensor]:
    if network.observed:
        return transformers_beyond.run(model, network, pixel_values)
    found: dict[str, Tensor] = {}
    options = _options(network, pixel_values)
    if is_backbone(network):
        return named_maps(network, model(pixel_values, **options))
    if network.head == CLASSIFIER:
        stock, classified = transformers_beyond.classified(model, pixel_values, options)
        found["logits"] = classified.logits
    else:
        stock = model(pixel_values, **options)
    if OUTPUTS["pooled"].has(network):
        found["pooled"] = stock.pooler_output
    return {TOKENS: stock.last_hidden_state, **found}


def _options(network: Network, pixel_values: Tensor) -> Mapping[str, bool]:
    """Return the arguments with which a model takes images of this size.

    A ViT of transformers resamples its positions if it is asked to. At its own size it is not asked, as users
    call it. While a graph for any size is traced, a side is a symbol and not a number.
    """
    return transformers_sizes.asking(unasked_size(network), pixel_values)


def _plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Compute softmax(q k' * scaling) v, with no mask; (B, heads, N, head_dim) to (B, N, heads, head_dim)."""
    if attention_mask is not None or dropout:
        raise ValueError("plain attention takes neither a mask nor dropout")
    weights = torch.softmax(torch.matmul(query, key.transpose(2, 3)) * scaling, dim=-1)
    return torch.matmul(weights, value).transpose(1, 2), weights


@contextlib.contextmanager
def _plain(model: nn.Module, network: Network) -> Iterator[None]:
    """Make a model use plain attention; restore its attention and the registry of transformers on exit.

    A model whose architecture is not declared keeps its own eager attention: it may add a bias to the logits.
    """
    if network.observed:
        yield
        return
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    stock: Any = model
    if not getattr(stock, "_supports_sdpa", False):
        # A convolutional network has no attention.
        yield
        return
    before = stock.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS[_PLAIN] = _plain_attention
    try:
        stock.set_attn_implementation(_PLAIN)
        yield
    finally:
        stock.set_attn_implementation(before)
        del ALL_ATTENTION_FUNCTIONS[_PLAIN]


def _expose_attention(model: nn.Module, blocks: Sequence[nn.Module]) -> list[nn.Module]:
    """Set the eager attention of transformers in all blocks, as ``output_attentions`` needs it."""
    stock: Any = model
    stock.set_attn_implementation("eager")
    return [next(part for part in block.modules() if hasattr(part, _ATTENDS)) for block in blocks]


@contextlib.contextmanager
def _symbolic_sizes(model: nn.Module) -> Iterator[None]:
    """Keep the symbols of a size where transformers makes whole numbers of them (``torch_int``)."""
    modules = {sys.modules[type(part).__module__] for part in model.modules()}
    with shadowed([one for one in modules if hasattr(one, _WHOLE)], _WHOLE, int):
        yield


def _exact_gelus() -> tuple[type[nn.Module], ...]:
    from transformers.activations import GELUActivation

    return (GELUActivation, nn.GELU)


LIBRARY = Library(
    name="transformers",
    files=(CONFIG_FILE, PREPROCESSOR_FILE),
    load=_load,
    build=_build,
    run=_run,
    plain_attention=_plain,
    expose_attention=_expose_attention,
    symbolic_sizes=_symbolic_sizes,
    exact_gelus=_exact_gelus,
    image_size=transformers_sizes.image_size,
    switched=lambda config, flags: {**config, **flags},
    encoder=transformers_beyond.image_encoder,
    beyond=transformers_beyond.BEYOND,
    resized=transformers_sizes.resized,
    stored_for=transformers_sizes.stored_for,
)
