"""The table of engines, which run variants. A new engine is one file and one row of the table.

This module imports no large libraries, so that the command line can name engines and the doctor can look for
broken packages. A row's class is imported when it is used.
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
    import onnx

    from vconv.runtime.devices.base import Device
    from vconv.runtime.engines.base import FileSession, RunPiece


ALL = "all"
"""The name that stands for every engine of the table."""


class Runs(StrEnum):
    """What an engine runs. Engines that run the same thing can replace each other."""

    MODELS = "torch models"
    GRAPHS = "ONNX graphs"
    OFFLINE = "offline models"


@dataclass(frozen=True)
class Engine:
    """An engine.

    Args:
        name: its name in options, manifests and reports.
        runs: what it runs.
        home: its module and class: for graphs a :class:`vconv.runtime.engines.base.GraphSession`, for offline
            models a :class:`vconv.runtime.engines.base.FileSession`.
        package: the package that it imports.
        distributions: the names of this package in a package index, the usual one first; empty for a package
            that is in no index. If two of them are installed, they overwrite each other's files.
        usual: whether it is the default, used if no other engine is requested; reports leave its name out.
        needed: whether vconv does not work without it.
        built_on: another package that it fails without; empty if there is no such package.
        of_cann: whether it comes with CANN, which must then be set up in the shell.
        purpose: its purpose; the doctor prints it if the engine is not installed.
        says: returns details about its imported package, which the doctor prints.
        timed: whether its latency says anything; a simulation's does not.
        rounds: ONNX's names of the types that it computes in by simulation: it computes in float32, and
            rounds what each operator gives.
        domains: ONNX's names of the operator sets that it runs; a graph with any other is refused.
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
    timed: bool = True
    rounds: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset({"", "ai.onnx"})

    @property
    def session(self) -> Any:
        """The engine's class, imported."""
        module, name = self.home.split(":")
        return getattr(import_module(module), name)

    def versions(self) -> dict[str, str]:
        """Return the version of each installed distribution of the engine."""
        found = {}
        for name in self.distributions:
            try:
                found[name] = version(name) or "of unknown version"  # None if its metadata is damaged
            except PackageNotFoundError:
                continue
        return found

    def version(self) -> str:
        """Return the versions of the engine's installed distributions; empty if there are none."""
        return ", ".join(self.versions().values())

    def lack(self, device: Device) -> str:
        """Return what this installation lacks to run on a device; empty if nothing is missing."""
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
        outputs: Sequence[str] = (),
    ) -> FileSession:
        """Open a file of an artifact: see :class:`vconv.runtime.engines.base.FileSession`.

        Args:
            path: see that class.
            device: see that class.
            folder: see that class.
            size: see that class.
            batch: see that class.
            precision: see that class.
            outputs: the names of the file's outputs, in order, if the file itself has other names: see
                :class:`vconv.runtime.engines.acl.OfflineSession`.
        """
        named = {"outputs": tuple(outputs)} if outputs else {}
        opened: FileSession = self.session(path, device, folder, size, batch, precision, **named)
        return opened

    def piece(
        self, model: onnx.ModelProto, folder: Path, names: Sequence[str], device: Device, precision: str
    ) -> RunPiece:
        """Load a piece of a graph: see :meth:`vconv.runtime.engines.base.GraphSession.piece`."""
        found: RunPiece = self.session.piece(model, folder, names, device, precision)
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
            name="torch-compiled",
            runs=Runs.MODELS,
            home=f"{_HERE}.compiled:CompiledSession",
            package="torch",
            distributions=("torch",),
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
            name="simulated-rounding",
            runs=Runs.GRAPHS,
            home=f"{_HERE}.rounding:RoundingSession",
            package="onnxruntime",
            timed=False,
            rounds=frozenset({"FLOAT16", "BFLOAT16"}),
        ),
        Engine(
            name="onnxruntime-tensorrt",
            runs=Runs.GRAPHS,
            home=f"{_HERE}.tensorrt:TensorRtSession",
            package="onnxruntime",
            distributions=("onnxruntime-gpu",),
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
"""Every engine, by name. Of those that share a package, the usual one comes first."""


def by_package() -> dict[str, Engine]:
    """Return the first engine of each package, by the name of the package."""
    return {engine.package: engine for engine in reversed(list(ENGINES.values()))}


def engines_of(runs: Runs | None) -> dict[str, Engine]:
    """Return the engines that run models, graphs or offline models, by name, the usual one first."""
    found = [engine for engine in ENGINES.values() if engine.runs is runs]
    return {engine.name: engine for engine in sorted(found, key=lambda engine: not engine.usual)}


def find_engine(name: str) -> Engine:
    """Return an engine by its name in a manifest.

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
    """Return what an engine runs, by its name; None for an engine that is not in the table."""
    return ENGINES[name].runs if name in ENGINES else None


def graph_engines() -> dict[str, Engine]:
    """Return the engines that run graphs, by name, the usual one first."""
    return engines_of(Runs.GRAPHS)


def usual_engine(runs: Runs = Runs.GRAPHS) -> str:
    """Return the name of the default engine for models, graphs or offline models."""
    return next(iter(engines_of(runs)))


def chosen_engines(names: Sequence[str] | None, runs: Runs) -> tuple[str, ...]:
    """Return the named engines that run models, graphs or offline models, each once; else the default one.

    Args:
        names: names of engines of any kind, or :data:`ALL`; None for the default ones.
        runs: what they are to run.
    """
    known = engines_of(runs)
    named = known if ALL in (names or ()) else [name for name in names or () if name in known]
    return tuple(dict.fromkeys(named)) or (usual_engine(runs),)


def engines_for(onnx_type: str, kind: str, names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the engines that run a graph: those that are named, or the default one.

    Without a name, a graph in float16 or bfloat16 is also run on a CPU by the engine that simulates its
    rounding: others compute such a graph in float32, or not at all. :data:`ALL` takes this engine for such
    graphs alone.

    Args:
        onnx_type: ONNX's name of the narrowest type in which the graph computes.
        kind: the kind of the device.
        names: see :func:`chosen_engines`.
    """
    known = graph_engines()
    rounding = [name for name in known if onnx_type in known[name].rounds]
    if names is None:
        return (*chosen_engines(None, Runs.GRAPHS), *(rounding if kind == "cpu" else ()))
    chosen = chosen_engines(names, Runs.GRAPHS)
    return tuple(name for name in chosen if name in (*names, *rounding) or not known[name].rounds)


def simulates(name: str) -> bool:
    """Return whether an engine simulates the type of a graph, by its name."""
    return name in ENGINES and bool(ENGINES[name].rounds)


def is_usual(name: str) -> bool:
    """Return whether an engine is a default one, which reports need not name."""
    return name in ENGINES and ENGINES[name].usual


def engine_versions() -> dict[str, str]:
    """Return the installed versions of every engine that is in a package index, by its package.

    For a build other than the usual one, the version is followed by the build's name.
    """
    found = {}
    for engine in by_package().values():
        builds = [
            number if name == engine.distributions[0] else f"{number} ({name})"
            for name, number in engine.versions().items()
        ]
        if engine.distributions:
            found[engine.package] = ", ".join(builds) or "not installed"
    return found
