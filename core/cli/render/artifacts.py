"""Draws the catalog, and the results of an export, a card, a reference and a fill, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import PurePosixPath

from vconv.cli.render.base import Cell, Document, FoldedText, pairs, show, sized, table, wrapped
from vconv.cli.render.commands import command, next_command
from vconv.cli.render.reductions import reductions
from vconv.cli.render.validation import remarks, variants
from vconv.types import weights_named
from vconv.validators.report.document import CheckRow
from vconv.validators.report.rows import VariantRow


def systems(rows: Sequence[Document]) -> None:
    """Draw the catalog by family: each system, and below it the hub id of its weights."""
    cells: list[list[Cell]] = []
    for (title, library), sizes in groupby(rows, key=lambda row: (row["family"], row["library"])):
        cells += [["", "", ""]] if cells else []
        cells.append([FoldedText(f"{title} ({library})", "bold"), "", ""])
        for row in sizes:
            cells.append([row["name"], "x".join(map(str, row["input"])), row["licence"]])
            cells.append([FoldedText(f"  {row['hub_id']}", "dim"), "", "gated" * row["gated"]])
    show(table(["system, and its hub id"], ["input", "<licence"], cells))
    if any(row["gated"] for row in rows):
        wrapped("gated: accept the licence on the hub, then log in with `hf auth login`")


def patched(patches: Iterable[Document]) -> list[tuple[str, Cell]]:
    """Lay out each patch with its proof, and whether it was applied."""
    return [
        (
            f"patch {patch['name']}",
            patch["proof"] if patch["applied"] else f"not applied: {patch['proof']}",
        )
        for patch in patches
    ]


def _offline(om: Document | None) -> list[tuple[str, Cell]]:
    """Lay out the offline model and whether it was compiled; empty if no offline model was requested."""
    if om is None:
        return []
    script = PurePosixPath(om["file"]).with_name("atc.sh")
    made = om["file"] if om["compiled"] else f"{om['file']} is not made: no {om['lacks']}; {script} makes it"
    how = f"{om['soc']}, {om['precision_mode']}; not run here: validate it on an NPU"
    return [(f"variant {om['variant']}", f"{made}; {how}")]


def exported(document: Document) -> None:
    """Draw the result of an export."""
    counts = document["ledger"]
    peak = document["peak_rss_bytes"]
    show(
        pairs(
            [
                ("artifact", document["artifact"]),
                ("weights", _weights(document)),
                (
                    "tensors",
                    ", ".join(f"{number} {what}" for what, number in counts.items() if what != "tensors"),
                ),
                *patched(document["patches"]),
                *_offline(document["om"]),
                *reductions(document["reduced"]),
                ("cost", f"{document['seconds']:.1f} s, peak memory {peak / 1e9:.2f} GB"),
            ],
        ),
        "",
    )
    if document["variants"]:
        rows = [VariantRow.model_validate(row) for row in document["variants"]]
        variants(rows, [CheckRow.model_validate(row) for row in document["checks"]])
        remarks(rows)
    else:
        show("no variant was run: --golden none leaves the reference and its checks out")
    next_command("next:", "fill" if document["without_weights"] else "validate", document)


def _weights(document: Document) -> str:
    label, given = document["weights"], document["weights_given"]
    named = label if given is None or document["weights_found_again"] else f"{given} ({label})"
    return weights_named(named, document["synthetic"])


def carded(document: Document) -> None:
    """Draw the result of writing a card."""
    wrapped(f"{document['file']} ({document['language']}), from vconv.json{_listed(document['reports'])}")
    if not document["reports"]:
        next_command("without measurements:", "validate", document)


def written_page(document: Document) -> None:
    """Draw the result of writing a folder to publish."""
    wrapped(
        f"{document['folder']} ({document['page']}, {document['language']}): {len(document['files'])} files, "
        f"from vconv.json{_listed(document['reports'])}"
    )
    for place, words in enumerate(document["publish"]):
        command("then:" if place else "to publish it:", *words)
    if not document["reports"]:
        next_command("without measurements:", "validate", document)


def _listed(names: Iterable[str]) -> str:
    return "".join(f", {name}" for name in names)


def referred(document: Document) -> None:
    """Draw the result of recording a reference."""
    size, digest = sized(document["nbytes"]), document["sha256"][:12]
    rows: list[tuple[str, Cell]] = [
        ("reference", document["reference"]),
        ("weights", weights_named(document["weights"], document["synthetic"])),
        ("device", f"{document['device']} ({document['device_model']}), {document['arithmetic']}"),
        ("inputs", ", ".join(document["images"])),
        *((f"floor {name}", f"{value:.1e}") for name, value in document["floor"].items()),
        ("file", f"{document['file']}, {size}, sha256 {digest}"),
    ]
    show(pairs(rows))
    command("next, on the other machine:", "vconv", "validate", "PATH", "--reference", document["file"])


def filled(document: Document) -> None:
    """Draw the result of filling an artifact."""
    size, digest = sized(document["nbytes"]), document["sha256"][:12]
    wrapped(f"{document['artifact']} has its weights: {size}, sha256 {digest}")
    next_command("next:", "validate", document)
