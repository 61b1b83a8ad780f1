"""The import rule: ground, catalog <- convert <- artifact <- runtime <- validators <- workflows <- cli."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("convert", "runtime", "validators")
HEAVY = {
    *("torch", "torchvision", "transformers", "timm", "onnx", "onnx_ir", "onnxscript", "onnxruntime"),
    *(
        "openvino",
        "pydantic",
        "rich",
        "huggingface_hub",
        "modelscope",
        "sympy",
        "jinja2",
        "numpy",
        "PIL",
        "safetensors",
    ),
}
LIGHT = {
    "cli/__init__",
    "cli/completion",
    "cli/examples",
    "cli/group",
    "cli/live",
    "cli/options",
    "__init__",
    "__main__",
    "_version",
    "backends",
    "errors",
    "types",
    "catalog/__init__",
    "catalog/families/__init__",
    "catalog/families/base",
    "catalog/families/convnext",
    "catalog/families/dinov2",
    "catalog/families/dinov3",
    "catalog/families/vit",
    "catalog/systems",
    "catalog/literature",
    "catalog/published",
    "cli/terminal",
    "precisions",
    "progress",
}
VCONV = "from vconv.cli import main; main(prog_name='vconv')"
COMPLETING = {"_VCONV_COMPLETE": "bash_complete"}
STOREYS = (
    ("", "catalog"),
    ("convert",),
    ("artifact",),
    ("runtime",),
    ("validators",),
    ("workflows",),
    ("cli",),
)
"""Folders, the lowest first; "" stands for the modules beside them. Imports go down."""
FACE = ("vconv", "vconv.__main__")
"""The package itself and what runs it: the public face of the top storeys."""

FOLDERS = {folder for folders in STOREYS for folder in folders}
FILES = sorted(path for room in ("core", *ROOMS) for path in (ROOT / room).rglob("*.py"))


def storey(module: str) -> int:
    """Return how high up a module of vconv stands, by the folder that it lies in."""
    if module in FACE:
        return len(STOREYS)
    folder = module.split(".")[1] if module.count(".") > 1 or module.split(".")[1] in FOLDERS else ""
    return next(height for height, folders in enumerate(STOREYS) if folder in folders)


def name_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    parts = parts[1:] if parts[0] == "core" else parts
    return ".".join(["vconv", *(part for part in parts if part != "__init__")])


def imports(path: Path, top_level: bool = False) -> Iterator[str]:
    """Yield what a file imports; with ``top_level`` only what importing the file runs."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            module = node.module or ""
            yield from (
                f"{module}.{alias.name}" if module in ("vconv", *(f"vconv.{r}" for r in ROOMS)) else module
                for alias in node.names
            )


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_module_imports_from_a_room_above_it(path: Path) -> None:
    here = storey(name_of(path))
    assert [name for name in imports(path) if name.startswith("vconv.") and storey(name) > here] == []


def test_every_folder_has_a_storey() -> None:
    folders = {path.parent.name for path in (ROOT / "core").glob("*/__init__.py")} | set(ROOMS)
    assert folders == FOLDERS - {""}


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ("vconv.catalog.systems", "vconv.convert.files.shards"),
        ("vconv.convert", "vconv.artifact.manifest"),
        ("vconv.artifact", "vconv.runtime.devices"),
        ("vconv.runtime.doctor.cann", "vconv.validators"),
        ("vconv.validators.validation", "vconv.workflows.export"),
        ("vconv.workflows", "vconv.cli.options"),
        ("vconv.cli", "vconv"),
    ],
)
def test_storeys_are_in_order(lower: str, upper: str) -> None:
    assert storey(lower) < storey(upper)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_rooms_are_imported_by_their_installed_names_only(path: Path) -> None:
    assert [name for name in imports(path) if name.split(".")[0] in ("core", *ROOMS)] == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_command_line_imports_click(path: Path) -> None:
    assert name_of(path).startswith("vconv.cli") or "click" not in set(imports(path))


@pytest.mark.parametrize("stem", sorted(LIGHT))
def test_what_help_needs_imports_nothing_heavy(stem: str) -> None:
    top = {name.split(".")[0] for name in imports(ROOT / "core" / f"{stem}.py", top_level=True)}
    assert top & HEAVY == set()


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        (["-c", "import vconv"], {}),
        (["-m", "vconv", "--help"], {}),
        (["-m", "vconv", "-h"], {}),
        (["-c", VCONV], {"COMP_WORDS": "vconv export dino", "COMP_CWORD": "2", **COMPLETING}),
        (["-c", VCONV], {"COMP_WORDS": "vconv info ", "COMP_CWORD": "2", **COMPLETING}),
    ],
)
def test_neither_import_nor_help_nor_completion_loads_anything_heavy(
    command: list[str], variables: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **variables},
    )
    loaded = {
        line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line
    }
    assert "vconv" in loaded
    assert not variables or done.stdout.startswith(("plain,", "dir,"))
    assert loaded & HEAVY == set()


def test_no_folder_shadows_the_installed_package() -> None:
    assert not (ROOT / "vconv").exists()


def test_the_version_is_the_one_in_the_changelog() -> None:
    from vconv import __version__

    newest = next(line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## "))
    assert newest.split()[1] == __version__
