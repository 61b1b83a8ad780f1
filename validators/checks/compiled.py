"""Check which fusion passes CANN's compiler ran when it made an offline model."""

from __future__ import annotations

from vconv.artifact.artifact import Artifact
from vconv.convert.ascend.atc import FOLDER
from vconv.convert.ascend.fusions.base import Fusion
from vconv.convert.ascend.fusions.switch_file import RESULT_FILE, effects, harmful_effects
from vconv.convert.ascend.fusions.table import FUSIONS, GELU
from vconv.regular_files import open_regular
from vconv.types import Check, Status

GREATEST_BYTES = 2**24
"""The greatest ``fusion_result.json`` that is read; those seen in public have 30 kB at most."""


def check_compiled(artifact: Artifact) -> list[Check]:
    """Check every offline model that exists, by what the compiler wrote of its passes."""
    return [
        _checked(artifact, f"{variant.path}: fusions")
        for variant in artifact.manifest.variants
        if variant.offline and artifact.path(variant).is_file()
    ]


def _checked(artifact: Artifact, name: str) -> Check:
    path = artifact.folder / FOLDER / RESULT_FILE
    if not path.is_file():
        return Check(name, Status.SKIPPED, f"atc left no {RESULT_FILE}, so which passes it ran is not known")
    try:
        with open_regular(path) as file:
            found = effects(file.read(GREATEST_BYTES).decode())
    except ValueError as error:
        detail = f"{FOLDER}/{RESULT_FILE} cannot be read: {error!s:.120}"
        return Check(name, Status.FAILED, detail, "files")
    harmful = harmful_effects(found)
    if harmful:
        fusion: Fusion = FUSIONS[next(iter(harmful))]
        detail = f"{fusion.name} put {fusion.becomes} in {harmful[fusion.name]} places: {fusion.numbers}"
        return Check(name, Status.FAILED, detail, "activation" if fusion.becomes == GELU else "graph")
    fired = ", ".join(f"{fusion} {count} times" for fusion, count in found.items())
    return Check(name, Status.PASSED, f"atc ran no pass that changes a result; it ran {fired or 'none'}")
