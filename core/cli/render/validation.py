"""Draws a validation and a comparison for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from vconv.cli.render.base import Cell, coloured, marked, pairs, show, sized, table, wrapped
from vconv.cli.render.dataset import dataset
from vconv.cli.render.prediction import predictions
from vconv.cli.render.published import published
from vconv.types import Status, weights_named
from vconv.validators.report import sentences
from vconv.validators.report.comparison import Comparison, ComparisonRow, ExportRow
from vconv.validators.report.document import CheckRow, DiagnosisRow, Report, ValidationResult
from vconv.validators.report.rows import LatencyRow, OutputRow, VariantRow


def _worst_output(outputs: Mapping[str, OutputRow]) -> tuple[str, OutputRow | None]:
    if not outputs:
        return "-", None
    return max(
        outputs.items(),
        key=lambda item: (item[1].status is Status.FAILED, item[1].vector_relative_error or 0),
    )


def _figure(value: float | None, style: str) -> str:
    return "-" if value is None else format(value, style)


_ACCURACY = (("floor", ".0e"), ("vector_relative_error", ".1e"), ("limit", ".2g"))


def variants(found: Sequence[VariantRow], checks: Sequence[CheckRow]) -> None:
    """Draw the accuracy of the variants: one row per variant, with its worst output.

    Args:
        found: the variants.
        checks: the checks; those of the graph that takes images judge this variant.
    """
    rows: list[list[Cell]] = []
    for variant in found:
        output, row = _worst_output(variant.outputs)
        figures = [_figure(getattr(row, key, None), style) for key, style in _ACCURACY]
        rows.append([sentences.short_name(variant), output, *figures, coloured(sentences.standing(variant))])
    show(table(["variant"], ["<worst output", "floor", "error", "limit", "<status"], rows))
    wrapped(*filter(None, [sentences.from_images(checks)]))


def latencies(document: Report) -> None:
    """Draw the latency of the variants: one row per variant and batch."""
    if not any(variant.latency for variant in document.variants):
        return
    timed = [variant for variant in document.variants if variant.latency or variant.launches]
    ratios = any(one.speed_up_over_cpu for variant in timed for one in variant.latency)
    baseline = document.speed_up_baseline if ratios else ""
    launching = any(variant.launches for variant in timed)
    headings = ["batch", "p50 ms", "img/s", *["speed-up"] * bool(baseline), *["launches"] * launching]
    rows = [
        [
            sentences.short_name(variant) if place == 0 else "",
            *_timing(variant, timing, bool(baseline), launching),
        ]
        for variant in timed
        for place, timing in enumerate(variant.latency or (None,))
    ]
    show("", table(["variant"], headings, rows))
    counted = sorted({variant.launches.how for variant in timed if variant.launches})
    wrapped(*[f"speed-up: times as fast as {baseline}"] * bool(baseline))
    wrapped(*[f"launches: {', '.join(counted)}, for one image"] * launching)


def _timing(variant: VariantRow, timing: LatencyRow | None, compared: bool, launching: bool) -> Iterator[str]:
    yield _figure(timing.batch if timing else None, "d")
    yield _figure(timing.p50_ms if timing else None, ".1f")
    yield _figure(timing.images_per_second if timing else None, ".1f")
    if compared:
        yield _figure(timing.speed_up_over_cpu if timing else None, ".2f")
    if launching:
        yield str(variant.launches.total) if variant.launches else "-"


def validated(document: ValidationResult) -> None:
    """Draw the report of a validation."""
    reference = document.reference
    name = f"{reference.name}, " if reference.name else ""
    show(
        pairs(
            [
                ("graphs" if document.graphs else "artifact", document.artifact),
                ("weights", weights_named(document.weights, document.synthetic)),
                ("reference", f"{name}{sentences.reference(reference)}"),
                ("limits", document.limits.within),
            ]
        )
    )
    for graph in document.graphs:
        wrapped(graph.path, *(f"  {line}" for line in sentences.contract(graph)))
    failed = {check.name: check for check in document.checks if check.status is Status.FAILED}
    for check in failed.values():
        marked("failed", f"{check.name}: {check.detail}")
    # What explains every figure below comes before them.
    _diagnosed(row for row in document.diagnosis if row.where in failed)
    if document.variants:
        variants(document.variants, document.checks)
    else:
        show(sentences.NO_REFERENCE)
    remarks(document.variants)
    for variant in document.variants:
        if warning := sentences.fallbacks(variant):
            marked("warning", warning)
    latencies(document)
    _grouped(
        (sentences.short_name(variant), f"batch {skipped.batch} not timed: {skipped.reason}")
        for variant in document.variants
        for skipped in variant.skipped_batches
    )
    predictions(document)
    dataset(document)
    wrapped(*sentences.fastest(document.ranking))
    for found in document.winners:
        if found.load:
            show(f"to load it: {found.load}")
    published(document.published)
    _conclusion(document)


def remarks(variants: Iterable[VariantRow]) -> None:
    """Print what does not fit into the table: each remark once, with the names of its variants."""
    _grouped((sentences.short_name(one), line) for one in variants for line in _remarks(one))


def _remarks(variant: VariantRow) -> Iterator[str]:
    """Yield what does not fit into a table: why a variant failed, was not judged, or was not timed."""
    found = [f"{key}: {reason}" for key, row in variant.outputs.items() for reason in row.reasons]
    yield from found or [variant.reason] * bool(variant.reason)
    if variant.timing_refused:
        yield f"not timed: {variant.timing_refused}"


def _grouped(remarks: Iterable[tuple[str, str]]) -> None:
    """Print remarks on variants, given as pairs of a variant's name and a remark: each remark once."""
    names: dict[str, dict[str, None]] = {}
    for name, remark in remarks:
        names.setdefault(remark, {})[name] = None
    wrapped(*(f"  {', '.join(those)}: {remark}" for remark, those in names.items()))


