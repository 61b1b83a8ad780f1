"""The two ways to an offline model: ATC reads a graph of ONNX, or one of Ascend IR that torchair makes.

Sources: repository github.com/Ascend/torchair,
``docs/zh/ascend_ir/features/advanced/dynamo_export.md`` (what ``dynamo_export`` writes, and its bound) and
``python/torchair/_ge_concrete_graph/export_utils.py`` (from which size on it writes weights to separate
files); repository github.com/mirror-cann/ge,
``docs/zh/user_guides/atc_tools/CLI_options/--framework.md`` (the values of ``--framework``, and which options
have no effect on a file of Ascend IR) and ``api/atc/main_impl.cc`` (``--output_type`` is not read for one).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

GREATEST_PROTOBUF = 2**31 - 1
"""Greatest size of a protobuf message, and so of a graph with embedded weights.

Source: https://protobuf.dev/overview/.
"""
GREATEST_INSIDE = (2048 - 200) * 2**20
"""Greatest size of a graph of Ascend IR, with its weights, that torchair writes as one file."""


@dataclass(frozen=True)
class Route:
    """One way from an artifact's network to its offline model.

    Args:
        name: the value of ``--format``; also the folder of the artifact with all files of the offline model,
            and the beginning of the variant's name.
        framework: the value of ATC's ``--framework``.
        graph: the file that ATC reads.
        described: whether ATC heeds its options for the shape of the input and the type of the outputs.
        named: whether the offline model has our names of its input and outputs.
        widened: whether the graph has float32 weights, whatever the weights file has.
        gears: whether it is known that ATC takes gears.
        greatest_bytes: the greatest size of the graph with its weights.
        bound: why that is so.
        kinds: what the graph calls an operator type of ONNX's route, if it has other names for it.
        maker: the script of the artifact that makes the graph; empty if export makes it.
        later: files beside the offline model that its scripts make after the export.
    """

    name: Literal["om", "air"]
    framework: str
    graph: str
    described: bool
    named: bool
    widened: bool
    gears: bool
    greatest_bytes: int
    bound: str
    kinds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    maker: str = ""
    later: tuple[str, ...] = ()


ONNX_ROUTE = Route(
    "om",
    framework="5",
    graph="model.onnx",
    described=True,
    named=True,
    widened=False,
    gears=True,
    greatest_bytes=GREATEST_PROTOBUF,
    bound="ATC needs a graph with embedded weights, and protobuf allows no message of more than 2 GB",
)
AIR_ROUTE = Route(
    "air",
    framework="1",
    graph="model.air",
    described=False,
    named=False,
    widened=True,
    gears=False,
    greatest_bytes=GREATEST_INSIDE,
    bound="beyond it, torchair writes the weights to separate files, and an offline model then finds "
    "them only at the path to which they were exported",
    kinds={"LayerNorm": ("LayerNormV4", "LayerNormV3")},
    maker="make_air.py",
    later=("model.air",),
)
ROUTES: Mapping[str, Route] = {route.name: route for route in (ONNX_ROUTE, AIR_ROUTE)}
"""Every route, by its value of ``--format``."""
