"""Every drawing, of documents that were found in small runs and then stretched as far as any can be."""

from __future__ import annotations

import copy
import io
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import made_reports
import pytest

from vconv.catalog.published import PublishedFigures
from vconv.catalog.systems import SYSTEMS
from vconv.cli import render
from vconv.cli.render.base import COLOURS, folded, show, table
from vconv.cli.terminal import WIDTH
from vconv.types import Status, weights_named
from vconv.validators.faults.table import FAULTS
from vconv.validators.report.bisection import BisectionResult
from vconv.validators.report.comparison import Comparison
from vconv.validators.report.document import ValidationResult
from vconv.workflows import bisect, compare, export, info, selftest, validate

LONGEST = "vit_small_patch14_reg4_dinov2.lvd142m"
FOLDER = f"/data/models/of-the-vision-group/artifacts/{LONGEST}"
VARIANT = "original-torch-autocast-bf16-captured"
REASON = (
    "onnxruntime refuses the graph at /data/models/of-the-vision-group/artifacts/model.onnx: "
    "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for "
    "Some_operator_of_a_name_without_end_that_no_provider_here_has_heard_of_before(18)"
)
BATCHES = (1, 2, 4, 8, 16)
OUTPUTS = ("pooled", "cls", "registers", "patches", "last_hidden_state", "logits")
COLOUR = re.compile(r"\x1b\[([\d;]*)m")
ONE = pytest.mark.parametrize("system", [LONGEST], indirect=True)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """By drawing, the document of a small run; made once."""
    return {}


@pytest.fixture
def documents(found: dict[str, Any], small_name: str, tmp_path: Path, monkeypatch: Any) -> dict[str, Any]:
    if not found:
        folder = tmp_path / "artifact"
        glance: dict[str, Any] = {"quick": True, "budget": 1e-3}
        found["exported"] = export.export(small_name, "synthetic:1", folder, batch=16)
        found["validated"] = validate.validate(folder, **glance).as_json()
        found["compared"] = compare.compare([folder], **glance).as_json()
        found["bisected"] = bisect.bisect(folder).as_json()
        monkeypatch.setattr(selftest, "FAULTS", FAULTS[:1])
        found["selftested"] = selftest.selftest(folder, clean_runs=1)
        found["artifact"] = info.info(folder)
    return found


@dataclass(frozen=True)
class Drawn:
    """A document, how it is drawn, and what must then be found on one line each.

    Args:
        draw: draws it.
        document: as wide as any.
        figures: what may not be folded.
        names: what may.
    """

    draw: Callable[[Any], None]
    document: Any
    figures: Iterable[str]
    names: Iterable[str]


def stretched_variants(document: dict[str, Any], simulated: bool) -> list[dict[str, Any]]:
    """Return rows with the longest names, every output, failures with long reasons, and large figures."""
    row = copy.deepcopy(document["variants"][0])
    output = row["outputs"]["last_hidden_state"]
    row |= {"variant": VARIANT, "status": "failed", "simulated": simulated, "reason": REASON}
    row |= {"engine": "openvino", "device": "npu-sim" if simulated else "npu:15"}
    row["outputs"] = {name: {**output, "reasons": [REASON], "status": "failed"} for name in OUTPUTS}
    row["outputs"]["last_hidden_state"] |= {
        **{"vector_relative_error": 1.234e-5, "floor": 7e-7, "limit": 2.5e-6},
    }
    for name in OUTPUTS[:4]:
        row["outputs"][name]["vector_relative_error"] = 1e-9
    row["fallbacks"] = {"LayerNormalization": 24, "Some_operator_of_a_very_long_name": 123}
    row["launches"] = {"total": 123456, "how": "kernels", "operators": {}}
    row["skipped_batches"] = [{"batch": 32, "reason": "needs about 123.45 GB, 12.34 GB are free"}]
    row["timing_refused"] = REASON
    timing = next(iter(row["latency"]), None)
    row["latency"] = [
        {
            **(timing or {}),
            **{"batch": batch, "p50_ms": 12345.67 + batch, "images_per_second": 98765.43 + batch},
            "speed_up_over_cpu": 1234.56 + batch,
        }
        for batch in (BATCHES if timing else ())
    ]
    if simulated:
        row |= {"latency": [], "launches": None, "prediction": prediction()}
    return [row, {**copy.deepcopy(row), "variant": "onnx-fp32-npu", "status": "passed"}]


