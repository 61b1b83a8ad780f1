"""Draws what a manifest says of graphs in reduced precision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vconv.cli.render.base import Cell, Document
from vconv.precisions import PRECISIONS


def reductions(variants: Iterable[Document]) -> Iterator[tuple[str, Cell]]:
    """Lay out how each reduced precision was planned: once for each weights file."""
    seen = set()
    for variant in variants:
        reduction = variant["reduction"]
        if reduction and variant["weights"] not in seen:
            seen.add(variant["weights"])
            kind = PRECISIONS[variant["precision"]].onnx.lower() if variant["precision"] in PRECISIONS else ""
            yield f"precision {variant['precision']}", _told(reduction, kind or variant["precision"])


def _told(reduction: Document, kind: str) -> str:
    products = f" ({len(reduction['quantised'])} products)" * bool(reduction["quantised"])
    parts = [f"{reduction['share']:.1%} of the multiply-adds{products} in {kind}"]
    if reduction["kept"]:
        parts.append(f"{len(reduction['kept'])} nodes stay in float32")
    if reduction["images"]:
        kind = "made-up images" if reduction["made_up"] else "photographs"
        parts.append(f"planned on {reduction['images']} {kind}")
    lost = reduction["losses"]
    if lost:
        found = [f"{lost['cosine']:.2g} of a token's cosine"]
        found += [
            f"{lost[key]:.2g} of {what}"
            for key, what in (("neighbours", "the neighbours"), ("top1", "the classes"))
            if lost[key] is not None
        ]
        parts.append("on which it loses " + ", ".join(found))
    return ", ".join(parts)
