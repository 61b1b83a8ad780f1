"""The table of passes, and the pipelines that an export runs. A new pass is one file and one row here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vconv.convert.graphs.passes import (
    attention_rank3,
    col2im_as_conv_transpose,
    embed_weights,
    fix_batch,
    least_ir_version,
    lower_opset,
    name_axes,
    name_batch,
    narrow,
    optimise,
    point_at_weights,
    quantise,
    range_as_slice,
    remove_unused,
    repeat_blocks,
    resize_as_matmul,
    strip_metadata,
    take_images,
)
from vconv.convert.graphs.passes.base import Pass

PASSES: Mapping[str, Pass] = {
    one.name: one
    for one in (
        optimise.PASS,
        point_at_weights.PASS,
        resize_as_matmul.PASS,
        col2im_as_conv_transpose.PASS,
        range_as_slice.PASS,
        remove_unused.PASS,
        strip_metadata.PASS,
        repeat_blocks.PASS,
        least_ir_version.PASS,
        name_batch.PASS,
        name_axes.PASS,
        fix_batch.PASS,
        attention_rank3.PASS,
        lower_opset.PASS,
        take_images.PASS,
        narrow.PASS,
        quantise.PASS,
        embed_weights.PASS,
    )
}
"""Every pass, by name."""

TRACED = (
    "optimise",
    "point-at-weights",
    "resize-as-matmul",
    "col2im-as-conv-transpose",
    "remove-unused",
    "strip-metadata",
    "least-ir-version",
)
"""Passes on the exporter's output; the result is the graph for all batches."""
TRACED_AT_ANY_SIZE = (
    "optimise",
    "point-at-weights",
    "resize-as-matmul",
    "col2im-as-conv-transpose",
    "range-as-slice",
    "remove-unused",
    "strip-metadata",
    "least-ir-version",
)
"""Passes on the exporter's output for images of any size; the result is for all batches and sizes."""
DYNAMIC = ("name-batch", "strip-metadata", "repeat-blocks")
"""Passes that then make the graph with a dynamic batch."""
DYNAMIC_SIZE = ("name-axes", "strip-metadata", "repeat-blocks")
"""Passes that then make the graph with a dynamic batch, height and width."""
FOR_NPU = ("lower-opset", "remove-unused", "least-ir-version")
"""Passes that write a graph in the opset for the NPU."""
STATIC = ("fix-batch", *FOR_NPU, "strip-metadata", "repeat-blocks")
"""Passes that then make the graph with a fixed batch, for an NPU."""
STATIC_RANK3 = ("fix-batch", attention_rank3.PASS.name, *FOR_NPU, "strip-metadata", "repeat-blocks")
"""Passes that make the same graph, with attention over tensors of rank 3."""
NARROWED = ("narrow", "remove-unused", "strip-metadata")
"""Passes that make a graph in float16 or bfloat16 of one in float32."""
QUANTISED = ("quantise", "remove-unused", "strip-metadata")
"""Passes that make a graph with products of 8-bit whole numbers of one in float32."""
FROM_IMAGES = ("name-batch", "take-images", "strip-metadata", "repeat-blocks")
"""Passes that then make the graph that takes uint8 images."""
COMPILED = (*FOR_NPU, "embed-weights")
"""Passes that then make the graph, dynamic or static, that ATC compiles."""
COMPILED_RANK3 = (attention_rank3.PASS.name, *COMPILED)
"""Passes that make the same graph, with attention over tensors of rank 3."""


def named(names: Iterable[str]) -> list[Pass]:
    """Return passes by name, in the order given; a name may occur more than once.

    Raises:
        KeyError: there is no such pass. This is an error in vconv, because users do not name passes.
    """
    return [PASSES[name] for name in names]
