"""The original of an artifact: find its weights again, choose the inputs, and run it as the reference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image

from vconv.artifact.artifact import Artifact
from vconv.artifact.records import SourceRecord
from vconv.catalog import systems
from vconv.catalog.systems import System
from vconv.convert.architectures.layer_outputs import find_layer
from vconv.convert.architectures.outputs import output_names
from vconv.convert.sources.base import STORED, SYNTHETIC, Source
from vconv.convert.sources.recipes.table import LATEST, RECIPES
from vconv.convert.sources.sizes import SizeRequest
from vconv.convert.sources.table import Request, open_source
from vconv.convert.weights import ledger
from vconv.errors import InputError, OutputsError, WeightsError
from vconv.runtime.devices.base import Device
from vconv.types import CONFIG_FILE, PREPROCESSOR_FILE, Array, Check, Say, Status
from vconv.validators.accuracy.golden import (
    Reference,
    check_recorded,
    recorded,
    recorded_elsewhere,
    run_reference,
)
from vconv.validators.accuracy.other_sizes import other_sizes
from vconv.validators.accuracy.reference_file import ReferenceFile, check_reference_file
from vconv.workflows import sample_images

FIX = "give --weights what the artifact was exported from"
"""The remedy for weights of another network."""


def system_of(artifact: Artifact) -> System:
    """Return an artifact's system as it was exported; for a manifest of schema 1, the catalog's system.

    Raises:
        UnknownNameError: the manifest is of schema 1, and the catalog has no such system.
    """
    made = artifact.manifest
    if made.original is None:
        return systems.find(made.system.name)
    return System(
        name=made.system.name,
        hub_id=made.system.hub_id,
        library=made.system.library,
        config=artifact.original(CONFIG_FILE),
        licence=made.original.licence,
        preprocessor=artifact.original(PREPROCESSOR_FILE),
        gated=made.original.gated,
    )


def request(artifact: Artifact, weights: str | Path | None, hub: str, offline: bool) -> Request:
    """Return a request for the weights of an artifact's original.

    Args:
        artifact: the artifact.
        weights: where the weights are; None for where the manifest says.
        hub: the hub of a repository that ``weights`` names.
        offline: whether to look for a repository only in the hub's cache.

    Returns:
        The request; its ``weights`` is None if no weights were given and the manifest does not say where
        they are.
    """
    origin = artifact.manifest.source
    given = str(weights) if weights else None
    size = SizeRequest(origin.size, origin.dynamic_size) if origin.size or origin.dynamic_size else None
    periods = None if origin.periods == STORED else origin.periods
    asked = Request(
        system_of(artifact),
        given,
        hub,
        origin.pool,
        periods,
        offline,
        size,
        origin.outputs,
        allow_lossy=bool(origin.losses),
        state_dict=origin.state_dict,
        positions=origin.positions,
        recipe=(1 if origin.recipe is None else origin.recipe) if origin.synthetic else LATEST,
    )
    if given:
        return asked
    asked = replace(asked, weights_layout=origin.layout)
    if origin.synthetic:
        return replace(asked, weights=f"{SYNTHETIC}:{origin.identity}")
    if origin.revision:
        return replace(asked, weights=f"hub:{origin.identity}@{origin.revision}", hub=origin.kind)
    return asked


def weights_used(artifact: Artifact, weights: str | Path | None) -> str:
    """Return the label of an artifact's weights; after the source as the user gave it, if one was given."""
    label = artifact.manifest.source.label
    if weights is None or str(weights) == label:
        return label
    # The bytes of a path need not be UTF-8; a report is.
    return f"{str(weights).encode('utf-8', 'replace').decode()} ({label})"


def live_source(
    artifact: Artifact, weights: str | Path | None, hub: str, offline: bool, scratch: Path, say: Say
) -> tuple[Source | None, str]:
    """Return the original's weights if they are available: given, synthetic, or on the hub of origin.

    Args:
        artifact: the artifact.
        weights: where the weights are; None for where the manifest says.
        hub: the hub of a repository that ``weights`` names.
        offline: whether to look for a repository only in the hub's cache.
        scratch: an empty folder.
        say: receives progress lines.

    Returns:
        The source and an empty string; or None and the reason why the weights are not available.

    Raises:
        ArtifactError: the manifest names outputs that its network does not have.
        WeightsError: the given or synthetic weights cannot be used, or are not the artifact's.
    """
    asked, origin = request(artifact, weights, hub, offline), artifact.manifest.source
    if origin.synthetic and asked.recipe not in RECIPES:
        return None, (
            f"its weights were drawn by version {asked.recipe} of the recipe, and this vconv has up to "
            f"version {max(RECIPES)}"
        )
    if asked.weights is None:
        return None, f"the original came from a {origin.kind}: --weights says where it is"
    _refuse_other_seed(asked.weights, origin)
    outputs = artifact.network.asked
    try:
        found = open_source(asked, scratch, say)
    except WeightsError as error:
        if weights or origin.synthetic:
            raise
        say(f"the original cannot be had: {error.what}")
        return None, f"{error.what}, got {error.got}"
    except OutputsError as error:
        raise _of_another_network(
            f"{error.what}: {error.got}", f"the outputs {', '.join(outputs)}"
        ) from error
    theirs = output_names(found.network)
    if any(map(find_layer, artifact.manifest.outputs.keys() ^ set(theirs))):
        raise _of_another_network(f"the outputs {', '.join(theirs)}", "the outputs of the artifact")
    if weights:
        _require_same_shapes(artifact, found)
    return found, ""


