"""`vconv selftest`: inject known faults one at a time, and check that a validation finds each of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from vconv.arguments import checked_arguments
from vconv.artifact.artifact import Artifact
from vconv.artifact.staging import scratch_folder
from vconv.catalog import systems
from vconv.catalog.systems import System, miniature
from vconv.convert.patches.base import Patch
from vconv.convert.patches.table import PATCHES
from vconv.convert.sources.base import Source
from vconv.convert.sources.sizes import DYNAMIC
from vconv.convert.sources.table import DEFAULT_HUB, open_source
from vconv.errors import InputError, VconvError
from vconv.precisions import AUTO
from vconv.progress import ProgressMeter
from vconv.runtime.devices.table import find_device
from vconv.runtime.inputs.images import natural_images
from vconv.surroundings import own_surroundings
from vconv.types import Check, Say, Status, silent, weights_named
from vconv.validators import validation
from vconv.validators.accuracy import golden
from vconv.validators.accuracy.golden import Reference
from vconv.validators.accuracy.limits import Limits, open_limits
from vconv.validators.checks.integrity import verify_files
from vconv.validators.faults.base import Fault
from vconv.validators.faults.table import FAULTS
from vconv.validators.faults.workshop import ArtifactCopy
from vconv.validators.report import saving
from vconv.validators.report.rows import LimitRow
from vconv.workflows import export, originals
from vconv.workflows.bisect import explain_failures
from vconv.workflows.bisected_variant import METRIC
from vconv.workflows.checks import check_artifact
from vconv.workflows.run_plan import RunPlan

CLEAN_RUNS = 6
"""The number of validations of every artifact without a fault, each on other images."""
_SEED = "synthetic:1"
ANY_SIZE = ("dinov3-vits16", "vit_small_patch14_reg4_dinov2.lvd142m")
"""Systems of which a miniature for images of any size is tested too, on the faults that only such graphs can
have: one with RoPE, and one with a position embedding that is resampled with antialiasing."""
OUTPUTS = {"dinov3-vits16": "cls,feature_map:1,raw_feature_map:1,attention:1"}
"""Systems of which a miniature with outputs of single blocks is tested too, on the faults that only these can
have, with the outputs."""
REDUCED = {"dinov3-vits16": ("fp16", "int8")}
"""Systems of which a miniature in reduced precision is tested too, on the faults that only such graphs can
have, with the precisions."""
_FIRST_IMAGE = 1000
"""The seed of the first image of the clean runs; an export does not use this seed by default."""


@dataclass(frozen=True)
class TestedArtifact:
    """An artifact to inject faults into, with its original.

    Args:
        artifact: the artifact.
        source: the original's weights.
        live: the reference, run on the recorded inputs.
    """

    artifact: Artifact
    source: Source
    live: Reference

    @property
    def any_size(self) -> bool:
        """Whether one of its graphs takes images of any size."""
        return self.artifact.manifest.sides is not None

    @property
    def name(self) -> str:
        """The name of its system, and what its graphs have more than those of others."""
        more = ", any size" * self.any_size + ", outputs of blocks" * bool(self.artifact.manifest.meanings)
        return self.artifact.name + more + ", reduced precision" * self.reduced

    @property
    def reduced(self) -> bool:
        """Whether it has graphs in reduced precision."""
        return any(record.reduction for record in self.artifact.manifest.variants)

    def faults(self, given: bool) -> list[Fault]:
        """List the faults to inject: into a miniature of a particular kind, only those of that kind.

        Args:
            given: whether a user gave the artifact; then all of them.
        """
        of_blocks = bool(self.artifact.manifest.meanings)
        if given or not (self.any_size or of_blocks or self.reduced):
            return list(FAULTS)
        if self.reduced:
            return [fault for fault in FAULTS if fault.of_reduced]
        return [fault for fault in FAULTS if (fault.any_size if self.any_size else fault.of_blocks)]


@checked_arguments
@own_surroundings()
def selftest(
    path: str | Path | None = None,
    weights: str | Path | None = None,
    *,
    within: str | Path = "strict",
    engines: Sequence[str] | None = None,
    clean_runs: int = CLEAN_RUNS,
    hub: str = DEFAULT_HUB,
    offline: bool = False,
    say: Say = silent,
) -> dict[str, Any]:
    """Inject known faults one at a time, and check that a validation fails and names the class of each fault.

    Args:
        path: the artifact; faults are injected into a copy of it. By default, miniatures of one system of
            each structure, of some with graphs for images of any size, and of one with outputs of blocks.
        weights: where the original's weights are; by default where the manifest says.
        within: ``strict``, ``card``, or a file of limits.
        engines: the engines that run graphs and torch variants, or ``all``; by default ONNX
            Runtime and torch.
        clean_runs: the number of validations of each artifact without a fault, on other images each time.
        hub: the hub of a repository that ``weights`` names.
        offline: whether to look for repositories only in the hub's cache.
        say: receives progress lines.

    Returns:
        ``faults``, each with the ``class`` that the validation named and whether it was ``caught``;
        ``clean_runs``, ``false_alarms``, ``passed``.

    Raises:
        VconvError: an error that the user can fix.
    """
    limits = open_limits(within)
    _require_metric(limits)
    if clean_runs < 0:
        raise InputError(
            "--clean-runs is out of range", got=clean_runs, expected="0 or more", fix="give a whole number"
        )
    trial = RunPlan((find_device("cpu"),), engines, (AUTO,))
    trial.check()
    faults: list[dict[str, Any]] = []
    alarms: list[dict[str, Any]] = []
    lacking: list[dict[str, str]] = []
    artifacts = []
    total = len(systems.structures() if path is None else (path,)) * (clean_runs + len(FAULTS))
    if path is None:
        total += len(ANY_SIZE) * (clean_runs + sum(fault.any_size for fault in FAULTS))
        total += len(OUTPUTS) * (clean_runs + sum(fault.of_blocks for fault in FAULTS))
        total += len(REDUCED) * (clean_runs + sum(fault.of_reduced for fault in FAULTS))
    meter = ProgressMeter("faults and clean runs", total, say)
    with scratch_folder(say) as scratch:
        given = (
            _miniatures(scratch, say) if path is None else _given(path, weights, hub, offline, scratch, say)
        )
        for tested in given:
            name = tested.name
            artifacts.append(
                weights_named(f"{name}: {tested.source.origin.label}", tested.source.origin.synthetic)
            )
            limits.require_use(str(tested.artifact), tested.artifact.manifest.outputs)
            judge = partial(_judged, tested, limits=limits, engines=engines, say=say)
            for number in range(clean_runs):
                images = natural_images(1, _FIRST_IMAGE + number)
                document = judge(tested.artifact, photographs=images)
                if document["status"] is not Status.PASSED:
                    alarms.append({"artifact": name, "run": number, **document})
                say(f"{name}: clean run {number + 1} of {clean_runs}: {document['status']}")
                meter.add()
            shop = ArtifactCopy.open(tested.artifact, scratch / f"copy-{len(artifacts)}")
            for fault in tested.faults(path is not None):
                lacks = fault.skipped(shop)
                if lacks:
                    lacking.append({"artifact": name, "fault": fault.name, "reason": lacks})
                else:
                    faults.append({"artifact": name, **_tried(fault, shop, judge)})
                    say(f"{name}: {fault.name}: {_told(faults[-1])}")
                meter.add()
            shutil.rmtree(shop.folder)
    right = all(row["caught"] and row["class"] == row["expected"] for row in faults)
    passed = right and bool(faults) and not alarms
    pair = "fp32", "fp32"
    result: dict[str, Any] = saving.finite(
        {
            "status": Status.PASSED if passed else Status.FAILED,
            "passed": passed,
            "limits": saving.limits_used(limits, [LimitRow.of(pair, limits.table[pair])]).as_json(),
            "artifacts": artifacts,
            "faults": faults,
            "lacking": lacking,
            "clean_runs": clean_runs * len(artifacts),
            "false_alarms": len(alarms),
            "alarms": alarms,
            "environment": saving.environment(),
        }
    )
    return result


def _require_metric(limits: Limits) -> None:
    """Check that the limits bound the metric that a bisection needs.

    Raises:
        InputError: the limits have no bound on this metric.
    """
    bounds = limits.table["fp32", "fp32"].bounds
    if METRIC not in bounds:
        raise InputError(
            f"a self-test needs a bound on {METRIC}",
            got=f"{', '.join(bounds)} in [fp32.fp32] of {limits.within}",
            expected=METRIC,
            fix=f"add a bound on {METRIC}, or use --within strict",
        )


def _told(row: Mapping[str, Any]) -> str:
    if not row["changed"]:
        return "it changed nothing"
    if not row["caught"]:
        return "NOT CAUGHT"
    return f"caught, as {row['class'] or 'nothing by name'}" + (
        "" if row["class"] == row["expected"] else f", NOT AS {row['expected']}"
    )


def _tried(fault: Fault, shop: ArtifactCopy, judge: Any) -> dict[str, Any]:
    """Inject a fault, validate, and restore the artifact."""
    changed = True
    try:
        fault.inject(shop)
        changed = shop.altered() or bool(fault.patches)
        shop.rehash()
        document = judge(Artifact.open(shop.folder), patches={**PATCHES, **fault.patches})
    except VconvError as error:
        refused = {"class": "", "because": str(error)}
        document = {
            "status": Status.FAILED,
            "diagnosis": [refused],
            "failed_checks": [],
            "failed_variants": [],
        }
    finally:
        shop.restore()
    first = next(iter(document["diagnosis"]), {"class": "", "because": ""})
    return {
        "fault": fault.name,
        "class": first["class"],
        "expected": fault.expected(shop),
        "caught": document["status"] is Status.FAILED,
        "because": first["because"],
        "changed": changed,
        "failed_checks": document["failed_checks"],
        "failed_variants": document["failed_variants"],
    }


def _judged(
    tested: TestedArtifact,
    artifact: Artifact,
    *,
    limits: Limits,
    engines: Sequence[str] | None,
    say: Say,
    photographs: Sequence[Image.Image] = (),
    patches: Mapping[str, Patch] | None = None,
) -> dict[str, Any]:
    """Validate a copy of an artifact as :func:`vconv.workflows.validate.validate` does, without timing it."""

    def refer(source: Source | None) -> tuple[Reference | None, Check, dict[str, Any]]:
        if photographs:
            return originals.reference(artifact, source, photographs, 0, silent)
        kept = golden.recorded(artifact)
        return (
            tested.live,
            golden.check_recorded(
                tested.live, kept, artifact.manifest.golden, golden.recorded_elsewhere(artifact)
            ),
            {},
        )

    found = check_artifact(artifact, lambda: (tested.source, ""), refer, limits)
    trial = RunPlan((find_device("cpu"),), engines, (AUTO,), patches)
    rows = validation.run(trial.candidates(found), limits, None, silent).rows
    return {
        "status": saving.whole(rows, found.checks),
        "diagnosis": [one.as_json() for one in explain_failures(found, rows, say, trial.devices, patches)],
        "failed_checks": [check.name for check in found.checks if check.status is Status.FAILED],
        "failed_variants": [row.variant for row in rows if row.status is Status.FAILED],
    }


def _miniatures(scratch: Path, say: Say) -> Iterator[TestedArtifact]:
    """Export miniatures of one system of each structure, and of some with particular graphs, in turn."""
    wanted: list[tuple[System, dict[str, Any]]] = [
        *((system, {}) for system in systems.structures().values()),
        *((systems.SYSTEMS[name], {"size": DYNAMIC}) for name in ANY_SIZE),
        *((systems.SYSTEMS[name], {"outputs": outputs}) for name, outputs in OUTPUTS.items()),
        *((systems.SYSTEMS[name], {"precision": chosen}) for name, chosen in REDUCED.items()),
    ]
    for number, (whole, options) in enumerate(wanted):
        system = miniature(whole)
        told = "".join(f" with --{option} {_value(value)}" for option, value in options.items())
        say(f"{system.name}: exporting a miniature{told}")
        folder, original = scratch / f"{number}", scratch / f"{number}-original"
        export.export(system, _SEED, folder, **options)
        original.mkdir()
        source = open_source(
            originals.request(Artifact.open(folder), _SEED, DEFAULT_HUB, True), original, say
        )
        yield _tested(Artifact.open(folder), source)


def _value(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else ",".join(value)


def _given(
    path: str | Path, weights: str | Path | None, hub: str, offline: bool, scratch: Path, say: Say
) -> Iterator[TestedArtifact]:
    """Open the given artifact and its original."""
    artifact = Artifact.open(path)
    artifact.require_weights()
    # Recomputing the hashes after a fault would hide a file that was wrong from the start.
    check = verify_files(artifact, say)
    if check.status is Status.FAILED:
        raise InputError(
            f"{artifact} is not as it was exported",
            got=check.detail,
            expected="the files of its manifest alone",
            fix="take away what is not its own, or export it again",
        )
    original = scratch / "original"
    original.mkdir()
    source, missing = originals.live_source(artifact, weights, hub, offline, original, say)
    if source is None:
        raise InputError(
            "cannot tell faults from what was exported",
            got=missing,
            expected="the original's weights",
            fix="give --weights, or leave PATH out to test on miniatures",
        )
    yield _tested(artifact, source)


def _tested(artifact: Artifact, source: Source) -> TestedArtifact:
    reference, _, _ = originals.reference(artifact, source, (), 0, silent)
    assert reference is not None
    return TestedArtifact(artifact, source, reference)
