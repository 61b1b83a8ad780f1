from __future__ import annotations

import copy
import itertools
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from made_reports import comparison, upgraded

from vconv.progress import Counted
from vconv.types import Status
from vconv.validators.accuracy.metrics import METRICS
from vconv.validators.report.log import Log
from vconv.validators.report.sentences import PERCENTILES

COUNT = itertools.count()
TIMINGS = (
    *("mean_ms", "std_ms", "min_ms", "max_ms", "p50_ms", "p90_ms", "p99_ms", "ms_per_image"),
    *("images_per_second", "speed_up_over_cpu"),
)


def figure() -> float:
    """Return a number that no other figure of a report has, and that fits six digits."""
    return 100.0 + next(COUNT) / 1000


def prediction() -> dict[str, Any]:
    """Make what a simulated device predicts, no two figures alike."""
    errors = [{"cls": {"relative_error": figure(), "vector_relative_error": figure()}} for _ in range(4)]
    return {
        "arithmetic": {"gelu": "tanh", "convolution": "hf32", "matmul": "fp32"},
        "executed": 321,
        "changed": {"gelu": 12, "convolution": 1, "matmul": 0},
        "outputs": errors[0],
        "causes": {
            "gelu": {"changed": 12, "outputs": errors[1]},
            "convolution": {"changed": 1, "outputs": errors[2]},
        },
        "rest": errors[3],
    }


def row(variant: str, device: str = "cpu", simulated: bool = False) -> dict[str, Any]:
    """Make a report's row, no two figures alike."""
    outputs = {
        name: {
            "status": "passed",
            "shape": [2, int(100000 * figure()) % 10**6],
            "floor": figure(),
            "limit": figure(),
            **{metric: figure() for metric in METRICS if METRICS[metric].only in ("", name)},
            "to_stock_original": figure(),
        }
        for name in ("cls", "logits")
    }
    blocks = {
        name: {
            "shape": [1, int(100000 * figure()) % 10**6],
            "dtype": "bfloat16",
            "device": device,
            **{key: figure() for key in ("min", "max", "mean")},
            "first": [figure() for _ in range(5)],
        }
        for name in ("cls", "logits")
    }
    latency = [
        {
            "batch": batch,
            "runs": 77 + batch,
            **{key: figure() for key in TIMINGS},
            "p50_ms_interval": [figure(), figure()],
            "warnings": [f"drift at batch {batch} of {variant}"],
            "samples_ms": [figure(), figure()],
        }
        for batch in (1, 8)
    ]
    return {
        "artifact": "a-system",
        "variant": variant,
        "device": device,
        "engine": "an-engine",
        "precision": "bf16",
        "arithmetic": "an-arithmetic",
        "simulated": simulated,
        "gelu": f"the {variant} way",
        "prediction": prediction() if simulated else None,
        "status": "passed",
        "reason": "",
        "batches": [1, 2],
        "load_ms": figure(),
        "first_ms": figure(),
        "peak_memory_is": "isolated",
        "peak_memory_reason": "",
        "peak_device_bytes": 4567890,
        "timing_refused": None,
        "fallbacks": None,
        "peak_rss_bytes": 123456789,
        "peak_rss_growth_bytes": 98765432,
        "outputs": outputs,
        "smoke": blocks,
        "depth": [{"stage": f"block {place} of {variant}", "error": figure()} for place in range(2)],
        "depth_reason": "",
        "patch_maps": [{"image": "photograph 1", "largest": figure()}],
        "patch_maps_reason": "",
        "launches": {"total": 8761, "how": "kernels", "operators": {"addmm": 4321, "_to_copy": 1234}},
        "latency": latency,
        "skipped_batches": [{"batch": 16, "reason": "needs about 9.00 GB, 5.00 GB are free"}],
    }


def limits() -> dict[str, Any]:
    rows = [
        {
            "precision": precision,
            "arithmetic": f"{precision}-arithmetic",
            "bounds": {"vector_relative_error": figure(), "cosine": figure()},
            "source": f"measured in {precision}",
        }
        for precision in ("fp32", "fp16")
    ]
    return {"within": "mine.toml", "file": {"path": "mine.toml", "sha256": "abc123"}, "rows": rows}


