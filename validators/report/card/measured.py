"""The parts of a card that come from reports: for each device, measurements, environment and verdicts."""

from __future__ import annotations

from typing import Any

from vconv.runtime.engines.table import ENGINES, is_usual
from vconv.runtime.engines.torch_kinds import PATCHED_FP32
from vconv.types import Status
from vconv.validators.checks.preprocessing import MADE_UP
from vconv.validators.latency.peak_memory import IN_PROCESS, ISOLATED
from vconv.validators.report.card import tables
from vconv.validators.report.card.evidence import DeviceEvidence
from vconv.validators.report.card.markdown import code, escaped
from vconv.validators.report.card.words import Words
from vconv.validators.report.rows import VariantRow

_PEAK_MEMORY = {ISOLATED: "isolated", IN_PROCESS: "in_process"}
"""By where peak memory was measured: the key of the words that say so."""


def _versions() -> list[str]:
    """List the entries of a report's environment that a card shows."""
    libraries = ("python", "torch", "torchvision", "torch_npu", "transformers", "timm", "onnx")
    engines = (engine.package for engine in ENGINES.values() if engine.distributions)
    rest = ("numpy", "pillow", "vconv", "cann", "cuda devices", "npu devices", "cores")
    return list(dict.fromkeys((*libraries, *engines, *rest)))


def verdict(one: DeviceEvidence, words: Words) -> dict[str, Any]:
    """Return the status of a validation on a device, and the checks that failed."""
    failed = [check for check in one.document.checks if check.status is Status.FAILED]
    return {
        "device": device(one, words),
        "status": words.say("statuses", one.status),
        "failed": [f"{escaped(check.name)}: {escaped(check.detail)}" for check in failed],
        "moment": one.moment,
        "file": one.file,
        "page": one.file.replace(".json", ".html"),
    }


def device(one: DeviceEvidence, words: Words) -> str:
    """Return the name of a device, followed by *simulated* if it is simulated."""
    return f"{code(one.device)}{words.say('marks', 'simulated') if one.simulated else ''}"


def model(one: DeviceEvidence, words: Words) -> str:
    """Return the model of a device; for a simulated device, its arithmetic."""
    if one.simulated:
        return words.say("marks", "simulated_npu").format(**one.settings)
    return escaped(one.model)


def _image(name: str, words: Words) -> str:
    """Return the name of an image of the validation: made up, or a photograph."""
    kind, _, number = name.replace(MADE_UP, "synthetic ").partition(" ")
    known = words.tables["images"]
    return known[kind].format(number=number) if kind in known and number.isdigit() else escaped(name)


def _reason(text: str, words: Words) -> str:
    """Return the reason of a variant's status, in the card's language if there is a translation."""
    return words.reword("reasons", text)


def environment(one: DeviceEvidence, words: Words) -> dict[str, Any]:
    """Describe the environment of a device: the installed versions and the device's settings."""
    return {
        "device": device(one, words),
        "model": model(one, words),
        "simulated": one.simulated,
        "moment": one.moment,
        "file": one.file,
        "versions": tables.versions(one.document.environment, _versions(), words),
        "settings": tables.settings(one, words),
    }


def summaries(one: DeviceEvidence, words: Words) -> list[dict[str, Any]]:
    """Summarise the outputs of the variant that the scripts run."""
    return [
        {
            "variant": row.variant,
            "device": device(one, words),
            "simulated": one.simulated,
            "file": one.file,
            "table": tables.summary(row, words),
        }
        for row in one.rows
        if row.variant == PATCHED_FP32 and is_usual(row.engine) and row.output_summary
    ]


def performance(one: DeviceEvidence, words: Words) -> dict[str, Any]:
    """Lay out the timing on a device, and its conditions."""
    document = one.document

    def remark(row: VariantRow, reason: str, batch: int | None = None) -> str:
        where = words.say("marks", "where")
        at = "" if batch is None else f"{where}{words.say('headings', 'batch')} {batch}"
        return f"{tables.named(row, words)}{at}{words.say('marks', 'colon')}{words.reword('timing', reason)}"

    skipped = [remark(row, batch.reason, batch.batch) for row in one.rows for batch in row.skipped_batches]
    refused = [remark(row, row.timing_refused) for row in one.rows if row.timing_refused]
    warned = [
        remark(row, warning, timing.batch)
        for row in one.rows
        for timing in row.latency
        for warning in timing.warnings
    ]
    ratios = any(timing.speed_up_over_cpu for row in one.rows for timing in row.latency)
    refusal, machine = document.ranking.refused or "", document.machine.reason
    doubts = [refusal] if machine in refusal else [refusal, machine]
    told = [
        words.say("marks", "machine").format(reason=words.reword("timing", doubt))
        for doubt in doubts
        if doubt
    ]
    told += _peak_memory(one, words)
    return {
        "device": device(one, words),
        "model": model(one, words),
        "file": one.file,
        "warmups": document.timing.warmups if document.timing else "-",
        "preprocessing": tables.figure("p50_ms", document.preprocessing_ms_per_image),
        "baseline": words.reword("timing", document.speed_up_baseline) if ratios else "",
        "latency": tables.latency(one, words),
        "costs": tables.costs(one, words),
        "remarks": [*dict.fromkeys(told), *skipped, *refused, *warned],
    }


def _peak_memory(one: DeviceEvidence, words: Words) -> list[str]:
    """Say where peak memory was measured; with the names of the variants, unless it is the same for all."""
    measured = [row for row in one.rows if row.peak_rss_bytes and row.status is not Status.SKIPPED]
    found = []
    for where, mark in _PEAK_MEMORY.items():
        names = [tables.named(row, words) for row in measured if row.peak_memory_is == where]
        if names:
            of = words.say("marks", "and").join(names) + words.say("marks", "colon")
            found.append(of * (len(names) < len(measured)) + words.say("marks", mark))
    return found


def accuracy(one: DeviceEvidence, words: Words) -> dict[str, Any]:
    """Lay out the accuracy of every output on a device, with the reference and the limits."""
    document = one.document
    reference, inputs = document.reference, document.inputs
    source = words.say("references", reference.source)
    comma, colon = words.say("marks", "where"), words.say("marks", "colon")
    where = f"{reference.precision}{comma}{code(reference.device)}"
    if recorded := reference.recorded:
        where += f" {escaped(recorded.device_model)}{comma}{escaped(recorded.arithmetic)}"
    name = words.say("references", reference.name or "-")
    failures = [
        f"{tables.named(row, words)}, {code(output)}{colon}{escaped(reason)}"
        for row in one.rows
        for output, found in row.outputs.items()
        for reason in found.reasons
    ]
    failures += [
        f"{tables.named(row, words)}{colon}{_reason(row.reason, words)}" for row in one.rows if row.reason
    ]
    return {
        "device": device(one, words),
        "model": model(one, words),
        "simulated": one.simulated,
        "file": one.file,
        "reference": words.say("marks", "reference").format(name=name, where=where, source=source),
        "within": code(document.limits.within),
        "inputs": words.say("marks", "and").join(_image(name, words) for name in inputs.images) or "-",
        "table": tables.accuracy(one, words),
        "further": tables.further(one, words),
        "improvement": tables.improvement(one, words) if one.device != "cpu" else "",
        "prediction": tables.prediction(one, words),
        "agreement": tables.dataset(one, words),
        "images": document.dataset.images if document.dataset else 0,
        "unread": document.dataset.skipped_count if document.dataset else 0,
        "failures": failures,
    }
