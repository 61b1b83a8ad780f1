"""The table of passes, and the pipelines that exporting runs. A new pass is one file and one row here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vconv.convert.graphs.passes import (
    embed_weights,
    fix_batch,
    least_ir_version,
    name_batch,
    optimise,
    point_at_weights,
    resize_as_matmul,
    strip_metadata,
)
from vconv.convert.graphs.passes.base import Pass

PASSES: Mapping[str, Pass] = {
    one.name: one
    for one in (
        optimise.PASS,
        point_at_weights.PASS,
        resize_as_matmul.PASS,
        strip_metadata.PASS,
        least_ir_version.PASS,
        name_batch.PASS,
        fix_batch.PASS,
        embed_weights.PASS,
    )
}
"""Every pass, by name."""

TRACED = ("optimise", "point-at-weights", "resize-as-matmul", "strip-metadata", "least-ir-version")
"""What makes a graph of what the exporter traced, for any batch."""
DYNAMIC = ("name-batch", "strip-metadata")
"""What makes the graph with a dynamic batch of that."""
STATIC = ("fix-batch", "strip-metadata")
"""What makes the graph with a fixed batch of that."""
ALONE = ("embed-weights",)
"""What makes a graph that needs no weights file of either."""


def named(names: Iterable[str]) -> list[Pass]:
    """Return passes by name, in the order given; a name may stand there more than once.

    Raises:
        KeyError: there is no such pass: pipelines are vconv's own.
    """
    return [PASSES[name] for name in names]
