"""The JSON Schemas under docs/ are those of the code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_reports import upgraded
from pydantic import BaseModel

from vconv.validators.accuracy.metrics import METRICS
from vconv.validators.report.schema import SCHEMAS, schema, write

DOCS = Path(__file__).parents[3] / "docs" / "schema"


@pytest.mark.parametrize(("file", "model"), SCHEMAS.items())
def test_a_schema_under_docs_is_that_of_the_code(file: str, model: type[BaseModel]) -> None:
    assert (DOCS / file).read_text() == schema(model), "run `make schemas`"


def test_every_schema_is_under_docs_and_no_other(tmp_path: Path) -> None:
    write(tmp_path)
    assert sorted(path.name for path in DOCS.iterdir()) == sorted(path.name for path in tmp_path.iterdir())


def unknown(content: Any, found: dict[str, Any], whole: dict[str, Any], path: str = "") -> list[str]:
    """List the keys of a document that its schema does not declare, and those that it requires and lacks."""
    choices = found.get("anyOf", [found])
    resolved = [whole["$defs"][one["$ref"].rpartition("/")[2]] if "$ref" in one else one for one in choices]
    if isinstance(content, list):
        (inner,) = (one for one in resolved if one.get("type") == "array")
        parts = inner.get("prefixItems") or [inner["items"]] * len(content)
        return [
            wrong
            for place, (part, of) in enumerate(zip(content, parts, strict=True))
            for wrong in unknown(part, of, whole, f"{path}[{place}]")
        ]
    if not isinstance(content, dict):
        return []
    (inner,) = (one for one in resolved if one.get("type") == "object")
    declared, further = inner.get("properties", {}), inner.get("additionalProperties", False)
    wrong = [f"{path}.{key} is missing" for key in inner.get("required", ()) if key not in content]
    for key, value in content.items():
        of = declared.get(key, further)
        if of is False:
            wrong.append(f"{path}.{key} is not declared")
        elif of is not True:
            wrong += unknown(value, of, whole, f"{path}.{key}")
    return wrong


@pytest.mark.parametrize("name", ["measured", "simulated"])
def test_a_report_keeps_to_its_schema(name: str, request: pytest.FixtureRequest) -> None:
    content = upgraded(request.getfixturevalue(name)).as_json()
    found = json.loads((DOCS / "report.schema.json").read_text())
    assert unknown(content, found, found) == []
    content["variants"][0]["smoke"] = content["variants"][0].pop("output_summary")
    assert unknown(content, found, found) == [
        ".variants[0].output_summary is missing",
        ".variants[0].smoke is not declared",
    ]


def test_the_schema_has_every_metric_beside_the_other_keys_of_an_output() -> None:
    declared = json.loads((DOCS / "report.schema.json").read_text())["$defs"]["OutputRow"]["properties"]
    assert set(METRICS) < set(declared) and "metrics" not in declared