def prediction() -> dict[str, Any]:
    """Return a prediction as a simulated NPU makes them, with every error a hundred percent and more."""

    def errors(start: int) -> dict[str, dict[str, float]]:
        errors = {name: start + place / 1000 for place, name in enumerate(OUTPUTS)}
        return {name: {"relative_error": one, "vector_relative_error": one} for name, one in errors.items()}

    causes = ("gelu", "convolution", "matmul")
    return {
        "arithmetic": {"gelu": "tanh", "convolution": "hf32", "matmul": "fp16"},
        "executed": 12345,
        "changed": dict.fromkeys(causes, 1234),
        "outputs": errors(1),
        "causes": {
            cause: {"changed": 1234, "outputs": errors(2 + place)} for place, cause in enumerate(causes)
        },
        "rest": errors(9),
    }


def draw_validated(content: dict[str, Any]) -> None:
    render.validated(ValidationResult.model_validate(content))


def draw_compared(content: dict[str, Any]) -> None:
    render.compared(Comparison.model_validate(content))


def draw_bisected(content: dict[str, Any]) -> None:
    render.bisected(BisectionResult.model_validate(content))


def validated(document: dict[str, Any], simulated: bool) -> Drawn:
    rows = stretched_variants(document, simulated)
    stretched = {
        **copy.deepcopy(document),
        **{"artifact": LONGEST, "variants": rows, "published": [], "speed_up_baseline": f"{VARIANT} on cpu"},
        **{"report": f"{FOLDER}/reports/20261121T225345-validate-12.json", "status": "failed"},
        "diagnosis": [{"class": "weights", "meaning": REASON, "where": VARIANT, "because": REASON}],
        "devices": {
            "npu-sim": "simulated Ascend NPU, profile 310p: GELU tanh, convolution hf32, matmul fp16"
        },
    }
    stretched["checks"] += [
        {"name": "model.npu.onnx: operators", "status": status, "detail": REASON, "fault": "operator"}
        for status in ("failed", "skipped")
    ]
    figures = ["7e-07", "1.2e-05", "2.5e-06"]
    if simulated:
        found = rows[0]["prediction"]
        parts = [found["outputs"], found["rest"], *(one["outputs"] for one in found["causes"].values())]
        figures += [f"{100 * one['relative_error']:.4f} %" for part in parts for one in part.values()]
    else:
        timed = rows[0]["latency"]
        figures += [f"{timing['p50_ms']:.1f}" for timing in timed] + ["123456"]
        figures += [f"{timing['images_per_second']:.1f}" for timing in timed]
        figures += [f"{timing['speed_up_over_cpu']:.2f}" for timing in timed]
    return Drawn(draw_validated, stretched, figures, [VARIANT, stretched["report"], REASON])


def published(document: dict[str, Any]) -> Drawn:
    rows: list[PublishedFigures] = [row for system in SYSTEMS.values() for row in system.published]
    stretched = {**document, "published": [asdict(row) for row in rows]}
    figures = [f"{value:g}" for row in rows for value in row.figures.values()]
    return Drawn(draw_validated, stretched, figures, [row.source for row in rows])


def compared(document: dict[str, Any]) -> Drawn:
    first = document["rows"][0]
    rows = [
        {
            **first,
            **{"artifact": folder, "variant": VARIANT, "engine": "openvino", "device": "npu:15"},
            **{"batch": batch, "p50_ms": 12345.67 + batch, "images_per_second": 98765.43 + batch},
            **{"vector_relative_error": 1.234e-5, "cosine": 0.999876, "timing_refused": REASON},
        }
        for folder in (FOLDER, f"{FOLDER}-2")
        for batch in BATCHES
    ]
    stretched = {
        **document,
        **{"rows": rows, "winner": None, "winner_reason": REASON},
        "weights": dict.fromkeys((FOLDER, f"{FOLDER}-2"), weights_named("synthetic:123456789", True)),
        "references": dict.fromkeys((FOLDER, f"{FOLDER}-2"), "golden"),
        "statuses": {FOLDER: "failed", f"{FOLDER}-2": "incomplete"},
        "checks": [{"artifact": FOLDER, "name": "files", "status": "failed", "detail": REASON, "fault": "x"}],
    }
    figures = [f"{row[key]:.1f}" for row in rows for key in ("p50_ms", "images_per_second")]
    return Drawn(draw_compared, stretched, [*figures, "1.2e-05", "0.999876"], [FOLDER, VARIANT])


