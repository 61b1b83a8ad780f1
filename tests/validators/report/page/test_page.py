from __future__ import annotations

import copy
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import pytest
from made_reports import upgraded

from vconv.validators.report import sentences
from vconv.validators.report.page import figures, page
from vconv.validators.report.page.gallery import Gallery
from vconv.validators.report.saving import ReportFile

SAVED = ReportFile("20261121T224100-validate.json", "0123456789abcdef" * 4)
VOID = {"meta", "link", "img", "br", "hr", "input"}
Hang = Callable[[dict[str, Any]], Gallery]


@dataclass
class Node:
    """An element of a page."""

    tag: str
    attributes: dict[str, str]
    parts: list[Node | str] = field(default_factory=list)

    def all(self) -> Iterator[Node]:
        yield self
        for part in self.parts:
            if isinstance(part, Node):
                yield from part.all()

    def find(self, tag: str) -> list[Node]:
        return [node for node in self.all() if node.tag == tag]

    @property
    def text(self) -> str:
        words = "".join(part if isinstance(part, str) else part.text for part in self.parts)
        return " ".join(words.split())


class Reader(HTMLParser):
    """Reads a page into its elements; every one must be closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Node("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice"
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].parts.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].parts.append(Node(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].parts.append(data)


def read(written: bytes) -> Node:
    reader = Reader()
    reader.feed(written.decode())
    reader.close()
    assert reader.open == [reader.root]
    return reader.root


@pytest.fixture(params=["measured", "simulated"])
def report(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.getfixturevalue(request.param)
    return found


def rendered(report: dict[str, Any], hang: Hang) -> Node:
    gallery = hang(report)
    return read(page.render(upgraded(report), SAVED, gallery))


def section(root: Node, name: str) -> Node:
    (found,) = (node for node in root.find("section") if node.attributes["id"] == name)
    return found


def published() -> dict[str, Any]:
    return {
        "source": "a model card",
        "kind": "npu",
        "device": "Another NPU",
        "variant": "original-torch-fp32",
        "figures": {"mean_ms": 7.89},
        "batch": 4,
        "output": "",
    }


def dataset() -> dict[str, Any]:
    row = {
        "variant": "onnx-fp32",
        "engine": "onnxruntime",
        "device": "cpu",
        "precision": "fp32",
        "arithmetic": "fp32",
        "simulated": False,
        "status": "passed",
        "reason": "",
        "outputs": {
            "cls": {
                "compared": 40,
                "cosine": {"p0": 0.9912345, "p1": 0.9998765, "p50": 0.9999999},
                "relative_error": {"p50": 1.5e-6, "p90": 2.5e-6, "p99": 3.5e-6, "p100": 4.5e-6},
                "vector_relative_error": {},
                "limit": 1e-5,
                "beyond": 0,
            }
        },
        "neighbours": {"k": 5, "agreement": 0.9871},
        "top1_agreement": None,
    }
    worst = {"image": "cat.jpg", "variant": "onnx-fp32", "output": "cls", "cosine": 0.9912345}
    worst |= {"engine": "onnxruntime", "device": "cpu", "simulated": False, "share_of_limit": 0.45}
    worst |= {
        "relative_error": 4.5e-6,
        "vector_relative_error": 4.5e-6,
        "thumbnail": "data:image/jpeg;base64,AAAA",
    }
    skipped = [{"image": "broken.jpg", "reason": "it cannot be read"}]
    return {
        "folder": "some/photographs",
        "images": 40,
        "variants": [row],
        "worst": [worst],
        "skipped": skipped,
        "k": 5,
        "neighbours_of": "pooled",
        "agreement_by_chance": 0.1,
        "neighbours_between": [],
        "other_files": 0,
        "resumed": False,
        "seconds": 1.0,
    }


def test_the_same_report_gives_the_same_bytes_and_is_left_as_it_was(
    report: dict[str, Any], hang: Hang
) -> None:
    gallery = hang(report)
    before = copy.deepcopy(report)
    first = page.render(upgraded(report), SAVED, gallery)
    assert first == page.render(upgraded(report), SAVED, gallery)
    assert report == before


def test_the_verdict_comes_first_with_what_it_rests_on(measured: dict[str, Any], hang: Hang) -> None:
    root = rendered(measured, hang)
    (header,) = root.find("header")
    (heading,) = root.find("h1")
    assert heading.text == "dinov3-vits16"
    for told in (
        "passed",
        "all 3 judged variants kept to the reference, within strict limits",
        "synthetic:1 (synthetic: not trained weights)",
        f"{measured['reference']['name']}: run here on the original's weights (fp32 on cpu)",
        "strict: vector relative error at most 1e-5 for fp32",
        "21 November 2026, 22:41 UTC, on a-host",
        "21 of 21",
    ):
        assert told in header.text
    assert "What failed" not in root.text


def test_every_error_of_the_report_stands_in_its_own_cell(report: dict[str, Any], hang: Hang) -> None:
    (matrix,) = (t for t in rendered(report, hang).find("table") if "matrix" in t.attributes.get("class", ""))
    head, *rows = matrix.find("tr")
    outputs = [cell.text for cell in head.find("th")][2:]
    assert len(rows) == len(report["variants"]) == 4
    for row, variant, typed in zip(rows, report["variants"], upgraded(report).variants, strict=True):
        assert row.find("th")[0].text.startswith(sentences.short_name(typed))
        status, *cells = row.find("td")
        word = variant["status"] if variant["status"] != "skipped" else "not judged"
        assert status.text.endswith(word)
        assert outputs == list(variant["outputs"])
        for cell, (name, output) in zip(cells, variant["outputs"].items(), strict=True):
            assert cell.attributes["data-output"] == name
            assert figures.error(output["vector_relative_error"]) in cell.text
            assert output["status"] in cell.text and page.GLYPHS[output["status"]] in cell.text
            if output["limit"]:
                assert f"limit {figures.bound(output['limit'])}" in cell.text


def test_a_failed_variant_shows_as_failed_with_its_reasons_and_its_diagnosis(
    measured: dict[str, Any], hang: Hang
) -> None:
    failed = measured["variants"][2]
    failed["status"] = measured["status"] = "failed"
    why = "vector_relative_error is 3.1e-03, the limit 1.0e-05"
    failed["outputs"]["cls"] |= {"status": "failed", "vector_relative_error": 3.1e-3, "reasons": [why]}
    measured["checks"][0] |= {"status": "failed", "detail": "model.onnx was changed"}
    row = {
        "class": "activation",
        "meaning": "GELU is not exact",
        "where": "onnx-fp32",
        "because": "Erf is gone",
    }
    measured["diagnosis"] = [row]
    root = rendered(measured, hang)
    (header,) = root.find("header")
    assert "1 of 3 judged variants failed and 1 check failed" in header.text
    for told in (f"cls: {why}", "model.onnx was changed", *row.values()):
        assert told in header.text
    assert "310 times a limit, at worst" in header.text
    cells = [node for node in root.find("td") if node.attributes.get("class") == "cell failed"]
    assert [cell.text.split(" ")[0] for cell in cells] == ["✕3.1e-33.1e-3,"]


def test_nothing_judged_is_not_called_a_success(measured: dict[str, Any], hang: Hang) -> None:
    measured |= {"status": "incomplete", "variants": [], "checks": [], "published": []}
    measured["reference"] = {"name": None, "source": "none", "precision": "fp32", "device": "cpu"}
    measured["ranking"] = {"refused": "no variant that passed was timed", "rows": [], "left_out": []}
    root = rendered(measured, hang)
    assert "nothing was judged, so that nothing is proven" in root.text
    assert "No variant was run" in section(root, "agreement").text


HOSTILE = "<script>alert('x')</script>&\"<img src=x onerror=y>"


def test_hostile_names_stay_text(measured: dict[str, Any], hang: Hang) -> None:
    measured |= {"artifact": HOSTILE, "host": HOSTILE, "weights": HOSTILE, "dataset": dataset()}
    measured["inputs"]["images"] = [HOSTILE, "two"]
    measured["variants"][1] |= {"variant": HOSTILE, "reason": HOSTILE}
    measured["variants"][1]["launches"]["operators"][HOSTILE] = 1
    measured["checks"][0]["detail"] = measured["environment"]["torch"] = HOSTILE
    measured["dataset"]["worst"][0] |= {"image": HOSTILE, "thumbnail": "https://example.org/x.jpg"}
    root = rendered(measured, hang)
    assert root.find("script") == []
    assert all(picture.attributes["src"].startswith("data:") for picture in root.find("img"))
    assert not any(name.startswith("on") for node in root.all() for name in node.attributes)
    assert root.find("h1")[0].text == HOSTILE
    assert root.text.count(HOSTILE) > 20


def test_nothing_is_loaded_from_anywhere(report: dict[str, Any], hang: Hang) -> None:
    report |= {"dataset": dataset(), "published": [published()]}
    root = rendered(report, hang)
    for node in root.all():
        for name, value in node.attributes.items():
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"):
                assert value.startswith("data:") or (node.tag == "a" and value.startswith("#")), value
            assert "http:" not in value and "https:" not in value
    (style,) = root.find("style")
    assert "url(" not in style.text and "@import" not in style.text
    (policy,) = (node for node in root.find("meta") if "http-equiv" in node.attributes)
    assert policy.attributes["http-equiv"] == "Content-Security-Policy"
    assert policy.attributes["content"].split("; ")[0] == "default-src 'none'"
    assert "script-src" not in policy.attributes["content"]
    assert {"script", "iframe", "object", "embed"}.isdisjoint(node.tag for node in root.all())


def test_identifiers_are_unique_and_what_refers_to_one_finds_it(report: dict[str, Any], hang: Hang) -> None:
    report |= {"dataset": dataset(), "published": [published()]}
    root = rendered(report, hang)
    identifiers = Counter(node.attributes["id"] for node in root.all() if "id" in node.attributes)
    assert set(identifiers.values()) == {1}
    for node in root.all():
        if node.tag == "a":
            assert node.attributes["href"].removeprefix("#") in identifiers
        for name in node.attributes.get("aria-labelledby", "").split():
            assert name in identifiers


def test_every_chart_and_picture_says_in_words_what_it_shows(report: dict[str, Any], hang: Hang) -> None:
    root = rendered(report, hang)
    charts = root.find("svg")
    batches = {timing["batch"] for row in report["variants"] for timing in row["latency"]}
    devices = {row["device"] for row in report["variants"] if row["latency"]}
    kinds = (len(devices) + bool(batches) + len(batches), bool(report["variants"][0]["depth"]))
    # Each is drawn for a screen and for a phone.
    assert len(charts) == 2 * (sum(kinds) + bool(report["variants"][0]["prediction"])) >= 2
    for chart in charts:
        assert chart.attributes["role"] == "img"
        title, description, *_ = (node for node in chart.parts if isinstance(node, Node))
        assert (title.tag, description.tag) == ("title", "desc")
        assert title.text and re.search(r"\d", description.text)
    pictures = root.find("img")
    assert len(pictures) == 1 + 2 * (2 + 2 * len(report["variants"]))
    assert all(len(picture.attributes["alt"]) > 8 for picture in pictures)


def test_headings_are_in_order_and_landmarks_are_there(report: dict[str, Any], hang: Hang) -> None:
    report |= {"dataset": dataset(), "published": [published()]}
    root = rendered(report, hang)
    levels = [int(node.tag[1]) for node in root.all() if re.fullmatch("h[1-6]", node.tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert [len(root.find(name)) for name in ("main", "header", "footer", "nav")] == [1, 1, 1, 1]
    (html,) = root.find("html")
    assert html.attributes["lang"] == "en"


def test_every_table_has_a_caption_and_headings_and_scrolls_in_its_own_box(
    report: dict[str, Any], hang: Hang
) -> None:
    report |= {"dataset": dataset(), "published": [published()]}
    root = rendered(report, hang)
    boxed = [t for node in root.all() if node.attributes.get("class") == "scroll" for t in node.find("table")]
    assert len(boxed) == len(root.find("table")) >= 10
    for table in root.find("table"):
        assert table.find("caption")[0].text
        width = len(table.find("thead")[0].find("th"))
        for row in table.find("tbody")[0].find("tr"):
            assert len(row.find("th")) == 1 and len(row.find("td")) == width - 1


def test_latency_has_its_figures_and_its_ranks(measured: dict[str, Any], hang: Hang) -> None:
    told = section(rendered(measured, hang), "speed")
    for row in measured["variants"]:
        for timing in row["latency"]:
            for key in ("p50_ms", "p90_ms", "mean_ms", "images_per_second"):
                assert figures.number(timing[key]) in told.text
    ranked = told.find("table")[0]
    assert len(ranked.find("tbody")[0].find("tr")) == len(measured["ranking"]["rows"]) > 0
    assert measured["machine"]["reason"] in told.text


def test_why_a_percentile_may_be_missing_stands_beside_the_boxes(
    measured: dict[str, Any], hang: Hang
) -> None:
    assert f"{sentences.PERCENTILES}." in section(rendered(measured, hang), "speed").text


def test_a_refused_ranking_says_why(measured: dict[str, Any], hang: Hang) -> None:
    measured["ranking"] = {"refused": "the machine was busy: others took it", "rows": [], "left_out": []}
    told = section(rendered(measured, hang), "speed").text
    assert "No ranking: the machine was busy: others took it." in told


def test_depth_is_drawn_and_told_or_says_why_not(report: dict[str, Any], hang: Hang) -> None:
    told = section(rendered(report, hang), "depth")
    for row in report["variants"]:
        if row["depth"]:
            assert all(figures.error(one["error"]) in told.text for one in row["depth"])
        else:
            assert "Not measured." in told.text and row["depth_reason"] in told.text


def test_what_is_simulated_and_synthetic_says_so_everywhere(simulated: dict[str, Any], hang: Hang) -> None:
    root = rendered(simulated, hang)
    (title,) = (node for node in root.find("title") if not node.attributes)
    assert title.text == "dinov3-vits16: passed, synthetic weights, simulated"
    (header,) = root.find("header")
    assert "synthetic weights: not trained" in header.text and "npu-sim is simulated" in header.text
    for row in root.find("tr"):
        if row.parts and "npu-sim" in row.text and row.find("th")[0].text.startswith(("onnx", "patched")):
            assert "simulated" in row.text
    assert "weights are synthetic" in section(root, "maps").text


def test_a_prediction_has_every_figure_and_the_words_predicted_and_simulated(
    simulated: dict[str, Any], hang: Hang
) -> None:
    told = section(rendered(simulated, hang), "prediction")
    assert "simulated" in told.find("h2")[0].text and "Predicted, not measured" in told.text
    (table,) = told.find("table")
    rows = iter(table.find("tbody")[0].find("tr"))
    for variant in simulated["variants"]:
        found = variant["prediction"]
        for output, errors in found["outputs"].items():
            cells = [cell.text for cell in next(rows).find("td")]
            alone = [
                figures.percent(found["causes"][cause]["outputs"][output]["relative_error"])
                if found["changed"][cause]
                else figures.DASH
                for cause in found["arithmetic"]
            ]
            whole, rest = errors["relative_error"], found["rest"][output]["relative_error"]
            assert cells == [output, figures.percent(whole), *alone, figures.percent(rest)]


def test_hashes_stand_in_full(measured: dict[str, Any], hang: Hang) -> None:
    told = section(rendered(measured, hang), "provenance").text
    assert SAVED.name in told and SAVED.sha256 in told and measured["manifest"]["sha256"] in told
    for name, file in measured["manifest"]["files"].items():
        assert name in told and file["sha256"] in told
    for name, version in measured["environment"].items():
        assert name in told and str(version) in told


def test_checks_that_did_not_pass_are_apart_from_those_that_did(measured: dict[str, Any], hang: Hang) -> None:
    measured["checks"][1] |= {"status": "skipped", "detail": "nothing was recorded"}
    told = section(rendered(measured, hang), "checks")
    not_passed, passed = told.find("table")
    assert "nothing was recorded" in not_passed.text and "nothing was recorded" not in passed.text
    assert told.find("p")[0].text == "20 passed, 1 skipped"
    assert len(passed.find("tbody")[0].find("tr")) == 20


def test_checks_that_failed_and_those_that_were_skipped_have_a_table_each(
    measured: dict[str, Any], hang: Hang
) -> None:
    measured["checks"][1] |= {"status": "skipped", "detail": "nothing was recorded"}
    measured["checks"][2] |= {"status": "failed", "detail": "a hash differs"}
    failed, skipped, passed = section(rendered(measured, hang), "checks").find("table")
    assert failed.find("caption")[0].text == "Checks that failed"
    assert "a hash differs" in failed.text and "nothing was recorded" not in failed.text
    assert skipped.find("caption")[0].text == "Checks that were skipped"
    assert "nothing was recorded" in skipped.text and "a hash differs" not in skipped.text
    assert "a hash differs" not in passed.text and "nothing was recorded" not in passed.text


def test_what_others_published_is_apart_from_ones_own(measured: dict[str, Any], hang: Hang) -> None:
    measured["published"] = [published()]
    root = rendered(measured, hang)
    told = section(root, "published").text
    assert "Not measured here" in told and "mean ms 7.89" in told and "a model card" in told
    assert "7.89" not in section(root, "speed").text


def test_agreement_over_a_folder_is_told_where_it_was_looked_at(measured: dict[str, Any], hang: Hang) -> None:
    assert "folder" not in [node.attributes["id"] for node in rendered(measured, hang).find("section")]
    measured["dataset"] = dataset()
    told = section(rendered(measured, hang), "folder")
    for figure in (
        "0.9912345",
        "0.9998765",
        "0.9999999",
        "1.5e-6",
        "2.5e-6",
        "3.5e-6",
        "4.5e-6",
        "98.71 % of 5",
    ):
        assert figure in told.text
    assert "broken.jpg: it cannot be read" in told.text and "synthetic" in told.text
    assert [node.attributes["alt"] for node in told.find("img")] == ["cat.jpg"]


@pytest.mark.parametrize("source", [*sentences.REFERENCES, "somewhere new"])
def test_where_the_reference_is_from_is_told(measured: dict[str, Any], hang: Hang, source: str) -> None:
    measured["reference"]["source"] = source
    assert sentences.REFERENCES.get(source, source) in rendered(measured, hang).find("header")[0].text


@pytest.mark.parametrize("key", ["vector_relative_error", "floor"])
def test_a_figure_that_is_no_number_is_a_dash(measured: dict[str, Any], hang: Hang, key: str) -> None:
    measured["variants"][1]["outputs"]["cls"][key] = None
    measured["variants"][1]["depth"][0]["error"] = None
    root = rendered(measured, hang)
    assert figures.DASH in section(root, "agreement").text and figures.DASH in section(root, "depth").text
    assert "None" not in root.text and "nan" not in root.text.lower().split()


def without_numbers(document: Any, key: str) -> None:
    """Put None, which stands for infinity in a report, in place of every figure of a name."""
    parts = (
        document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    )
    for part in parts:
        without_numbers(part, key)
    if isinstance(document, dict) and key in document:
        document[key] = None


def test_a_prediction_that_is_no_number_is_said_to_be_none_and_is_the_worst(
    simulated: dict[str, Any], hang: Hang
) -> None:
    rows = [row for row in simulated["variants"] if row["prediction"]]
    worst = sentences.short_name(upgraded(simulated).variants[-1])
    name = next(iter(rows[-1]["prediction"]["outputs"]))
    rows[-1]["prediction"]["outputs"][name]["relative_error"] = None
    text = section(rendered(simulated, hang), "prediction").text
    assert f"Predicted, not measured: no number at most, of {worst}." in text
    for row in rows:
        without_numbers(row["prediction"], "relative_error")
    assert "no number at most" in section(rendered(simulated, hang), "prediction").text


def test_an_error_after_a_block_that_is_no_number_is_the_greatest(
    measured: dict[str, Any], hang: Hang
) -> None:
    first = sentences.short_name(next(row for row in upgraded(measured).variants if row.depth))
    rows = [row for row in measured["variants"] if row.get("depth")]
    rows[0]["depth"][-2]["error"] = None
    text = section(rendered(measured, hang), "depth").text
    assert f"After the last block the error is no number ({first}) at most" in text


def test_a_reference_of_another_machine_is_named_with_that_machine(
    measured: dict[str, Any], hang: Hang
) -> None:
    recorded = {"file": "gpu.safetensors", "sha256": "ab" * 32, "device_model": "a GPU", "arithmetic": "fp32"}
    recorded |= {"device": "cuda:0", "images": [], "environment": {}, "time": "20261120T000000"}
    measured["reference"] |= {"source": "file", "device": "cuda:0", "recorded": recorded}
    text = rendered(measured, hang).text
    assert "recorded with `vconv reference` (a GPU, fp32; gpu.safetensors, sha256 abababababab)" in text
