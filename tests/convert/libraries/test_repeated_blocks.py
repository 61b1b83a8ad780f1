"""Which blocks of a model are left out of a trace."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from vconv.convert.libraries.repeated_blocks import shortened, signature


class Block(nn.Module):
    def __init__(self, width: int = 4, epsilon: float = 1e-5, number: int = 0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=epsilon)
        self.drop = nn.Dropout(0.1 * number)
        self.layer_idx = number
        self.register_buffer("table", torch.ones(2), persistent=False)


class Model(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(number=number) for number in range(count))
        self.eval()

    def all(self) -> list[nn.Module]:
        return [*self.blocks]


def test_the_blocks_between_the_second_and_the_last_are_left_out_and_come_back() -> None:
    model = Model(6)
    before = [*model.state_dict()]
    with shortened(model, model.all()) as repeats:
        assert [name for name, _ in model.blocks.named_children()] == ["0", "1", "5"]
        assert repeats is not None
        assert [one["blocks.1.norm.weight"] for one in repeats.copies] == [
            f"blocks.{number}.norm.weight" for number in (2, 3, 4)
        ]
        assert repeats.preceding == {"blocks.0.norm.weight", "blocks.0.norm.bias"}
        assert repeats.following == {"blocks.5.norm.weight", "blocks.5.norm.bias"}
    assert [*model.state_dict()] == before


def test_they_come_back_after_an_error() -> None:
    model = Model(6)
    with pytest.raises(RuntimeError, match="stop"), shortened(model, model.all()):
        raise RuntimeError("stop")
    assert len(model.blocks) == 6


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_model_of_few_blocks_is_whole(count: int) -> None:
    model = Model(count)
    with shortened(model, model.all()) as repeats:
        assert repeats is None and len(model.blocks) == count


def wider(block: Block) -> None:
    block.norm = nn.LayerNorm(8)


def other_epsilon(block: Block) -> None:
    block.norm.eps = 1e-6


def other_class(block: Block) -> None:
    block.norm = nn.RMSNorm(4)  # type: ignore[assignment]


def other_table(block: Block) -> None:
    block.table[0] = 2  # type: ignore[index, operator]


def patched(block: Block) -> None:
    block.norm.forward = lambda x: 2 * x  # type: ignore[method-assign]


def without_bias(block: Block) -> None:
    block.norm.bias = None  # type: ignore[assignment]


@pytest.mark.parametrize("change", [wider, other_epsilon, other_class, other_table, patched, without_bias])
def test_a_model_with_one_block_that_computes_otherwise_is_whole(change: Callable[[Block], None]) -> None:
    model = Model(6)
    block = model.blocks[3]
    assert isinstance(block, Block)
    change(block.eval())
    with shortened(model, model.all()) as repeats:
        assert repeats is None and len(model.blocks) == 6


def test_what_only_numbers_a_block_or_does_nothing_in_an_evaluation_does_not_count() -> None:
    assert signature(Block(number=1).eval()) == signature(Block(number=2).eval())
    assert signature(Block(number=1)) != signature(Block(number=2)), "a dropout drops in training"