def exported(document: dict[str, Any]) -> Drawn:
    counts = dict(zip(document["ledger"], (12345, 12345, 12345, 12345, 12345), strict=False))
    stretched = {
        **document,
        **{
            "artifact": FOLDER,
            "weights": "hub:an-organisation/" + LONGEST + "@" + 40 * "f",
            "ledger": counts,
        },
        **{"variants": stretched_variants(document, False), "seconds": 12345.6, "without_weights": True},
        "om": {
            **{"file": "om/model.om", "compiled": False, "variant": "om-mixed-fp16", "soc": "Ascend910B4"},
            "lacks": "atc on PATH",
            "precision_mode": "cube_fp16in_fp32out",
        },
    }
    return Drawn(render.exported, stretched, ["12345.6 s", "1.2e-05"], [FOLDER, VARIANT])


def bisected(document: dict[str, Any]) -> Drawn:
    operator = {
        **{
            "operator": "LayerNormalization",
            "node": f"node_{REASON[-80:]}",
            "error": 1.5e-2,
            "agrees": False,
            "weights": [],
            "shape": [1],
            "inputs": [],
        },
        "counterpart": f"native_layer_norm {LONGEST}.blocks.11.attn.qkv",
    }
    stages = [{**row, "own": 1.24e-3, "total": 1.24} for row in document["stages"]]
    stretched = {
        **document,
        **{"artifact": LONGEST, "stages": stages, "operators": [operator] * 12, "notes": [REASON] * 2},
        **{"sentence": REASON, "picture": f"{FOLDER}/reports/20261121T225345-bisect.svg"},
    }
    return Drawn(draw_bisected, stretched, ["1.2e-03", "1.2e+00", "1.5e-02"], [REASON])


def selftested(document: dict[str, Any]) -> Drawn:
    row = {**document["faults"][0], "artifact": LONGEST, "fault": "two output names swapped in a graph " * 2}
    alarm = {"artifact": LONGEST, "run": 5, "failed_checks": [REASON], "failed_variants": [VARIANT]}
    stretched = {
        **document,
        **{"artifacts": [weights_named(f"{LONGEST}: synthetic:1", True)] * 5, "alarms": [alarm]},
        **{"faults": [{**row, "class": "position embedding", "caught": one} for one in (True, False)] * 50},
        "lacking": [{"artifact": LONGEST, "fault": row["fault"], "reason": REASON}] * 3,
    }
    return Drawn(render.selftested, stretched, ["0 of 100"], [row["fault"].strip(), VARIANT])


def described(document: dict[str, Any]) -> Drawn:
    first = next(report for report in document["reports"] if report["kind"] == "validate")
    best = {"variant": VARIANT, "engine": "torch", "device": "npu:15", "p50_ms": 12345.0, "batch": 16}
    report = {
        **first,
        **{"fastest": [best], "not_ranked": REASON},
        "winner": {**best, "artifact": LONGEST},
        "devices": ["cpu", "cuda:0", "npu:15"] * 3,
    }
    om = copy.deepcopy(document["variants"][-1])
    om |= {"variant": VARIANT, "engine": "acl", "batch": 16, "file": "om/model.om"}
    om["offline"] = {
        "soc": "Ascend910B4",
        "precision_mode": "cube_fp16in_fp32out",
        "gears": list(range(20)),
        "gears_size": [],
    }
    name = "golden/a-folder-in-a-folder/" + LONGEST + ".safetensors"
    stretched = {
        **document,
        **{"reports": [report, {**report, "trouble": "was changed"}], "variants": [om], "missing": [name]},
        "files": {name: {"sha256": 64 * "f", "nbytes": 28_123_456_789}, **document["files"]},
        "source": {**document["source"], "revision": 40 * "f", "published": ["preprocessor_config.json"]},
    }
    figures = ["28.1 GB", "1.234e+04 ms", 40 * "f", "missing"]
    return Drawn(render.artifact, stretched, figures, [name, VARIANT])


def diagnosed(_: Any) -> Drawn:
    findings = [
        {"name": f"convolution on npu-sim:{state}", "state": state, "found": REASON, "fix": REASON}
        for state in ("ok", "note", "problem")
    ]
    return Drawn(render.diagnosed, {"findings": findings}, ["problems: "], [REASON])


