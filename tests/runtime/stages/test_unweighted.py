from __future__ import annotations

from collections.abc import Sequence

from onnx import NodeProto, helper

from vconv.runtime.stages.unweighted import stages_by_use

WEIGHTS = {"w0": 0, "w1": 1, "w2": 2}


def staged(nodes: Sequence[NodeProto]) -> dict[str, int]:
    """Return the stages of the latest weights, and then those by use."""
    stages, content = {**WEIGHTS, "x": 0}, {"x"}
    for node in nodes:
        stages[node.output[0]] = max(stages.get(name, 0) for name in node.input)
        if not content.isdisjoint(node.input):
            content.update(node.output)
    return stages_by_use(nodes, stages, WEIGHTS, content)


def node(operator: str, output: str, *inputs: str) -> NodeProto:
    return helper.make_node(operator, list(inputs), [output])


def block(number: int, tokens: str) -> list[NodeProto]:
    """A norm without a bias, and a residual connection, after the tokens of the block before."""
    names = ("mean", "difference", "normal", "scaled", "tokens")
    mean, difference, normal, scaled, after = (f"{name}{number}" for name in names)
    return [
        node("ReduceMean", mean, tokens),
        node("Sub", difference, tokens, mean),
        node("Relu", normal, difference),
        node("Mul", scaled, normal, f"w{number}"),
        node("Add", after, tokens, scaled),
    ]


EMBEDDINGS = [node("MatMul", "tokens0", "x", "w0")]


def test_a_norm_belongs_to_the_block_of_its_scale() -> None:
    found = staged([*EMBEDDINGS, *block(1, "tokens0"), *block(2, "tokens1")])
    for number in (1, 2):
        for name in ("mean", "difference", "normal", "scaled", "tokens"):
            assert found[f"{name}{number}"] == number, name
    assert found["tokens0"] == 0


def test_the_norm_of_an_output_after_a_block_belongs_to_the_head() -> None:
    """Its first part comes from the tokens of the block, which the next block's norm takes too."""
    nodes = [*EMBEDDINGS, *block(1, "tokens0"), node("ReduceMean", "mean_out", "tokens0")]
    nodes += [node("Sub", "difference_out", "tokens0", "mean_out"), *block(2, "tokens1")]
    nodes += [node("Mul", "out", "difference_out", "w2")]
    found = staged(nodes)
    assert [found[name] for name in ("mean_out", "difference_out", "out")] == [2, 2, 2]
    assert [found[name] for name in ("mean1", "difference1", "normal1")] == [1, 1, 1]


def test_what_has_no_single_way_through_stays() -> None:
    nodes = [*EMBEDDINGS, node("Relu", "one", "x"), node("Add", "two", "one", "tokens0")]
    nodes += [node("Mul", "both", "two", "w1"), node("Sub", "three", "both", "one")]
    found = staged(nodes)
    assert [found[name] for name in ("one", "tokens0", "two")] == [0, 0, 0]
