from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vconv.runtime.devices.probe import UNKNOWN, gelu_form, probe
from vconv.runtime.devices.table import find_device

SEEDS = 50


def test_a_cpu_computes_exactly_and_claims_nothing() -> None:
    found = probe(find_device("cpu"))
    assert {name: reading.active for name, reading in found.items()} == {
        "gelu": "erf",
        "convolution": "fp32",
        "matmul": "fp32",
    }
    assert all(reading.claimed == "" and reading.as_claimed for reading in found.values())


@pytest.mark.parametrize(
    ("gelu", "form"),
    [
        (functional.gelu, "erf"),
        (lambda x: functional.gelu(x, approximate="tanh"), "tanh"),
        (lambda x: functional.gelu(x.half()).float(), UNKNOWN),
        (lambda x: x * torch.sigmoid(1.702 * x), UNKNOWN),
        (functional.relu, UNKNOWN),
        (lambda x: (functional.gelu(x) + functional.gelu(x, approximate="tanh")) / 2, UNKNOWN),
    ],
    ids=["erf", "tanh", "float16, too coarse to tell", "sigmoid", "relu", "half of each"],
)
def test_a_gelu_is_known_by_its_values(gelu: Callable[[Tensor], Tensor], form: str) -> None:
    assert gelu_form(gelu, "cpu").active == form


def test_every_way_of_computing_is_told_from_the_others_whatever_the_operands(
    simulating: Callable[..., Any],
) -> None:
    found = simulating(
        """
import itertools
from vconv.runtime.devices.table import find_device
from vconv.runtime.devices.probe import probe
device = find_device("npu")
result = []
for gelu, convolution, matmul in itertools.product(("erf", "tanh"), ROUNDINGS, ROUNDINGS):
    state.configure(Arithmetic(gelu, convolution, matmul))
    wrong = 0
    for seed in range(given["seeds"]):
        readings = probe(device, seed)
        active = tuple(readings[name].active for name in (GELU, CONVOLUTION, MATMUL))
        wrong += active != (gelu, convolution, matmul)
    result.append([[gelu, convolution, matmul], wrong])
""",
        seeds=SEEDS,
    )
    ways = ("fp32", "hf32", "fp16")
    assert [tuple(settings) for settings, _ in found] == list(itertools.product(("erf", "tanh"), ways, ways))
    assert [wrong for _, wrong in found] == [0] * 18


def test_what_the_settings_claim_is_held_against_what_is_done(simulating: Callable[..., Any]) -> None:
    found = simulating("""
from vconv.runtime.devices.table import find_device
from vconv.runtime.devices.probe import probe
result = {}
for profile in PROFILES:
    state.configure(PROFILES[profile])
    readings = probe(find_device("npu"))
    result[profile] = {name: [r.active, r.claimed, r.as_claimed] for name, r in readings.items()}
""")
    assert found == {
        "910b": {
            "gelu": ["tanh", "", True],
            "convolution": ["hf32", "hf32", True],
            "matmul": ["fp32", "fp32", True],
        },
        "310p": {
            "gelu": ["tanh", "", True],
            "convolution": ["fp16", "hf32", False],
            "matmul": ["fp16", "fp32", False],
        },
    }
