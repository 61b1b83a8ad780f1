"""`vconv reference`: record a reference on one machine, for a validation on another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vconv.arguments import checked_arguments
from vconv.artifact.artifact import INSIDE, Artifact, is_inside
from vconv.artifact.manifest import Manifest
from vconv.artifact.staging import scratch_folder
from vconv.convert.sources.table import DEFAULT_HUB
from vconv.errors import ArtifactError, InputError
from vconv.regular_files import A_FILE, kind_of
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import KINDS as DEVICE_KINDS
from vconv.runtime.devices.table import find_device
from vconv.runtime.inputs.images import open_images, require_seed
from vconv.surroundings import own_surroundings
from vconv.types import Say, silent
from vconv.validators.accuracy import golden as golden_room
from vconv.validators.accuracy import reference_file
from vconv.validators.accuracy.reference_file import Facts, ReferenceFile
from vconv.validators.checks.integrity import verify_source
from vconv.validators.report import saving
from vconv.workflows import originals
from vconv.workflows.checks import compare_with_original

KINDS = ("cpu", "cuda")
"""Devices that run a reference. An NPU's own GELU is the tanh form, and no patch may correct a reference."""


@checked_arguments
@own_surroundings()
def reference(
    path: str | Path,
    weights: str | Path | None = None,
    *,
    out: str | Path,
    device: str = "cpu",
    images: Sequence[str | Path] = (),
    force: bool = False,
    seed: int = 0,
    hub: str = DEFAULT_HUB,
    offline: bool = False,
    say: Say = silent,
) -> dict[str, Any]:
    """Record the original's outputs on this machine, for :func:`vconv.validate` on another machine.

    The reference is the stock original, or for DINOv3 the original with the authors' periods, in float32 with
    TF32 off.

    Args:
        path: the artifact.
        weights: where the original's weights are; by default where the manifest says.
        out: the file to write, outside of the artifact.
        device: the device that runs the reference: ``cpu`` or ``cuda[:N]``.
        images: photographs to record; by default the inputs that were recorded at export.
        force: whether to replace an existing file.
        seed: the seed of made-up images, which are used if there are no recorded inputs.
        hub: the hub of a repository that ``weights`` names.
        offline: whether to look for repositories only in the hub's cache.
        say: receives progress lines.

    Returns:
        ``file``, ``sha256``, ``nbytes``, ``reference``, ``outputs`` with the shape of each, ``floor``,
        ``artifact``, ``weights``, ``synthetic``, and the facts in the file: ``device``, ``device_model``,
        ``arithmetic``, ``images``, ``environment``, ``time``.

    Raises:
        VconvError: an error that the user can fix; nothing is written.
    """
    place = _place(device)
    require_seed(seed)
    photographs = open_images(images, say) if images else []
    artifact, target = Artifact.open(path), Path(out)
    made = artifact.manifest
    artifact.require_weights()
    _require_writable(target, artifact.folder, force)
    with scratch_folder(say) as scratch:
        source, missing = originals.live_source(artifact, weights, hub, offline, scratch, say)
        if source is None:
            raise InputError(
                "there is nothing to run as the reference",
                got=missing,
                expected="the original's weights",
                fix="give --weights",
            )
        wrong = [
            check
            for check in (verify_source(made, source), *compare_with_original(artifact, source))
            if check.fault
        ]
        if wrong:
            raise InputError(
                "these are not the weights that the artifact was made of",
                got=wrong[0].detail,
                expected=made.source.label,
                fix="give the original's own weights",
            )
        pixel_values, names = originals.inputs(artifact, photographs, seed)
        say(f"running the reference in fp32 on {place.name}, in float64 on cpu")
        found = golden_room.run_reference(source, pixel_values, place)
    facts = Facts(
        device=place.name,
        device_model=place.model,
        arithmetic=f"{place.arithmetic}, TF32 off" if place.kind == "cuda" else place.arithmetic,
        images=names,
        environment=saving.environment([place]),
        time=datetime.now(UTC).strftime("%Y%m%dT%H%M%S"),
    )
    content = reference_file.save(target, found, made, facts)
    return {
        "file": str(out),
        "sha256": hashlib.sha256(content).hexdigest(),
        "nbytes": len(content),
        "artifact": made.system.name,
        "weights": made.source.label,
        "synthetic": made.source.synthetic,
        "reference": found.name,
        "outputs": {name: list(value.shape) for name, value in found.outputs.items()},
        "floor": dict(found.floor),
        **facts.model_dump(mode="json"),
    }


def read_reference(
    reference: str | Path | None, made: Manifest, others: Mapping[str, object]
) -> ReferenceFile | None:
    """Read a reference from another machine, if one was named.

    Args:
        reference: the file that :func:`reference` wrote; None for no file.
        made: the manifest of the artifact to judge.
        others: the values of the options that name other images; they conflict with a reference file.

    Raises:
        InputError: other images are named too.
        ArtifactError: the file is not a recorded reference, or belongs to another artifact.
    """
    if reference is None:
        return None
    for option, given in others.items():
        if given:
            raise InputError(
                f"--reference and {option} exclude each other",
                got="both",
                expected="one: the file holds the images that were recorded with it",
                fix="leave one of them out",
            )
    return reference_file.load(Path(reference), made)


def _place(device: str) -> Device:
    if device.partition(":")[0] in set(DEVICE_KINDS) - set(KINDS):
        raise InputError(
            "a reference cannot be recorded there",
            got=f"--device {device}, which computes GELU and products differently",
            expected="cpu or cuda[:N]",
            fix="record it on one of those; `vconv validate PATH --device npu --reference FILE` then uses it",
        )
    return find_device(device)


def _require_writable(target: Path, folder: Path, force: bool) -> None:
    there = "a link" if target.is_symlink() else kind_of(target)
    forced = there == A_FILE and force
    reasons = (
        (INSIDE, is_inside(target, folder)),
        (f"no folder {target.parent}", not target.parent.is_dir()),
        (there, there and not forced),
    )
    found = next((reason for reason, holds in reasons if holds), "")
    if found:
        raise ArtifactError(
            f"cannot write the reference to {target}",
            got=found,
            expected="a new file, outside of the artifact",
            fix="choose another --out" + ", or replace it with --force" * (found == A_FILE),
        )
