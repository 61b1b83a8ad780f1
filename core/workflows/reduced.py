"""Plan graphs in reduced precision on calibration images, and write them: a part of `vconv export`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vconv.convert.ascend.atc import KEEP_DTYPE_FILE
from vconv.convert.reduced import choices, writing
from vconv.convert.reduced.plan import Plan
from vconv.errors import InputError
from vconv.precisions import INT8_DYNAMIC, MIXED, PRECISIONS
from vconv.runtime.devices.base import Device
from vconv.runtime.inputs.images import natural_images
from vconv.runtime.inputs.preprocessing import preprocess
from vconv.types import GRAPHS, WEIGHTS_FILE, Array, Say
from vconv.validators.accuracy.losses import Losses
from vconv.validators.checks.inspected_graph import InspectedGraph, open_graph
from vconv.workflows import originals
from vconv.workflows.originals import SAMPLE_IMAGES
from vconv.workflows.reduction_plans import Planner

_MADE_UP = 16
"""The number of made-up images on which plans are made if there are no photographs."""
_FOR_NPU = next(graph.path for graph in GRAPHS if graph.for_npu)


@dataclass(frozen=True)
class Calibration:
    """The images on which plans are made.

    Args:
        pixel_values: float32 (N, 3, H, W), normalised.
        made_up: whether they are made up, and not photographs.
    """

    pixel_values: Array
    made_up: bool


@dataclass(frozen=True)
class Reduced:
    """A reduced precision that was written.

    Args:
        plan: what is computed in which type.
        passes: the passes that made each graph, by its path in the artifact.
        share: the share of the multiply-adds in low precision, from 0 to 1.
        losses: what is lost on the calibration images; None for a precision without a choice.
        images: the number of calibration images.
        made_up: whether they are made up.
        max_drop: the greatest loss that was asked for.
    """

    plan: Plan
    passes: Mapping[str, tuple[str, ...]]
    share: float
    losses: Losses | None
    images: int
    made_up: bool
    max_drop: float | None


def calibration_images(
    folder: Path, photographs: Sequence[Image.Image], seed: int, size: tuple[int, int]
) -> Calibration:
    """Preprocess photographs, or, if there are none, made-up images: other ones than those that are recorded.

    Args:
        folder: a folder with the system's ``preprocessor_config.json``.
        photographs: the photographs.
        seed: the seed of the recorded images, if they are made up.
        size: (height, width) that the preprocessed images must have.
    """
    images = photographs or natural_images(_MADE_UP, seed + SAMPLE_IMAGES)
    pixel_values = preprocess(folder, images)
    originals.require_size(pixel_values, size)
    return Calibration(pixel_values, made_up=not photographs)


def reduced_graphs(
    folder: Path, graphs: Sequence[InspectedGraph], made: Sequence[Reduced]
) -> list[InspectedGraph]:
    """Read the graphs in reduced precision, each beside what the graph in float32 is compared with."""
    plain = {graph.name: graph for graph in graphs}
    return [
        open_graph(folder, path, weights, like.network, like.size, like.batch, any_size=like.any_size)
        for one in made
        for path in one.passes
        for weights, like in ((f"{one.plan.precision}/{WEIGHTS_FILE}", plain[Path(path).name]),)
    ]


def write_reduced(
    folder: Path,
    precisions: Sequence[str],
    calibration: Calibration,
    batch: int,
    max_drop: float | None,
    device: Device,
    say: Say,
) -> list[Reduced]:
    """Plan and write the graphs of an artifact in reduced precisions.

    Args:
        folder: the artifact; its weights file and its graphs in float32 are written.
        precisions: the names of the precisions.
        calibration: the images.
        batch: the batch of the graph for an NPU.
        max_drop: the greatest share of anything that may be lost on the calibration images, beside the limits
            of the precision; None for the limits alone.
        device: the CPU.
        say: receives progress lines.

    Raises:
        InputError: no product can be in low precision.
        WeightsError: a weight is too large for the narrow type.
    """
    planned = any(PRECISIONS[precision].planned for precision in precisions)
    if calibration.made_up and planned:
        say("plans are made on made-up images: --calibration takes photographs")
    planner = Planner(folder, calibration.pixel_values, batch, max_drop, device, say)
    found = []
    for precision in precisions:
        if not planner.possible(precision):
            raise _impossible(precision)
        if PRECISIONS[precision].planned:
            say(f"planning {precision} on {len(calibration.pixel_values)} images")
        plan, lost = planner.plan(precision)
        share = planner.share(plan)
        if not share:
            raise _nothing_left(precision, max_drop)
        # CANN lists no operator that finds a range while it runs.
        graphs = [graph.path for graph in GRAPHS if precision != INT8_DYNAMIC or not graph.for_npu]
        made = writing.write(folder, graphs, plan, say)
        if precision == MIXED:
            listed = choices.keep_dtype_list(planner.models[_FOR_NPU], MIXED, plan.kept)
            (folder / MIXED / KEEP_DTYPE_FILE).write_text(listed)
        images, made_up = len(calibration.pixel_values), calibration.made_up
        found.append(Reduced(plan, made, share, lost, images, made_up, max_drop))
    return found


def _impossible(precision: str) -> InputError:
    named = PRECISIONS[precision].asked
    return InputError(
        f"the network has no product that {named} can compute",
        got=f"--precision {named}",
        expected="products with weights, in the opset of the graphs",
        fix=f"leave {named} out",
    )


def _nothing_left(precision: str, max_drop: float | None) -> InputError:
    named = PRECISIONS[precision].asked
    return InputError(
        f"no product can be in low precision with --precision {named}",
        got="losses beyond the limits" if max_drop is None else f"--max-drop {max_drop:g}",
        expected="at least one product within the limits of the precision, and of --max-drop",
        fix=f"leave {named} out" + " or give a greater --max-drop" * (max_drop is not None),
    )
