"""Known causes of failed imports, recognised by their messages, and how to fix each. One row each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import InvalidRequirement, Requirement

from vconv.runtime.doctor.cann import PAIRS, Toolkit
from vconv.runtime.doctor.imports import Attempt


@dataclass(frozen=True)
class Installation:
    """What is known about this machine.

    Args:
        versions: the versions of installed packages, by their names in pip.
        attempts: the results of importing libraries, by module.
        toolkit: the CANN toolkit; None if there is none.
        environment: the environment variables.
    """

    versions: Mapping[str, str]
    attempts: Mapping[str, Attempt]
    toolkit: Toolkit | None
    environment: Mapping[str, str]

    def failed(self, name: str) -> bool:
        """Whether importing a library was tried and failed."""
        return name in self.attempts and self.attempts[name].failed


@dataclass(frozen=True)
class ImportFailure:
    """One known cause of a failed import.

    Args:
        pattern: matches the error's message; the first group is the name of the faulty part.
        found: the text of the finding; ``{}`` stands for that name.
        fix: returns what to do about it.
    """

    pattern: str
    found: str
    fix: Callable[[Installation, str], str]


def series(version: str) -> str:
    """Return the first two numbers of a version: ``2.13`` of ``2.13.0.post2``."""
    return ".".join(re.split(r"[.+]", version)[:2])


def setting_up(scene: Installation) -> str:
    """Say how to make CANN loadable."""
    paired = PAIRS.get(scene.versions.get("torch_npu", ""))
    if scene.toolkit is None:
        return f"install CANN{f' {paired}' if paired else ''}, and `source` the set_env.sh of its toolkit"
    if scene.toolkit.set_env is None:
        return f"install CANN again: {scene.toolkit.folder} has no set_env.sh"
    return f"`source {scene.toolkit.set_env}`"


def _pair_with_torch(scene: Installation, symbol: str) -> str:
    installed, torch = scene.versions.get("torch_npu", ""), scene.versions.get("torch", "")
    if installed and series(torch) != series(installed):
        return f"`pip install 'torch=={series(installed)}.*'`"
    return f"`pip install --force-reinstall --no-deps 'torch_npu=={installed or series(torch) + '.*'}'`"


def _pair_with_cann(scene: Installation, symbol: str) -> str:
    paired = PAIRS.get(scene.versions.get("torch_npu", ""), "")
    here = f" (here it is {scene.toolkit.version})" if scene.toolkit and scene.toolkit.version else ""
    if paired:
        return f"install CANN {paired}, which this torch_npu is released with{here}"
    return f"install the CANN that this torch_npu is released with: see its COMPATIBILITY.md{here}"


def _pair_with_torchvision(scene: Installation, operator: str) -> str:
    torch = scene.versions.get("torch", "")
    try:
        wanted = [Requirement(line) for line in requires("torchvision") or ()]
    except (PackageNotFoundError, InvalidRequirement):
        wanted = []
    for requirement in wanted:
        if requirement.name == "torch" and not requirement.specifier.contains(torch, prereleases=True):
            return (
                f"it wants torch{requirement.specifier}: `pip install --upgrade torch=={torch} torchvision`"
            )
    return "install torch and torchvision from one index: one is built for CUDA, the other for the CPU"


_PIP_NAMES: Mapping[str, str] = {"yaml": "pyyaml"}
_NUMPY = ImportFailure(
    r"compiled using NumPy 1\.x cannot be run in\s+NumPy (\S+)",
    "it is built for NumPy 1, and NumPy {} is installed",
    lambda scene, version: "`pip install 'numpy<2'`",
)
_DEPENDENCY = ImportFailure(
    r"ModuleNotFoundError: No module named '([^'.]+)'",
    "it needs {}, which is not installed",
    lambda scene, module: f"`pip install {_PIP_NAMES.get(module, module)}`",
)
IMPORT_FAILURES: Mapping[str, tuple[ImportFailure, ...]] = {
    "torch_npu": (
        ImportFailure(
            r"Two accelerators cannot be used at the same time in PyTorch: npu and (\w+)",
            "it cannot share a process with {}, which this torch is built for and finds",
            lambda scene, other: "set CUDA_VISIBLE_DEVICES to nothing, or install the CPU build of torch",
        ),
        ImportFailure(
            r"(lib(?:ascend_hal|drvdsmi\w*|dcmi\w*)\.so\S*): cannot open shared object file",
            "the NPU's driver cannot be loaded: {} is not found",
            lambda scene, library: (
                "install the driver, or give the container /usr/local/Ascend/driver of its host, and put the"
                " folders below its lib64 into LD_LIBRARY_PATH"
            ),
        ),
        ImportFailure(
            r"(libatb\w*\.so\S*): cannot open shared object file",
            "NNAL, a package beside CANN, cannot be loaded: {} is not found",
            lambda scene, library: "install NNAL, and `source /usr/local/Ascend/nnal/atb/set_env.sh`",
        ),
        ImportFailure(
            r"(lib(?:torch|c10)\w*\.so\S*): cannot open shared object file",
            "it is built for another torch: {} is not found",
            _pair_with_torch,
        ),
        ImportFailure(
            r"(lib[\w+.-]+?\.so\S*): cannot open shared object file",
            "CANN cannot be loaded: {} is not found",
            lambda scene, library: setting_up(scene),
        ),
        # Itanium's mangling, after _Z: at::, c10:: or torch::, of a function, a vtable or a typeinfo.
        ImportFailure(
            r"undefined symbol: (_Z(?:T[ISV])?NK?(?:2at|3c10|5torch)\w*)",
            "it is built for another torch: undefined symbol {}",
            _pair_with_torch,
        ),
        ImportFailure(
            r"undefined symbol: (\w+)",
            "it is built for another CANN: undefined symbol {}",
            _pair_with_cann,
        ),
        ImportFailure(
            r"(ASCEND_\w+)\b.*?(?:does not exist|is not set)",
            "CANN's environment is not set: {} does not name what is there",
            lambda scene, variable: setting_up(scene),
        ),
    ),
    "torchvision": (
        ImportFailure(
            r"operator (torchvision::\w+) does not exist",
            "it does not fit this torch: the operator {} does not exist",
            _pair_with_torchvision,
        ),
    ),
}
"""By library, the known causes of a failed import, the most specific first."""
_COMMON = (_NUMPY, _DEPENDENCY)
"""The known causes that any library can have."""


def explain(scene: Installation, name: str) -> tuple[str, str]:
    """Say why a library cannot be imported, and how to fix it.

    Args:
        scene: what is known about this machine; the library is among its attempts.
        name: the library.
    """
    tried = scene.attempts[name]
    for trouble in (*IMPORT_FAILURES.get(name, ()), *_COMMON):
        match = re.search(trouble.pattern, tried.whole)
        if match:
            return trouble.found.format(match[1]), trouble.fix(scene, match[1])
    return f"it fails with {tried.first_line}", f"`python -c 'import {name}'` shows all of it"
