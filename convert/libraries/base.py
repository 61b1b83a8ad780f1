"""Interface to a model library, and helpers that all libraries share: quiet logging and readable errors."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import SymInt, Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.modules.module import register_module_parameter_registration_hook

from vconv.backends import without_torch_npu
from vconv.convert.network import Network
from vconv.errors import VconvError, WeightsError
from vconv.printable import shortened
from vconv.types import CONFIG_FILE, Config


@dataclass(frozen=True)
class Beyond:
    """What vconv needs from a library for networks whose architecture is not declared.

    Args:
        knows: returns whether the library has an image encoder of this name.
        names: returns the names of all models of the library, also of those that are no image encoders.
        head: returns the head that a configuration asks for; it selects the class.
        images: returns channels, height and width of the images that a configuration is made for.
        stored: returns the stored key of each tensor of a model and its configuration, by its name in memory.
            Tensors of one key are the rows of the stored tensor, in this order.
        whole: builds without data the whole network of whose checkpoint a model uses a part; None for a model
            that is whole.
        is_one_of_several: returns whether a model is one encoder of a model of several, such as images and
            text. Its checkpoints may hold the others too.
        spelled_out: returns a configuration that asks for the exact GELU spelled out with ``erf``; the same
            configuration if the library has no such option.
        resized: yields both configurations, changed so that a network may take images of a (height, width),
            and the preprocessing makes them, in every way that the library has, the first one to try first.
        unasked_size: returns the one (height, width) of images for which a model need not be asked to
            resample its positions; None if it is never asked.
    """

    knows: Callable[[str], bool]
    names: Callable[[], Collection[str]]
    head: Callable[[Config], str]
    images: Callable[[Config], tuple[int, int, int]]
    stored: Callable[[nn.Module, Config], Mapping[str, str]]
    whole: Callable[[Config], nn.Module | None]
    is_one_of_several: Callable[[nn.Module], bool]
    spelled_out: Callable[[Config], Config]
    resized: Callable[[Config, Config, tuple[int, int]], Iterable[tuple[Config, Config]]]
    unasked_size: Callable[[nn.Module], tuple[int, int] | None]


@dataclass(frozen=True)
class Library:
    """The functions that vconv needs from a model library.

    Args:
        name: its name on PyPI.
        files: the configuration files beside the weights, ``config.json`` first.
        load: loads the stock model of a folder in float32, without patches.
        build: builds the model with parameters on the meta device, that is, shapes without data. Buffers that
            no file holds, such as the RoPE periods, have the values that the library computes.
        run: runs a model on (B, 3, H, W) and returns the tokens and all other outputs of the library, by the
            names in :mod:`vconv.convert.architectures.outputs`.
        plain_attention: makes a model compute attention with plain operators while the context is open.
        expose_attention: makes a model compute the attention of some of its blocks without a fused operator;
            returns for each the module that returns the probabilities, alone or last.
        symbolic_sizes: makes a model keep symbols of sizes while the context is open, where its library would
            make numbers of them and so fix the size of a graph.
        exact_gelus: returns the library's classes of the exact GELU.
        image_size: returns the (height, width) that the preprocessing makes, from both configurations.
        switched: returns a configuration with flags of the architecture set.
        encoder: returns the configuration of the image encoder, from that of a model of images and text.
        beyond: what is needed for networks whose architecture is not declared.
        resized: returns both configurations, changed so that the model takes images of any size that it can,
            and the preprocessing makes images of a (height, width); None leaves the preprocessing as it is.
        stored_for: returns a configuration whose position embedding is stored for images of a
            (height, width); None if no configuration of the library describes it.
        features: returns a configuration that asks for feature maps only, by their names; None if the library
            has none of a network whose architecture is not declared.
        pooled_by: returns a configuration with another pooling; None if the library's models have only one.
    """

    name: str
    files: tuple[str, ...]
    load: Callable[[Path, Network], nn.Module]
    build: Callable[[Path, Network], nn.Module]
    run: Callable[[nn.Module, Network, Tensor], Mapping[str, Tensor]]
    plain_attention: Callable[[nn.Module, Network], AbstractContextManager[None]]
    expose_attention: Callable[[nn.Module, Sequence[nn.Module]], list[nn.Module]]
    symbolic_sizes: Callable[[nn.Module], AbstractContextManager[None]]
    exact_gelus: Callable[[], tuple[type[nn.Module], ...]]
    image_size: Callable[[Config, Config], tuple[int, int]]
    switched: Callable[[Config, Mapping[str, bool]], dict[str, Any]]
    encoder: Callable[[Config], Config]
    beyond: Beyond
    resized: Callable[[Config, Config, tuple[int, int] | None], tuple[Config, Config]]
    stored_for: Callable[[Config, tuple[int, int]], dict[str, Any] | None]
    features: Callable[[Config, tuple[str, ...]], dict[str, Any]] | None = None
    pooled_by: Callable[[Config, str], dict[str, Any]] | None = None


@contextlib.contextmanager
def shadowed(modules: Iterable[ModuleType], name: str, convert: Callable[[Any], Any]) -> Iterator[None]:
    """Let functions of modules leave a symbol as it is where they convert it to a number.

    A function finds a name in its module before it finds a built-in function of that name.

    Args:
        modules: the modules.
        name: the name by which they call the conversion.
        convert: the conversion, for all that is no symbol.
    """

    def keep(value: Any) -> Any:
        return value if isinstance(value, SymInt) else convert(value)

    with contextlib.ExitStack() as undone:
        for module in modules:
            if name in vars(module):
                undone.callback(setattr, module, name, vars(module)[name])
            else:
                undone.callback(delattr, module, name)
            setattr(module, name, keep)
        yield


@contextlib.contextmanager
def quiet(*names: str, level: int = logging.ERROR) -> Iterator[None]:
    """Silence what the named loggers say below a level: warnings. Restore their levels on exit."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, former in zip(loggers, before, strict=True):
            logger.setLevel(former)


