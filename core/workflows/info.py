"""`vconv info`: describe an artifact and the results of its validations."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from vconv.arguments import checked_arguments
from vconv.artifact.artifact import Artifact
from vconv.artifact.records import VariantRecord
from vconv.convert.weights.ledger import Line
from vconv.validators.report import history


@checked_arguments
def info(path: str | Path, *, ledger: bool = False) -> dict[str, Any]:
    """Return an artifact's manifest, its missing files and its newest reports.

    Args:
        path: the artifact.
        ledger: whether to return the lines of the ledger too.

    Returns:
        The artifact's path and manifest; ``weights_found_again``, whether the original's weights are found
        without being given; ``outputs``, the shape of each output; ``missing``, the missing
        files; ``altered``, the size of each file that is not as long as the manifest says;
        ``unlike_catalog``, how the network differs from the catalog's system of its name: by entry of the
        configuration, its value and the catalog's; ``reports``, the newest of each kind, as
        :func:`vconv.validators.report.history.newest` returns them; ``reports_trouble``, the reason if
        reports cannot be read; and ``tensors``, the lines of the ledger, or None: for each tensor of the
        source, the action that was taken, the artifact's tensors that hold it, and the proof. ``sides`` has
        the bounds of height and width of the variants that take any size, or is None. Keys of version
        0.1.0 are kept: ``file``, ``batch``, ``opset``, ``ir_version`` and ``operators`` of a variant,
        ``file`` of ``golden``, and ``published`` of ``source``.

    Raises:
        ArtifactError: the manifest, or the ledger that is asked for, is missing or damaged.
    """
    artifact = Artifact.open(path)
    made = artifact.manifest
    sizes = {name: _size(artifact.folder / name) for name in made.files}
    reports, trouble = history.newest(artifact.folder)
    document = made.model_dump(mode="json")
    golden = document["golden"]
    return {
        "artifact": str(path),
        "weights_found_again": made.source.found_again,
        **document,
        "source": {**document["source"], "published": document["source"]["from_catalog"]},
        "sides": [side.model_dump() for side in made.sides] if made.sides else None,
        "outputs": {name: list(shape) for name, shape in made.outputs.items()},
        "variants": [
            {**document, **_former_keys(record)}
            for document, record in zip(document["variants"], made.variants, strict=True)
        ],
        "golden": {**golden, "file": golden["path"]} if golden else None,
        "unlike_catalog": artifact.unlike,
        "missing": [name for name, nbytes in sizes.items() if nbytes is None],
        "altered": {
            name: nbytes for name, nbytes in sizes.items() if nbytes not in (None, made.files[name].nbytes)
        },
        "reports": reports,
        "reports_trouble": trouble,
        "tensors": [_tensor(line) for line in artifact.ledger] if ledger else None,
    }


def _tensor(line: Line) -> dict[str, Any]:
    """Return a line of the ledger, with the names of the artifact's tensors that hold the tensor."""
    return {**asdict(line), "targets": list(line.targets)}


def _size(path: Path) -> int | None:
    """Return the size of a file; None if there is no regular file."""
    return path.stat().st_size if path.is_file() else None


def _former_keys(record: VariantRecord) -> dict[str, Any]:
    """Return a variant under the keys of version 0.1.0."""
    graph = record.graph
    return {
        "file": record.path,
        "batch": record.batch,
        "opset": graph.opset if graph else None,
        "ir_version": graph.ir_version if graph else None,
        "operators": graph.operators if graph else {},
    }
