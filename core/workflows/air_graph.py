"""What an artifact's ``make_air.py`` gives torchair: the network, and what must be in the graph of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import DIGEST_FILE, Manifest
from vconv.artifact.records import VariantRecord
from vconv.convert.ascend.air import ERF, Expected
from vconv.convert.ascend.routes import AIR_ROUTE
from vconv.convert.graphs.flat_model import FlatModel, flat_model
from vconv.convert.patches.table import PATCHES
from vconv.errors import ArtifactError
from vconv.types import GRAPHS, MANIFEST_FILE


def traced(folder: str | Path) -> tuple[FlatModel, Expected]:
    """Trace the patched network of an artifact, with its weights, in the form that its graphs have.

    Args:
        folder: the artifact, exported with ``--format air``.

    Returns:
        The model, and what its graph must have: as many ``Erf`` as the artifact's own graph.

    Raises:
        ArtifactError: this is no artifact with such an offline model, or it has no weights.
        PatchError: a patch did not find the places that it must change.
    """
    artifact = Artifact.open(folder)
    records = artifact.manifest.variants
    wanted = [one for one in records if one.offline and one.offline.route == AIR_ROUTE.name]
    if not wanted:
        raise ArtifactError(
            f"{folder} has no offline model that torchair makes",
            got="a manifest without one",
            expected="an artifact that was exported with --format air",
            fix="export it again with --format air and --soc",
        )
    (batch, _, height, width), patches = wanted[0].contract.input.shape, wanted[0].patches
    model = flat_model(
        artifact.folder,
        artifact.network,
        [PATCHES[name] for name in patches],
        (int(height), int(width)),
        int(batch),
    )
    return model, Expected(_operators(records).get(ERF, 0), model.tanh_gelus)


def _operators(records: tuple[VariantRecord, ...]) -> Mapping[str, int]:
    """Return the operators of the artifact's graph for an NPU."""
    path = next(graph.path for graph in GRAPHS if graph.for_npu)
    return next((one.graph.operators for one in records if one.path == path and one.graph), {})


@contextlib.contextmanager
def provisional(manifest: Manifest, folder: Path) -> Iterator[None]:
    """Let an artifact have a manifest while its offline model is made, and not the files that are made of it.

    Args:
        manifest: the manifest.
        folder: the artifact.
    """
    manifest.save(folder)
    try:
        yield
    finally:
        for name in (MANIFEST_FILE, DIGEST_FILE):
            (folder / name).unlink()
