"""What is installed on this machine, whether it works, and how to fix what does not.

Libraries are imported in child processes, because a failed import leaves a library half imported. torch_npu
is examined most closely, since it must match CANN, the NPU's driver and torch.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vconv.backends import TORCH_NPU, import_torch_npu, is_installed
from vconv.runtime.doctor import imports
from vconv.runtime.doctor.cann import HOMES, PAIRS, find_toolkit, goes_with
from vconv.runtime.doctor.import_failures import Installation, explain, series, setting_up
from vconv.runtime.doctor.imports import Attempt
from vconv.runtime.engines.table import ENGINES, Engine, by_package


class State(StrEnum):
    """What a finding means."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Args:
        name: what was checked.
        state: ``ok``; ``note`` for software that is not installed, or a fact worth knowing; ``problem`` for
            software that is installed and does not work.
        found: what was found.
        fix: what to do about it; empty if there is nothing to do.
    """

    name: str
    state: State
    found: str
    fix: str = ""

    def __post_init__(self) -> None:
        if not self.found or bool(self.fix) < (self.state is State.PROBLEM):
            raise ValueError(f"the finding {self.name!r} has no text, or a problem has no fix")


@dataclass(frozen=True)
class Diagnosis:
    """All findings about a machine.

    Args:
        findings: in the order in which they are shown.
    """

    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether everything that is installed works."""
        return all(finding.state is not State.PROBLEM for finding in self.findings)


_DISTRIBUTIONS = ("vconv", "torch", "torchvision", "transformers", "timm", "numpy", "onnx", TORCH_NPU)
"""The packages that are checked, besides those of the engines."""
_ON_TORCH, _APART = ("torch", "torchvision", "timm"), ("transformers",)
_LIBRARIES = ("torch", "torchvision", "transformers", "timm")
_FORMATS = ("numpy", "onnx")
"""The libraries that vconv needs, without the engines. Each of the first two tuples has one child process:
transformers does not import torch, so both can run at the same time."""
_FOUNDATIONS = {"torchvision": "torch", "timm": "torchvision", TORCH_NPU: "torch"}
"""By library, the library whose problems it shares. The table of engines has those of the engines."""


def _engines(needed: bool) -> list[Engine]:
    """Return the engines that vconv needs, or the optional ones, without torch, which every library needs."""
    found = [engine for engine in ENGINES.values() if by_package()[engine.package] is engine]
    return [engine for engine in found if engine.package != "torch" and engine.needed is needed]


def _versions() -> dict[str, str]:
    found = {}
    engines = (name for engine in ENGINES.values() for name in engine.distributions)
    for name in dict.fromkeys((*_DISTRIBUTIONS, *engines)):
        try:
            found[name] = version(name) or "of unknown version"  # None where its record is damaged
        except PackageNotFoundError:
            continue
    return found


def _scene(children: Sequence[Sequence[str]]) -> Installation:
    attempts: dict[str, Attempt] = {}
    with ThreadPoolExecutor(len(children) or 1) as pool:
        for found in pool.map(imports.try_imports, children):
            attempts |= found
    return Installation(_versions(), attempts, find_toolkit(), os.environ)


def _imported(scene: Installation, name: str, more: str = "") -> Finding:
    """Check whether a library that vconv needs can be imported."""
    installed = scene.versions.get(name, "")
    built_on = {engine.package: engine.built_on for engine in ENGINES.values() if engine.built_on}
    below = {**_FOUNDATIONS, **built_on}.get(name, "")
    if not scene.failed(name):
        return Finding(name, State.OK, ", ".join(filter(None, (installed or "unversioned", more))))
    if not is_installed(name):
        return Finding(name, State.PROBLEM, "not installed", f"`pip install {name}`")
    if scene.failed(below):
        return Finding(name, State.PROBLEM, f"{installed}, which needs {below}", f"fix {below}")
    why, fix = explain(scene, name)
    return Finding(name, State.PROBLEM, f"{installed}, but {why}" if installed else why, fix)


def _torch(scene: Installation) -> Finding:
    cuda = scene.attempts["torch"].facts.get("cuda")
    return _imported(scene, "torch", f"built for CUDA {cuda}" if cuda else "built without CUDA")


