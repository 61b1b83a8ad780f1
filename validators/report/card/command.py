"""The options of ``vconv export`` that make an artifact again, read from its manifest."""

from __future__ import annotations

import re
import shlex

from vconv.artifact.manifest import Manifest
from vconv.artifact.records import GraphRecord, VariantRecord
from vconv.convert.ascend.aipp import STATIC
from vconv.convert.ascend.gears import told
from vconv.convert.ascend.operators import DEFAULT_NPU_OPSET
from vconv.convert.graphs.tracing import DEFAULT_OPSET
from vconv.convert.sources.base import STORED
from vconv.convert.sources.sizes import DYNAMIC
from vconv.precisions import PRECISIONS
from vconv.types import GRAPHS
from vconv.validators.checks.preprocessing import MADE_UP

_RANK3 = "attention-rank3"
"""The pass that only ``--attention rank3`` runs."""
_DEFAULTS = {
    "batch": 1,
    "opset": DEFAULT_OPSET,
    "npu-opset": DEFAULT_NPU_OPSET,
    "seed": 0,
    "aipp": STATIC,
    "periods": STORED,  # found in the weights: not an option
}
"""Values that need no option."""


def export_options(made: Manifest) -> str:
    """Return the options of ``vconv export`` that make an artifact again of the same weights.

    Options that have their defaults are left out, except the precision of an offline model, whose default
    depends on the processor. Photographs that were recorded (``--images``) or calibrated on
    (``--calibration``) are not named: the manifest has no paths of them. ``--keep-dtype`` is not recorded.
    """
    source = made.source
    size = ",".join(map(str, source.size or ()))
    if source.dynamic_size:
        size = f"{DYNAMIC}:{size}".removesuffix(":")
    static, dynamic = _graph(made, for_npu=True), _graph(made, for_npu=False)
    values = {
        "pool": source.pool,
        "periods": source.periods,
        "positions": source.positions,
        "size": size,
        "outputs": ",".join(source.outputs),
        "state-dict": source.state_dict,
        "layout": "facebook" if made.authors else None,
        "batch": static.batch if static else None,
        "opset": dynamic.graph.opset if dynamic and dynamic.graph else None,
        "npu-opset": npu_opset(made),
        "attention": "rank3" if static and static.graph and _RANK3 in static.graph.passes else None,
        "golden": None if made.golden else "none",
        "seed": _seed(made),
    }
    flags = {
        "allow-lossy": bool(source.losses),
        "without-weights": made.without_weights,
        "with-preprocessing": any(variant.contract.preprocessing for variant in made.variants),
    }
    values |= {"aipp": made.aipp}
    values |= _of_reductions(made)
    values |= _of_offline_model(made)
    words = [
        word
        for name, value in values.items()
        if value and value != _DEFAULTS.get(name)
        for word in (f"--{name}", str(value))
    ]
    return shlex.join([*words, *(f"--{name}" for name, given in flags.items() if given)])


def npu_opset(made: Manifest) -> int | None:
    """Return the opset of the graph for an NPU; None if it is the default, or there is no such graph."""
    found = _graph(made, for_npu=True)
    graph: GraphRecord | None = found.graph if found else None
    return graph.opset if graph and graph.opset != DEFAULT_NPU_OPSET else None


def _graph(made: Manifest, for_npu: bool) -> VariantRecord | None:
    names = [graph.name for graph in GRAPHS if graph.for_npu == for_npu]
    return next((record for record in made.variants if record.graph and record.variant in names), None)


def _of_offline_model(made: Manifest) -> dict[str, str]:
    offline = next((record.offline for record in made.variants if record.offline), None)
    if offline is None:
        return {}
    return {
        "format": offline.route,
        "soc": offline.soc,
        "om-precision": offline.precision_mode,
        "gears": ",".join(map(str, offline.gears)),
        "gears-size": told(offline.gears_size),
    }


def _of_reductions(made: Manifest) -> dict[str, str]:
    found = [(record.precision, record.reduction) for record in made.variants if record.reduction]
    names = dict.fromkeys(PRECISIONS[name].asked for name, _ in found if name in PRECISIONS)
    asked = next((one.max_drop for _, one in found if one.max_drop is not None), None)
    return {"precision": ",".join(names), "max-drop": "" if asked is None else f"{asked:g}"}


def _seed(made: Manifest) -> int | None:
    """Return the seed of the made-up images; None for photographs."""
    first = made.golden.images[0] if made.golden and made.golden.images else ""
    number = re.fullmatch(rf"{re.escape(MADE_UP)}(\d+)", first)
    return int(number[1]) if number else None