def report(synthetic: bool = True, simulated: bool = True) -> dict[str, Any]:
    return {
        "time": "20261120T000000",
        "host": "a-host",
        "artifact": "a-system",
        "weights": "folder:abcdef",
        "synthetic": synthetic,
        "status": "failed",
        "passed": False,
        "limits": limits(),
        "reference": {"name": "the reference", "source": "live", "precision": "fp32", "device": "cpu"},
        "inputs": {"source": "photographs", "images": ["photograph 1", "photograph 2"]},
        "manifest": {
            "sha256": "fedcba",
            "vconv": "0.0.9",
            "files": {"model.onnx": {"sha256": "abcabc", "nbytes": 65432}},
        },
        "preprocessing_ms_per_image": figure(),
        "devices": {"cpu": "Some CPU", "npu:0": "Some NPU"},
        "device_settings": {"cpu": {}, "npu:0": {"conv.allow_hf32": "as it was set"}},
        "environment": {"python": "3.11.9", "torch": "2.9.1", "cores": 31337},
        "diagnosis": [
            {"class": "weights", "meaning": "they are not", "where": "tensors", "because": "2 wrong"}
        ],
        "checks": [
            {"name": "files", "status": "passed", "detail": "12 files match"},
            {"name": "golden", "status": "failed", "detail": "they differ"},
        ],
        "speed_up_baseline": "original-torch-fp32 on cpu",
        "machine": {
            "others_cores": figure(),
            "steal_cores": figure(),
            "busy": True,
            "reason": "others took what there was",
        },
        "ranking": {"refused": "the machine was busy", "rows": [], "left_out": []},
        "variants": [row("onnx-fp32"), row("om-fp16", "npu:0", simulated)],
        "published": [
            {
                "source": "a document, 2025",
                "kind": "npu",
                "device": "Another NPU",
                "variant": "patched-torch-fp32",
                "figures": {"mean_ms": figure()},
                "batch": 4,
                "output": "",
            },
            {
                "source": "a paper",
                "kind": "npu",
                "device": "Another NPU",
                "variant": "original-torch-fp32",
                "figures": {"cosine": figure()},
                "batch": None,
                "output": "cls",
            },
        ],
    }


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield everything that a report holds, and where, but for flags and the kinds of devices."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, (*path, key))
    elif isinstance(value, list):
        for key, part in enumerate(value):
            yield from leaves(part, (*path, key))
    elif not isinstance(value, bool) and value not in ("", None) and path[-1] != "kind":
        yield path, value


SAMPLES = "samples_ms"


def rendered(content: dict[str, Any]) -> str:
    return Log(lambda line: None).render(upgraded(content))


def words(text: str) -> set[str]:
    return set(re.split(r"[\s,:;\[\]()]+", text))


def says(text: str, key: str, value: float) -> bool:
    """Tell whether a text has a figure under its name."""
    return re.search(rf"\b{key} {re.escape(f'{value:g}')}(?![\d.])", text) is not None


def section(text: str, variant: str) -> str:
    """Return the part of a log that is about one variant."""
    return next(part for part in text.split("\n\n") if part.lstrip().startswith(variant))


def dataset() -> dict[str, Any]:
    """Make what was found on a folder of images, no two figures alike."""
    place = {"variant": "om-fp16", "engine": "acl", "device": "npu:0"}
    metrics = {"cosine": ("p0", "p1", "p5", "p50"), "relative_error": ("p50", "p90", "p99", "p100")}
    metrics["vector_relative_error"] = metrics["relative_error"]
    output = {metric: {share: figure() for share in shares} for metric, shares in metrics.items()}
    output |= {"compared": 4321, "limit": figure(), "beyond": 17}
    worst = {key: figure() for key in (*metrics, "share_of_limit")}
    return {
        "folder": "a folder",
        "images": 4322,
        "k": 9,
        "neighbours_of": "pooled",
        "agreement_by_chance": figure(),
        "variants": [
            {
                **place,
                "precision": "fp16",
                "arithmetic": "fp16",
                "simulated": True,
                "status": "failed",
                "reason": "17 of 4322 images are beyond",
                "outputs": {"cls": output},
                "top1_agreement": figure(),
                "neighbours": {"k": 9, "agreement": figure()},
            }
        ],
        "neighbours_between": [
            {"first": "one variant", "second": "another", "simulated": True, "agreement": figure()}
        ],
        "worst": [
            {"image": "a/b.png", **place, "simulated": True, "output": "cls", **worst, "thumbnail": None}
        ],
        "skipped": [{"image": "c.png", "reason": "it is torn"}, {"image": "d.png", "reason": "it is gone"}],
        "other_files": 3,
        "resumed": True,
        "seconds": figure(),
    }


