"""The text of the scripts; tests/core/workflows/test_published_scripts.py runs them."""

from __future__ import annotations

import ast

import pytest

from vconv.artifact.manifest import Manifest
from vconv.validators.accuracy.limits import TABLES
from vconv.validators.report.publishing.programs import ACCURACY, INFERENCE, PERFORMANCE, programs_of

pytestmark = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)

STANDARD = {
    *("argparse", "hashlib", "json", "os", "pathlib", "platform", "sys", "time", "types"),
}
ALLOWED = {*STANDARD, "inference", "numpy", "onnxruntime", "PIL", "torch", "torch_npu", "transformers"}
HOSTILE = '"""\nimport os\n\\"'


def imported(text: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(text)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names}


def test_the_scripts_need_no_vconv(made: Manifest) -> None:
    programs = programs_of(made, [], {})
    assert list(programs) == [INFERENCE, ACCURACY, PERFORMANCE]
    for path, text in programs.items():
        assert imported(text) <= ALLOWED, path
        assert max(len(line) for line in text.splitlines()) <= 120


def test_without_recorded_outputs_there_is_no_script_for_the_accuracy(made: Manifest) -> None:
    assert list(programs_of(made.model_copy(update={"golden": None}), [], {})) == [INFERENCE, PERFORMANCE]


def test_every_metric_with_a_limit_is_computed_by_the_script(made: Manifest) -> None:
    tree = ast.parse(programs_of(made, [], {})[ACCURACY])
    (metrics,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "METRICS"
    )
    assert isinstance(metrics, ast.Dict)
    known = {ast.literal_eval(key) for key in metrics.keys if key}
    assert {
        metric for table in TABLES.values() for limit in table.values() for metric in limit.bounds
    } <= known


def test_a_name_of_a_manifest_is_text_and_no_code(made: Manifest) -> None:
    variants = [one.model_copy(update={"variant": HOSTILE}) for one in made.variants if one.graph]
    golden = made.golden.model_copy(update={"path": HOSTILE}) if made.golden else None
    hostile = made.model_copy(update={"variants": tuple(variants[:1]), "golden": golden})
    for path, text in programs_of(hostile, [], {}).items():
        usual = programs_of(made, [], {})[path]
        assert imported(text) == imported(usual)
        assert len(list(ast.walk(ast.parse(text)))) <= len(list(ast.walk(ast.parse(usual))))
