"""What a shell completes: names from tables, and folders that are artifacts. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from vconv.catalog.systems import SYSTEMS
from vconv.types import MANIFEST_FILE

HOME = Path("artifacts")
"""Where `vconv export` puts artifacts."""

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def one_of(names: Iterable[str]) -> Complete:
    """Return what completes a name of a table, as the table then is."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]

    return complete


def system(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a system: by its short name, or, once that fits none, by its hub id."""
    by_name = [CompletionItem(one.name, help=one.hub_id) for one in SYSTEMS.values()]
    by_id = [CompletionItem(one.hub_id, help=one.name) for one in SYSTEMS.values()]
    for items in (by_name, by_id):
        found = [item for item in items if item.value.startswith(incomplete)]
        if found:
            return found
    return []


def artifact(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete an artifact: in the folder that is named so far, and in :data:`HOME`; or any folder."""
    found = [CompletionItem(path) for path in dict.fromkeys(_artifacts(incomplete))]
    return found or [CompletionItem(incomplete, type="dir")]


def _artifacts(incomplete: str) -> Iterator[str]:
    folder = incomplete[: incomplete.rfind("/") + 1]
    for parent in (folder, f"{HOME}/"):
        for manifest in sorted(Path(parent or ".").glob(f"*/{MANIFEST_FILE}")):
            path = f"{parent}{manifest.parent.name}"
            if path.startswith(incomplete):
                yield path
