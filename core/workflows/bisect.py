"""`vconv bisect`: find where a variant departs from its reference."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image

from vconv.arguments import checked_arguments
from vconv.artifact.artifact import Artifact
from vconv.artifact.staging import scratch_folder
from vconv.convert.patches.base import Patch
from vconv.convert.sources.authors import AUTHORS_WEIGHTS
from vconv.convert.sources.base import Source
from vconv.convert.sources.table import DEFAULT_HUB
from vconv.errors import InputError, VconvError
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.table import simulates
from vconv.runtime.engines.variants import DEFAULT_VARIANT
from vconv.runtime.inputs.images import open_images, require_seed
from vconv.runtime.stages.torch_model import TorchStages
from vconv.surroundings import own_surroundings
from vconv.types import FROM_IMAGES, Array, Say, Status, silent
from vconv.validators.accuracy.limits import open_limits
from vconv.validators.bisect.chart import error_against_depth
from vconv.validators.bisect.hypotheses import conclude, diagnosis
from vconv.validators.bisect.localisation import Departure, localise
from vconv.validators.checks.integrity import verify_files
from vconv.validators.report import log as textlog
from vconv.validators.report import saving
from vconv.validators.report.bisection import Bisection, BisectionResult, OperatorRow, StageRow
from vconv.validators.report.document import DiagnosisRow, InputsRow, ReferenceRow
from vconv.validators.report.rows import VariantRow
from vconv.workflows import originals
from vconv.workflows.bisected_variant import BisectedVariant, bound_of, open_reference
from vconv.workflows.checks import CheckedArtifact, compare_with_original

_APART = ("files", "source", "variants", "golden", "preprocessing")
"""Checks that cannot explain the failure of a variant: no variant uses the data that they check."""
_APART_FILES = (f"{FROM_IMAGES.path}: ", f"{AUTHORS_WEIGHTS}: ")
"""Beginnings of further such checks: of a graph that they alone judge, and of weights of no variant."""


@checked_arguments
@own_surroundings()
def bisect(
    path: str | Path,
    variant: str = DEFAULT_VARIANT,
    weights: str | Path | None = None,
    *,
    device: str = "cpu",
    engine: str | None = None,
    within: str = "strict",
    images: Sequence[str | Path] = (),
    seed: int = 0,
    hub: str = DEFAULT_HUB,
    offline: bool = False,
    reports: str | Path | None = None,
    say: Say = silent,
) -> BisectionResult:
    """Find the block and the operator at which a variant departs from its reference.

    Args:
        path: the artifact.
        variant: ``onnx-fp32``, ``onnx-fp32-npu``, ``patched-torch-PRECISION``, ``original-torch-PRECISION``.
        weights: where the original's weights are; by default where the manifest says.
        device: where the variant is run; the reference is run on the CPU.
        engine: what runs a graph; ONNX Runtime by default.
        within: ``strict``, ``card``, or a file of limits: the error from which a variant departs.
        images: photographs to run the variant on; the recorded inputs by default.
        seed: the seed of made-up images, which are used if there are no recorded inputs.
        hub: the hub of a repository that ``weights`` names.
        offline: whether to look for repositories only in the hub's cache.
        reports: a folder for the report and what belongs to it; by default ``reports/`` of the artifact. With
            it, which must be outside, nothing is written into the artifact.
        say: receives progress lines.

    Returns:
        The report, with ``sentence``, ``stages``, the ``operators`` of the worst stage, the ``culprit`` among
        these operators, and ``passed``. It is also saved under ``reports/``, with a plain-text log and a
        ``picture`` of error against depth.

    Raises:
        VconvError: an error that the user can fix.
    """
    log = textlog.Log(say)
    place = find_device(device)
    if place.simulated:
        raise InputError(
            "bisect cannot look into a simulated device",
            got=f"--device {device}",
            expected="a real one",
            fix=f"see what each cause does: `vconv validate {shlex.quote(str(path))} --device {device}`",
        )
    require_seed(seed)
    photographs = open_images(images, log.say) if images else []
    artifact = Artifact.open(path)
    made = artifact.manifest
    chosen = BisectedVariant.find(artifact, variant, place, engine)
    limits = open_limits(within)
    limits.require_use(str(artifact), made.outputs)
    limit = chosen.limit(limits, place)
    bound = bound_of(limit, limits.within)
    artifact.require_weights()
    saving.probe(artifact.folder, elsewhere=reports)
    files = verify_files(artifact, log.say)
    with scratch_folder(log.say) as scratch:
        source, missing = originals.live_source(artifact, weights, hub, offline, scratch, log.say)
        if source is None and chosen.kind:
            raise InputError(
                f"{variant} cannot be held against its reference",
                got=missing,
                expected="the original's weights",
                fix="give --weights, or look at a graph, which is then held against the patched model",
            )
        pixel_values, inputs = _inputs(artifact, photographs, seed)
        log.say(f"{variant} on {place.name}, stage by stage")
        named, found = _departure(artifact, source, chosen, place, pixel_values, bound, None, log.say)
        checks = [files, *(compare_with_original(artifact, source) if source else ())]
    notes = [f"{check.name}: {check.detail}" for check in checks if check.status is Status.FAILED]
    if chosen.kind == "original" and named != "original":
        notes.append(f"the reference is the {named}, so that the stock original differs from it")
    status = Status.FAILED if found.departs else Status.PASSED
    title = f"{made.system.name}: {variant} against {named}"
    operators = tuple(OperatorRow.model_validate(match) for match in found.matches)
    result = Bisection(
        time=saving.now(),
        host=platform.node(),
        artifact=made.system.name,
        weights=made.source.label,
        synthetic=made.source.synthetic,
        variant=variant,
        engine=chosen.engine,
        device=place.name,
        simulated=place.simulated or simulates(chosen.engine),
        status=status,
        passed=status is Status.PASSED,
        limits=saving.limits_used(limits, [limit]),
        bound=bound,
        reference=ReferenceRow(
            name=named, source="live" if source else "none", precision="fp32", device="cpu"
        ),
        inputs=InputsRow.model_validate(inputs),
        notes=tuple(notes),
        sentence=found.sentence(variant),
        worst_stage=found.stages[found.worst].stage,
        stages=tuple(StageRow.model_validate(row) for row in found.stages),
        operators=operators,
        culprit=None if found.culprit is None else operators[found.culprit],
        environment=saving.environment(),
    )
    pictures = {".svg": error_against_depth(found, title)}
    saved = saving.save(artifact.folder, result, "bisect", log.render_bisection(result), pictures, reports)
    return BisectionResult(
        **dict(result),
        report=str(saved),
        log=str(saved.with_suffix(".log")),
        picture=str(saved.with_suffix(".svg")),
    )


def _departure(
    artifact: Artifact,
    source: Source | None,
    chosen: BisectedVariant,
    place: Device,
    pixel_values: Array,
    bound: float,
    patches: Mapping[str, Patch] | None,
    say: Say,
) -> tuple[str, Departure]:
    """Compare a variant with its reference; return the reference's name, and where the variant departs."""
    with ExitStack() as closing:
        named, session = open_reference(artifact, source)
        reference = TorchStages(closing.enter_context(session), plain=not chosen.kind)
        stages = chosen.stages(artifact, source, place, closing, patches)
        images = chosen.batch(pixel_values)
        return named, localise(reference, stages, images, bound, chosen.exact(place), say)