def test_every_figure_and_word_on_a_folder_of_images_is_in_the_log() -> None:
    content = report() | {"dataset": dataset()}
    text = rendered(content)
    found = words(text.replace(",", "").replace(")", " "))
    for path, value in leaves(content["dataset"]):
        if isinstance(value, str):
            assert value in text, path
        elif isinstance(value, float):
            assert f"{value:g}" in found, path
    assert "data set a folder: 4,322 images, 2 skipped, files of other suffixes, left out: 3, " in text
    assert "om-fp16 (acl, npu:0, simulated): failed: 17 of 4322 images are beyond" in text
    assert "which no report lists" not in text
    content["dataset"]["skipped_count"] = 100_500
    text = rendered(content)
    assert "data set a folder: 4,322 images, 100,500 skipped, files of other suffixes, left out: 3, " in text
    assert "\nskipped    and 100,498 more, which no report lists\n" in text
    assert "data set" not in rendered(report())


def test_every_figure_and_word_of_the_report_is_in_the_log() -> None:
    content = report()
    text = rendered(content)
    found = words(text)
    for path, value in leaves(content):
        if path[0] in ("time", "host"):
            continue
        if SAMPLES in path:
            assert f"{value:g}" not in found
        elif isinstance(value, str):
            assert value in text, path
        else:
            assert f"{value:g}" in found or str(value) in found, path


def test_no_two_figures_of_the_made_up_report_are_alike() -> None:
    figures = [value for _, value in leaves(report()) if isinstance(value, float)]
    assert len({f"{value:g}" for value in figures}) == len(figures) > 80


def test_figures_stand_with_their_own_variant_and_name() -> None:
    content = report()
    for one in content["variants"]:
        part = section(rendered(content), one["variant"])
        for timing in one["latency"]:
            (line,) = (line for line in part.splitlines() if f"batch {timing['batch']}: " in line)
            for key in ("runs", *TIMINGS):
                assert says(line, key, timing[key]), key
        for name, output in one["outputs"].items():
            for key, value in output.items():
                if isinstance(value, float):
                    assert says(part, key, value), (name, key)


