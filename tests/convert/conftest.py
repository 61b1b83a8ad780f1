"""Fixtures that the tests of the converters share."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import transformers
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vconv.catalog.systems import System
from vconv.convert import conversion
from vconv.convert.conversion import Conversion
from vconv.convert.libraries import corrections
from vconv.convert.libraries.readers import family_of
from vconv.convert.sources.base import Source
from vconv.convert.sources.table import Request, open_source
from vconv.types import Say, silent

Distance = Callable[[Any, Any], float]
Named = dict[str, Tensor]


@dataclass(frozen=True)
class Converted:
    """A shrunk system, its source, and its conversion."""

    system: System
    source: Source
    folder: Path
    conversion: Conversion


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Run the shrunk networks on one thread, because a second thread makes them slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _trace_once() -> None:
    """Trace again in every test of the converters, because tracing is under test."""


@pytest.fixture
def distance() -> Distance:
    """Relative L2 distance, computed in float64."""

    def compute(actual: Any, expected: Any) -> float:
        actual, expected = (torch.as_tensor(value).double() for value in (actual, expected))
        assert actual.shape == expected.shape
        return float((actual - expected).norm() / expected.norm())

    return compute


@pytest.fixture
def pixel_values(size: tuple[int, int]) -> Tensor:
    """Three normalised images of the size of the shrunk system."""
    return torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(7))


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.executed: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.executed[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def executed() -> Callable[[nn.Module, Tensor], Counter[str]]:
    """Count the operators that a model really executes.

    The model runs once before the count, because transformers caches the patch coordinates of each image size
    for all models of the process.
    """

    def count(model: nn.Module, images: Tensor) -> Counter[str]:
        with torch.no_grad():
            model(images)
            with _Counting() as counting:
                model(images)
        return counting.executed

    return count


def load_stock(folder: Path) -> Any:
    """Load a folder in float32 as a stock user does, without any code of vconv."""
    config = json.loads((folder / "config.json").read_text())
    if "architecture" in config:
        return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    classified = any(name.endswith("Classification") for name in config.get("architectures") or ())
    factory: Any = transformers.AutoModelForImageClassification if classified else transformers.AutoModel
    return factory.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture
def stock() -> Callable[[Path], Any]:
    """The function that loads a folder with its stock library."""
    return load_stock


def build_stock(config: Any) -> Any:
    """Build the stock backbone of a configuration with random weights, without any code of vconv."""
    if "architecture" not in config:
        return transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**config)).eval()
    given = {"num_classes": config["num_classes"], "global_pool": config["global_pool"]}
    return timm.create_model(config["architecture"], **{**given, **config.get("model_args", {})}).eval()


@pytest.fixture
def build() -> Callable[[Any], Any]:
    """The function that builds the stock backbone of a configuration."""
    return build_stock


@pytest.fixture
def named() -> Callable[[Any, Tensor], Named]:
    """Run a stock backbone through the public functions of its library, and return its outputs by name."""

    def run(model: Any, images: Tensor) -> Named:
        with torch.no_grad():
            result = model(images)
            if isinstance(model, transformers.PreTrainedModel):
                tokens, pooled = result.last_hidden_state, result.pooler_output
                first = 1 + getattr(model.config, "num_register_tokens", 0)
            else:
                tokens, pooled, first = model.forward_features(images), result, model.num_prefix_tokens
        outputs = {"pooled": pooled, "cls": tokens[:, 0], "registers": tokens[:, 1:first]}
        outputs |= {"patches": tokens[:, first:], "last_hidden_state": tokens}
        return {name: value for name, value in outputs.items() if value.numel()}

    return run


@pytest.fixture
def corrected() -> Callable[[Source], Any]:
    """Load an original with the authors' periods: the reference, which contains no patch."""

    def load(source: Source) -> Any:
        model = load_stock(source.folder)
        corrections.correct(model, family_of(source.config), source.config)
        return model

    return load


def convert(folder: Path, source: Source, say: Say = silent) -> Conversion:
    """Write a patched checkpoint with its configuration and its ledger."""
    prepared = conversion.prepare(folder, source, say)
    return prepared.counted().written(*prepared.write())


@pytest.fixture(scope="session")
def convert_weights() -> Callable[..., Conversion]:
    """The function that writes a patched checkpoint of a source into a folder."""
    return convert


@pytest.fixture
def converted(small_system: System, small_source: Source, tmp_path: Path) -> Converted:
    """Every shrunk system, converted for one test, which may change it."""
    folder = tmp_path / "artifact"
    folder.mkdir()
    return Converted(small_system, small_source, folder, convert(folder, small_source))


@pytest.fixture(scope="session")
def _graphs(
    tmp_path_factory: pytest.TempPathFactory,
    traced_once: Callable[..., contextlib.AbstractContextManager[None]],
) -> Callable[[System], Converted]:
    made: dict[str, Converted] = {}

    def make(system: System) -> Converted:
        if system.name not in made:
            scratch, folder = (
                tmp_path_factory.mktemp(f"{kind}-{system.name}") for kind in ("source", "artifact")
            )
            source = open_source(Request(system, "synthetic:1"), scratch)
            found = convert(folder, source)
            with traced_once():
                conversion.export_graphs(folder, found, conversion.image_size(source), 2, 18, silent)
            made[system.name] = Converted(system, source, folder, found)
        return made[system.name]

    return make


@pytest.fixture
def exported_small(small_system: System, _graphs: Callable[[System], Converted]) -> Converted:
    """Every shrunk system with its graphs, exported once per session; tests must not change it."""
    return _graphs(small_system)


def _transformers_classifier(system: System, folder: Path) -> None:
    config = transformers.AutoConfig.for_model(**{**system.config, "num_labels": 5})
    model = _shaken(transformers.AutoModelForImageClassification.from_config(config))
    model.save_pretrained(folder)


def _timm_classifier(system: System, folder: Path) -> None:
    config = {**system.config, "num_classes": 5}
    model = _shaken(timm.create_model(config["architecture"], num_classes=5, **config["model_args"]))
    config["global_pool"] = model.global_pool
    config["pretrained_cfg"] = {**config["pretrained_cfg"], "num_classes": 5}
    folder.mkdir()
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def _shaken(model: Any) -> Any:
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return model


@pytest.fixture
def classifier_folder(small_system: System, tmp_path: Path) -> Path:
    """A stock classifier of five classes without zero weights; its system must have a classifier."""
    folder = tmp_path / "classifier"
    make = {"transformers": _transformers_classifier, "timm": _timm_classifier}[small_system.library]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        make(small_system, folder)
    return folder
