"""The size of a model: its parameters, multiply-accumulates and activations for one image.

torch's ``FlopCounterMode`` does not count activations. Only its table of operations is used here.
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
    """The cost of one forward pass of one image.

    Args:
        parameters: number of elements of all parameters.
        multiply_accumulates: number of multiply-accumulates in matrix products and convolutions, attention
            included.
        activations: number of elements in the results of these products and convolutions.
    """

    parameters: int
    multiply_accumulates: int
    activations: int


class _Counting(TorchDispatchMode):
    """Counts the operations and output elements of products and convolutions while it is active."""

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
    """Count the cost of a network from shapes alone, without reading weights.

    Attention is computed with plain matrix products, so that they are counted. Activations are counted as in
    Radosavovic et al. (2020, arXiv:2003.13678, section 2), with the products of attention included. torch's
    table returns the operations of each operator; two operations make one multiply-accumulate.

    Args:
        folder: a folder with the network's configuration.
        network: the network.
        size: (height, width) of an image.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    model = models.without_weights(folder, network, mode)
    wrapper = models.Outputs(model, network).eval()
    counting = _Counting()
    plain = library_of(network).plain_attention(model, network)
    with models.caches_cleared(model), mode, torch.no_grad(), plain, counting:
        wrapper(torch.empty(1, network.known.channels, *size))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Complexity(parameters, counting.multiply_accumulates, counting.activations)
