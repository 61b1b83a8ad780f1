"""Every name of torch_npu that the code uses is one that published wheels have.

No test runs torch_npu, so that a misspelt name would be found by a user. ``torch_npu_names.json`` has
the names of the oldest and newest supported wheels, as ``collect_torch_npu_names.py`` read them. The rule:

- a name that is written out, ``torch.npu.synchronize``, must be in every wheel;
- one that is asked for with an answer ready, ``getattr(npu, "use_compatible_impl", None)`` or ``hasattr``,
  must be in one of them at least;
- a module of torch_npu may be handed only to a function of the same file, where its names are looked at too.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES = [
    path for room in ("core", "convert", "runtime", "validators") for path in (ROOT / room).rglob("*.py")
]
COLLECTED = json.loads((Path(__file__).parent / "torch_npu_names.json").read_text())
WHEELS: Mapping[str, set[str]] = {
    version: {*COLLECTED["in_every_wheel"], *further} for version, further in COLLECTED["besides"].items()
}
ALL, ANY = set.intersection(*WHEELS.values()), set.union(*WHEELS.values())
SAME = {"torch.npu": "torch_npu.npu", "torch.ops.npu": "torch_npu"}
"""Other ways to write a module down."""

Names = Mapping[str, str]
"""By local name, what it stands for: ``torch``, ``torch_npu.npu``, or something within them."""


@dataclass(frozen=True)
class Use:
    """A name of torch_npu in a source.

    Args:
        name: as the wheels have it.
        line: where.
        optional: whether there is an answer ready in case that it is not there.
    """

    name: str
    line: int
    optional: bool = False

    def fault(self) -> str:
        """Say what is wrong with it; nothing if it may be used so."""
        if self.name not in ANY:
            return f"line {self.line}: no torch_npu has {self.name}"
        if self.name not in ALL and not self.optional:
            lacking = [version for version, names in WHEELS.items() if self.name not in names]
            return (
                f"line {self.line}: {self.name} is not in {', '.join(lacking)}: ask by getattr with a default"
            )
        return ""


@dataclass
class Uses(ast.NodeVisitor):
    """Finds the names of torch_npu that a source uses.

    Args:
        functions: those of the source's top level, by name.
        names: what stands for torch_npu where the visitor is.
        found: what was found.
        escaped: where a module is handed to what cannot be followed.
        handed: functions whose arguments are being followed.
    """

    functions: Mapping[str, ast.FunctionDef]
    names: dict[str, str] = field(default_factory=dict)
    found: set[Use] = field(default_factory=set)
    escaped: list[str] = field(default_factory=list)
    handed: tuple[str, ...] = ()

    def path(self, node: ast.AST | None) -> str:
        """Return what an expression stands for; empty if it has nothing to do with torch_npu."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, "")
        if isinstance(node, ast.Attribute):
            return self._within(self.path(node.value), node.attr)
        if isinstance(node, ast.Call) and _name(node.func) in ("getattr", "hasattr") and len(node.args) > 1:
            asked = node.args[1]
            return self._within(
                self.path(node.args[0]), asked.value if isinstance(asked, ast.Constant) else ""
            )
        if isinstance(node, ast.Call) and _name(node.func).endswith("import_module"):
            given = node.args[0]
            return given.value if isinstance(given, ast.Constant) and _ours(str(given.value)) else ""
        if isinstance(node, ast.Call) and _has_members(self.path(node.func)):
            return self.path(node.func)
        return ""

    @staticmethod
    def _within(module: str, name: object) -> str:
        path = f"{module}.{name}" if module and name else ""
        return SAME.get(path, path)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.split(".")[0] in ("torch", "torch_npu"):
                name = alias.asname or alias.name.split(".")[0]
                self.names[name] = SAME.get(alias.name, alias.name) if alias.asname else name
                self._use(alias.name, node, optional=False)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if (node.module or "").split(".")[0] in ("torch", "torch_npu"):
            for alias in node.names:
                module = SAME.get(node.module or "", node.module or "")
                self.names[alias.asname or alias.name] = self._within(module, alias.name)
                self._use(self._within(module, alias.name), node, optional=False)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        self._bind(node.targets[0], node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        self._bind(node.target, node.value)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.generic_visit(node)
        self._bind(node.target, node.value)

    def _bind(self, target: ast.expr, value: ast.expr | None) -> None:
        if isinstance(target, ast.Name):
            self.names[target.id] = self.path(value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._inside(node, {argument.arg: "" for argument in _arguments(node)})

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._inside(node, {argument.arg: "" for argument in _arguments(node)})

    def _inside(self, node: ast.FunctionDef | ast.Lambda, arguments: Names, name: str = "") -> None:
        within = Uses(
            self.functions, {**self.names, **arguments}, self.found, self.escaped, (*self.handed, name)
        )
        ast.NodeVisitor.generic_visit(within, node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._use(self.path(node), node, optional=False)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        called = _name(node.func)
        if called in ("getattr", "hasattr"):
            ready = called == "hasattr" or len(node.args) == 3
            self._use(self.path(node), node, optional=ready)
        else:
            self._follow(called, node)
        self.generic_visit(node)

    def _follow(self, called: str, node: ast.Call) -> None:
        """Look at the function that a module of torch_npu is handed to, with its argument standing for it."""
        given = list(node.args)
        if called.endswith("partial") and given:
            called = _name(given.pop(0))
        places: list[tuple[int | str | None, ast.expr]] = [*enumerate(given)]
        places += [(keyword.arg, keyword.value) for keyword in node.keywords]
        handed = {place: self.path(value) for place, value in places if self.path(value) in SAME.values()}
        if not handed:
            return
        function = self.functions.get(called)
        if function is None:
            self.escaped.append(f"line {node.lineno}: a module of torch_npu is handed to {called}")
        elif called not in self.handed:
            parameters = [argument.arg for argument in _arguments(function)]
            arguments = dict.fromkeys(parameters, "")
            for place, path in handed.items():
                arguments[parameters[place] if isinstance(place, int) else str(place)] = path
            self._inside(function, arguments, called)

    def _use(self, path: str, node: ast.stmt | ast.expr, optional: bool) -> None:
        parent = path.rpartition(".")[0]
        if (
            _ours(path)
            and path not in ("torch_npu", *SAME)
            and (parent == "torch_npu" or _has_members(parent))
        ):
            self.found.add(Use(path, node.lineno, optional))


def _ours(path: str) -> bool:
    return path.split(".")[0] == "torch_npu"


def _has_members(path: str) -> bool:
    return _ours(path) and any(name.startswith(f"{path}.") for name in ANY)


def _name(node: ast.expr) -> str:
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def _arguments(node: ast.FunctionDef | ast.Lambda) -> Iterator[ast.arg]:
    yield from (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)


def uses(source: str) -> Uses:
    """Find the names of torch_npu that a source uses."""
    tree = ast.parse(source)
    found = Uses({node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)})
    found.visit(tree)
    return found


def faults(source: str) -> list[str]:
    """Say what is wrong with the names of torch_npu that a source uses."""
    found = uses(source)
    return [*found.escaped, *filter(None, (use.fault() for use in sorted(found.found, key=lambda u: u.line)))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_name_of_torch_npu_is_one_that_published_wheels_have(path: Path) -> None:
    assert faults(path.read_text()) == []


def test_the_devices_use_names_of_torch_npu_and_they_are_seen() -> None:
    found = {use.name for use in uses((ROOT / "runtime" / "devices" / "npu.py").read_text()).found}
    written = {
        "device_count",
        "is_available",
        "get_device_name",
        "synchronize",
        "mem_get_info",
        "get_soc_version",
    }
    handed = {"reset_peak_memory_stats", "memory_allocated", "max_memory_allocated"}
    settings = {"conv", "matmul", "conv.allow_hf32", "matmul.allow_hf32"}
    assert {f"torch_npu.npu.{name}" for name in (*written, *handed, *settings)} <= found


ALIAS = "import torch\nnpu = torch.npu\n"
SOURCES = {
    "written out": "import torch\ntorch.npu.sinchronize()\n",
    "of an alias": ALIAS + "npu.sinchronize()\n",
    "of an annotated alias": "import torch\nnpu: object = torch.npu\nnpu.sinchronize()\n",
    "of what getattr gives": 'import torch\nnpu = getattr(torch, "npu", None)\nnpu.sinchronize()\n',
    "of the package": "import torch_npu\ntorch_npu.npu.sinchronize()\n",
    "imported": "from torch_npu.npu import sinchronize\n",
    "imported by name": 'import importlib\nm = importlib.import_module("torch_npu")\nm.npu.sinchronize()\n',
    "in a closure": "import torch\ndef f():\n    npu = torch.npu\n    return lambda: npu.sinchronize()\n",
    "handed to a function": ALIAS + "def f(m):\n    m.sinchronize()\nf(npu)\n",
    "handed on by partial": ALIAS + "def f(m, i):\n    m.sinchronize()\npartial(f, npu, 0)\n",
    "handed by keyword": ALIAS + "def f(i, m):\n    m.sinchronize()\nf(0, m=npu)\n",
    "asked for with a default": ALIAS + 'getattr(npu, "sinchronize", None)\n',
    "asked whether it is there": ALIAS + 'hasattr(npu, "sinchronize")\n',
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_a_misspelt_name_is_found_however_it_is_reached(source: str) -> None:
    line = source[: source.index("sinchronize")].count("\n") + 1
    assert faults(source) == [f"line {line}: no torch_npu has torch_npu.npu.sinchronize"]
    assert faults(source.replace("sinchronize", "synchronize")) == []


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        (ALIAS + "npu.conv.allow_hf23 = False\n", "npu.conv.allow_hf23"),
        (ALIAS + "npu.NPUGraph().replays()\n", "npu.NPUGraph.replays"),
        (ALIAS + "made = npu.NPUGraph()\nmade.replays()\n", "npu.NPUGraph.replays"),
        ("import torch\ntorch.ops.npu.npu_gelo(x)\n", "npu_gelo"),
        ("import torch_npu\ntorch_npu.profiler.profil()\n", "profiler.profil"),
    ],
)
def test_a_misspelt_setting_method_or_operator_is_found(source: str, missing: str) -> None:
    assert f"no torch_npu has torch_npu.{missing}" in " ".join(faults(source))


def test_a_name_that_some_wheel_lacks_must_be_asked_for_with_a_default() -> None:
    lacking = "torch_npu.npu.use_compatible_impl is not in 2.9.0: ask by getattr with a default"
    assert faults(ALIAS + "npu.use_compatible_impl(True)\n") == [f"line 3: {lacking}"]
    assert faults(ALIAS + 'getattr(npu, "use_compatible_impl")(True)\n') == [f"line 3: {lacking}"]
    assert faults(ALIAS + 'getattr(npu, "use_compatible_impl", None)\n') == []


def test_a_module_that_is_handed_to_what_cannot_be_followed_is_told() -> None:
    assert faults(ALIAS + "elsewhere(npu)\n") == ["line 3: a module of torch_npu is handed to elsewhere"]


def test_other_modules_attributes_are_none_of_torch_npus() -> None:
    assert faults("import torch\ncuda = torch.cuda\ncuda.sinchronize()\ntorch.npi.anything\n") == []


@pytest.mark.parametrize("version", WHEELS)
def test_the_lists_hold_what_a_validator_needs_of_torch_npu(version: str) -> None:
    needed = (
        "npu.NPUGraph",
        "npu.graph",
        "npu.conv.allow_hf32",
        "npu.matmul.allow_hf32",
        "npu_gelu",
        "profiler.profile",
    )
    assert {f"torch_npu.{name}" for name in needed} <= WHEELS[version]
