"""The checks before a variant runs: an artifact's files, its graphs, its source and its reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from vconv.artifact.artifact import Artifact
from vconv.artifact.records import VariantRecord
from vconv.convert.sources.base import Source
from vconv.convert.weights import ledger
from vconv.runtime.engines.table import graph_engines
from vconv.types import Check, Say, Status, silent
from vconv.validators.accuracy import golden
from vconv.validators.accuracy.golden import Reference
from vconv.validators.accuracy.limits import Limits
from vconv.validators.checks.claims import Evidence, check_claims
from vconv.validators.checks.compiled import check_compiled
from vconv.validators.checks.graphs import check_bounds, check_contract, check_graph
from vconv.validators.checks.inspected_graph import InspectedGraph, open_graph
from vconv.validators.checks.integrity import (
    verify_architecture,
    verify_files,
    verify_ledger,
    verify_made_later,
    verify_source,
    verify_tensors,
    verify_variants,
)
from vconv.validators.checks.preprocessing import RecordedInputs, verify_preprocessing
from vconv.validators.checks.reduced import check_reduced
from vconv.validators.faults import classes
from vconv.workflows import authors_weights
from vconv.workflows.image_graph import check_image_graphs


@dataclass(frozen=True)
class CheckedArtifact:
    """A checked artifact, with its source and its reference.

    Args:
        artifact: the artifact.
        source: the original's weights; None if they are not available.
        reference: the reference that variants are compared with; None if there is none.
        inputs: the description of the images, as the report has it.
        checks: the results of all checks.
    """

    artifact: Artifact
    source: Source | None
    reference: Reference | None
    inputs: dict[str, Any]
    checks: tuple[Check, ...]

    @property
    def reference_is(self) -> str:
        """The origin of the reference: ``live``, ``golden``, ``file``, or ``none``."""
        return self.reference.source if self.reference else "none"


Original = Callable[[], tuple[Source | None, str]]
"""Finds the original's weights; returns None and the reason if they are not available."""
Refer = Callable[[Source | None], tuple[Reference | None, Check, dict[str, Any]]]
"""Runs the reference, or reads the recorded one: see :func:`vconv.workflows.originals.reference`."""


def check_artifact(
    artifact: Artifact,
    original: Original,
    refer: Refer,
    limits: Limits,
    say: Say = silent,
    verified: Callable[[], None] = lambda: None,
) -> CheckedArtifact:
    """Check an artifact, and run its reference or read the recorded one.

    Args:
        artifact: the artifact.
        original: finds the original's weights.
        refer: finds the reference.
        limits: the limits of the validation.
        say: receives progress lines.
        verified: called as soon as the hashes of the files are verified; before that, no library may open
            the files.

    Raises:
        ArtifactError: a file is missing or was changed.
        WeightsError: the given weights are damaged or unusable.
        InputError: photographs were given, but the original's weights are not available to run on them.
    """
    made = artifact.manifest
    checks = [verify_files(artifact, say)]
    verified()
    checks += [*verify_made_later(artifact), verify_variants(made)]
    checks.append(verify_ledger(artifact.ledger, artifact.entries, say))
    checks += authors_weights.check_with_ledger(artifact, say)
    graphs = {}
    for record in made.variants:
        if record.engine in graph_engines():
            bounds = check_bounds(artifact.path(record), record, graph_engines()[record.engine].domains)
            checks.append(bounds)
            if bounds.status is Status.PASSED:
                graph = graphs[record.path] = _opened(artifact, record)
                checks += [*check_graph(graph), check_contract(graph, record.contract)]
                checks += check_reduced(artifact, record, graph)
    checks += check_compiled(artifact)
    checks += check_claims(Evidence(artifact, graphs))
    source, missing = original()
    if source is None:
        checks.append(Check("source", Status.SKIPPED, missing))
    else:
        checks += [verify_source(made, source), *compare_with_original(artifact, source, say)]
    recorded: RecordedInputs = (None, ())
    kept = golden.recorded(artifact) if source is None else None
    if kept and made.golden:
        recorded = kept[0], made.golden.images
    checks.append(verify_preprocessing(artifact.folder, source.folder if source else None, recorded))
    reference, agreement, inputs = refer(source)
    checks += check_image_graphs(artifact, reference, limits, checks)
    return CheckedArtifact(artifact, source, reference, inputs, (*checks, agreement))


def _opened(artifact: Artifact, record: VariantRecord) -> InspectedGraph:
    made = artifact.manifest
    return open_graph(
        artifact.folder,
        record.path,
        record.weights,
        artifact.network,
        made.size,
        record.batch,
        old=made.schema_version == 1,
        any_size=record.contract.sides is not None,
        from_images=record.contract.preprocessing,
    )


def compare_with_original(artifact: Artifact, source: Source, say: Say = silent) -> list[Check]:
    """Compare an artifact's architecture and weights with the original's."""
    original = ledger.renamed(artifact.ledger, source.stored, source.entries)
    fault_of = partial(classes.of_tensor, artifact.network)
    return [
        verify_architecture(artifact.network, source.artifact_network),
        verify_tensors(artifact.ledger, original, artifact.entries, fault_of, say, source.matches),
        *authors_weights.check_with_original(artifact, source, say),
    ]
