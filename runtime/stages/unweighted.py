"""The part of a block that has no weight: whose block it is, in a graph whose LayerNorms are spelled out.

A value belongs to the latest block whose weights it depends on. The operator ``LayerNormalization`` takes its
weights itself. If a LayerNorm is spelled out, as below opset 17, its mean and its variance come before its
weights, and would belong to the block before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from onnx import NodeProto


def stages_by_use(
    nodes: Sequence[NodeProto], stages: Mapping[str, int], weights: Collection[str], content: Collection[str]
) -> dict[str, int]:
    """Return the stages of the values that come after a block's last weight, by the stage that uses them.

    What follows the block's own tokens is moved. They are the first value after the block's last weight
    through which all goes that later stages take from this one.

    Args:
        nodes: the nodes of the graph, in topological order.
        stages: value -> the stage of the latest weight that it depends on.
        weights: the names of the weights.
        content: the values that depend on the content of the images.
    """
    uses: dict[str, list[NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            uses.setdefault(name, []).append(node)
    weighted = set(weights)
    for node in nodes:
        if node.output[0] not in content and not weighted.isdisjoint(node.input):
            weighted.update(node.output)
    found = dict(stages)
    for stage in range(max(stages.values())):
        own = [node for node in nodes if stages[node.output[0]] == stage and node.output[0] in content]
        last = max(
            (place for place, node in enumerate(own) if not weighted.isdisjoint(node.input)), default=0
        )
        for name in (name for node in own[last:] for name in node.output):
            after = _after(name, own)
            if _is_only_way(name, after, content, uses, stages, stage):
                for node in reversed(own):
                    if node.output[0] in after:
                        taken = [use for value in node.output for use in uses.get(value, ())]
                        later = min((found[use.output[0]] for use in taken), default=stage + 1)
                        found.update(dict.fromkeys(node.output, later))
                break
    return found


def _after(name: str, nodes: Iterable[NodeProto]) -> set[str]:
    """Return the values that nodes make from a value."""
    found = {name}
    for node in nodes:
        if not found.isdisjoint(node.input):
            found.update(node.output)
    return found - {name}


def _is_only_way(
    name: str,
    after: set[str],
    content: Iterable[str],
    uses: Mapping[str, Sequence[NodeProto]],
    stages: Mapping[str, int],
    stage: int,
) -> bool:
    """Return whether nothing but a value goes from its stage, and those before, into what comes after it."""
    return not any(
        use.output[0] in after or (stages[other] == stage < stages[use.output[0]])
        for other in content
        if stages[other] <= stage and other != name and other not in after
        for use in uses.get(other, ())
    )
