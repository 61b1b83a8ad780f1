"""Base classes of engines. A session is a loaded variant. Each engine is a class and a row of the table."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnx
from PIL import Image

from vconv.artifact.records import AxisRecord
from vconv.artifact.staging import workplace
from vconv.disk import SCRATCH
from vconv.errors import EngineError, InputError, MemoryShortError, UnavailableError
from vconv.precisions import FP32
from vconv.runtime.devices.base import Device
from vconv.runtime.engines import arithmetic
from vconv.runtime.engines.table import Runs, runs, usual_engine
from vconv.runtime.inputs.preprocessing import Processor, load_processor
from vconv.runtime.timing.launches import Launches
from vconv.surroundings import own_surroundings
from vconv.types import CHANNELS, Array, Arrays

_OUT_OF_MEMORY = "Failed to allocate memory"
RunPiece = Callable[[Arrays], dict[str, Array]]
"""Runs a piece of a graph: takes named inputs, returns named outputs."""
PIECE = "a piece of the graph"
"""The name of a piece in error messages."""


@contextlib.contextmanager
def refusals(engine: str, errors: tuple[type[Exception], ...], subject: str) -> Iterator[None]:
    """Turn an engine's exceptions about a graph or batch that it refuses into a readable error.

    Raises:
        MemoryShortError: the engine ran out of memory.
        EngineError: the engine refused for any other reason.
    """
    try:
        yield
    except errors as error:
        short = _OUT_OF_MEMORY in str(error)
        raise (MemoryShortError if short else EngineError)(
            f"{engine} refuses {subject}",
            got=" ".join(str(error).split())[-300:] if short else " ".join(str(error).split())[:300],
            expected="room for the batch" if short else "a graph that it can run",
            fix="use a smaller batch"
            if short
            else "export the artifact again; if that does not help, report it",
        ) from error


def unavailable(engine: str, lack: str, device: Device) -> UnavailableError:
    """Make the error of an engine that is not available for a device."""
    return UnavailableError(
        f"{engine} cannot run here",
        got=lack,
        expected=f"{engine} for {device.name}",
        fix=remedy(engine, device),
    )


def remedy(engine: str, device: Device) -> str:
    """Return what to do about an engine that is not available for a device."""
    if runs(engine) is Runs.MODELS:
        usual = usual_engine(Runs.MODELS)
        return f"{'name' if device.simulated else 'install what is missing, or name'} the engine {usual}"
    if device.simulated:
        return f"name the engine {usual_engine()}, which runs graphs in float32 there, or the device cpu"
    return f"install the build of {engine} for this device, if there is one, or name another engine"


@dataclass(frozen=True)
class Placed:
    """The type and device of an output before it became an array.

    Args:
        dtype: the type of its elements.
        device: the device that held it.
    """

    dtype: str
    device: str


class Session(ABC):
    """A loaded variant. Close it, or use it in a ``with`` statement.

    Args:
        folder: the folder with the variant's ``preprocessor_config.json``.
        size: (height, width) of the images that the variant takes.
        batch: the fixed batch of the variant; None if it takes any batch.

    Attributes:
        fallbacks: operator -> how many of its nodes ran on the CPU in place of the accelerator. None on a
            CPU, before the first run was fetched, and if the engine does not report fallbacks.
    """

    engine: str
    variant: str = ""
    """The variant's name, if :func:`vconv.load` opened the session."""
    threads: int | None = None
    """The number of threads that it computes with on a CPU; None on other devices, and if it is not known."""
    gelu: str = ""
    """How a patched GELU is computed; empty if no GELU of a torch model is patched."""
    sides: tuple[AxisRecord, AxisRecord] | None = None
    """The bounds of height and width, if the variant takes images of any size; None if of ``size`` only."""
    size_gears: tuple[tuple[int, int], ...] = ()
    """The only sizes within ``sides`` that the variant takes; empty if it takes all of them."""

    def __init__(self, folder: Path, size: tuple[int, int], batch: int | None = None) -> None:
        self.folder, self.size, self.batch = folder, size, batch
        self.placed: Mapping[str, Placed] = {}
        self.fallbacks: Mapping[str, int] | None = None
        self.closed = False
        self._closing = contextlib.ExitStack()

    @abstractmethod
    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        """Put a batch on the device; return a function that only runs this batch."""

    @abstractmethod
    def fetch(self, raw: Any) -> dict[str, Array]:
        """Copy a bound batch's outputs to the host, by name; store their types and devices in ``placed``."""

    def launches(self, pixel_values: Array) -> Launches | None:
        """Run one batch and count what it launches; None if the engine does not report launches."""
        return None

    def run(self, pixel_values: Array) -> dict[str, Array]:
        """Run one batch of float32 (B, 3, H, W); return the named outputs, and store ``placed``."""
        return self.fetch(self.bind(pixel_values)())

    @own_surroundings()
    def __call__(self, images: Array | Sequence[Image.Image]) -> dict[str, Array]:
        """Run a batch.

        Args:
            images: normalised float32 (B, 3, H, W), or a list of PIL images, which are preprocessed first:
                turned upright by their EXIF orientation, resized to ``size`` and normalised. A variant that
                takes images of any size takes arrays within the bounds of its ``sides``.

        Returns:
            Each output by name, with B rows. A variant with a fixed batch takes any B as well: it runs as
            often as needed, and the last batch is filled up.

        Raises:
            InputError: the images have a wrong shape or type, there are no images, the session is closed, or
                an image cannot be used: it is damaged, too large, or has more than 8 bits a channel.
        """
        self._check_open()
        pixel_values = self._pixel_values(images)
        if not self._fits(pixel_values.shape):
            sides = self.size if self.sides is None else ("H", "W")
            bounds = f", H {self.sides[0].told}, W {self.sides[1].told}" if self.sides else ""
            if self.size_gears:
                bounds = f", H and W one of {', '.join('{},{}'.format(*gear) for gear in self.size_gears)}"
            raise InputError(
                "the images do not fit this variant",
                got=f"an array of shape {list(pixel_values.shape)}",
                expected=f"[B, {', '.join(map(str, (CHANNELS, *sides)))}] with B at least 1{bounds}",
                fix="resize them, or pass a list of PIL images",
            )
        if pixel_values.dtype != np.float32:
            raise InputError(
                "the images do not fit this variant",
                got=f"an array of {pixel_values.dtype}",
                expected="float32, normalised",
                fix="pass a list of PIL images, or convert the array",
            )
        return in_batches(self.run, pixel_values, self.batch or len(pixel_values))

    def _fits(self, shape: tuple[int, ...]) -> bool:
        if len(shape) != 4 or shape[1] != CHANNELS or shape[0] < 1:
            return False
        if self.sides is None:
            return shape[2:] == self.size
        if self.size_gears:
            return shape[2:] in self.size_gears
        return all(bounds.allows(side) for bounds, side in zip(self.sides, shape[2:], strict=True))

    def _check_open(self) -> None:
        if self.closed:
            raise InputError(
                "the session is closed", got="a call", expected="an open one", fix="load it again"
            )

    def _pixel_values(self, images: Array | Sequence[Image.Image]) -> Array:
        if not isinstance(images, Sequence) or isinstance(images, (str, bytes)):
            array = np.asarray(images)
            if array.dtype.kind in "OSU":
                raise _no_images(f"a {type(images).__name__}")
            return array
        if not images or not all(isinstance(image, Image.Image) for image in images):
            raise _no_images("an empty list" if not images else f"a list with a {type(images[0]).__name__}")
        return self._processor(images)

    @functools.cached_property
    def _processor(self) -> Processor:
        return load_processor(self.folder)

    def close(self) -> None:
        """Free everything that the session holds. A closed session cannot be called."""
        self.closed = True
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FileSession(Session):
    """A file of an artifact in an engine that runs files.

    Args:
        path: the file.
        device: the device to run on.
        folder: see :class:`Session`.
        size: see :class:`Session`.
        batch: see :class:`Session`.
        precision: the name of the precision to compute the file in.
    """

    def __init__(
        self,
        path: Path,
        device: Device,
        folder: Path,
        size: tuple[int, int],
        batch: int | None,
        precision: str = FP32,
    ) -> None:
        super().__init__(folder, size, batch)
        self.path, self.device, self.precision = path, device, precision

    @classmethod
    @abstractmethod
    def lack(cls, device: Device) -> str:
        """Return what this installation lacks to run on a device; empty if nothing is missing."""

    @classmethod
    @abstractmethod
    def arithmetic(cls, device: Device, precision: str) -> str:
        """Return the arithmetic that this engine really uses for a precision on a device.

        Returns:
            A name in :data:`vconv.runtime.engines.arithmetic.KEPT`, or ``unknown``.

        Raises:
            UnavailableError: the engine cannot run on the device, or not in this precision.
            EngineError: the engine refuses the probe.
        """