def _engine(scene: Installation, engine: Engine) -> Finding:
    """Check whether an engine's package can be imported, and which build of it is installed."""
    name = engine.package
    if engine.of_cann:
        return _of_cann(scene, engine)
    if not engine.needed and not is_installed(name):
        return Finding(name, State.NOTE, f"not installed: {engine.purpose}")
    builds = [f"{build} {scene.versions[build]}" for build in engine.distributions if build in scene.versions]
    together = f"{' and '.join(builds)} overwrite each other's files"
    apart = f"`pip uninstall {' '.join(build.split()[0] for build in builds)}`, then install one of them"
    finding = _imported(scene, name)
    if finding.state is State.PROBLEM:
        if len(builds) < 2:
            return finding
        return replace(finding, found=f"{together}; {finding.found}", fix=f"{finding.fix}; or {apart}")
    said = ", ".join(scene.attempts[name].facts.get(imports.SAYS, ()))
    if len(builds) > 1:
        return Finding(name, State.NOTE, together + f"; it has {said}" * bool(said), apart)
    which = (builds or ["unversioned"])[0].removeprefix(f"{name} ")
    return replace(finding, found=which + f", with {said}" * bool(said))


def _of_cann(scene: Installation, engine: Engine) -> Finding:
    """Check whether a package that comes with CANN can be imported. It is not a problem if it cannot."""
    name = engine.package
    if not is_installed(name):
        return Finding(name, State.NOTE, f"cannot be imported: {engine.purpose}")
    if not scene.failed(name):
        return Finding(name, State.OK, "imports")
    why, _ = explain(scene, name)
    return Finding(name, State.NOTE, why, setting_up(scene))


def _cuda(scene: Installation) -> Finding | None:
    if scene.failed("torch"):
        return None
    facts = scene.attempts["torch"].facts
    if facts.get("gpus"):
        return Finding("CUDA", State.OK, ", ".join(facts["gpus"]))
    return Finding("CUDA", State.NOTE, "no GPU" if facts.get("cuda") else "this torch has no CUDA")


def _cann(scene: Installation) -> Finding:
    toolkit, torch_npu = scene.toolkit, scene.versions.get(TORCH_NPU, "")
    if toolkit is None:
        looked = f"neither {' nor '.join(HOMES)} names a toolkit, and none is in /usr/local/Ascend"
        return Finding("CANN", State.NOTE, f"no toolkit: {looked}")
    found = f"{toolkit.version or 'of unknown version'} in {toolkit.folder}"
    if not toolkit.sourced:
        return Finding("CANN", State.NOTE, f"{found}, not set up in this shell", setting_up(scene))
    if goes_with(torch_npu, toolkit.version) is False:
        paired = f"torch_npu {torch_npu} is released with CANN {PAIRS[torch_npu]}"
        return Finding("CANN", State.NOTE, f"{found}; {paired}", "if results look wrong, install that CANN")
    return Finding("CANN", State.OK, found)


def _torch_npu(scene: Installation) -> Finding:
    if not is_installed(TORCH_NPU):
        return Finding(TORCH_NPU, State.NOTE, "not installed: only needed for an NPU")
    installed, torch = scene.versions.get(TORCH_NPU, ""), scene.versions.get("torch", "")
    if installed and torch and series(installed) != series(torch):
        built_for = series(installed)
        return Finding(
            TORCH_NPU,
            State.PROBLEM,
            f"{installed} is built for torch {built_for}, and torch {torch} is installed",
            f"`pip install 'torch=={built_for}.*'`, or `pip install 'torch_npu=={series(torch)}.*'`",
        )
    return _imported(scene, TORCH_NPU)


