"""The graph that preprocesses images itself: its checks, when it is exported and when it is validated."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx

from vconv.artifact.artifact import Artifact
from vconv.artifact.records import VariantRecord
from vconv.convert.architectures.outputs import output_names
from vconv.convert.libraries.image_processing import IMAGE_PROCESSING
from vconv.convert.sources.authors import AUTHORS_WEIGHTS
from vconv.errors import EngineError
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.base import RunPiece, in_batches
from vconv.runtime.engines.table import find_engine
from vconv.runtime.engines.variants import open_variant
from vconv.types import Check, Status
from vconv.validators.accuracy.golden import AT_ONCE, Reference
from vconv.validators.accuracy.limits import Limits
from vconv.validators.checks import image_input
from vconv.validators.checks.claims import OF_OFFLINE_MODELS

_COMPUTED = "fp32", "fp32"
"""The precision of such a graph, and the arithmetic of its usual engine on the CPU."""


def check_image_graphs(
    artifact: Artifact, reference: Reference | None, limits: Limits, before: Iterable[Check] = ()
) -> list[Check]:
    """Check every graph of an artifact that preprocesses images itself, in its usual engine on the CPU.

    Args:
        artifact: the artifact; its files have been verified, or have just been made.
        reference: the reference; None if there is none, and then the network is not compared.
        limits: the limits of the validation.
        before: the checks that were made before. A graph is not run if one failed that concerns what it is
            made of.
    """
    checks: list[Check] = []
    failed = [check for check in before if check.status is Status.FAILED]
    for record in artifact.manifest.variants:
        if record.contract.preprocessing:
            altered = [check for check in failed if _concerns(check, record, artifact)]
            checks += (
                _skipped(record, altered[0]) if altered else _checked(artifact, record, reference, limits)
            )
    return checks


def _concerns(check: Check, record: VariantRecord, artifact: Artifact) -> bool:
    """Return whether a check is of what a graph is made of, and not of another variant alone."""
    others = {one.path for one in artifact.manifest.variants} | {AUTHORS_WEIGHTS}
    return check.name not in OF_OFFLINE_MODELS and check.name.partition(": ")[0] not in others - {record.path}


def _skipped(record: VariantRecord, failed: Check) -> list[Check]:
    """Say of a graph that it is not run, because a check failed before."""
    reason = f"not run, because the check {failed.name} failed: it may be of altered files"
    return [Check(f"{record.path}: preprocessing", Status.SKIPPED, reason)]


def _checked(
    artifact: Artifact, record: VariantRecord, reference: Reference | None, limits: Limits
) -> list[Check]:
    network, device = artifact.network, find_device("cpu")
    path, engine = artifact.path(record), find_engine(record.engine)
    steps = IMAGE_PROCESSING[network.library](artifact.folder, artifact.config)

    def load_piece(model: onnx.ModelProto, outputs: tuple[str, ...]) -> RunPiece:
        return engine.piece(model, path.parent, outputs, device, record.precision)

    pictures = image_input.probes()
    wanted = image_input.expected_of(artifact.folder, pictures, steps)
    preprocessing = image_input.check_preprocessing(path, wanted, steps, load_piece)
    try:
        run = image_input.open_network(path, output_names(network), load_piece)
        expected = run(np.concatenate([one.pixel_values for one in wanted]))
        found = in_batches(run, reference.pixel_values, AT_ONCE) if reference else None
    except EngineError as error:
        return [image_input.network_refused(path, error), preprocessing]
    if reference and found:
        same = image_input.check_network(path, found, reference, limits.table[_COMPUTED])
    else:
        same = Check(f"{path.name}: network", Status.SKIPPED, "not compared: there is no reference")
    with open_variant(artifact, record, device) as session:
        features = session(pictures)
    return [same, preprocessing, image_input.check_features(path, features, expected)]