@contextlib.contextmanager
def parameters_without_data() -> Iterator[None]:
    """Let the modules that are made have parameters without data; what they compute for buffers is real.

    Such parameters report the device ``cpu``. A buffer that is made beside one is therefore not on the meta
    device, where it would have no values. torch draws a truncated normal distribution again until every value
    is within its bounds, which needs values: such a parameter is left as it is.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def discard(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or isinstance(parameter, FakeTensor):
            return parameter
        with mode:
            return nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype), parameter.requires_grad)

    draw = nn.init._no_grad_trunc_normal_

    def draw_with_data(tensor: Tensor, *given: Any, **named: Any) -> Tensor:
        return tensor if isinstance(tensor, FakeTensor) else draw(tensor, *given, **named)

    handle = register_module_parameter_registration_hook(discard)  # type: ignore[arg-type]
    nn.init._no_grad_trunc_normal_ = draw_with_data
    try:
        yield
    finally:
        nn.init._no_grad_trunc_normal_ = draw
        handle.remove()


@contextlib.contextmanager
def stock_transformers() -> Iterator[Any]:
    """Yield transformers with torch_npu hidden from it, unless torch_npu was imported before.

    transformers imports torch_npu wherever it is installed, and fails if that import fails.
    """
    with without_torch_npu():
        import transformers
        from transformers.utils import import_utils

        # transformers caches its first answer. Models ask again when they run, outside this context.
        import_utils.is_torch_npu_available()
        yield transformers


_REFUSALS = (
    *(LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AssertionError, AttributeError),
    *(ImportError, OSError, StrictDataclassError),
)
"""The exceptions that libraries raise on an invalid configuration."""


@contextlib.contextmanager
def understood(
    library: str,
    thing: str = "model",
    file: str = CONFIG_FILE,
    kind: type[VconvError] = WeightsError,
    folder: Path | None = None,
) -> Iterator[None]:
    """Turn an exception that a library raises on an invalid configuration into a one-line error.

    Args:
        library: the name of the library.
        thing: the object that the library had to create.
        file: the name of the configuration file.
        kind: the type of the error to raise.
        folder: the temporary folder that the library read; the error does not show its path.
    """
    try:
        yield
    except _REFUSALS as error:
        if sys.flags.optimize > 1:
            raise VconvError(
                f"{library} cannot run in a Python that drops docstrings",
                got="PYTHONOPTIMIZE=2 or python -OO",
                expected="docstrings, which transformers reads when it is imported",
                fix="unset PYTHONOPTIMIZE, or set it to 1",
            ) from error
        said = shortened(str(error).replace(str(folder), "the folder") if folder else str(error))
        raise kind(
            f"{library} cannot make the {thing} that {file} describes",
            got=f"{type(error).__name__}: {said}",
            expected="a configuration that it knows",
            fix=f"the cause is not known beyond these words of {library}: see whether {file} was edited",
        ) from error