def _refuse_other_seed(weights: str, origin: SourceRecord) -> None:
    """Refuse synthetic weights that the artifact was not made from: their name says it."""
    seed = re.fullmatch(rf"{SYNTHETIC}(?::(\d{{1,9}}))?", weights)
    if seed and not (origin.synthetic and origin.identity == str(int(seed[1] or 0))):
        raise WeightsError(
            "these are not the weights that the artifact was made from",
            got=weights,
            expected=origin.label,
            fix="leave --weights out: they are drawn again" if origin.synthetic else FIX,
        )


def _require_same_shapes(artifact: Artifact, source: Source) -> None:
    """Refuse weights with a tensor of another shape than the ledger has."""
    theirs = ledger.renamed(artifact.ledger, source.stored, source.entries)
    pairs = [(line, theirs[line.source].shape) for line in artifact.ledger if line.source in theirs]
    differing = [(line, shape) for line, shape in pairs if line.shape != shape]
    if not differing:
        return
    labels, (first, shape) = artifact.network.known.labels, differing[0]
    if all(line.shape[:1] == (labels,) and line.shape[1:] == shape[1:] for line, shape in differing):
        raise _of_another_network(
            f"{shape[0]} classes: {first.source} is {list(shape)}", f"{labels} classes, as in the artifact"
        )
    raise _of_another_network(
        f"{first.source} as {list(shape)}", f"{first.source} as {list(first.shape)}, as in the artifact"
    )


def _of_another_network(got: str, expected: str) -> WeightsError:
    return WeightsError(
        "the weights are of another network than the artifact's", got=got, expected=expected, fix=FIX
    )


def inputs(
    artifact: Artifact, photographs: Sequence[Image.Image], seed: int
) -> tuple[Array, tuple[str, ...]]:
    """Choose the inputs of a reference: photographs, else the recorded inputs, else made-up images.

    Args:
        artifact: the artifact.
        photographs: photographs; an empty sequence for the recorded inputs.
        seed: the seed of made-up images.

    Returns:
        float32 (N, 3, H, W), and what each image is.
    """
    golden = artifact.manifest.golden
    kept = None if photographs else recorded(artifact)
    if golden is None or kept is None:
        return sample_images.sample(artifact.folder, photographs, seed, artifact.manifest.size)
    return kept[0], golden.images


def _other_sizes(artifact: Artifact) -> tuple[tuple[int, int], ...]:
    made = artifact.manifest
    return other_sizes(made.size, made.sides, made.gears_size)


def _from_elsewhere(
    artifact: Artifact, elsewhere: ReferenceFile, source: Source | None, say: Say
) -> tuple[Reference, Check, dict[str, Any]]:
    """Return the reference that another machine recorded, compared with a run here if there is a source."""
    live, sizes = None, _other_sizes(artifact)
    if source:
        say("running the reference in fp32 and float64, to hold the recorded one against it")
        live = run_reference(source, elsewhere.reference.pixel_values, sizes=sizes)
    check = check_reference_file(elsewhere, live.outputs if live else None)
    # The file has images of one size. At others the reference is this machine's, or the recorded one.
    others = live.elsewhere if live else recorded_elsewhere(artifact)
    found = replace(elsewhere.reference, elsewhere=others)
    return found, check, {"source": "file", "images": list(elsewhere.facts.images)}


def reference(
    artifact: Artifact,
    source: Source | None,
    photographs: Sequence[Image.Image],
    seed: int,
    say: Say,
    elsewhere: ReferenceFile | None = None,
) -> tuple[Reference | None, Check, dict[str, Any]]:
    """Run the reference live, or read the recorded reference; None if neither is possible.

    Args:
        artifact: the artifact.
        source: the original's weights; None if they are not available.
        photographs: photographs to use instead of the recorded inputs.
        seed: the seed of made-up images, which are used if there are no recorded inputs.
        say: receives progress lines.
        elsewhere: a reference that another machine recorded; it replaces the reference that runs here.

    Returns:
        The reference, or None; the check that compares it with the recorded one; and the description of its
        inputs.

    Raises:
        InputError: photographs were given, but the original's weights are not available to run on them.
    """
    if elsewhere:
        return _from_elsewhere(artifact, elsewhere, source, say)
    golden = artifact.manifest.golden
    kept = recorded(artifact)
    names = golden.images if golden else ()
    told: dict[str, Any] = {"source": "recorded" if kept else "none", "images": list(names)}
    sizes = _other_sizes(artifact)
    if source is None:
        if photographs:
            raise InputError(
                "cannot judge on these images",
                got="no weights of the original",
                expected="the original, to run it on them",
                fix="give --weights, or leave --images out to use the recorded inputs",
            )
        check = Check("golden", Status.SKIPPED, "the original's weights are not at hand to run it again")
        if kept is None or golden is None:
            return None, check, told
        there = Reference(
            golden.reference,
            *kept,
            golden.floor,
            golden.to_stock_original,
            source="golden",
            elsewhere=recorded_elsewhere(artifact),
        )
        return there, check, told
    pixel_values, names = inputs(artifact, photographs, seed)
    if photographs or kept is None:
        told = {"source": "photographs" if photographs else "made up", "images": list(names)}
    say("running the reference in fp32 and float64")
    live = run_reference(source, pixel_values, sizes=sizes)
    others = () if photographs or kept is None else recorded_elsewhere(artifact)
    return live, check_recorded(live, None if photographs else kept, golden, others), told


def published(artifact: Artifact, devices: Sequence[Device]) -> list[dict[str, Any]]:
    """Return figures that others published for the catalog's system on these kinds of devices."""
    kinds = {device.kind for device in devices}
    known = systems.SYSTEMS.get(artifact.name)
    if known is None or known.hub_id != artifact.manifest.system.hub_id or artifact.unlike:
        return []
    return [asdict(row) for row in known.published if row.kind in kinds]
