"""What is installed here, what of it works, and how to mend what does not.

Libraries are imported in child processes: a failed import leaves half of a library behind. torch_npu is the
one that is looked at closest, since CANN, its driver and torch must all go with it.
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
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vconv.backends import TORCH_NPU, import_torch_npu, is_installed
from vconv.runtime.doctor import imports
from vconv.runtime.doctor.cann import HOMES, PAIRS, find_toolkit, goes_with
from vconv.runtime.doctor.import_failures import Installation, explain, series, setting_up
from vconv.runtime.doctor.imports import Attempt


class State(StrEnum):
    """What a finding means."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        name: what it is.
        state: ``ok``; ``note`` for what is not there, or is worth knowing; ``problem`` for what is installed
            and does not work.
        found: what was found.
        mend: what to do about it; empty where there is nothing to do.
    """

    name: str
    state: State
    found: str
    mend: str = ""

    def __post_init__(self) -> None:
        if not self.found or bool(self.mend) < (self.state is State.PROBLEM):
            raise ValueError(f"the finding on {self.name!r} says too little")


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was found.

    Args:
        findings: in the order in which they are shown.
    """

    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether everything that is installed works."""
        return all(finding.state is not State.PROBLEM for finding in self.findings)


_DISTRIBUTIONS = (
    *("vconv", "torch", "torchvision", "transformers", "timm", "numpy", "onnx", TORCH_NPU),
    *("onnxruntime", "onnxruntime-gpu", "onnxruntime-cann", "onnxruntime-openvino", "openvino"),
)
_ORT = tuple(name for name in _DISTRIBUTIONS if name.startswith("onnxruntime"))
"""Builds of ONNX Runtime: they all install the same files."""
_NEEDED = (("torch", "torchvision", "transformers", "timm"), ("numpy", "onnx", "onnxruntime"))
"""What vconv does not work without, by the child that imports it."""
_FOUNDATIONS = {"torchvision": "torch", "timm": "torchvision", TORCH_NPU: "torch", "onnxruntime": "numpy"}
"""From a library to the one whose trouble is its own."""
_OPTIONAL = ((TORCH_NPU,), ("acl",), ("openvino",))


def _versions() -> dict[str, str]:
    found = {}
    for name in _DISTRIBUTIONS:
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
    """Tell whether a library that vconv needs can be imported."""
    installed = scene.versions.get(name, "")
    below = _FOUNDATIONS.get(name, "")
    if not scene.failed(name):
        return Finding(name, State.OK, ", ".join(filter(None, (installed or "unversioned", more))))
    if not is_installed(name):
        return Finding(name, State.PROBLEM, "not installed", f"`pip install {name}`")
    if scene.failed(below):
        return Finding(name, State.PROBLEM, f"{installed}, which needs {below}", f"mend {below}")
    why, mend = explain(scene, name)
    return Finding(name, State.PROBLEM, f"{installed}, but {why}" if installed else why, mend)


def _torch(scene: Installation) -> Finding:
    cuda = scene.attempts["torch"].facts.get("cuda")
    return _imported(scene, "torch", f"built for CUDA {cuda}" if cuda else "built without CUDA")


def _onnxruntime(scene: Installation) -> Finding:
    builds = [f"{name} {scene.versions[name]}" for name in _ORT if name in scene.versions]
    together = f"{' and '.join(builds)} overwrite each other's files"
    apart = f"`pip uninstall {' '.join(build.split()[0] for build in builds)}`, then install one of them"
    finding = _imported(scene, "onnxruntime")
    if finding.state is State.PROBLEM:
        if len(builds) < 2:
            return finding
        return replace(finding, found=f"{together}; {finding.found}", mend=f"{finding.mend}; or {apart}")
    has = ", ".join(scene.attempts["onnxruntime"].facts["providers"])
    if len(builds) > 1:
        return Finding("onnxruntime", State.NOTE, f"{together}; it has {has}", apart)
    return replace(
        finding, found=f"{(builds or ['unversioned'])[0].removeprefix('onnxruntime ')}, with {has}"
    )


def _openvino(scene: Installation) -> Finding:
    if not is_installed("openvino"):
        return Finding("openvino", State.NOTE, "not installed: another engine for graphs, on a CPU")
    return _imported(scene, "openvino")


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
        looked = f"neither {' nor '.join(HOMES)} names it, and it is not in /usr/local/Ascend"
        return Finding("CANN", State.NOTE, f"no toolkit: {looked}")
    found = f"{toolkit.version or 'of unknown version'} in {toolkit.folder}"
    if not toolkit.sourced:
        return Finding("CANN", State.NOTE, f"{found}, not set up in this shell", setting_up(scene))
    if goes_with(torch_npu, toolkit.version) is False:
        paired = f"torch_npu {torch_npu} is released with CANN {PAIRS[torch_npu]}"
        return Finding("CANN", State.NOTE, f"{found}; {paired}", "where results look wrong, take that pair")
    return Finding("CANN", State.OK, found)


def _torch_npu(scene: Installation) -> Finding:
    if not is_installed(TORCH_NPU):
        return Finding(TORCH_NPU, State.NOTE, "not installed: needed for an NPU alone")
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
        return Finding("NPU", State.OK, f"{count} to be seen")
    visible = scene.environment.get("ASCEND_RT_VISIBLE_DEVICES")
    found = "none is to be seen, though torch_npu and CANN load"
    if visible is not None:
        found += f"; ASCEND_RT_VISIBLE_DEVICES is {visible!r}"
        return Finding("NPU", State.PROBLEM, found, "`unset ASCEND_RT_VISIBLE_DEVICES`")
    if not any(Path("/dev").glob("davinci[0-9]*")):
        found += "; there is no /dev/davinci0"
    if shutil.which("npu-smi") is None:
        mend = "install the NPU's driver, or give the container its devices; npu-smi is not found"
        return Finding("NPU", State.PROBLEM, found, mend)
    return Finding("NPU", State.PROBLEM, found, "`npu-smi info` must list one: see to the driver")


def _atc(scene: Installation) -> Finding:
    where = shutil.which("atc")
    if where:
        return Finding("atc", State.OK, where)
    mend = setting_up(scene) if scene.toolkit else ""
    return Finding("atc", State.NOTE, "not on PATH: CANN's compiler of .om files", mend)


def _acl(scene: Installation) -> Finding:
    if not is_installed("acl"):
        return Finding("acl", State.NOTE, "not to be imported: CANN's Python interface, which runs .om files")
    if not scene.failed("acl"):
        return Finding("acl", State.OK, "imports")
    why, _ = explain(scene, "acl")
    return Finding("acl", State.NOTE, why, setting_up(scene))


_FINDINGS: tuple[Callable[[Installation], Finding | None], ...] = (
    lambda scene: Finding(
        "vconv", State.OK, scene.versions.get("vconv", "not installed: run from a checkout")
    ),
    lambda scene: Finding("python", State.OK, f"{platform.python_version()}, {sys.executable}"),
    _torch,
    lambda scene: _imported(scene, "torchvision"),
    lambda scene: _imported(scene, "transformers"),
    lambda scene: _imported(scene, "timm"),
    lambda scene: _imported(scene, "numpy"),
    lambda scene: _imported(scene, "onnx"),
    _onnxruntime,
    _openvino,
    _cuda,
    _torch_npu,
    _npu,
    _cann,
    _atc,
    _acl,
)
"""What is looked at, in the order in which it is shown."""


def examine() -> Diagnosis:
    """Find out what is installed, and what of it works.

    It takes as long as importing every library does, in child processes; nothing is imported into this one.
    """
    present = [names for names in _OPTIONAL if is_installed(names[0])]
    scene = _scene((*_NEEDED, *present))
    findings = (look(scene) for look in _FINDINGS)
    return Diagnosis(tuple(finding for finding in findings if finding is not None))


def npu_problem() -> Finding | None:
    """Say why there is no NPU to run on, or None where there is one. Nothing is imported into this process.

    It takes as long as importing torch and torch_npu does, once; where torch_npu is not installed, no time.
    """
    if not is_installed(TORCH_NPU):
        return Finding(TORCH_NPU, State.NOTE, "not installed", "install torch_npu for this torch, and CANN")
    return _npu_trouble(tuple(sorted(os.environ.items())))


@functools.lru_cache(maxsize=1)
def _npu_trouble(environment: tuple[tuple[str, str], ...]) -> Finding | None:
    """Ask a child, which knows nothing but the environment: in the same one, it would say the same again."""
    scene = _scene([("torch", TORCH_NPU)])
    for look in (_torch, _torch_npu, _npu):
        finding = look(scene)
        if finding is not None and finding.state is State.PROBLEM:
            return finding
    return None


def npu_left_out() -> str:
    """Say why there is no NPU to run on though torch_npu is installed; empty where that is not so."""
    trouble = npu_problem()
    if trouble is None or trouble.state is not State.PROBLEM:
        return ""
    return f"npu is left out: {trouble.name}: {trouble.found} (to mend it: {trouble.mend})"


def load_torch_npu() -> Any:
    """Import torch_npu into this process; to be asked for only where :func:`npu_problem` finds none.

    Returns:
        The module. From then on, torch has ``torch.npu``.
    """
    module = import_torch_npu()
    transformers = sys.modules.get("transformers.utils.import_utils")
    if transformers is not None:
        # It remembers that there was none, from before.
        transformers.is_torch_npu_available.cache_clear()
    return module