def _npu(scene: Installation) -> Finding | None:
    if TORCH_NPU not in scene.attempts or scene.failed(TORCH_NPU):
        return None
    count = scene.attempts[TORCH_NPU].facts["npus"]
    if count:
        return Finding("NPU", State.OK, f"{count} visible")
    visible = scene.environment.get("ASCEND_RT_VISIBLE_DEVICES")
    found = "none is visible, although torch_npu and CANN load"
    if visible is not None:
        found += f"; ASCEND_RT_VISIBLE_DEVICES is {visible!r}"
        return Finding("NPU", State.PROBLEM, found, "`unset ASCEND_RT_VISIBLE_DEVICES`")
    if not any(Path("/dev").glob("davinci[0-9]*")):
        found += "; there is no /dev/davinci0"
    if shutil.which("npu-smi") is None:
        fix = "install the NPU's driver, or give the container its devices; npu-smi is not found"
        return Finding("NPU", State.PROBLEM, found, fix)
    return Finding("NPU", State.PROBLEM, found, "`npu-smi info` must list one: check the driver")


def _atc(scene: Installation) -> Finding:
    where = shutil.which("atc")
    if where:
        return Finding("atc", State.OK, where)
    fix = setting_up(scene) if scene.toolkit else ""
    return Finding("atc", State.NOTE, "not on PATH: CANN's compiler of .om files", fix)


_Look = Callable[[Installation], Finding | None]


def _looks() -> list[_Look]:
    """List the checks, in the order in which their findings are shown."""
    of_cann = [engine for engine in ENGINES.values() if engine.of_cann]
    others = [engine for engine in (*_engines(True), *_engines(False)) if engine not in of_cann]
    return [
        _vconv,
        lambda scene: Finding("python", State.OK, f"{platform.python_version()}, {sys.executable}"),
        _torch,
        *(partial(_imported, name=name) for name in (*_LIBRARIES[1:], *_FORMATS)),
        *(partial(_engine, engine=engine) for engine in others),
        *(_cuda, _torch_npu, _npu, _cann, _atc),
        *(partial(_engine, engine=engine) for engine in of_cann),
    ]


def _vconv(scene: Installation) -> Finding:
    return Finding("vconv", State.OK, scene.versions.get("vconv", "not installed: run from a checkout"))


def examine() -> Diagnosis:
    """Find out what is installed and whether it works.

    Every library is imported in child processes, which takes some seconds. Nothing is imported into this
    process.
    """
    optional = (TORCH_NPU, *(engine.package for engine in _engines(False)))
    formats = (*_FORMATS, *(engine.package for engine in _engines(True)))
    children = (_ON_TORCH, _APART, formats, *((name,) for name in optional if is_installed(name)))
    scene = _scene(children)
    findings = (look(scene) for look in _looks())
    return Diagnosis(tuple(finding for finding in findings if finding is not None))


def npu_problem() -> Finding | None:
    """Say why no NPU can be used here; None if one can be.

    Nothing is imported into this process. The first call takes as long as importing torch and torch_npu,
    unless torch_npu is not installed.
    """
    if not is_installed(TORCH_NPU):
        return Finding(TORCH_NPU, State.NOTE, "not installed", "install torch_npu for this torch, and CANN")
    return _npu_trouble(tuple(sorted(os.environ.items())))


@functools.lru_cache(maxsize=1)
def _npu_trouble(environment: tuple[tuple[str, str], ...]) -> Finding | None:
    """Ask a child process. The answer depends on the environment alone, so it is cached by that."""
    scene = _scene([("torch", TORCH_NPU)])
    for look in (_torch, _torch_npu, _npu):
        finding = look(scene)
        if finding is not None and finding.state is State.PROBLEM:
            return finding
    return None


def npu_left_out() -> str:
    """Say why no NPU can be used although torch_npu is installed; empty if it is not, or one can be used."""
    trouble = npu_problem()
    if trouble is None or trouble.state is not State.PROBLEM:
        return ""
    return f"npu is left out: {trouble.name}: {trouble.found} (to fix it: {trouble.fix})"


def load_torch_npu() -> Any:
    """Import torch_npu into this process. Call this only if :func:`npu_problem` returns None.

    Returns:
        The module. From then on, torch has ``torch.npu``.
    """
    module = import_torch_npu()
    transformers = sys.modules.get("transformers.utils.import_utils")
    if transformers is not None:
        # The cached result says that there was none: it is from before the import.
        transformers.is_torch_npu_available.cache_clear()
    return module
