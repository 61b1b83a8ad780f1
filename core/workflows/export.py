"""`vconv export`: make an artifact."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from vconv.arguments import checked_arguments
from vconv.artifact.artifact import Artifact
from vconv.artifact.contracts import Interface
from vconv.artifact.manifest import ORIGINAL_FOLDER
from vconv.artifact.staging import staging
from vconv.catalog.systems import System
from vconv.convert.architectures.sizes import size_bounds
from vconv.convert.ascend import offline_air, offline_model
from vconv.convert.ascend.aipp import AIPP_FILE, configuration, require_mode
from vconv.convert.ascend.gears import read_sizes, require_sizes
from vconv.convert.ascend.offline_model import CompiledGraph
from vconv.convert.ascend.routes import AIR_ROUTE
from vconv.convert.conversion import Prepared, export_graphs, image_size, prepare
from vconv.convert.files.safetensors_file import read_header
from vconv.convert.graphs import tracing
from vconv.convert.libraries.image_processing import IMAGE_PROCESSING, ImageProcessing
from vconv.convert.libraries.readers import network
from vconv.convert.sources.authors import layout_of
from vconv.convert.sources.base import Source, require_choice, write_configurations
from vconv.convert.sources.counterparts import counterpart
from vconv.convert.sources.names import find_system
from vconv.convert.sources.table import DEFAULT_HUB, Request, open_source
from vconv.convert.weights.ledger import Line
from vconv.runtime.devices.table import find_device
from vconv.runtime.inputs.images import open_images
from vconv.surroundings import own_surroundings
from vconv.types import WEIGHTS_FILE, Check, Say, silent
from vconv.validators.accuracy import golden as golden_room
from vconv.validators.accuracy.golden import GOLDEN_FILE, Reference
from vconv.validators.accuracy.other_sizes import other_sizes
from vconv.validators.checks.graphs import check_graph
from vconv.validators.checks.integrity import verify_tensors
from vconv.validators.faults import classes
from vconv.validators.report.rows import VariantRow
from vconv.workflows import authors_weights, card, sample_images
from vconv.workflows.air_graph import provisional
from vconv.workflows.background import in_background
from vconv.workflows.export_checks import check_plans, judged, opened_graphs, refuse_failures
from vconv.workflows.export_manifest import Exported, assemble, hashed
from vconv.workflows.export_options import asked_outputs, check_options, reduced_precisions, size_request
from vconv.workflows.offline_options import ONNX, offline_order, offline_row
from vconv.workflows.reduced import Reduced, calibration_images, write_reduced

DEFAULT_OUT = "artifacts"
RANK3, RANK4 = "rank3", "rank4"
"""The values of ``--attention``."""


@checked_arguments
@own_surroundings()
def export(
    name: str | System,
    weights: str | Path | None = None,
    out: str | Path | None = None,
    *,
    force: bool = False,
    batch: int = 1,
    opset: int = tracing.DEFAULT_OPSET,
    npu_opset: int | None = None,
    attention: str = RANK4,
    images: Sequence[str | Path] = (),
    golden: bool = True,
    seed: int = 0,
    hub: str = DEFAULT_HUB,
    offline: bool = False,
    pool: str | None = None,
    periods: str | None = None,
    positions: str | None = None,
    size: str | Sequence[int] | None = None,
    outputs: str | Sequence[str] | None = None,
    layout: str | None = None,
    weights_layout: str | None = None,
    allow_lossy: bool = False,
    state_dict: str | None = None,
    without_weights: bool = False,
    keep_dtype: bool = False,
    with_preprocessing: bool = False,
    aipp: str | None = None,
    format: str = ONNX,
    soc: str | None = None,
    gears: Sequence[int] = (),
    gears_size: str | Sequence[Sequence[int]] | None = None,
    om_precision: str | None = None,
    precision: Sequence[str] = (),
    calibration: Sequence[str | Path] = (),
    max_drop: float | None = None,
    say: Say = silent,
) -> dict[str, Any]:
    """Make an artifact: a patched checkpoint, its graphs, and the proof that they agree with the original.

    Args:
        name: a system's short name or hub id, ``timm/NAME``, ``hub:OWNER/NAME[@REVISION]``, a folder with a
            ``config.json``, or the system itself.
        weights: a file, a folder, ``synthetic[:SEED]``, or ``hub:REPOSITORY[@REVISION]``; by default the
            system's own repository.
        out: the folder of the artifact; ``artifacts/NAME`` by default.
        force: whether to replace an existing artifact.
        batch: the batch of the static graph.
        opset: the opset of the dynamic graph.
        npu_opset: the opset of the graphs for an NPU, the static one and that of an offline model: 13, 15, 17
            or 18; by default 17, or 18 if the network has an operator that 17 does not have.
        attention: ``rank4``, as the library has it, or ``rank3``: whether the graphs for an NPU compute
            attention over tensors of rank 3.
        images: photographs to record and check on; made-up images by default.
        golden: whether to run the reference, record it, and compare every variant with it.
        seed: the seed of the made-up images.
        hub: the hub on which to look for repositories.
        offline: whether to look for repositories only in the hub's cache.
        pool: ``cls`` or ``avg``, to replace timm's default pooling.
        periods: the RoPE periods: ``authors``, the default, or ``library`` for a DINOv3 that was trained
            further with the periods of its library.
        positions: whose kernel resamples the position embedding of a DINOv2 without registers for images of
            another size than its own: ``library``, the default, when the model runs, or ``authors``, once.
        size: ``H,W`` or (height, width) of the images, both multiples of the patch, or any that the library
            runs where no grid of patches is known; by default, the size that the image processor makes. With
            ``dynamic``, or ``dynamic:H,W``, ``model.onnx`` takes images of any size, and all else has that
            size.
        outputs: the outputs of every variant, such as ``pooled,cls,feature_map:3,6,9,12,attention:12``, or a
            list of such texts; by default, those that the network has. See docs/weights.md.
        layout: whose names and shapes the artifact's weights get, ``transformers`` or ``timm``; by default,
            those of the system's library. The artifact is then one of the other library's system. With
            ``facebook``, it also gets the weights in the layout of the authors, for their own code.
        weights_layout: the layout of the weights, if it is not to be recognised: ``transformers``, ``timm``
            or ``facebook``.
        allow_lossy: whether a conversion from another layout may change the outputs.
        state_dict: the entry of a training checkpoint that has several state dicts, such as ``model_ema``.
        without_weights: whether to delete the weights file at the end; :func:`fill` makes it again.
        keep_dtype: whether to store float16 and bfloat16 weights as they are; by default they are widened to
            float32. Graphs compute in float32 in either case.
        with_preprocessing: whether to also export a graph that takes uint8 images of any size, and an AIPP
            configuration for ATC.
        aipp: ``static``, the default, or ``dynamic``: whether the configuration has the numbers of the
            preprocessing, or a program sets them before each run.
        format: ``onnx``; ``om`` for the graphs and an offline model that ATC compiles from a graph of ONNX;
            ``air`` for the graphs and one that ATC compiles from a graph of torchair.
        soc: the processor to compile the offline model for, such as ``Ascend910B4``: see docs/ascend.md.
        gears: the batches of the offline model; by default the batch of the static graph.
        gears_size: the sizes of images of the offline model, with ``size="dynamic"``: ``224,224;448,448`` or
            pairs of (height, width), the size of the recorded images among them.
        om_precision: the precision of the offline model: ``origin``, ``fp16``, ``mixed_float16`` or
            ``cube_fp16in_fp32out``; by default ``origin`` if the processor computes float32, else
            ``cube_fp16in_fp32out``.
        precision: reduced precisions to export as well, each in a folder of the artifact: ``fp16``, ``bf16``,
            ``int8``, ``int8-dynamic``, or ``auto``, which plans float16 with float32 where it is needed.
        calibration: photographs on which ``auto``, ``int8`` and ``int8-dynamic`` are planned; by default
            those that are recorded.
        max_drop: the greatest share that these may lose on the calibration images of the direction of a
            token, the nearest neighbours, and the greatest logit; by default, the limits of the precision
            alone.
        say: receives progress lines.

    Returns:
        ``artifact``, ``weights``, ``weights_given``, ``weights_found_again`` (whether they are found without
        it), ``seconds``, ``peak_rss_bytes``, ``patches``, ``ledger``, ``files``, ``variants``, ``checks``,
        ``om``: None, or whether the offline model was ``compiled`` and how; and ``reduced``: the records of
        the graphs in reduced precision.

    Raises:
        VconvError: an error that the user can fix; no artifact is left behind.
    """
    start = time.perf_counter()
    check_options(batch, opset, npu_opset, seed, bool(images), golden, out)
    require_choice("--attention", attention, (RANK3, RANK4))
    for_authors = authors_weights.wanted(layout, without_weights)
    reduced = reduced_precisions(precision, max_drop, bool(calibration), keep_dtype, without_weights, golden)
    sizes = size_request(size)
    any_size = bool(sizes and sizes.dynamic)
    by_size = read_sizes(gears_size)
    mode = require_mode(aipp, with_preprocessing, bool(by_size))
    order = offline_order(format, soc, gears, om_precision, without_weights, opset, say, by_size, any_size)
    photographs = open_images(images, say) if images else []
    calibrating = open_images(calibration, say, "--calibration") if calibration else photographs
    named, place = _found(name, None if weights is None else str(weights), hub, offline, say)
    if for_authors:
        layout_of(network(named.config))  # refused before any weight is drawn or downloaded
    system = counterpart(named, layout) if layout and not for_authors else named
    if place is None and system is not named:
        place = f"hub:{named.hub_id}"
    target = Path(DEFAULT_OUT) / system.name if out is None else Path(out)
    with staging(target.absolute(), force) as stage:
        folder = stage.artifact
        asked = Request(
            system,
            place,
            hub,
            pool,
            periods,
            offline,
            sizes,
            asked_outputs(outputs),
            weights_layout,
            allow_lossy=allow_lossy,
            state_dict=state_dict,
            positions=positions,
        )
        source = open_source(asked, stage.scratch, say)
        made_size = image_size(source)
        if by_size:
            require_sizes(by_size, made_size, size_bounds(source.network))
        pixel_values, names = sample_images.sample(source.folder, photographs, seed, made_size)
        steps = _image_processing(source) if with_preprocessing else None
        prepared = prepare(folder, source, say, keep_dtype)
        beside = authors_weights.planned(folder, source, keep_dtype, allow_lossy) if for_authors else None
        if order:
            offline_model.require_fitting(order.route, prepared.plan.entries.values())
        with in_background(partial(_written, prepared, source, say)) as writing:
            prepared = prepared.counted()
            passes = export_graphs(
                *(folder, prepared, made_size, batch, opset, say, any_size, steps, npu_opset),
                rank3=attention == RANK3,
            )
            lines, sha256, tensors = writing()
        if steps and mode:
            greatest = max([batch, *gears])
            text = configuration(steps, made_size, mode, greatest, bool(by_size))
            (folder / AIPP_FILE).write_text(text)
        authors, compared = authors_weights.written(beside, folder, say)
        conversion = prepared.written(lines, sha256, passes)
        reference: Reference | None = None
        sides = Interface(source.network, made_size, any_size=any_size).sides
        elsewhere = other_sizes(made_size, sides, by_size)
        if golden:
            say("running the reference in fp32 and float64")
            reference = golden_room.run_reference(source, pixel_values, sizes=elsewhere)
            golden_room.save(folder / GOLDEN_FILE, reference)
        write_configurations(folder / ORIGINAL_FOLDER, *source.own_configurations)
        made_reduced: list[Reduced] = []
        if reduced:
            others = None if calibrating and calibrating is photographs else pixel_values
            planned_on = calibration_images(source.folder, calibrating, seed, made_size, elsewhere, others)
            made_reduced = write_reduced(
                *(folder, reduced, planned_on, batch, max_drop, find_device("cpu"), say)
            )
        graphs = opened_graphs(
            *(folder, conversion.network, made_size, batch, any_size, steps is not None, made_reduced)
        )
        checks = [tensors, *compared, *(check for graph in graphs for check in check_graph(graph))]
        compiled: CompiledGraph | None = None
        by_air = order is not None and order.route is AIR_ROUTE
        if order and by_air:
            offline_air.write_scripts(folder, order, made_size, batch)
        elif order:
            compiled = offline_model.make(
                *(folder, stage.scratch, order, made_size, batch, say, npu_opset), rank3=attention == RANK3
            )
        done = Exported(
            *(folder, system, source, conversion, made_size, graphs, reference, names, order, authors),
            *(compiled, tuple(made_reduced)),
        )
        made = assemble(done, without_weights, mode)
        if order and by_air:
            command = order.command(made_size, batch)
            manifest = provisional(made, folder)
            offline_air.make(folder, stage.scratch, order, command, manifest, say)
            made = made.model_copy(update={"files": hashed(done)})
        artifact = Artifact(folder, made)
        checks += check_plans(artifact, graphs)
        rows: Sequence[VariantRow] = ()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if reference:
            rows, image_checks = judged(artifact, reference, say)
            checks += image_checks
        refuse_failures(artifact, rows, checks)
        if without_weights:
            (folder / WEIGHTS_FILE).unlink()
        made.save(folder)
        card.refresh(artifact, say)
    return {
        "artifact": str(target),
        "weights": source.origin.label,
        "weights_given": place if place and not place.startswith("hub:") else None,
        "weights_found_again": made.source.found_again,
        "synthetic": source.origin.synthetic,
        "without_weights": without_weights,
        "seconds": round(time.perf_counter() - start, 2),
        "peak_rss_bytes": max([peak, *(row.peak_rss_bytes or 0 for row in rows)]),
        "patches": [patch.model_dump(mode="json") for patch in made.patches],
        "ledger": made.ledger,
        "files": {name: record.model_dump() for name, record in made.files.items()},
        "variants": [row.as_json() for row in rows],
        "checks": [asdict(check) for check in checks],
        "om": offline_row(made),
        "reduced": [record.model_dump(mode="json") for record in made.variants if record.reduction],
    }


def _image_processing(source: Source) -> ImageProcessing:
    return IMAGE_PROCESSING[source.network.library](source.folder, source.config)


def _found(
    name: str | System, weights: str | None, hub: str, offline: bool, say: Say
) -> tuple[System, str | None]:
    """Return the system that a name stands for, and where its weights are."""
    if isinstance(name, System):
        return name, weights
    return find_system(name, hub, weights, offline, say)


def _written(
    prepared: Prepared, source: Source, say: Say, stop: Event
) -> tuple[tuple[Line, ...], str, Check]:
    """Write the weights file, and compare the file on disk with the source."""
    lines, sha256 = prepared.write(stop, say)
    entries = read_header(prepared.plan.path)
    fault_of = partial(classes.of_tensor, prepared.network)
    return lines, sha256, verify_tensors(lines, source.entries, entries, fault_of, say, source.matches)
