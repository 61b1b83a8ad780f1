"""Plans of graphs in reduced precision, made and tried on images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx_ir as ir

from vconv.convert.files import safetensors_file
from vconv.convert.files.safetensors_file import TensorEntry, read_header
from vconv.convert.graphs.inferred_types import typed
from vconv.convert.graphs.passes import table as passes
from vconv.convert.graphs.passes.base import PassContext, run_passes
from vconv.convert.reduced import choices, quantised_weights
from vconv.convert.reduced.islands import NARROW_TYPES, always_wide, around
from vconv.convert.reduced.plan import Plan
from vconv.convert.reduced.products import WeightProduct, multiply_adds, shaped, weight_products
from vconv.disk import require_space
from vconv.precisions import INT8, INT8_DYNAMIC, MIXED, PRECISIONS
from vconv.progress import ProgressMeter
from vconv.runtime.calibration import Seen, observe
from vconv.runtime.devices.base import Device
from vconv.runtime.engines.base import in_batches
from vconv.runtime.engines.onnxruntime import piece_of_session
from vconv.runtime.engines.rounding import rounded
from vconv.types import GRAPHS, INPUT, WEIGHTS_FILE, Array, Say, Status
from vconv.validators.accuracy.limits import STRICT
from vconv.validators.accuracy.losses import Losses, losses
from vconv.validators.accuracy.metrics import vector_relative_error
from vconv.validators.accuracy.verdicts import judge, overall

_DYNAMIC = next(graph.path for graph in GRAPHS if not graph.for_npu)
_FOR_NPU = next(graph.path for graph in GRAPHS if graph.for_npu)
_OF_THE_LIMIT = 0.8
"""The share of a limit that a plan may take up, because other images lose more: an int8 plan of a DINOv3-S
that kept 0.1 on 16 crops of photographs lost 0.11 on two others."""
_RANKED_ON = 4
"""The number of images on which products are ranked by what quantising each of them alone costs."""


@dataclass(frozen=True)
class Calibration:
    """The images on which plans are made.

    Args:
        pixel_values: float32 (N, 3, H, W), normalised.
        made_up: whether they are made up, and not photographs.
        elsewhere: images of other sizes, if the dynamic graph takes images of any size.
        recorded: the recorded images, an array for each size, if they are others: a plan keeps to the limits
            on them too. No range is taken from them, and they do not count among the losses.
    """

    pixel_values: Array
    made_up: bool
    elsewhere: tuple[Array, ...] = ()
    recorded: tuple[Array, ...] = ()

    @property
    def every(self) -> tuple[Array, ...]:
        """The images of the plan, an array for each size."""
        return (self.pixel_values, *self.elsewhere)

    @property
    def judged(self) -> tuple[Array, ...]:
        """The images of the plan, and the recorded ones."""
        return (*self.every, *self.recorded)


class Planner:
    """Plans one precision after another.

    Args:
        folder: the artifact; its weights file and its graphs in float32 are written.
        images: the images on which plans are made.
        batch: the batch of the graph for an NPU.
        max_drop: the greatest share of anything that may be lost on the images, beside 80 % of the limits of
            the precision; None for these alone.
        device: the CPU.
        say: receives progress lines.
    """

    def __init__(
        self,
        folder: Path,
        images: Calibration,
        batch: int,
        max_drop: float | None,
        device: Device,
        say: Say,
    ) -> None:
        self._folder, self._images = folder, images
        self._batch, self._max_drop, self._device, self._say = batch, max_drop, device, say
        self.models = {graph.path: typed(ir.load(folder / graph.path)) for graph in GRAPHS}
        self._entries = read_header(folder / WEIGHTS_FILE)
        self._quantised: dict[str, TensorEntry] = {}

    def possible(self, precision: str) -> bool:
        """Return whether any product of the network can be in a precision."""
        if precision in NARROW_TYPES:
            return self.share(Plan(precision)) > 0
        return bool(choices.quantisable(self.models[_DYNAMIC]))

    def plan(self, precision: str) -> tuple[Plan, Losses | None]:
        """Plan one precision.

        Returns:
            The plan, and what is lost on the images; None for a precision without a choice.
        """
        return _PLANS[precision](self, precision)

    def whole(self, precision: str) -> tuple[Plan, None]:
        """Plan a graph in a narrow type, without a choice."""
        return Plan(precision), None

    def mixed(self, precision: str) -> tuple[Plan, Losses]:
        """Plan a graph in float16: first with as few nodes in float32 as possible, and then with more."""
        weights = choices.magnitudes(self._entries)
        kept: set[str] = set()
        for name, model in self.models.items():
            seen = {key: one.magnitude for key, one in self._observed(name).items()}
            kept |= choices.overflowing(model, seen, weights) | around(model)
        wider = kept | {name for model in self.models.values() for name in choices.others(model)}
        for nodes in (kept, wider):
            plan = choices.mixed(nodes)
            found = self.tried(plan)
            if found.fits:
                return plan, found.losses
        dtype = NARROW_TYPES[precision]
        free = {
            name: choices.products(model) - wider - always_wide(model, dtype)
            for name, model in self.models.items()
        }
        # Products that another form of attention has in one graph alone are not tried one by one.
        wider |= set.symmetric_difference(*free.values())
        products = sorted(set.intersection(*free.values()))
        plans = [choices.mixed(wider | {*products} - {name}) for name in products]
        return self._searched(plans, products, lambda left: choices.mixed(wider | {*left}), "products")

    def quantised(self, precision: str) -> tuple[Plan, Losses]:
        """Plan a graph with 8-bit products: with all of them, and then with fewer."""
        groups = choices.quantisable(self.models[_DYNAMIC])
        plan = self._ranges(groups) if precision == INT8 else choices.quantised_by_run(groups)
        scratch = self._folder / "calibration.safetensors"
        products = weight_products(self.models[_DYNAMIC])
        tensors = quantised_weights.planned(self._entries, products, plan, both=True)
        require_space(self._folder, sum(tensor.nbytes for tensor in tensors))
        try:
            safetensors_file.write(scratch, tensors)
            self._quantised = read_header(scratch)
            found = self.tried(plan)
            if found.fits:
                return plan, found.losses
            names = [{product.weight for product in group} for group in groups]
            alone = [choices.without(plan, plan.quantised.keys() - group) for group in names]

            def left_out(left: Iterable[frozenset[str]]) -> Plan:
                return choices.without(plan, {name for group in left for name in group})

            return self._searched(
                alone, [frozenset(group) for group in names], left_out, "groups of products"
            )
        finally:
            scratch.unlink(missing_ok=True)

    def _searched(
        self, alone: Sequence[Plan], parts: Sequence[object], left: Callable[..., Plan], what: str
    ) -> tuple[Plan, Losses]:
        """Find the least number of parts to leave in float32: first those that lose most for what they save.

        Args:
            alone: for each part, the plan in which it alone is in low precision.
            parts: the parts.
            left: makes the plan in which some parts are in float32.
            what: the name of the parts.
        """
        saved = [self.share(plan) for plan in alone]
        meter = ProgressMeter(f"{what} ranked", len(parts), self._say)
        costs = []
        for plan in alone:
            costs.append(self._cost(plan))
            meter.add()
        # Errors of parts add up as squares.
        ranked = [parts[place] for place in np.argsort(-np.square(costs) / saved, kind="stable")]
        least, most = 1, len(ranked)
        best = left(ranked), self.tried(left(ranked))
        while least < most:
            middle = (least + most) // 2
            plan = left(ranked[:middle])
            found = self.tried(plan)
            if found.fits:
                most, best = middle, (plan, found)
            else:
                least = middle + 1
        return best[0], best[1].losses

    def _ranges(self, groups: Sequence[Sequence[WeightProduct]]) -> Plan:
        names = [group[0].given.name or "" for group in groups]
        seen = self._observed(_DYNAMIC, names)
        channels = {name: one.channels for name in names if (one := seen[name]).channels is not None}
        return choices.quantised(groups, self._entries, channels)

    def _observed(self, name: str, channels: Sequence[str] = ()) -> dict[str, Seen]:
        batch, images = 1, self._images.every
        if name == _FOR_NPU:
            batch, fixed = self._batch, self._images.pixel_values
            images = (fixed[np.arange(math.ceil(len(fixed) / batch) * batch) % len(fixed)],)
        return observe(self._folder / name, images, self._device, channels, batch)

    @cached_property
    def _expected(self) -> list[dict[str, Array]]:
        """The outputs of the graph in float32 on the images of each size, and on the recorded images."""
        return self._run(self.models[_DYNAMIC], False, self._images.judged)

    def _run(self, model: ir.Model, rounds: bool, images: Sequence[Array]) -> list[dict[str, Array]]:
        proto = ir.to_proto(model)
        names = [value.name for value in proto.graph.output]
        graph = rounded(proto) if rounds else proto
        piece = piece_of_session(graph, self._folder, names, self._device, plain=rounds)
        return [in_batches(lambda batch: piece({INPUT: batch}), one, 1) for one in images]

    def _computed(self, plan: Plan, images: Sequence[Array]) -> list[dict[str, Array]]:
        """Run a plan's graph on images of each size. Weights are narrowed as it runs, or were quantised."""
        narrow = plan.precision in NARROW_TYPES
        model = ir.from_proto(ir.to_proto(self.models[_DYNAMIC]))
        context = PassContext(entries=self._entries if narrow else self._quantised, plan=plan)
        names = passes.NARROWED if narrow else passes.QUANTISED
        if plan.quantised or narrow:
            run_passes(model, passes.named(names), context)
        return self._run(model, narrow, images)

    def tried(self, plan: Plan) -> Tried:
        """Run a plan's graph on the images, and judge it by 80 % of the limits and by the greatest loss."""
        found, limits = self._computed(plan, self._images.judged), PRECISIONS[plan.precision].limits
        pairs = list(zip(found, self._expected, strict=True))
        limit = STRICT[limits, limits].tightened(_OF_THE_LIMIT)
        passed = [overall(judge(*pair, limit)) is Status.PASSED for pair in pairs]
        lost = losses(*pairs[0], pairs[1 : len(self._images.every)])
        within = self._max_drop is None or lost.worst <= self._max_drop
        return Tried(within and all(passed), lost)

    def _cost(self, plan: Plan) -> float:
        images = self._images.pixel_values[:_RANKED_ON]
        (found,) = self._computed(plan, [images])
        errors = [
            vector_relative_error(found[name].astype(np.float64), wanted[: len(images)].astype(np.float64))
            for name, wanted in self._expected[0].items()
        ]
        return float(np.nan_to_num(np.mean(errors), nan=np.inf))

    @cached_property
    def _multiply_adds(self) -> dict[str, int]:
        return multiply_adds(shaped(self.models[_FOR_NPU]))

    def share(self, plan: Plan) -> float:
        """Return the share of the multiply-adds in low precision, in the graph for an NPU."""
        low = choices.low_products(self.models[_FOR_NPU], plan.precision, plan.kept, plan.quantised)
        return choices.share_of(self._multiply_adds, low)


@dataclass(frozen=True)
class Tried:
    """The result of a plan on the images.

    Args:
        fits: whether it is within 80 % of the limits, and loses no more than it may.
        losses: what it loses.
    """

    fits: bool
    losses: Losses


_PLANS: Mapping[str, Callable[[Planner, str], tuple[Plan, Losses | None]]] = {
    "fp16": Planner.whole,
    "bf16": Planner.whole,
    MIXED: Planner.mixed,
    INT8: Planner.quantised,
    INT8_DYNAMIC: Planner.quantised,
}
"""By precision: how it is planned."""
