"""Collect the public names of published torch_npu wheels, for ``test_torch_npu_names.py``.

torch_npu cannot be imported where CANN is missing, so nothing is imported: the wheels' Python sources are
read. Run it on wheels that were downloaded with ``pip download --no-deps torch_npu==X.Y.Z``::

    cd tests/runtime/devices
    python collect_torch_npu_names.py WHEEL... --out torch_npu_names.json

What counts as a name of torch_npu, all without a leading underscore:

- what a module binds or imports from within the package (``from .memory import *`` by the other's
  ``__all__``), the modules in its folder, and the names that its ``__getattr__`` makes;
- what any file of the package assigns to ``torch_npu`` itself: the operators, ``torch_npu.npu_gelu`` among
  them, which the generated ``utils/custom_ops.py`` and ``utils/exposed_api.py`` list;
- the members of a class that a module binds, those of its bases within the package too, and the settings of
  an object: ``torch_npu.npu.conv.allow_hf32`` is what the ``__getattr__`` of its class compares names with.

``torch_npu`` is collected with its modules' names, and ``torch_npu.npu``, which is ``torch.npu``, and
``torch_npu.profiler`` one step further. Some modules must be imported before they are there. What is only in
the compiled part is not seen: attributes that a class inherits from one of ``torch_npu._C``.
"""

from __future__ import annotations

import argparse
import ast
import functools
import hashlib
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "torch_npu"
DEEPER = ("torch_npu.npu", "torch_npu.profiler")
"""Modules of which the members of classes and objects are collected too."""
_OPERATORS = "public_npu_functions"
"""The generated list of operators that torch_npu exports."""

Bound = dict[str, str]
"""What a module binds, and what each name is: ``module:NAME`` elsewhere, or empty if it is made here."""


