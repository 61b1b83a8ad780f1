"""JSON Schemas of vconv's files: ``python -m vconv.validators.report.schema FOLDER`` writes them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from vconv.artifact.manifest import Manifest
from vconv.validators.report.bisection import Bisection
from vconv.validators.report.comparison import Comparison
from vconv.validators.report.document import Report

SCHEMAS: Mapping[str, type[BaseModel]] = {
    "manifest.schema.json": Manifest,
    "report.schema.json": Report,
    "comparison.schema.json": Comparison,
    "bisection.schema.json": Bisection,
}
"""By file under docs/schema: the model that it describes. A new schema is one row here."""
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(model: type[BaseModel]) -> str:
    """Return the JSON Schema of a model: the content of its file."""
    return json.dumps({"$schema": _DIALECT, **model.model_json_schema()}, indent=2) + "\n"


def write(folder: Path) -> None:
    """Write every schema into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in SCHEMAS.items():
        (folder / name).write_text(schema(model))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
