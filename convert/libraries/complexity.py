"""How large a model is: its parameters, multiply-accumulates and activations for one image.

torch's own ``FlopCounterMode`` counts no activations; its table of operations is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vconv.convert.libraries import models
from vconv.convert.libraries.table import library_of
from vconv.convert.network import Network


@dataclass(frozen=True)
class Complexity:
    """What one forward pass of one image takes.

    Args:
        parameters: elements of all parameters.
        multiply_accumulates: of matrix products and convolutions, those of attention too.
        activations: elements that these products and convolutions give.
    """

    parameters: int
    multiply_accumulates: int
    activations: int


class _Counting(TorchDispatchMode):
    """Counts what products and convolutions take and give, while it is on."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.multiply_accumulates = self.activations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        floating_point_operations = flop_registry.get(func.overloadpacket)
        if floating_point_operations is not None:
            self.multiply_accumulates += (
                floating_point_operations(*args, **(kwargs or {}), out_val=result) // 2
            )
            self.activations += result.numel()
        return result


def measure(folder: Path, network: Network, size: tuple[int, int]) -> Complexity:
    """Count on shapes alone, attention spelled out as products; no weight is read.

    Activations are counted as Radosavovic et al. (2020, arXiv:2003.13678, section 2) do, over the products of
    attention too; torch's own table gives the operations of each operator, two to a multiply-accumulate.

    Args:
        folder: a folder with the network's configuration.
        network: what it is.
        size: (height, width) of an image.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    model = models.without_weights(folder, network, mode)
    wrapper = models.Outputs(model, network).eval()
    counting = _Counting()
    with mode, torch.no_grad(), library_of(network).plain_attention(model), counting:
        wrapper(torch.empty(1, network.numbers.channels, *size))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Complexity(parameters, counting.multiply_accumulates, counting.activations)
