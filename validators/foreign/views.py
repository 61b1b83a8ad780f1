"""Which outputs of a graph are judged, where they are, and what each is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from vconv.convert.architectures.outputs import TOKENS
from vconv.runtime.engines.adapted import View
from vconv.validators.foreign.contract import STATED, Contract, Matched
from vconv.validators.foreign.readings import Reading


@dataclass(frozen=True)
class JudgedOutput:
    """An output that is judged.

    Args:
        name: its name in reports: that of the output of the network; with the graph's name, if the graph
            gives it more than once.
        view: where it is in the outputs of the graph.
        reading: what it is compared with.
    """

    name: str
    view: View
    reading: str


def taken_for_another(contract: Contract, known: Mapping[str, Reading]) -> list[Matched]:
    """List the outputs that are something that is easily taken for an output of the network.

    One that is stated is meant so. One beside the output of the network that it is taken for does no harm.
    """
    given = {one.reading for one in contract.outputs}
    return [
        one
        for one in contract.outputs
        if known[one.reading].fault and one.how != STATED and known[one.reading].instead_of not in given
    ]


def judged(
    contract: Contract, known: Mapping[str, Reading], registers: int | None
) -> tuple[JudgedOutput, ...]:
    """List the outputs that are judged: every one that is an output of the network, or is stated.

    Args:
        contract: the contract of the graph.
        known: what an output may be.
        registers: the number of register tokens of a network with tokens; None for another network.

    Returns:
        They are in the order of ``known``. Of tokens, their parts are judged too. What is taken for an output
        of the network is judged as that output.
    """
    found: list[JudgedOutput] = []
    for one in contract.outputs:
        if not known[one.reading].fault or one.how == STATED:
            twice = any(other.reading == one.reading for other in found)
            name = f"{one.reading} ({one.output})" if twice else one.reading
            found.append(JudgedOutput(name, View(one.output, one.form), one.reading))
    for one in taken_for_another(contract, known):
        name = known[one.reading].instead_of
        found.append(JudgedOutput(name, View(one.output, one.form), name))
    tokens = next((one.view for one in found if one.name == TOKENS), None)
    if tokens and registers is not None:
        parts = {
            "cls": replace(tokens, tokens=(0, 1), single=True),
            "registers": replace(tokens, tokens=(1, 1 + registers)),
            "patches": replace(tokens, tokens=(1 + registers, None)),
        }
        there = {one.reading for one in found}
        found += [
            JudgedOutput(name, view, name) for name, view in parts.items() if name in known.keys() - there
        ]
    order = list(known)
    return tuple(sorted(found, key=lambda one: order.index(one.reading)))
