"""Shell completion of names in tables and of artifact folders. This module imports no large library."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from vconv.catalog.systems import SYSTEMS
from vconv.types import MANIFEST_FILE

HOME = Path("artifacts")
"""The folder in which `vconv export` puts artifacts."""

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def one_of(names: Iterable[str]) -> Complete:
    """Return a completer of the names in a table; the table is read at completion."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]

    return complete


def system(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the short name of a system, or its hub id if no short name matches."""
    by_name = [CompletionItem(one.name, help=one.hub_id) for one in SYSTEMS.values()]
    by_id = [CompletionItem(one.hub_id, help=one.name) for one in SYSTEMS.values()]
    for items in (by_name, by_id):
        found = [item for item in items if item.value.startswith(incomplete)]
        if found:
            return found
    return []


def artifact(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete an artifact in the folder typed so far and in :data:`HOME`; without a match, any folder."""
    found = [CompletionItem(path) for path in dict.fromkeys(_artifacts(incomplete))]
    return found or [CompletionItem(incomplete, type="dir")]


def _artifacts(incomplete: str) -> Iterator[str]:
    folder = incomplete[: incomplete.rfind("/") + 1]
    for parent in (folder, f"{HOME}/"):
        for manifest in sorted(Path(parent or ".").glob(f"*/{MANIFEST_FILE}")):
            path = f"{parent}{manifest.parent.name}"
            if path.startswith(incomplete):
                yield path
