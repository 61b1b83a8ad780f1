"""Models: the original as its library builds it, the patched one, and one without any weights."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vconv.convert.layouts import Network
from vconv.errors import WeightsError
from vconv.types import OUTPUTS, WEIGHTS_FILE

_CLASSES: dict[str, str] = {
    "": "AutoModel",
    "pooler": "AutoModel",
    "classifier": "AutoModelForImageClassification",
}
"""From a network's head to the class that stock users load it with."""


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Hold back warnings of the named loggers, and give them their levels back on exit."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _understood(folder: Path) -> Iterator[None]:
    """Turn what transformers raises on a configuration that makes no model into a sentence."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise WeightsError(
            "transformers cannot build the model that config.json describes",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            expected="a configuration that it knows",
            fix="use the config.json that was published with the weights",
        ) from error


def load(folder: Path, network: Network) -> nn.Module:
    """Load a model with stock transformers, in float32, ready for inference; nothing is patched.

    Args:
        folder: a folder with ``config.json`` and ``model.safetensors``.
        network: what it holds, by which the class is chosen.

    Raises:
        WeightsError: transformers cannot build the model, or leaves a tensor out or makes one up.
    """
    factory = getattr(transformers, _CLASSES[network.head])
    progress = transformers.utils.logging
    shown = progress.is_progress_bar_enabled()
    progress.disable_progress_bar()
    try:
        with _understood(folder):
            model, notes = factory.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
    finally:
        if shown:
            progress.enable_progress_bar()
    wrong = {kind: sorted(map(str, found)) for kind, found in notes.items() if found}
    if wrong:
        raise WeightsError(
            f"transformers does not load all of {WEIGHTS_FILE}",
            got=", ".join(f"{len(found)} {kind}, such as {found[0]}" for kind, found in wrong.items()),
            expected="every tensor in its place",
            fix="check that the weights belong to this config.json",
        )
    return cast("nn.Module", model.eval().requires_grad_(False))


def without_weights(folder: Path, network: Network, mode: FakeTensorMode) -> nn.Module:
    """Build a model whose parameters have shapes but no data, so that nothing can be read from them.

    Args:
        folder: a folder with ``config.json``.
        network: what it describes.
        mode: the fake mode that the parameters belong to; their device reads ``cpu``.
    """
    factory = getattr(transformers, _CLASSES[network.head])
    with torch.device("meta"), _understood(folder):
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        model = factory.from_config(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
    with mode:
        parameters = {name: torch.empty(shape) for name, shape in shapes.items()}
    model.load_state_dict(parameters, assign=True)
    return cast("nn.Module", model.eval().requires_grad_(False))


def output_names(network: Network) -> tuple[str, ...]:
    """List the outputs of a network, in the order that every graph and session keeps."""
    present = {
        "pooled": network.head != "classifier",
        "registers": network.registers > 0,
        "logits": network.head == "classifier",
    }
    return tuple(name for name in OUTPUTS if present.get(name, True))


def output_shapes(network: Network, batch: int, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Return the shape that each output must have for a batch of images of (height, width)."""
    width, patch = int(network.config["hidden_size"]), int(network.config["patch_size"])
    patches = (size[0] // patch) * (size[1] // patch)
    shapes: dict[str, tuple[int, ...]] = {
        "pooled": (batch, width),
        "cls": (batch, width),
        "registers": (batch, network.registers, width),
        "patches": (batch, patches, width),
        "last_hidden_state": (batch, 1 + network.registers + patches, width),
        "logits": (batch, network.layout.dimensions(network.config)["labels"]),
    }
    return {name: shapes[name] for name in output_names(network)}


class Outputs(nn.Module):
    """A stock model whose results have vconv's output names.

    Args:
        model: a stock transformers model.
        network: what it is.
    """

    def __init__(self, model: nn.Module, network: Network) -> None:
        super().__init__()
        self.model = model
        self.network = network

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Run the model on (B, 3, H, W); return the outputs of :func:`output_names`, in that order."""
        model: Any = self.model
        logits: Tensor | None = None
        if self.network.head == "classifier":
            stock, logits = _classified(model, pixel_values)
        else:
            stock = model(pixel_values)
        tokens = stock.last_hidden_state
        first_patch = 1 + self.network.registers
        found: dict[str, Callable[[], Any]] = {
            "pooled": lambda: stock.pooler_output,
            "cls": lambda: tokens[:, 0],
            "registers": lambda: tokens[:, 1:first_patch],
            "patches": lambda: tokens[:, first_patch:],
            "last_hidden_state": lambda: tokens,
            "logits": lambda: logits,
        }
        return tuple(found[name]() for name in output_names(self.network))


def _classified(model: Any, pixel_values: Tensor) -> tuple[Any, Tensor]:
    """Run a stock classifier; return what its backbone gave on the way, and its logits."""
    seen: list[Any] = []

    def see(module: nn.Module, given: Any, result: Any) -> None:
        seen.append(result)

    backbone: nn.Module = model.base_model
    handle = backbone.register_forward_hook(see)
    try:
        logits = model(pixel_values).logits
    finally:
        handle.remove()
    return seen[0], logits