def filled(_: Any) -> Drawn:
    document = {"artifact": FOLDER, "nbytes": 28_123_456_789, "sha256": 64 * "f"}
    document |= {"weights_given": None, "weights_found_again": False}
    return Drawn(render.filled, document, ["28.1 GB", 12 * "f"], [FOLDER])


def systems(_: Any) -> Drawn:
    keys = ("name", "hub_id", "library", "input", "licence", "gated")
    rows = [
        {"family": system.title, **{key: getattr(system, key) for key in keys}} for system in SYSTEMS.values()
    ]
    names = [name for system in SYSTEMS.values() for name in (system.name, system.hub_id)]
    figures = [system.licence for system in SYSTEMS.values()]
    return Drawn(render.systems, rows, [*figures, *names, "518x518", "gated"], names)


def referred(_: Any) -> Drawn:
    document = {
        **{"reference": "original + authors' periods", "weights": f"hub:timm/{LONGEST}@{40 * 'f'}"},
        **{"synthetic": False, "device": "cuda:0", "device_model": "A GPU of a long name " * 3},
        **{"arithmetic": "fp32", "images": [f"{FOLDER}/{number}.png" for number in range(3)]},
        **{"floor": dict.fromkeys(OUTPUTS, 1.234e-6), "file": f"{FOLDER}-reference.safetensors"},
        **{"nbytes": 28_123_456_789, "sha256": 64 * "f"},
    }
    return Drawn(render.referred, document, ["28.1 GB", "1.2e-06", 12 * "f"], [document["file"]])


def carded(_: Any) -> Drawn:
    reports = [f"reports/20261121T22534{number}-validate.json" for number in range(9)]
    document = {"file": f"{FOLDER}/README.md", "language": "zh", "reports": reports, "artifact": FOLDER}
    return Drawn(render.carded, document, reports, [])


DRAWINGS: dict[str, tuple[str, Callable[[Any], Drawn]]] = {
    "export": ("exported", exported),
    "validate": ("validated", lambda document: validated(document, simulated=False)),
    "validate on npu-sim": ("validated", lambda document: validated(document, simulated=True)),
    "published": ("validated", published),
    "compare": ("compared", compared),
    "bisect": ("bisected", bisected),
    "selftest": ("selftested", selftested),
    "info": ("artifact", described),
    "doctor": ("", diagnosed),
    "fill": ("", filled),
    "list": ("", systems),
    "reference": ("", referred),
    "card": ("", carded),
}
"""By what is drawn, the document that it starts from, and what stretches that."""