def _conclusion(document: ValidationResult) -> None:
    counts = {
        status: sum(check.status == status for check in document.checks)
        for status in ("passed", "failed", "skipped")
    }
    show("checks: " + ", ".join(f"{number} {status}" for status, number in counts.items() if number))
    for check in document.checks:
        if check.status is Status.SKIPPED:
            marked("skipped", f"{check.name}: {check.detail}")
    failed = {check.name for check in document.checks if check.status is Status.FAILED}
    _diagnosed(row for row in document.diagnosis if row.where not in failed)
    wrapped(f"report: {document.report}", f"page: {document.page}")
    wrapped(*filter(None, [sentences.incomplete(document.status, document.variants)]))
    show(coloured(document.status))


def _diagnosed(rows: Iterable[DiagnosisRow]) -> None:
    for row in rows:
        wrapped(f"diagnosis: {row.fault}: {row.meaning} ({row.where}: {row.because})")


def _word(row: ComparisonRow) -> str:
    measured = row.vector_relative_error is not None or row.p50_ms is not None
    return sentences.word(row.status, row.reason, measured)


def exports(found: Sequence[ExportRow]) -> None:
    """Draw what each exporter made: one row per exporter."""
    if not found:
        return
    rows: list[list[Cell]] = []
    for one in found:
        made = [] if one.nbytes is None else [sized(one.nbytes), str(one.nodes), str(one.opset)]
        fused = str(sum(one.fusions.values())) if made else "-"
        lacks = ", ".join(one.npu_lacks) or "-"
        run = [
            f"{one.seconds:.1f}" if one.seconds else "-",
            sized(one.peak_rss_bytes) if one.peak_rss_bytes else "-",
        ]
        rows.append([one.exporter, *run, *(made or ["-"] * 3), fused, lacks])
    headings = ["seconds", "memory", "size", "nodes", "opset", "fused", "<CANN lacks"]
    show(table(["exporter"], headings, rows))
    wrapped("fused: the places in which a pass of CANN's compiler would change a result")
    wrapped(*[f"{one.exporter}: {one.reason}" for one in found if one.reason])
    show("")


def compared(document: Comparison) -> None:
    """Draw a comparison: one table of all artifacts, variants, engines and devices."""
    exports(document.exports)
    rows: list[list[Cell]] = []
    above = None
    for row in document.rows:
        if row.artifact != above:
            above = row.artifact
            rows.append([above])
        numbers = [
            "-" if row.batch is None else str(row.batch),
            *(_figure(value, ".1f") for value in (row.p50_ms, row.images_per_second)),
            _figure(row.vector_relative_error, ".1e"),
            _figure(row.cosine, ".6f"),
        ]
        rows.append([f"  {sentences.short_name(row)}", *numbers, coloured(_word(row))])
    show(table(["variant"], ["batch", "p50 ms", "img/s", "error", "cosine", "<status"], rows))
    _grouped(
        (f"{row.artifact}: {sentences.short_name(row)}", remark)
        for row in document.rows
        for remark in (
            *[row.reason] * (row.status is Status.SKIPPED and bool(row.reason)),
            *[f"not timed: {row.timing_refused}"] * bool(row.timing_refused),
        )
    )
    wrapped(sentences.winner(document), f"limits: {document.limits.within}")
    for path, label in document.weights.items():
        reference = sentences.REFERENCES[document.references[path]]
        marked(document.statuses[path], f"{path}: weights {label}; reference: {reference}")
    for check in document.checks:
        marked(check.status, f"{check.artifact}: {check.name}: {check.detail}")
    for left in document.left_out:
        marked(left.status, f"{left.name}: {left.detail}")
    _diagnosed(document.diagnosis)
    show(coloured(document.status))
