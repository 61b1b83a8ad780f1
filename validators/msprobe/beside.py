"""msprobe's table and ours side by side, an operator a row."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from vconv.validators.msprobe.figures import COSINE, RELATIVE_L2
from vconv.validators.msprobe.names import NodeName
from vconv.validators.msprobe.table import Row, TheirRow, outputs_of

BOTH, OURS, THEIRS = "both", "ours", "theirs"
_NOWHERE = -1
"""The place of a node that is not in the graph."""


@dataclass(frozen=True)
class Pair:
    """One tensor in both tables, or in one of them.

    Args:
        operator: the operator: its name in their table, else in ours.
        type: its type, from the same table.
        nodes: the nodes of the graph that it stands for there, joined by commas.
        output: which of its outputs it is.
        found: ``both``, or the only table that has it.
        relative_l2: our relative Euclidean distance.
        cosine: our cosine.
        their_relative_l2: theirs, with six decimals.
        their_cosine: theirs.
        ratio: their relative Euclidean distance divided by ours; None without both, or if ours is 0.
    """

    operator: str
    type: str
    nodes: str
    output: int
    found: str
    relative_l2: float | None = None
    cosine: float | None = None
    their_relative_l2: float | None = None
    their_cosine: float | None = None
    ratio: float | None = None


def beside(ours: Sequence[Row], theirs: Sequence[TheirRow], nodes: Sequence[NodeName]) -> list[Pair]:
    """Match the rows of two tables of one graph.

    A fused operator stands for several nodes and gives what the last of them gave. So two rows are of one
    tensor if the last of their nodes, in the graph's order, and the number of the output are the same.
    A table of a real offline model has the nodes' own names. One that was made with our mapping has the names
    that the mapping leads to, which differ where vconv renamed a node.

    Args:
        ours: our rows.
        theirs: the rows that msprobe wrote.
        nodes: the nodes of the graph, in order.

    Returns:
        Their rows of outputs in their order, then the rows that only we have.
    """
    order = {name.origin: place for place, name in enumerate(nodes)}
    order |= {name.node: place for place, name in enumerate(nodes)}  # a node's own name comes first
    known = {(order[row.operator.nodes[-1].node], row.output): row for row in ours}
    matched: set[tuple[int, int]] = set()
    pairs = []
    for row, output in outputs_of(theirs):
        key = (max((order[node] for node in row.nodes if node in order), default=_NOWHERE), output)
        pairs.append(_pair(row, output, known.get(key)))
        matched.add(key)
    return pairs + [_alone(row) for key, row in known.items() if key not in matched]


def _pair(row: TheirRow, output: int, own: Row | None) -> Pair:
    figures = own.figures.values if own else {}
    mine = figures.get(RELATIVE_L2)
    ratio = row.relative_l2 / mine if mine and row.relative_l2 is not None else None
    return Pair(
        operator=row.operator,
        type=row.type,
        nodes=",".join(row.nodes),
        output=output,
        found=BOTH if own else THEIRS,
        relative_l2=mine,
        cosine=figures.get(COSINE),
        their_relative_l2=row.relative_l2,
        their_cosine=row.cosine,
        ratio=ratio,
    )


def _alone(row: Row) -> Pair:
    return Pair(
        operator=row.operator.name,
        type=row.operator.type,
        nodes=row.operator.ground_truth,
        output=row.output,
        found=OURS,
        relative_l2=row.figures.values[RELATIVE_L2],
        cosine=row.figures.values[COSINE],
    )


def write(path: Path, pairs: Sequence[Pair]) -> None:
    """Write the pairs as a CSV file, an empty cell for what is not there."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Pair)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(pair) for pair in pairs)
