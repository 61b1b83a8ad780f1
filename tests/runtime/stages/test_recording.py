from __future__ import annotations

import math

import torch
from torch import nn

from vconv.runtime.stages.base import TOKENS, Step
from vconv.runtime.stages.recording import Recorder, as_array


class Small(nn.Module):
    """A linear layer and a GELU, and something that does not come from what is given."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.activation = nn.GELU()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        beside = torch.ones(3) * 2
        return self.activation(self.linear(tokens)) + beside


def recorded(model: nn.Module, tokens: torch.Tensor) -> list[Step]:
    steps: list[Step] = []
    recorder = Recorder(model, steps.append)
    recorder.start(tokens)
    with recorder.inside(model), torch.no_grad(), recorder:
        model(tokens)
    return steps


def test_only_what_comes_from_the_tokens_is_recorded_with_its_module_and_weights() -> None:
    steps = recorded(Small(), torch.randn(2, 4))
    assert [(step.operator, step.node) for step in steps if "(" not in step.operator] == [
        ("addmm", "linear"),
        ("gelu", "activation"),
        ("add", ""),
    ]
    by_name = {step.operator: step for step in steps}
    assert set(by_name["addmm"].weights) == {"linear.weight", "linear.bias"}
    assert by_name["addmm"].inputs == (TOKENS,)
    assert by_name["gelu"].inputs == (by_name["addmm"].name,)


def test_what_torch_does_at_one_stroke_is_recorded_in_the_parts_that_a_graph_has() -> None:
    model, tokens = Small(), torch.randn(2, 4)
    values = {step.operator: torch.from_numpy(step.value) for step in recorded(model, tokens)}
    product = tokens @ model.linear.weight.T
    x = product + model.linear.bias
    torch.testing.assert_close(values["addmm (product)"], product)
    torch.testing.assert_close(values["addmm"], x)
    torch.testing.assert_close(values["gelu (half)"], x / 2)
    torch.testing.assert_close(values["gelu (scaled)"], x / math.sqrt(2))
    torch.testing.assert_close(values["gelu (erf)"], torch.erf(x / math.sqrt(2)))
    torch.testing.assert_close(values["gelu (one more)"], 1 + torch.erf(x / math.sqrt(2)))
    torch.testing.assert_close(values["gelu"], x / 2 * (1 + torch.erf(x / math.sqrt(2))))


def test_a_tanh_gelu_has_no_parts_of_the_exact_one() -> None:
    model = Small()
    model.activation = nn.GELU(approximate="tanh")
    operators = [step.operator for step in recorded(model, torch.randn(2, 4))]
    assert "gelu" in operators
    assert not any(operator.startswith("gelu (") for operator in operators)


def test_what_is_recorded_does_not_change_with_the_tensor() -> None:
    tensor = torch.ones(3, dtype=torch.bfloat16)
    array = as_array(tensor)
    tensor.add_(1)
    assert array.tolist() == [1.0, 1.0, 1.0]
    assert array.dtype == "float32"
    single = torch.ones(3)
    copied = as_array(single)
    single.add_(1)
    assert copied.tolist() == [1.0, 1.0, 1.0]
