"""The table of fusion passes. A new pass is one row in the file of its kind."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from vconv.convert.ascend.fusions import attention, gelu, norms, products
from vconv.convert.ascend.fusions.base import Fusion, Match
from vconv.convert.graphs.inferred_types import typed

GELU = gelu.GELU
FUSIONS: Mapping[str, Fusion] = {
    fusion.name: fusion for fusion in (*gelu.FUSIONS, *norms.FUSIONS, *products.FUSIONS, *attention.FUSIONS)
}
"""Every pass that is known here to change a value of a vision transformer, by name.

What the passes do was read in sources and documents, and not tried on hardware. CANN has further passes: some
move or join nodes without changing a value, and some are not published.
"""


def firing(model: ir.Model) -> dict[str, list[Match]]:
    """Return where each pass would fire in a graph; a pass that fires nowhere is left out.

    A node may be in matches of several passes. CANN runs one pass after another, so that a later one may
    no longer find the node.

    Args:
        model: the graph. Of its weights, only numbers of one element are read. If it lacks types, they are
            inferred in a copy, whose nodes are then in the matches.
    """
    known = typed(model)
    found = {name: list(fusion.find(known)) for name, fusion in FUSIONS.items()}
    return {name: matches for name, matches in found.items() if matches}


def harmful(model: ir.Model) -> dict[str, list[Match]]:
    """Return where a pass would change a result or a precision, as :func:`firing` does."""
    found = {
        name: [match for match in matches if match.effect.harmful] for name, matches in firing(model).items()
    }
    return {name: matches for name, matches in found.items() if matches}
