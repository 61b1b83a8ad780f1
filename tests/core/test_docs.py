"""README and docs: what they name exists, and what there is has a place in them."""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from vconv.cli import main

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *DOCS, *(ROOT / folder / "README.md" for folder in ("artifacts", "benchmarks"))]
MOST_LINES = 150
FOLDERS = ("benchmarks", "convert", "core", "docs", "runtime", "tests", "validators")

RIDDLES = (
    "mend",
    "has nothing to do",
    "of its own",
    "of their own",
    "of one's own",
    "that is none",
    "is told",
)
"""Words that made readers stop, each of which has a plain equivalent."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_CONTINUES = re.compile(r"\s+[\[-]")


def blocks(page: Path) -> Iterator[str]:
    """Yield the code blocks of a page: those between fences, and those that are indented."""
    fence, block = False, list[str]()
    before = ""
    for line in [*page.read_text().splitlines(), ""]:
        opens = line.startswith("```")
        indented = line.startswith("    ") and not fence and (bool(block) or not before.strip())
        if (fence and not opens) or indented:
            block.append(line if fence else line[4:])
        elif block:
            yield "\n".join(block)
            block = []
        fence ^= opens
        before = line


def prose(page: Path) -> str:
    """Return a page without its fenced blocks, its line breaks as spaces."""
    return re.sub(r"\s*\n\s*", " ", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S))


def calls(page: Path) -> Iterator[str]:
    """Yield each call of vconv that a page shows, in a block or within a sentence, its lines joined."""
    for block in blocks(page):
        lines = list[str]()
        for line in block.splitlines():
            if lines and _CONTINUES.match(line):
                lines[-1] += " " + line.strip()
            else:
                lines.append(line.removeprefix("$ ").split(" #")[0])
        yield from (line for line in lines if line.startswith("vconv "))
    yield from (code for code in _CODE.findall(prose(page)) if code.startswith("vconv "))


def anchors(page: Path) -> set[str]:
    """Return what a link may name after ``#``: each heading as GitHub makes an anchor of it."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text))


def known(command: str) -> set[str]:
    """Return the options of a command."""
    return {
        "--help",
        *(name for one in main.commands[command].params for name in one.opts if name[:2] == "--"),
    }


@each_page
def test_every_link_leads_to_a_file_and_to_a_heading_that_is_in_it(page: Path) -> None:
    broken = []
    for link in _LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if "://" in link:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@each_page
def test_every_file_that_is_named_is_there(page: Path) -> None:
    named = re.findall(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./*-]+", page.read_text())
    paths = {path.rstrip(".") for path in named if not re.search(r"[A-Z]{3}", path.replace("README", ""))}
    assert [path for path in sorted(paths) if not any(ROOT.glob(path))] == []


@each_page
def test_every_command_that_is_shown_exists_with_its_options(page: Path) -> None:
    wrong = []
    for call in calls(page):
        command = call.split()[1]
        if command.startswith("-") or command == "COMMAND":
            continue
        if command not in main.commands or not options(call) <= known(command):
            wrong.append(call)
    assert wrong == []


@each_page
def test_every_target_of_make_that_is_named_is_in_the_makefile(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    text = "\n".join([*_CODE.findall(prose(page)), *blocks(page)])
    assert set(re.findall(r"^make ([a-z-]+)", text, re.M)) <= targets


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_a_page_opens_with_the_command_that_it_explains(page: Path) -> None:
    assert re.match(r"(\$ )?(vconv|make) ", next(blocks(page)))


@pytest.mark.parametrize("command", main.commands)
def test_every_option_of_every_command_is_shown_on_some_page(command: str) -> None:
    shown = {
        option
        for page in PAGES
        for call in calls(page)
        if call.split()[1] == command
        for option in options(call)
    }
    assert known(command) - {"--help", "--json"} - shown == set()


def test_the_readme_is_short_and_names_the_test_command() -> None:
    assert len(README.read_text().splitlines()) <= MOST_LINES
    assert any("make test" in block for block in blocks(README))


def linked(page: Path) -> set[Path]:
    """Return the pages that a page links to."""
    found = {(page.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(page.read_text())}
    return found & set(PAGES)


def test_every_page_is_in_the_list_of_pages_and_two_steps_from_the_readme() -> None:
    index = ROOT / "docs" / "README.md"
    assert linked(index) >= set(DOCS) - {index}
    assert {README} | linked(README) | {far for near in linked(README) for far in linked(near)} >= set(
        PAGES
    ) - {ROOT / "artifacts" / "README.md"}


@pytest.mark.parametrize("riddle", RIDDLES)
def test_pages_and_help_are_in_plain_words(riddle: str) -> None:
    texts = {str(page.relative_to(ROOT)): prose(page) for page in PAGES}
    for name, command in main.commands.items():
        # click keeps the names of the help option that a command is first asked with.
        with click.Context(command, info_name=name, help_option_names=["-h", "--help"]) as context:
            texts[name] = " ".join(command.get_help(context).split())
    assert [name for name, text in texts.items() if re.search(rf"\b{riddle}\b", text)] == []


def sentences(module: Path) -> Iterator[str]:
    """Yield the docstrings and other texts of a module, without the names in them that are code."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield re.sub(r"``[^`]*``", "", " ".join(node.value.split()))


@pytest.mark.parametrize("room", ["core", "convert", "runtime", "validators"])
def test_docstrings_and_messages_are_in_plain_words(room: str) -> None:
    riddles = re.compile(rf"\b({'|'.join(RIDDLES)})\b")
    modules = sorted((ROOT / room).rglob("*.py"))
    assert modules
    found = [(str(module.relative_to(ROOT)), text) for module in modules for text in sentences(module)]
    assert [place for place in found if riddles.search(place[1])] == []


def test_every_benchmark_is_in_the_list_of_benchmarks() -> None:
    folder = ROOT / "benchmarks"
    scripts = {path.name for path in folder.glob("*.py")} - {"record.py", "trained_weights.py"}
    assert set(re.findall(r"^\| `(\w+\.py)`", (folder / "README.md").read_text(), re.M)) == scripts


def test_the_tables_of_exported_encoders_are_those_of_the_recorded_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    table = importlib.import_module("encoders.table")
    document = json.loads((ROOT / "benchmarks" / "results" / "coverage.json").read_text())
    page = (ROOT / "docs" / "coverage.md").read_text()
    assert page.partition(table.BEGIN)[2].partition(table.END)[0].strip() == table.text(document).strip()
    assert " ".join(table.summary(document).split()) in prose(README)


def test_the_tables_of_exporters_are_those_of_the_recorded_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    exporters = importlib.import_module("exporters")
    document = json.loads((ROOT / "benchmarks" / "results" / "exporters.json").read_text())
    page = (ROOT / "docs" / "exporters.md").read_text()
    found = page.partition(exporters.BEGIN)[2].partition(exporters.END)[0]
    assert found.strip() == exporters.text(document).strip()


@pytest.mark.parametrize("name", ["reduced_precision", "precision_engines"])
def test_the_tables_of_precisions_are_those_of_the_recorded_results(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    benchmark = importlib.import_module(name)
    document = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    page = (ROOT / "docs" / "precisions-measured.md").read_text()
    found = page.partition(benchmark.BEGIN)[2].partition(benchmark.END)[0]
    assert found.strip() == benchmark.text(document).strip()
