"""The graph that preprocesses images itself: its checks, when it is exported and when it is validated."""

from __future__ import annotations

import numpy as np
import onnx

from vconv.artifact.artifact import Artifact
from vconv.artifact.records import VariantRecord
from vconv.convert.architectures.outputs import output_names
from vconv.convert.libraries.image_processing import IMAGE_PROCESSING
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.base import RunPiece
from vconv.runtime.engines.table import find_engine
from vconv.runtime.engines.variants import DEFAULT_VARIANT, open_variant
from vconv.types import Check, Status
from vconv.validators.checks import image_input


def check_image_graphs(artifact: Artifact) -> list[Check]:
    """Check every graph of an artifact that preprocesses images itself, in its usual engine on the CPU.

    Args:
        artifact: the artifact; its files have been verified, or have just been made.
    """
    return [check for record in _image_graphs(artifact) for check in _checked(artifact, record)]


def skip_image_graphs(artifact: Artifact) -> list[Check]:
    """Say of every graph that preprocesses images itself that it is not run: a check failed before."""
    reason = "not run: another check failed, and a graph that was altered is not run"
    names = [artifact.path(record).name for record in _image_graphs(artifact)]
    return [Check(f"{name}: preprocessing", Status.SKIPPED, reason) for name in names]


def _image_graphs(artifact: Artifact) -> list[VariantRecord]:
    return [record for record in artifact.manifest.variants if record.contract.preprocessing]


def _checked(artifact: Artifact, record: VariantRecord) -> list[Check]:
    network, device = artifact.network, find_device("cpu")
    path, engine = artifact.path(record), find_engine(record.engine)
    steps = IMAGE_PROCESSING[network.library](artifact.folder, artifact.config)
    names = output_names(network)

    def load_piece(model: onnx.ModelProto, outputs: tuple[str, ...]) -> RunPiece:
        return engine.piece(model, path.parent, outputs, device, record.precision)

    pictures = image_input.probes()
    wanted = image_input.expected_of(artifact.folder, pictures, steps)
    pixel_values = np.concatenate([one.pixel_values for one in wanted])
    with open_variant(artifact, artifact.variant(DEFAULT_VARIANT), device) as session:
        expected = session(pixel_values)
    with open_variant(artifact, record, device) as session:
        features = session(pictures)
    return [
        image_input.check_network(path, pixel_values, expected, names, load_piece),
        image_input.check_preprocessing(path, wanted, steps, load_piece),
        image_input.check_features(path, features, expected),
    ]