def explain_failures(
    found: CheckedArtifact,
    rows: Sequence[VariantRow],
    say: Say,
    places: Sequence[Device],
    patches: Mapping[str, Patch] | None = None,
) -> list[DiagnosisRow]:
    """Name the cause of the failures. If no check and no hypothesis explains them, bisect the first failure.

    Args:
        found: the checked artifact.
        rows: the artifact's variants with their results and the limits that they were judged by.
        say: receives progress lines.
        places: the devices that ran the variants; a failure on a simulated device is not bisected.
        patches: the patches by name that were used instead of the table of patches.

    Returns:
        The rows of :func:`vconv.validators.bisect.hypotheses.conclude`, and a row for the bisected variant.
    """
    known = conclude(found.checks, rows)
    failing = [check for check in found.checks if check.status is Status.FAILED]
    told = any(check.name not in _APART and not check.name.startswith(_APART_FILES) for check in failing)
    failed = [
        row
        for row in rows
        if row.status is Status.FAILED
        # If the engine's arithmetic could not be found out, there is no limit and nothing to bisect.
        and row.limit
        and not row.diagnosis
        and not row.device_simulated
        and not _under_floor(row)
    ]
    if told or not failed or found.source is None or found.reference is None:
        return known
    place = next(one for one in places if one.name == failed[0].device)
    return known + _located(found, failed[0], place, say, patches)


def _under_floor(row: VariantRow) -> bool:
    """Return whether a limit was below the reference's own error: then the variant is not at fault."""
    return any(
        output.limit is not None and output.floor is not None and output.limit < output.floor
        for output in row.outputs.values()
    )


def _located(
    found: CheckedArtifact,
    failed: VariantRow,
    place: Device,
    say: Say,
    patches: Mapping[str, Patch] | None,
) -> list[DiagnosisRow]:
    """Bisect a failed variant and name the cause of its failure; return an empty list if it is not found."""
    assert found.source is not None and found.reference is not None and failed.limit is not None
    say(f"nothing seen explains {failed.variant}: looking where it departs")
    try:
        chosen = BisectedVariant.find(found.artifact, failed.variant, place, failed.engine)
        bound, images = bound_of(failed.limit, "its limits"), found.reference.pixel_values
        _, departure = _departure(found.artifact, found.source, chosen, place, images, bound, patches, silent)
    except VconvError as error:
        say(f"where it departs was not found: {error.what}, got {error.got}")
        return []
    fault, sentence = departure.fault, departure.sentence(failed.variant)
    if not fault:
        say(sentence)
        return []
    return [diagnosis(fault, failed.variant, sentence)]


def _inputs(
    artifact: Artifact, photographs: Sequence[Image.Image], seed: int
) -> tuple[Array, dict[str, Any]]:
    """Return the images to compare on: photographs, recorded inputs, or made-up images; and what they are."""
    pixel_values, names = originals.inputs(artifact, photographs, seed)
    kind = "photographs" if photographs else "recorded" if artifact.manifest.golden else "made up"
    return pixel_values, {"source": kind, "images": list(names)}
