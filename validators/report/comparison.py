"""One table over variants, engines, devices and artifacts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vconv.types import Status
from vconv.validators.accuracy.metrics import METRICS

_TIMED = (
    *("batch", "runs", "p50_ms", "p50_ms_interval", "mean_ms", "images_per_second", "warnings", "samples_ms"),
)
_SHOWN = ("cosine", "vector_relative_error")


def rows(variants: Iterable[Mapping[str, Any]], weights: Mapping[str, str]) -> list[dict[str, Any]]:
    """Flatten a report's variants: one row a variant and batch, with the worst of its outputs.

    Args:
        variants: as :func:`vconv.validators.validation.run` returns them.
        weights: by artifact, what to call its weights.
    """
    found = []
    for variant in variants:
        first = {key: variant[key] for key in ("artifact", "variant", "engine", "device", "simulated")}
        first["weights"] = weights[variant["artifact"]]
        worst = {name: _worst(name, list(variant["outputs"].values())) for name in _SHOWN}
        last = {"status": variant["status"], "passed": variant["status"] is Status.PASSED}
        last |= {"reason": variant.get("reason", ""), "timing_refused": variant["timing_refused"]}
        for timing in variant["latency"] or [{}]:
            found.append({**first, **{key: timing.get(key) for key in _TIMED}, **worst, **last})
    return found


def _worst(name: str, outputs: Sequence[Mapping[str, Any]]) -> float | None:
    values = [output[name] for output in outputs if output.get(name) is not None]
    return METRICS[name].worst(values) if values else None
