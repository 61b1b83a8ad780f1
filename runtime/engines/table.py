"""Engines: what runs a variant. A new engine is one file and one row of the table.

Nothing heavy is imported here, so that the command line can name engines, and the doctor can look for what is
broken; a row's class is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vconv.errors import UnavailableError
from vconv.precisions import FP32

if TYPE_CHECKING:
    from vconv.runtime.devices.base import Device
    from vconv.runtime.engines.base import FileSession, Piece


class Runs(StrEnum):
    """What an engine runs. Those that run the same can stand in for one another."""

    MODELS = "torch models"
    GRAPHS = "ONNX graphs"
    OFFLINE = "offline models"


@dataclass(frozen=True)
class Engine:
    """An engine.

    Args:
        name: as options, manifests and reports have it.
        runs: what it runs.
        home: the module and the class that are its file: for graphs a
            :class:`vconv.runtime.engines.base.GraphSession`, for offline models a
            :class:`vconv.runtime.engines.base.FileSession`.
        package: the package that it imports.
        distributions: the names under which a package index has it, the usual one first; empty for a package
            that no index has. Two of them overwrite each other's files.
        usual: whether it runs a variant where no other engine is asked for; reports leave its name out.
        needed: whether vconv does not work without it.
        built_on: another package that it fails without; empty if there is no such package.
        of_cann: whether it comes with CANN, which must then be set up in the shell.
        purpose: what it is for; the doctor says it where the engine is not installed.
        says: what the doctor asks of its package once that is imported.
    """

    name: str
    runs: Runs
    home: str
    package: str
    distributions: tuple[str, ...] = ()
    usual: bool = False
    needed: bool = False
    built_on: str = ""
    of_cann: bool = False
    purpose: str = ""
    says: Callable[[Any], Sequence[str]] | None = None

    @property
    def session(self) -> Any:
        """Its class, imported."""
        module, name = self.home.split(":")
        return getattr(import_module(module), name)

    def versions(self) -> dict[str, str]:
        """Return the version of each of its distributions that is installed."""
        found = {}
        for name in self.distributions:
            try:
                found[name] = version(name) or "of unknown version"  # None where its record is damaged
            except PackageNotFoundError:
                continue
        return found

    def version(self) -> str:
        """Return the version of what is installed of it; empty where nothing is."""
        return ", ".join(self.versions().values())

    def lack(self, device: Device) -> str:
        """Say what this installation lacks to run on a device; empty if nothing."""
        return str(self.session.lack(device))

    def arithmetic(self, device: Device, precision: str) -> str:
        """See :meth:`vconv.runtime.engines.base.FileSession.arithmetic`."""
        return str(self.session.arithmetic(device, precision))

    def open(
        self,
        path: Path,
        device: Device,
        folder: Path,
        size: tuple[int, int],
        batch: int | None,
        precision: str = FP32,
    ) -> FileSession:
        """Open a file of an artifact: see :class:`vconv.runtime.engines.base.FileSession`."""
        opened: FileSession = self.session(path, device, folder, size, batch, precision)
        return opened

    def piece(self, model: bytes, names: Sequence[str], device: Device, precision: str) -> Piece:
        """Load a piece of a graph: see :meth:`vconv.runtime.engines.base.GraphSession.piece`."""
        found: Piece = self.session.piece(model, names, device, precision)
        return found


_HERE = "vconv.runtime.engines"
ENGINES: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine(
            name="torch",
            runs=Runs.MODELS,
            home=f"{_HERE}.torch_model:TorchSession",
            package="torch",
            distributions=("torch",),
            usual=True,
            needed=True,
        ),
        Engine(
            name="onnxruntime",
            runs=Runs.GRAPHS,
            home=f"{_HERE}.onnxruntime:OnnxRuntimeSession",
            package="onnxruntime",
            distributions=("onnxruntime", "onnxruntime-gpu", "onnxruntime-cann", "onnxruntime-openvino"),
            usual=True,
            needed=True,
            built_on="numpy",
            says=lambda package: package.get_available_providers(),
        ),
        Engine(
            name="openvino",
            runs=Runs.GRAPHS,
            home=f"{_HERE}.openvino:OpenVinoSession",
            package="openvino",
            distributions=("openvino",),
            purpose="another engine for graphs, on a CPU",
        ),
        Engine(
            name="acl",
            runs=Runs.OFFLINE,
            home=f"{_HERE}.acl:OfflineSession",
            package="acl",
            of_cann=True,
            purpose="CANN's Python interface, which runs .om files",
        ),
    )
}
"""Every engine, by name."""


def engines_of(runs: Runs | None) -> dict[str, Engine]:
    """Return the engines that run something, by name, the usual one first."""
    found = [engine for engine in ENGINES.values() if engine.runs is runs]
    return {engine.name: engine for engine in sorted(found, key=lambda engine: not engine.usual)}


def find_engine(name: str) -> Engine:
    """Look an engine up by the name that a manifest has.

    Raises:
        UnavailableError: there is no such engine.
    """
    if name not in ENGINES:
        raise UnavailableError(
            f"this version of vconv has no engine {name}",
            got=name,
            expected=f"one of {', '.join(ENGINES)}",
            fix="use the version of vconv that made the artifact, or a later one",
        )
    return ENGINES[name]


def runs(name: str) -> Runs | None:
    """Tell what an engine runs, by its name; None for an engine that is not in the table."""
    return ENGINES[name].runs if name in ENGINES else None


def graph_engines() -> dict[str, Engine]:
    """Return the engines that run graphs, by name, the usual one first."""
    return engines_of(Runs.GRAPHS)


def usual_engine(runs: Runs = Runs.GRAPHS) -> str:
    """Name the engine that runs something where no other is asked for."""
    return next(iter(engines_of(runs)))


def is_usual(name: str) -> bool:
    """Tell whether an engine is one that reports need not name."""
    return name in ENGINES and ENGINES[name].usual


def engine_versions() -> dict[str, str]:
    """Return what is installed of every engine, by the package that it imports.

    Another build than the usual one is named with its version.
    """
    found = {}
    for engine in ENGINES.values():
        builds = [
            number if name == engine.distributions[0] else f"{number} ({name})"
            for name, number in engine.versions().items()
        ]
        if engine.distributions:
            found[engine.package] = ", ".join(builds) or "not installed"
    return found
