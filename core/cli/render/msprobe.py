"""Draws what was written for msprobe, and its table beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vconv.cli.render.base import Document, pairs, show, table, wrapped
from vconv.cli.render.commands import command

_SHOWN = 20
"""How many rows of a table are printed; the files have all."""
_L2 = "RelativeEuclideanDistance"


def dumped(document: Document) -> None:
    """Print what a folder for msprobe has, and the rows that depart most."""
    weights = f"{document['weights']}{' (synthetic)' * document['synthetic']}"
    show(
        pairs(
            [
                ("folder", document["folder"]),
                ("graph", f"{document['artifact']}: {document['graph']}, batch {document['batch']}"),
                ("weights", weights),
                ("golden", f"{document['golden_files']} tensors of {document['nodes']} nodes, on the CPU"),
                *_target(document),
            ]
        )
    )
    wrapped(*(f"warning: {note}" for note in document["notes"]))
    if document["renamed"]:
        wrapped(f"{len(document['renamed'])} nodes have other names in golden/: README.txt lists them")
    if document["simulated"]:
        _departing(document)
    if "beside" in document:
        _beside(document["beside"])
    following = "simulated" if document["simulated"] else "offline_model"
    command("next:", *document["commands"][following])


def _target(document: Document) -> list[tuple[str, str]]:
    if not document["simulated"]:
        return []
    fused = sum(map(len, document["fused"].values()))
    return [
        ("target", f"SIMULATED: {document['target_files']} operators on {document['device']}"),
        ("table", f"SIMULATED: {document['result']}"),
        (
            "no target",
            f"{len(document['constants'])} nodes of weights alone, {fused} inside of fused operators",
        ),
    ]


def _departing(document: Document) -> None:
    """Print the simulated operators that differ most from the CPU."""
    rows = sorted(document["rows"], key=lambda row: row["figures"][_L2] or 0.0, reverse=True)
    drawn = [
        (
            row["operator"],
            row["type"],
            _figure(row["figures"][_L2]),
            _figure(row["figures"]["CosineSimilarity"]),
            "YES" if row["departs"] else "NO",
        )
        for row in rows[:_SHOWN]
    ]
    show("", f"simulated: the {len(drawn)} of {len(rows)} tensors that differ most from the CPU")
    show(table(["operator", "type"], ["relative L2", "cosine", "<precision error"], drawn))
    if document["not_finite"]:
        wrapped(f"NaN or Inf, which msprobe does not mark: {', '.join(document['not_finite'])}")


def _beside(pairs_: Sequence[dict[str, Any]]) -> None:
    """Print both tables side by side, the largest of msprobe's figures first."""
    both = [pair for pair in pairs_ if pair["found"] == "both"]
    rows = sorted(both, key=lambda pair: pair["their_relative_l2"] or 0.0, reverse=True)
    drawn = [
        (
            pair["operator"],
            pair["type"],
            *(_figure(pair[name]) for name in ("relative_l2", "their_relative_l2", "ratio")),
            *(_figure(pair[name]) for name in ("cosine", "their_cosine")),
        )
        for pair in rows[:_SHOWN]
    ]
    show("", f"ours (simulated) beside msprobe's: {len(drawn)} of {len(both)} tensors, all in beside.csv")
    figures = ["ours", "msprobe", "ratio", "cosine", "msprobe"]
    show(table(["operator", "type"], figures, drawn))
    for side, title in (("ours", "only in ours"), ("theirs", "only in msprobe's table")):
        alone = [pair["operator"] for pair in pairs_ if pair["found"] == side]
        if alone:
            more = f" and {len(alone) - _SHOWN} more" if len(alone) > _SHOWN else ""
            wrapped(f"{title}: {', '.join(alone[:_SHOWN])}{more}")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
