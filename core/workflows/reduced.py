"""Plan graphs in reduced precision on calibration images, and write them: a part of `vconv export`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vconv.artifact.reduction_records import LossesRecord, RangeRecord, ReductionRecord
from vconv.convert.ascend.atc import KEEP_DTYPE_FILE
from vconv.convert.reduced import choices, writing
from vconv.convert.reduced.plan import Plan
from vconv.errors import InputError
from vconv.precisions import INT8_DYNAMIC, MIXED, PRECISIONS
from vconv.runtime.devices.base import Device
from vconv.runtime.inputs.images import natural_images
from vconv.runtime.inputs.preprocessing import preprocess
from vconv.types import GRAPHS, Array, Say
from vconv.validators.accuracy.losses import Losses
from vconv.validators.accuracy.other_sizes import images_at
from vconv.workflows import sample_images
from vconv.workflows.reduction_plans import Calibration, Planner
from vconv.workflows.sample_images import SAMPLE_IMAGES

_MADE_UP = 16
"""The number of made-up images on which plans are made if there are no photographs."""
_FOR_NPU = next(graph.path for graph in GRAPHS if graph.for_npu)


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

    def record(self) -> ReductionRecord:
        """Return what the manifest says of it.

        A precision without a choice has no images, no greatest loss and no losses.
        """
        lost = self.losses
        return ReductionRecord(
            kept=tuple(sorted(self.plan.kept)),
            quantised={
                name: RangeRecord(least=how.activation.least, greatest=how.activation.greatest)
                if how.activation
                else None
                for name, how in sorted(self.plan.quantised.items())
            },
            images=self.images if lost else 0,
            made_up=self.made_up and lost is not None,
            share=self.share,
            max_drop=self.max_drop if lost else None,
            losses=LossesRecord(cosine=lost.cosine, neighbours=lost.neighbours, top1=lost.top1)
            if lost
            else None,
        )


def calibration_images(
    folder: Path,
    photographs: Sequence[Image.Image],
    seed: int,
    size: tuple[int, int],
    elsewhere: Sequence[tuple[int, int]] = (),
    recorded: Array | None = None,
) -> Calibration:
    """Preprocess photographs, or, if there are none, made-up images: other ones than those that are recorded.

    Args:
        folder: a folder with the system's ``preprocessor_config.json``.
        photographs: the photographs.
        seed: the seed of the recorded images, if they are made up.
        size: (height, width) that the preprocessed images must have.
        elsewhere: other sizes at which the artifact is judged.
        recorded: the recorded images, float32 (N, 3, H, W), normalised; None if the plan is made on them.
    """
    images = photographs or natural_images(_MADE_UP, seed + SAMPLE_IMAGES)
    pixel_values = preprocess(folder, images)
    sample_images.require_size(pixel_values, size)
    return Calibration(
        pixel_values,
        not photographs,
        tuple(images_at(pixel_values, elsewhere)),
        () if recorded is None else (recorded, *images_at(recorded, elsewhere)),
    )


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
        max_drop: the greatest share of anything that may be lost on the calibration images, beside 80 % of
            the limits of the precision; None for these alone.
        device: the CPU.
        say: receives progress lines.

    Raises:
        InputError: no product can be in low precision.
        WeightsError: a weight is too large for the narrow type.
    """
    planned = any(PRECISIONS[precision].planned for precision in precisions)
    if calibration.made_up and planned:
        say("plans are made on made-up images: --calibration takes photographs")
    planner = Planner(folder, calibration, batch, max_drop, device, say)
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
        got="losses beyond 80 % of the limits" if max_drop is None else f"--max-drop {max_drop:g}",
        expected="at least one product within 80 % of the limits of the precision, and within --max-drop",
        fix=f"leave {named} out" + " or give a greater --max-drop" * (max_drop is not None),
    )
