"""The licence of weights: the texts beside them, and what their model card says."""

from __future__ import annotations

import re
from pathlib import Path

from vconv.types import Say

_LICENCES = re.compile(r"(LICEN[CS]E|NOTICE)[\w.-]*", re.IGNORECASE)
_LICENCE_BYTES = 1_000_000
"""Greatest size of a licence text."""
_CARD_LICENCE = re.compile(r"^(license(?:_name)?):[ \t]*['\"]?([\w.+-]+)", re.MULTILINE)


def licence_files(folder: Path, say: Say) -> tuple[Path, ...]:
    """List the licence texts of a folder, without links that lead out of it."""
    found = sorted(file for file in folder.iterdir() if file.is_file() and _LICENCES.fullmatch(file.name))
    homes = [folder.resolve()]
    if (
        homes[0].parent.name == "snapshots"
    ):  # in the cache of Hugging Face, where every file is a link to a blob
        homes.append(homes[0].parent.parent / "blobs")
    kept = []
    for file in found:
        if not any(file.resolve().is_relative_to(home) for home in homes):
            say(f"{file.name} is skipped: it is a link that leads out of the folder")
        elif file.stat().st_size > _LICENCE_BYTES:
            say(f"{file.name} is skipped: it is larger than {_LICENCE_BYTES} bytes")
        else:
            kept.append(file)
    return tuple(kept)


def licence_of(folder: Path) -> str:
    """Return the licence in the front matter of a folder's model card; empty if there is none.

    ``huggingface_hub.ModelCard`` reads it too, but refuses the whole card for any error in its YAML.
    """
    card = folder / "README.md"
    text = card.read_text("utf-8", "replace") if card.is_file() else ""
    front = text.split("---", 2)[1] if text.startswith("---") else ""
    names: dict[str, str] = dict(_CARD_LICENCE.findall(front))
    return names.get("license_name") or names.get("license", "")
