from __future__ import annotations

import configparser
import re
from importlib.metadata import entry_points
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def bounds(lines: str) -> dict[str, str]:
    """Return the lower bound of each requirement, padded as versions are."""
    found = {}
    for line in lines.splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line)
            (lower,) = (spec.version for spec in requirement.specifier if spec.operator in (">=", "=="))
            found[requirement.name] = ".".join(([*re.split(r"\.", lower), "0", "0"])[:3])
    return found


def test_every_lower_bound_is_the_version_that_the_oldest_set_is_tested_with() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    declared = bounds(setup["options"]["install_requires"])
    extras = bounds(setup["options.extras_require"]["dev"])
    declared |= {name: extras[name] for name in ("openvino", "modelscope")}
    assert declared == bounds((ROOT / "tests" / "oldest.txt").read_text())


def test_the_readme_and_continuous_integration_name_the_same_test_command() -> None:
    assert "make test" in (ROOT / "README.md").read_text()
    assert "make test" in (ROOT / ".ci" / "run").read_text().splitlines()


def test_every_package_is_in_the_wheel() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    rooms = ("core", "convert", "runtime", "validators")
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for room in rooms
        for path in (ROOT / room).rglob("__init__.py")
    }
    named = {"vconv" if name == "core" else f"vconv.{name.removeprefix('core.')}" for name in found}
    assert named == set(setup["options"]["packages"].split())


def test_the_installed_command_prepares_streams_and_signals_before_it_imports_its_commands() -> None:
    (command,) = entry_points(group="console_scripts", name="vconv")
    assert command.value == "vconv.__main__:main"