class GraphSession(FileSession):
    """An ONNX graph in an engine that runs graphs."""

    @classmethod
    @abstractmethod
    def piece(
        cls, model: onnx.ModelProto, folder: Path, names: Sequence[str], device: Device, precision: str
    ) -> RunPiece:
        """Load a piece of a graph.

        Args:
            model: the piece. The engine may change it.
            folder: the folder of the weights file that the piece refers to.
            names: the names of its outputs.
            device: the device to run on.
            precision: the name of the precision to compute the piece in.
        """

    @classmethod
    def arithmetic(cls, device: Device, precision: str) -> str:
        """See :meth:`FileSession.arithmetic`: runs a small graph and reads the arithmetic from its result."""
        with workplace(Path(tempfile.gettempdir()), SCRATCH) as place:
            path = place / "probe.onnx"
            path.write_bytes(arithmetic.graph(precision))
            batch = len(arithmetic.images())
            with cls(path, device, path.parent, arithmetic.SIZE, batch, precision) as session:
                return arithmetic.read(session.run(arithmetic.images()))


def _no_images(got: str) -> InputError:
    return InputError(
        "the images cannot be preprocessed",
        got=got,
        expected="one PIL image or more",
        fix="pass PIL images, or one array (B, 3, H, W) that is normalised already",
    )


def in_batches(run: Callable[[Array], dict[str, Array]], pixel_values: Array, batch: int) -> dict[str, Array]:
    """Run images ``batch`` at a time. The last batch is filled up with its last image, and then cut again.

    Args:
        run: runs one batch.
        pixel_values: float32 (N, 3, H, W).
        batch: images per run.

    Returns:
        Each output by name, with N rows.
    """
    parts = []
    for start in range(0, len(pixel_values), batch):
        part = pixel_values[start : start + batch]
        filled = np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)])
        parts.append({name: output[: len(part)] for name, output in run(filled).items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