@dataclass(frozen=True)
class Wheel:
    """The Python sources of a wheel.

    Args:
        trees: by module, its syntax tree.
    """

    trees: dict[str, ast.Module]

    @classmethod
    def read(cls, path: Path) -> Wheel:
        """Parse every module of the package."""
        with zipfile.ZipFile(path) as archive:
            files = [
                name for name in archive.namelist() if name.startswith(f"{PACKAGE}/") and name[-3:] == ".py"
            ]
            trees = {
                name[:-3].replace("/", ".").removesuffix(".__init__"): ast.parse(archive.read(name))
                for name in files
            }
        return cls(trees)

    def __hash__(self) -> int:
        return id(self)

    def modules_in(self, module: str) -> set[str]:
        """List the modules that lie in the folder of a package."""
        inside = (name.removeprefix(f"{module}.") for name in self.trees if name.startswith(f"{module}."))
        return {name.split(".")[0] for name in inside}

    @functools.cache  # noqa: B019 - a wheel lives as long as the script
    def bound(self, module: str) -> Bound:
        """Return what a module binds at its top level."""
        found: Bound = {}
        package = module in self.trees and bool(self.modules_in(module))
        for node in _statements(self.trees[module].body):
            if isinstance(node, ast.ImportFrom):
                origin = _origin(node, module, package)
                for alias in node.names:
                    if alias.name == "*":
                        found |= {name: f"{origin}:{name}" for name in self.exported(origin)}
                    else:
                        found[alias.asname or alias.name] = f"{origin}:{alias.name}"
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[node.name] = ""
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [
                    leaf for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)
                ]
                found |= {name.id: "" for name in names if isinstance(name.ctx, ast.Store)}
        return found

    def exported(self, module: str) -> list[str]:
        """Return what ``from module import *`` brings."""
        if module not in self.trees:
            return []
        for node in self.trees[module].body:
            if isinstance(node, ast.Assign) and _dotted(node.targets[0]) == "__all__":
                return _strings(node.value)
        return [name for name in self.bound(module) if not name.startswith("_")]

    def members(self, module: str) -> set[str]:
        """Return the public names of a module, without what it imports from elsewhere."""
        found = {
            name
            for name, origin in self.bound(module).items()
            if not origin or origin.split(":")[0].split(".")[0] == PACKAGE
        }
        for node in self.trees[module].body:
            if isinstance(node, ast.FunctionDef) and node.name == "__getattr__":
                found |= _compared(node)
        return {name for name in found | self.modules_in(module) if not name.startswith("_")}

    def assigned(self) -> set[str]:
        """Return what any module assigns to the package itself, and the operators that are listed."""
        found: set[str] = set()
        for tree in self.trees.values():
            for node in ast.walk(tree):
                if isinstance(node, ast.Assign):
                    target = _dotted(node.targets[0])
                    if re.fullmatch(rf"{PACKAGE}\.[A-Za-z]\w*", target):
                        found.add(target.removeprefix(f"{PACKAGE}."))
                    elif target == _OPERATORS:
                        found |= set(_strings(node.value))
                    elif target == "_LAZY_PYTHON_SYMBOLS" and isinstance(node.value, ast.Dict):
                        found |= {key for entry in node.value.keys if entry for key in _strings(entry)}
        return {name for name in found if not name.startswith("_")}

    def class_at(self, module: str, name: str) -> tuple[str, ast.ClassDef] | None:
        """Find the class that a name of a module is, or of which it is an instance."""
        if module not in self.trees or name not in self.bound(module):
            return None
        origin = self.bound(module)[name]
        if origin:
            # A package imports its own modules from itself: those are no classes.
            return None if origin == f"{module}:{name}" else self.class_at(*origin.split(":", 1))
        for node in _statements(self.trees[module].body):
            if isinstance(node, ast.ClassDef) and node.name == name:
                return module, node
            if isinstance(node, ast.Assign) and _dotted(node.targets[0]) == name:
                made_by = _dotted(node.value.func if isinstance(node.value, ast.Call) else node.value)
                return self._class_named(module, made_by)
        return None

    def _class_named(self, module: str, dotted: str) -> tuple[str, ast.ClassDef] | None:
        *parts, name = dotted.split(".")
        place = ".".join([module, *parts])
        return self.class_at(place if place in self.trees else ".".join(parts) or module, name)

    def attributes(self, module: str, class_: ast.ClassDef) -> set[str]:
        """Return the public members of a class and of its bases, and the settings that it answers for."""
        found: set[str] = set()
        for node in class_.body:
            if isinstance(node, ast.FunctionDef):
                found |= _compared(node) if node.name in ("__getattr__", "__setattr__") else {node.name}
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                found.add(_dotted(node.targets[0] if isinstance(node, ast.Assign) else node.target))
        for base in class_.bases:
            parent = self._class_named(module, _dotted(base))
            found |= self.attributes(*parent) if parent and parent[1] is not class_ else set()
        return {name for name in found if name and not name.startswith("_")}

    def names(self) -> list[str]:
        """List every name that is collected, dotted, in order."""
        found = {f"{PACKAGE}.{name}" for name in self.members(PACKAGE) | self.assigned()}
        for module in [f"{PACKAGE}.{name}" for name in self.members(PACKAGE)]:
            if module in self.trees:
                found |= {f"{module}.{name}" for name in self.members(module)}
        for module in DEEPER:
            for name in self.members(module):
                found |= {f"{module}.{name}.{member}" for member in self._within(module, name)}
        return sorted(found)

    def _within(self, module: str, name: str) -> set[str]:
        if f"{module}.{name}" in self.trees and not self.class_at(module, name):
            return self.members(f"{module}.{name}")
        class_ = self.class_at(module, name)
        return self.attributes(*class_) if class_ else set()


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield a module's statements, those under ``if`` and ``try`` among them."""
    for node in body:
        yield node
        for field in ("body", "orelse", "finalbody"):
            if isinstance(node, ast.If | ast.Try | ast.With):
                yield from _statements(getattr(node, field, []))


def _origin(node: ast.ImportFrom, module: str, package: bool) -> str:
    """Return the module that is imported from, in full."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + package]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _dotted(node: ast.expr) -> str:
    """Write a name down; empty if it is none."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def _strings(node: ast.expr) -> list[str]:
    return [
        leaf.value
        for leaf in ast.walk(node)
        if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)
    ]


def _compared(function: ast.FunctionDef) -> set[str]:
    """Return the strings that a function compares with ``name``: what its object answers for."""
    comparisons = [node for node in ast.walk(function) if isinstance(node, ast.Compare)]
    return {text for node in comparisons if _dotted(node.left) == "name" for text in _strings(node)}


def main() -> None:
    """Read wheels; write what all have, and what each has besides."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheels", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    names = {path.name.split("-")[1]: set(Wheel.read(path).names()) for path in options.wheels}
    common = set.intersection(*names.values())
    document = {
        "wheels": {
            path.name.split("-")[1]: {
                "file": path.name,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for path in options.wheels
        },
        "in_every_wheel": sorted(common),
        "besides": {version: sorted(found - common) for version, found in names.items()},
    }
    options.out.write_text(json.dumps(document, indent=1) + "\n")
    for version, found in names.items():
        print(f"{version}: {len(found)} names, {len(found - common)} of them not in every wheel")


if __name__ == "__main__":
    main()
