"""What the tests of the converters share."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vconv.catalog import System
from vconv.convert import conversion, reference
from vconv.convert.conversion import Conversion
from vconv.convert.sources import Source, open_source
from vconv.errors import VconvError
from vconv.types import silent

SIZE = (64, 64)
"""Of the images that the shrunk systems take."""

Refused = Callable[..., AbstractContextManager[None]]
Distance = Callable[[Any, Any], float]


@dataclass(frozen=True)
class Converted:
    """A shrunk system, converted, and where it came from."""

    system: System
    source: Source
    folder: Path
    conversion: Conversion


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Run the shrunk networks on one thread: waiting for a second costs more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def refused() -> Refused:
    """Expect an error that the user can mend: of this type, one line, with these fragments."""

    @contextlib.contextmanager
    def expect(kind: type[VconvError], *fragments: str) -> Iterator[None]:
        with pytest.raises(kind) as caught:
            yield
        message = str(caught.value)
        assert "\n" not in message
        assert all(part in message for part in (" | got ", " | expected ", " | fix: "))
        assert [part for part in fragments if part not in message] == [], message

    return expect


@pytest.fixture
def distance() -> Distance:
    """Relative L2 distance, computed in float64."""

    def compute(actual: Any, expected: Any) -> float:
        actual, expected = (torch.as_tensor(value).double() for value in (actual, expected))
        assert actual.shape == expected.shape
        return float((actual - expected).norm() / expected.norm())

    return compute


@pytest.fixture
def pixel_values() -> Tensor:
    """Three images, normalised, of the size that the shrunk systems take."""
    return torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(7))


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.executed: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.executed[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def executed() -> Callable[[nn.Module, Tensor], Counter[str]]:
    """Count the operators that a model really executes."""

    def count(model: nn.Module, images: Tensor) -> Counter[str]:
        with torch.no_grad(), _Counting() as counting:
            model(images)
        return counting.executed

    return count


@pytest.fixture
def stock() -> Callable[[Path], Any]:
    """Load a folder with stock transformers, in float32; nothing of vconv has a part in it."""

    def load(folder: Path) -> Any:
        return transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    return load


@pytest.fixture
def corrected(stock: Callable[[Path], Any]) -> Callable[[Source], Any]:
    """Load an original with the authors' periods: the reference, with no patch in it."""

    def load(source: Source) -> Any:
        model = stock(source.folder)
        reference.correct(model, source.config)
        return model

    return load


@pytest.fixture
def converted(small_system: System, small_source: Source, tmp_path: Path) -> Converted:
    """Every shrunk system, converted; the test's own to change."""
    folder = tmp_path / "artifact"
    folder.mkdir()
    return Converted(
        small_system, small_source, folder, conversion.convert_weights(folder, small_source, silent)
    )


@pytest.fixture(scope="session")
def _graphs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[System], Converted]:
    made: dict[str, Converted] = {}

    def make(system: System) -> Converted:
        if system.name not in made:
            scratch, folder = (
                tmp_path_factory.mktemp(f"{kind}-{system.name}") for kind in ("source", "artifact")
            )
            source = open_source(system, "synthetic:1", scratch)
            found = conversion.convert_weights(folder, source, silent)
            conversion.export_graphs(folder, found, SIZE, 2, 18, silent)
            made[system.name] = Converted(system, source, folder, found)
        return made[system.name]

    return make


@pytest.fixture
def exported_small(small_system: System, _graphs: Callable[[System], Converted]) -> Converted:
    """Every shrunk system with its graphs, made once a session; must not be changed."""
    return _graphs(small_system)


@pytest.fixture
def classifier_folder(small_system: System, tmp_path: Path) -> Path:
    """A stock classifier of five classes, none of its weights zero; its system must have such a head."""
    config = transformers.AutoConfig.for_model(**{**small_system.config, "num_labels": 5})
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = transformers.AutoModelForImageClassification.from_config(config)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape)
    folder = tmp_path / "classifier"
    model.save_pretrained(folder)
    return folder
