"""Reports that tests make up: whole documents, of which a test says only what it is about."""

from __future__ import annotations

from typing import Any

from vconv.types import Status
from vconv.validators.report.bisection import Bisection
from vconv.validators.report.comparison import Comparison
from vconv.validators.report.document import Report
from vconv.validators.report.rows import LatencyRow, VariantRow
from vconv.validators.report.upgrade import read_report

STAMP = "20261120T000000"


def timing(batch: int = 1, p50_ms: float = 2.0, **values: Any) -> LatencyRow:
    """Make the latency of a batch."""
    bare: dict[str, Any] = {
        **dict.fromkeys(("mean_ms", "min_ms", "max_ms"), p50_ms),
        **{
            "std_ms": None,
            "p90_ms": None,
            "p99_ms": None,
            "p50_ms_interval": None,
            "runs": 1,
            "ms_per_image": p50_ms / batch,
        },
        **{"images_per_second": 1e3 * batch / p50_ms, "warnings": [], "samples_ms": [p50_ms]},
    }
    return LatencyRow.model_validate({"batch": batch, "p50_ms": p50_ms, **bare, **values})


def variant(name: str = "onnx-fp32", *timings: LatencyRow, **values: Any) -> VariantRow:
    """Make a row: it passed on the CPU, and nothing else is known of it."""
    nothing = (
        "limit",
        "gelu",
        "prediction",
        "depth",
        "patch_maps",
        "launches",
        "fallbacks",
        "timing_refused",
    )
    costs = ("load_ms", "first_ms", "peak_memory_is", "peak_rss_bytes", "peak_rss_growth_bytes")
    bare: dict[str, Any] = {
        **dict.fromkeys((*nothing, *costs, "peak_device_bytes")),
        **dict.fromkeys(("reason", "depth_reason", "patch_maps_reason", "peak_memory_reason"), ""),
        **{"batches": [], "outputs": {}, "diagnosis": [], "output_summary": {}, "skipped_batches": []},
        **{"artifact": "a", "engine": "torch", "device": "cpu", "precision": "fp32", "arithmetic": "fp32"},
        **{"simulated": False, "status": Status.PASSED},
    }
    return VariantRow.model_validate({**bare, "variant": name, "latency": list(timings), **values})


def output(**values: Any) -> dict[str, Any]:
    """Make one output of a row: it passed."""
    return {"status": Status.PASSED, "shape": [1, 2], "floor": None, "limit": None, **values}


NO_RANKING = {"refused": None, "rows": [], "left_out": []}
QUIET = {"others_cores": 0.0, "steal_cores": 0.0, "busy": False, "reason": "nobody else was at work"}


def report(*rows: VariantRow, status: Status = Status.PASSED, **values: Any) -> Report:
    """Make the report of a validation of rows."""
    devices = {row.device: "a model" for row in rows}
    bare: dict[str, Any] = {
        **{"time": STAMP, "host": "a-host", "artifact": "a", "weights": "synthetic:0", "synthetic": True},
        **{"status": status, "passed": status is Status.PASSED},
        "limits": {"within": "strict", "file": None, "rows": []},
        "reference": {"name": "original", "source": "live", "precision": "fp32", "device": "cpu"},
        "inputs": {"source": "recorded", "images": ["synthetic:0"]},
        "manifest": {"sha256": "abc", "vconv": "0.2.0", "files": {}},
        **{"preprocessing_ms_per_image": 1.0, "devices": devices},
        **{"device_settings": {name: {} for name in devices}, "environment": {"vconv": "0.2.0"}},
        "timing": {"batches": [1], "warmups": 1, "runs": 1, "budget_seconds": None},
        **{"checks": [], "diagnosis": [], "speed_up_baseline": "", "machine": QUIET, "ranking": NO_RANKING},
        **{"variants": rows, "published": [], "dataset": None},
    }
    return Report.model_validate({**bare, **values})


def comparison(*rows: dict[str, Any], status: Status = Status.PASSED, **values: Any) -> Comparison:
    """Make the report of a comparison; a row is what is known of it beside the usual."""
    timed = ("batch", "runs", "p50_ms", "p50_ms_interval", "mean_ms", "images_per_second", "warnings")
    usual: dict[str, Any] = {
        **dict.fromkeys((*timed, "samples_ms", "cosine", "vector_relative_error", "timing_refused")),
        **{"artifact": "a", "engine": "torch", "device": "cpu", "simulated": False, "weights": "synthetic:0"},
        **{"status": Status.PASSED, "passed": True, "reason": ""},
    }
    whole = [{**usual, **row} for row in rows]
    devices = {row["device"]: "a model" for row in whole}
    bare: dict[str, Any] = {
        **{"time": STAMP, "host": "a-host", "status": status, "passed": status is Status.PASSED},
        "limits": {"within": "strict", "file": None, "rows": []},
        **{"devices": devices, "device_settings": {name: {} for name in devices}, "environment": {}},
        **{"weights": {}, "rows": whole, "references": {}, "statuses": {}, "checks": [], "machine": QUIET},
        **{"ranking": NO_RANKING, "winner": None, "winner_reason": None},
    }
    return Comparison.model_validate({**bare, **values})


def bisection(device: str = "cpu", status: Status = Status.PASSED) -> Bisection:
    """Make the report of a bisection."""
    content = {
        **{"time": STAMP, "host": "a-host", "artifact": "a", "weights": "synthetic:0", "synthetic": True},
        **{"variant": "onnx-fp32", "engine": "onnxruntime", "device": device, "simulated": False},
        **{"status": status, "passed": status is Status.PASSED, "bound": 1e-5},
        "limits": {"within": "strict", "file": None, "rows": []},
        "reference": {"name": "original", "source": "live", "precision": "fp32", "device": "cpu"},
        "inputs": {"source": "recorded", "images": ["synthetic:0"]},
        **{"notes": [], "sentence": "it keeps to it", "worst_stage": "head", "stages": [], "operators": []},
        **{"culprit": None, "environment": {}},
    }
    return Bisection.model_validate(content)


def upgraded(content: dict[str, Any]) -> Report:
    """Read the report of a validation as version 0.1.0 wrote it."""
    found = read_report(content, "validate")
    assert isinstance(found, Report)
    return found