def drawn(stretched: Drawn, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> str:
    """Draw a document on a stream; return what was printed."""
    monkeypatch.setattr(sys, "stdout", stream)
    stretched.draw(stretched.document)
    return stream.getvalue()


def unfolded(text: str) -> str:
    """Return the first column of every table and every line, without what folding put in."""
    return "".join(re.split(r" {2,}", line.strip())[0].replace(" ", "") for line in text.splitlines())


def columns_unfolded(text: str) -> str:
    """Return what stands in the last column, likewise."""
    return "".join(re.split(r" {2,}", line.strip())[-1].replace(" ", "") for line in text.splitlines())


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@ONE
@pytest.mark.parametrize("kind", [io.StringIO, Terminal], ids=["pipe", "terminal"])
@pytest.mark.parametrize("name", DRAWINGS)
def test_the_widest_document_fits_and_loses_no_figure(
    name: str, kind: type[io.StringIO], documents: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    home, stretch = DRAWINGS[name]
    stretched = stretch(documents.get(home))
    raw = drawn(stretched, kind(), monkeypatch)
    text = COLOUR.sub("", raw)
    assert raw == text or kind is Terminal
    assert [line for line in text.splitlines() if len(line) > WIDTH] == []
    assert "…" not in text
    assert [figure for figure in stretched.figures if figure not in text] == []
    whole = unfolded(text) + columns_unfolded(text)
    assert [one for one in stretched.names if one.replace(" ", "") not in whole] == []


@ONE
def test_the_winner_of_a_comparison_is_named_with_its_artifact_where_that_is_another(
    documents: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    document = documents["artifact"]
    compared = next(report for report in document["reports"] if report["kind"] == "compare")
    for artifact, line in ((compared["artifact"], "winner: b (torch)"), ("x", "winner: b (torch) of x")):
        winner = {"variant": "b", "engine": "torch", "artifact": artifact}
        told = Drawn(render.artifact, {**document, "reports": [{**compared, "winner": winner}]}, (), ())
        lines = drawn(told, io.StringIO(), monkeypatch).splitlines()
        assert [one.strip() for one in lines if "winner" in one] == [line]


@ONE
def test_the_original_is_called_the_same_in_every_table(
    documents: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = set()
    for draw, name in ((draw_validated, "validated"), (draw_compared, "compared")):
        text = drawn(Drawn(draw, documents[name], (), ()), io.StringIO(), monkeypatch)
        first = next(line for line in text.splitlines() if line.strip().startswith("original-torch-fp32 "))
        words.add(first.split()[-1])
    assert words == {"reference"}


def test_control_characters_of_others_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    show("from a manifest: \x1b]0;owned\x07", table(["file"], [], [["\x1b[31mred"]]))
    shown = capsys.readouterr().out
    assert r"from a manifest: \x1b]0;owned" in shown and r"\x1b[31mred" in shown
    assert "\x1b" not in shown and "\x07" not in shown


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("two words", 9, ["two words"]),
        ("two words", 8, ["two", "  words"]),
        ("original-torch-bf16-captured", 16, ["original-torch-", "  bf16-captured"]),
        ("  path/of/a-file", 10, ["  path/of/", "    a-file"]),
        ("unbreakable", 6, ["unbrea", "  kabl", "  e"]),
        ("", 6, [""]),
    ],
)
def test_text_is_folded_between_words_and_names_at_their_punctuation(
    text: str, width: int, lines: list[str]
) -> None:
    assert folded(text, width) == lines


@ONE
def test_colours_are_of_words_that_say_the_same(
    documents: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    meant = {"green": "32", "red": "31", "yellow": "33"}
    codes = {word: meant[colour] for word, colour in COLOURS.items()}
    seen: set[str] = set()
    for home, stretch in DRAWINGS.values():
        text = drawn(stretch(documents.get(home)), Terminal(), monkeypatch)
        for code, inside in re.findall(r"\x1b\[([\d;]+)m(.*?)\x1b\[0m", text):
            if code not in ("1", "2"):  # bold and dim are no colours
                seen.add(inside.strip())
                assert code == codes[inside.strip()]
    assert seen >= {
        "passed",
        "failed",
        "skipped",
        "incomplete",
        "problem",
        "note",
        "ok",
        "warning",
        "missing",
    }


@ONE
def test_without_a_ratio_there_is_no_column_of_speed_ups(
    documents: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    document = copy.deepcopy(documents["validated"])
    for row in document["variants"]:
        row["latency"] = [{**one, "speed_up_over_cpu": None} for one in row["latency"]]
    document["speed_up_baseline"] = "original-torch-fp32 on cpu"
    text = drawn(Drawn(draw_validated, document, (), ()), io.StringIO(), monkeypatch)
    assert "p50 ms" in text and "speed-up" not in text


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_what_explains_every_figure_comes_before_the_figures(
    documents: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    document = copy.deepcopy(documents["validated"])
    document["checks"] += [
        {"name": "tensors", "status": "failed", "detail": "187 wrong", "fault": "weights"},
    ]
    document["diagnosis"] = [
        {"class": "weights", "meaning": "other weights", "where": where, "because": "187 wrong"}
        for where in ("tensors", "onnx-fp32")
    ]
    text = drawn(Drawn(draw_validated, document, (), ()), io.StringIO(), monkeypatch)
    places = [text.index(part) for part in ("(tensors: 187", "worst output", "(onnx-fp32: 187")]
    assert places == sorted(places)


def test_a_remark_on_several_variants_is_printed_once_with_each_name_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    skipped = {"status": Status.SKIPPED, "passed": False, "reason": "it is not installed"}
    rows = [
        {"variant": name, "engine": "onnxruntime", "batch": batch, **skipped}
        for name in ("onnx-fp32", "onnx-fp32-npu")
        for batch in (1, 8)
    ]
    render.compared(made_reports.comparison(*rows))
    printed = " ".join(capsys.readouterr().out.split())
    assert "a: onnx-fp32, a: onnx-fp32-npu: it is not installed" in printed
    assert printed.count("it is not installed") == 1
