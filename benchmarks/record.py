"""Recording a benchmark's result."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vconv.validators.report.saving import environment


def out_option(doc: str | None) -> Path | None:
    """Parse the command line, which every benchmark does before it measures; return --out."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--out", type=Path, help="a JSON file to record the result in")
    return parser.parse_args().out


def recording(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that a benchmark with a table on a page has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="a JSON file to record the result in")
    parser.add_argument("--miniature", action="store_true", help="shrink the networks, for a quick trial")
    parser.add_argument(
        "--table", type=Path, help="a page, to write what --out has into instead of measuring"
    )
    return parser


def known_with(settings: Mapping[str, Any], out: Path | None) -> dict[str, Any]:
    """Return what a file has from an earlier run with the same settings; nothing if they differ."""
    known = dict(json.loads(out.read_text())) if out and out.exists() else {}
    return known if all(known.get(key) == value for key, value in settings.items()) else {}


def one_line(said: str) -> str:
    """Return a text as one line that may stand in a table or a list of Markdown."""
    return " ".join(said.replace("|", "/").split())


def write_table(page: Path, begin: str, end: str, table: str) -> None:
    """Write a table into a page of Markdown, between two lines that mark its place."""
    before, _, rest = page.read_text().partition(begin)
    page.write_text(f"{before}{begin}\n\n{table}\n{end}{rest.partition(end)[2]}")


def save(result: dict[str, Any], out: Path) -> None:
    """Write what is known so far; a kill meanwhile leaves what was written before."""
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=2) + "\n")
    partial.replace(out)


def finish(result: dict[str, Any], passed: bool, out: Path | None) -> None:
    """Write the result, with the environment, and exit 1 if the target was missed."""
    if out:
        document = {**result, "passed": passed, "environment": environment()}
        out.write_text(json.dumps(document, indent=2) + "\n")
    sys.exit(0 if passed else 1)
