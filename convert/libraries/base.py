"""What a library is, and what the two have in common: quietness, and errors in a sentence."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn

from vconv.backends import without_torch_npu
from vconv.convert.network import Network
from vconv.errors import VconvError, WeightsError
from vconv.types import CONFIG_FILE, Config


@dataclass(frozen=True)
class Library:
    """What vconv needs of a library of models.

    Args:
        name: its name, as pip has it.
        files: the configuration files beside the weights, ``config.json`` first.
        load: loads the stock model of a folder in float32; nothing is patched.
        build: builds it with parameters on the meta device: shapes without data. What no file holds, such as
            the RoPE periods, is there as the library computes it.
        run: runs a model on (B, 3, H, W) and returns the tokens and what else the library gives, by the names
            of :mod:`vconv.convert.architectures.outputs`.
        plain_attention: makes a model compute attention with plain operators while the context is open.
        exact_gelus: the classes of its exact GELU.
        image_size: the (height, width) that its preprocessing makes, from both configurations.
        switched: a configuration with flags of the architecture set.
        pooled_by: a configuration with another pooling; None where the library's models have one alone.
    """

    name: str
    files: tuple[str, ...]
    load: Callable[[Path, Network], nn.Module]
    build: Callable[[Path, Network], nn.Module]
    run: Callable[[nn.Module, Network, Tensor], Mapping[str, Tensor]]
    plain_attention: Callable[[nn.Module], AbstractContextManager[None]]
    exact_gelus: Callable[[], tuple[type[nn.Module], ...]]
    image_size: Callable[[Config, Config], tuple[int, int]]
    switched: Callable[[Config, Mapping[str, bool]], dict[str, Any]]
    pooled_by: Callable[[Config, str], dict[str, Any]] | None = None


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
def stock_transformers() -> Iterator[Any]:
    """Lend transformers, which does not see torch_npu in this block unless it was imported before.

    It would import it wherever it is installed, and fail where that fails.
    """
    with without_torch_npu():
        import transformers
        from transformers.utils import import_utils

        # It remembers its first answer; models ask again as they run, outside this block.
        import_utils.is_torch_npu_available()
        yield transformers


_REFUSALS = (
    *(LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AssertionError, AttributeError),
    *(ImportError, OSError, StrictDataclassError),
)
"""What libraries raise on a configuration that makes no sense to them."""


@contextlib.contextmanager
def understood(
    library: str,
    thing: str = "model",
    file: str = CONFIG_FILE,
    kind: type[VconvError] = WeightsError,
    folder: Path | None = None,
) -> Iterator[None]:
    """Turn what a library raises on a configuration that it can make nothing of into a sentence.

    Args:
        library: its name.
        thing: what it was to make.
        file: the configuration.
        kind: the type of the error.
        folder: where the library read it; its name, which is nothing to the user, is left out.
    """
    try:
        yield
    except _REFUSALS as error:
        said = " ".join(str(error).replace(str(folder), "the folder").split())
        raise kind(
            f"{library} cannot make the {thing} that {file} describes",
            got=f"{type(error).__name__}: {said[:200]}",
            expected="a configuration that it knows",
            fix=f"use the {file} that was published with the weights",
        ) from error
