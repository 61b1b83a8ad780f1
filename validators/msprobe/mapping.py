"""The mapping from operators of an offline model to nodes of a graph, which msprobe takes with ``-fr``.

For an offline model, ``atc --mode=1 --om=FILE --json=FILE`` writes it. The keys are those that
``msaccucmp/vector_cmp/fusion_manager/fusion_rule_parser.py`` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vconv.validators.msprobe.names import NodeName

DATA = "Data"
"""The type of an operator that stands for an input of the model."""
_TYPES = {
    **{"float32": "DT_FLOAT", "float16": "DT_FLOAT16", "float64": "DT_DOUBLE", "bool": "DT_BOOL"},
    **{f"{sign}int{bits}": f"DT_{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class Operator:
    """An operator of the (simulated) offline model.

    Args:
        type: its type, such as ``MatMul``; of a fused one, CANN's name.
        nodes: the nodes that it computes, in the graph's order; the last one gives its outputs.
        inputs: what it reads, as ``OPERATOR:INDEX``.
        dtypes: the types of its outputs.
    """

    type: str
    nodes: tuple[NodeName, ...]
    inputs: tuple[str, ...]
    dtypes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its name."""
        return self.nodes[-1].operator

    @property
    def ground_truth(self) -> str:
        """The nodes that it is compared with, as msprobe's table has them."""
        return ",".join(node.origin for node in self.nodes)


def document(inputs: Sequence[str], operators: Sequence[Operator]) -> dict[str, Any]:
    """Return the mapping, for a JSON file.

    Args:
        inputs: the names of the graph's inputs.
        operators: the operators, in the order in which they run.
    """
    data = [
        {
            "name": name,
            "type": DATA,
            "id": place,
            "input": [],
            "output_desc": [{"dtype": "DT_FLOAT", "attr": []}],
        }
        for place, name in enumerate(inputs)
    ]
    computed = [_described(one, len(inputs) + place) for place, one in enumerate(operators)]
    return {"graph": [{"name": "vconv", "op": [*data, *computed]}]}


def _described(one: Operator, number: int) -> dict[str, Any]:
    origin = one.nodes[-1].origin
    return {
        "name": one.name,
        "type": one.type,
        "id": number,
        "input": list(one.inputs),
        "attr": [_attribute("_datadump_original_op_names", "list", {"s": [n.origin for n in one.nodes]})],
        "output_desc": [
            {
                "dtype": _TYPES[dtype],
                "attr": [
                    _attribute("_datadump_origin_name", "s", origin),
                    _attribute("_datadump_origin_output_index", "i", index),
                ],
            }
            for index, dtype in enumerate(one.dtypes)
        ],
    }


def _attribute(key: str, kind: str, value: Any) -> dict[str, Any]:
    return {"key": key, "value": {kind: value}}