def test_the_log_begins_with_what_was_done_and_when(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 100.25, 112.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    heard: list[str] = []
    log = Log(heard.append)
    log.say("opening")
    log.say("timing")
    assert heard == ["opening", "timing"]
    assert log.render(upgraded(report())).splitlines()[:3] == [
        "     0.2 s  opening",
        "    12.5 s  timing",
        "",
    ]


@pytest.mark.parametrize("synthetic", [True, False])
def test_synthetic_weights_are_called_so(synthetic: bool) -> None:
    (line,) = (line for line in rendered(report(synthetic)).splitlines() if "folder:abcdef" in line)
    assert ("synthetic: not trained weights" in line) == synthetic
    assert ("synthetic" in rendered(report(synthetic))) == synthetic


@pytest.mark.parametrize("simulated", [True, False])
def test_a_simulated_device_is_called_so_beside_its_variant(simulated: bool) -> None:
    text = rendered(report(simulated=simulated))
    assert ("simulated" in section(text, "om-fp16").splitlines()[0]) == simulated
    assert "simulated" not in section(text, "onnx-fp32")


def test_a_failed_variant_is_told_with_its_reasons() -> None:
    content = report()
    failed = content["variants"][0]
    failed |= {"status": "failed", "reason": "it refuses the graph"}
    failed["outputs"]["cls"] |= {"status": "failed", "reasons": ["cosine is 0.5, the limit 0.999"]}
    part = section(rendered(content), "onnx-fp32")
    assert part.splitlines()[0].endswith("failed")
    assert "it refuses the graph" in part
    assert "cosine is 0.5, the limit 0.999" in part


def test_an_output_that_is_missing_is_told() -> None:
    content = report()
    outputs = content["variants"][0]["outputs"]
    outputs["registers"] = {"status": "failed", "shape": [], "floor": None, "limit": 1e-5}
    outputs["registers"]["reasons"] = ["the output is missing"]
    part = section(rendered(content), "onnx-fp32")
    assert re.search(r"registers: failed.*\n(.*\n)*?\s+the output is missing", part)


def test_a_variant_that_could_not_be_opened_has_a_section() -> None:
    content = report()
    bare: dict[str, Any] = {"outputs": {}, "smoke": {}, "latency": [], "skipped_batches": []}
    bare |= {"timing_refused": None, "launches": None, "gelu": None, "prediction": None, "fallbacks": None}
    kept = ("artifact", "variant", "device", "engine", "precision", "arithmetic", "simulated")
    one = {key: content["variants"][0][key] for key in kept}
    content["variants"] = [{**one, **bare, "status": "skipped", "reason": "openvino cannot run here"}]
    part = section(rendered(content), "onnx-fp32")
    assert "skipped" in part and "openvino cannot run here" in part


def test_launches_stand_in_one_line_with_what_they_are_of_and_graphs_have_none() -> None:
    content = report()
    content["variants"][1]["launches"] = None
    line = "  launches: for one image 8761 kernels; operators: addmm 4321, _to_copy 1234"
    assert line in section(rendered(content), "onnx-fp32").splitlines()
    assert "launches" not in section(rendered(content), "om-fp16")


def test_a_prediction_is_told_by_cause_and_called_simulated() -> None:
    part = section(rendered(report()), "om-fp16")
    assert "predicted by simulation: gelu tanh, convolution hf32, matmul fp32; of 321 nodes" in part
    assert "changed: 12 gelu, 1 convolution, 0 matmul" in part
    for words in ("predicted in all", "the rest", "gelu alone", "convolution alone"):
        assert part.count(f"{words} (simulated), cls") == 1
    assert "predicted" not in section(rendered(report(simulated=False)), "om-fp16")


def test_how_a_device_was_set_stands_under_its_name() -> None:
    lines = rendered(report()).splitlines()
    assert lines[lines.index("device     npu:0: Some NPU") + 1] == "  conv.allow_hf32: as it was set"


def test_what_is_not_known_is_a_dash() -> None:
    content = report()
    content["variants"][0] |= {"peak_rss_bytes": None, "peak_rss_growth_bytes": None}
    content["variants"][0]["latency"][0]["p99_ms"] = None
    content["inputs"] = {"source": "none", "images": []}
    content["speed_up_baseline"] = ""
    part = section(rendered(content), "onnx-fp32")
    assert "peak_rss_bytes -" in part and "p99_ms -" in part
    assert "speed-ups are over" not in rendered(content)


@pytest.mark.parametrize(("busy", "word"), [(True, "busy"), (False, "quiet"), (None, "unknown")])
def test_a_machine_that_is_not_known_to_be_quiet_is_not_called_so(busy: bool | None, word: str) -> None:
    content = report()
    content["machine"]["busy"] = busy
    (line,) = (line for line in rendered(content).splitlines() if line.startswith("machine"))
    assert {one for one in ("busy", "quiet", "unknown") if one in line} == {word}


def test_warnings_stand_under_their_own_measurement() -> None:
    lines = section(rendered(report()), "onnx-fp32").splitlines()
    for batch in (1, 8):
        place = next(place for place, line in enumerate(lines) if f"batch {batch}: " in line)
        assert lines[place + 1].strip() == f"warning: drift at batch {batch} of onnx-fp32"


def test_why_a_percentile_may_be_missing_is_said_where_something_was_timed() -> None:
    content = report()
    assert PERCENTILES in rendered(content)
    for row in content["variants"]:
        row["latency"] = []
    assert PERCENTILES not in rendered(content)


def test_what_was_not_timed_or_measured_says_why() -> None:
    content = report()
    content["variants"][0] |= {"timing_refused": "it came back early", "peak_memory_reason": "it was killed"}
    part = section(rendered(content), "onnx-fp32")
    assert "not timed: it came back early" in part and "memory not measured: it was killed" in part


def test_what_was_not_looked_at_beside_judging_says_why() -> None:
    content = report()
    content["variants"][0] |= {"depth": None, "depth_reason": "it runs whole"}
    content["variants"][0] |= {"patch_maps": None, "patch_maps_reason": "no patches"}
    lines = section(rendered(content), "onnx-fp32").splitlines()
    assert "  no depth: it runs whole" in lines and "  no patch maps: no patches" in lines
    assert not any("error against depth" in line or "patches of" in line for line in lines)


def test_nodes_that_fell_back_to_the_cpu_are_warned_of_under_their_variant() -> None:
    content = report()
    content["variants"][0]["fallbacks"] = {"Expand": 2}
    (line,) = (line for line in section(rendered(content), "onnx-fp32").splitlines() if "Expand" in line)
    assert line.startswith("  warning: ") and "2 nodes of it run on the CPU" in line
    assert "run on the CPU" not in rendered(report())


def test_rendering_changes_nothing() -> None:
    content = report()
    before = copy.deepcopy(content)
    assert rendered(content) == rendered(content)
    assert content == before


def test_the_last_line_is_the_verdict_and_the_log_ends_with_a_line() -> None:
    text = rendered(report())
    assert text.endswith("\nfailed, within mine.toml limits\n")


def test_limits_stand_with_their_own_precision_and_arithmetic() -> None:
    content = report()
    for one in content["limits"]["rows"]:
        (line,) = (line for line in rendered(content).splitlines() if one["source"] in line)
        assert line.startswith(f"  {one['precision']} computed in {one['arithmetic']}: ")
        assert all(says(line, metric, bound) for metric, bound in one["bounds"].items())


def test_limits_of_no_file_have_no_hash() -> None:
    content = report()
    content["limits"] |= {"within": "strict", "file": None}
    assert "limits     strict\n" in rendered(content)


def test_a_comparison_has_every_figure_of_its_rows() -> None:
    rows: list[dict[str, Any]] = [
        {"variant": name, "batch": batch, "p50_ms": figure(), "cosine": figure(), SAMPLES: [4321.5]}
        for name in ("onnx-fp32", "patched-torch-fp32")
        for batch in (1, 8)
    ]
    heard: list[str] = []
    log = Log(heard.append)
    log.say("examining")
    checks = [{"artifact": "there/a", "name": "source", "status": Status.SKIPPED, "detail": "not at hand"}]
    weights = {"there/a": "synthetic:0 (synthetic: not trained weights)"}
    machine = {"others_cores": None, "steal_cores": None, "busy": None, "reason": "nobody counted"}
    document = comparison(
        *rows,
        checks=checks,
        weights=weights,
        limits=limits(),
        references={"there/a": "live"},
        statuses={"there/a": Status.PASSED},
        machine=machine,
        ranking={"refused": "it is not known", "rows": [], "left_out": []},
        winner_reason="it is not known",
    )
    text = log.render_comparison(document)
    assert "weights of there/a: synthetic:0 (synthetic: not trained weights); reference live; passed" in text
    assert (
        "limits     mine.toml, sha256 abc123\n  fp32 computed in fp32-arithmetic: vector_relative_error "
        in text
    )
    assert "skipped    there/a: source: not at hand" in text
    assert "examining" in text.splitlines()[0]
    assert "nobody counted" in text and "no winner: it is not known" in text
    assert text.endswith("\npassed\n")
    for one in rows:
        (line,) = (line for line in text.splitlines() if says(line, "p50_ms", one["p50_ms"]))
        assert all(says(line, key, one[key]) for key in ("batch", "cosine"))
        assert SAMPLES not in line and "4321.5" not in text
        assert str(one["variant"]) in line


def test_how_far_something_was_is_passed_on_but_not_kept() -> None:
    said: list[str] = []
    log = Log(said.append)
    for line in ("begun", Counted("rounds timed", 3, 10, 7.0), "done"):
        log.say(line)
    assert [str(line) for line in said] == ["begun", "rounds timed: 3 of 10, 7 s left", "done"]
    kept = log.render(upgraded(report())).splitlines()[:3]
    assert [line.split(" s  ")[-1] for line in kept] == ["begun", "done", ""]
