"""What every precision costs and saves in every engine here: five systems, and trained DINOv2-small.

Each system is exported with every reduced precision, planned on crops of photographs, and judged and timed on
other crops by one `vconv validate --engine all`, so that all rows of a system are of one run. The systems are
those of exporters.py in full size, with synthetic weights; DINOv2-small has those of :mod:`trained_weights`.
--miniature is a quick trial on shrunk systems, all with synthetic weights. The result is recorded after each
system, and what --out has already is not measured again. With --table, the recorded result is written into a
page as tables, and nothing is measured.

Target: every precision of every system is exported, and no variant fails in an engine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from exporters import SYSTEMS, WEIGHTS
from record import finish, known_with, one_line, recording, save, write_table
from reduced_parts.crops import crops, saved
from trained_weights import SYSTEM, fetched

from vconv.catalog.systems import find, miniature
from vconv.convert.sources.table import Request, open_source
from vconv.runtime.devices.table import find_device

PRECISIONS = ("fp16", "bf16", "auto", "int8", "int8-dynamic")
OF_TORCH = ("fp32", "bf16")
"""The precisions of torch variants, of which those are run that the CPU has."""
TRAINED = "trained"
BASELINES = ("original-torch-fp32", "patched-torch-fp32")
"""The variants over which speeds are given, uncompiled: the first of them that was timed."""
JUDGED, JUDGED_SEED = 2, 21
CALIBRATION, CALIBRATION_SEED = 16, 22
"""The number of crops on which variants are judged, and of those on which plans are made by default."""
SECONDS = 6 * 3600
"""The time that one command on one system may take by default."""
BEGIN, END = "<!-- precisions and engines: begin -->", "<!-- precisions and engines: end -->"
"""The lines of a page between which the tables are written."""
HEADINGS = (
    *("variant", "engine", "status", "arithmetic", "error", "limit", "median ms", "speed", "rank"),
    *("load ms", "first ms", "threads"),
)
TRIAL = (
    "**A trial on miniatures:** these are no figures of the systems, which are shrunk to few, narrow blocks."
)
_NONE = "-"


class CommandError(Exception):
    """A command of vconv ended with an error; the text is its reason."""


def run(arguments: Sequence[str], seconds: float) -> dict[str, Any]:
    """Run a command of vconv; return what it prints as JSON.

    Raises:
        CommandError: it ended with an error.
    """
    command = [sys.executable, "-m", "vconv", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    sys.stderr.write(done.stderr)
    if not done.stdout.strip():
        raise CommandError((done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1])
    return dict(json.loads(done.stdout))


def exported(where: Sequence[str], folder: Path, count: int, seconds: float) -> tuple[dict[str, str], Path]:
    """Export a system in every precision that is not refused.

    Args:
        where: its name or folder, and its weights.
        folder: where to write the artifact and the crops.
        count: the number of crops on which plans are made.
        seconds: the time that one command may take.

    Returns:
        The reason of each refused precision, by its name, and the artifact.
    """
    artifact = folder / "artifact"
    judged = saved(crops(JUDGED, JUDGED_SEED)[0], folder / "judged")
    calibration = saved(crops(count, CALIBRATION_SEED)[0], folder / "calibration")

    def export(names: Sequence[str]) -> None:
        planned = {*names} - {"fp16", "bf16"}
        arguments = ["export", *where, "--force", "--out", str(artifact), "--images", str(judged)]
        arguments += ["--precision", ",".join(names)] if names else []
        run(arguments + (["--calibration", str(calibration)] if planned else []), seconds)

    try:
        export(PRECISIONS)
        return {}, artifact
    except CommandError as error:
        print(f"one by one, because together they are refused: {error}", flush=True)
    refused = {}
    for name in PRECISIONS:
        try:
            export([name])
        except CommandError as error:
            refused[name] = str(error)
    export([name for name in PRECISIONS if name not in refused])
    return refused, artifact


def compared(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Export one system, and judge and time every variant in every engine."""
    with tempfile.TemporaryDirectory(prefix="precisions-") as made:
        folder = Path(made)
        where, weights = [name, "--weights", WEIGHTS], WEIGHTS
        if options.miniature:
            source = folder / "source"
            source.mkdir()
            open_source(Request(miniature(find(name)), WEIGHTS), source)
            where = [str(source), "--weights", str(source)]
        elif name == SYSTEM:
            where, weights = [name, "--weights", str(fetched())], TRAINED
        refused, artifact = exported(where, folder, options.crops, options.seconds)
        of_torch = [one for one in OF_TORCH if one in find_device("cpu").precisions]
        arguments = [
            "validate",
            str(artifact),
            *where[1:],
            "--engine",
            "all",
            "--precision",
            ",".join(of_torch),
        ]
        arguments += ["--reports", str(folder / "reports"), "--budget", str(options.budget)]
        report = run([*arguments, *(["--quick"] if options.quick else [])], options.seconds)
        planned = {"calibration_crops": options.crops, "refused": refused}
        return {"weights": weights, **planned, **result_of(report)}


def result_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is recorded of a report: a row for each variant and engine, the winners, the machine."""
    ranks = {(one["variant"], one["engine"]): one["rank"] for one in report["ranking"]["rows"]}
    timed = {(one["variant"], one["engine"]): _timed(one) for one in report["variants"]}
    known = [name for name in BASELINES if timed.get((name, "torch"), {}).get("p50_ms")]
    baseline = timed[known[0], "torch"]["p50_ms"] if known else None
    rows = []
    for one in report["variants"]:
        key = one["variant"], one["engine"]
        took = timed[key]["p50_ms"]
        keys = ("variant", "engine", "precision", "arithmetic", "status", "reason", "timing_refused")
        rows.append(
            {
                **{name: one[name] for name in keys},
                "error": _greatest(one, "vector_relative_error"),
                "limit": _greatest(one, "limit"),
                **timed[key],
                "speed": baseline / took if baseline and took else None,
                "rank": ranks.get(key),
                **{name: one[name] for name in ("load_ms", "first_ms", "threads")},
            }
        )
    return {
        "status": report["status"],
        "baseline": known[0] if known else None,
        "rows": rows,
        "winners": [
            {key: one[key] for key in ("variant", "engine", "tied_with")} for one in report["winners"]
        ],
        "ranking_refused": report["ranking"]["refused"],
        "machine": report["machine"],
    }


def _timed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the latency of a variant at batch 1."""
    found = next((one for one in row["latency"] if one["batch"] == 1), {})
    return {key: found.get(key) for key in ("p50_ms", "p50_ms_interval", "runs")}


def _greatest(row: Mapping[str, Any], key: str) -> float | None:
    """Return the greatest value over the outputs of a variant; None if none is known."""
    return max((one[key] for one in row["outputs"].values() if one.get(key) is not None), default=None)


def text(document: Mapping[str, Any]) -> str:
    """Return a recorded result as Markdown: a table for each system, and what must be said of it."""
    tables = [line for name, one in document["systems"].items() for line in _table(name, one)]
    return "\n".join([*([TRIAL, ""] if document["miniature"] else []), *tables])


def _table(name: str, one: Mapping[str, Any]) -> Iterator[str]:
    told = f"{one['weights']}, planned on {one['calibration_crops']} crops"
    yield from (f"### `{name}`, {told}", "", f"| {' | '.join(HEADINGS)} |")
    yield f"|{'---|' * len(HEADINGS)}"
    for row in one["rows"]:
        if row["status"] != "skipped" or row["p50_ms"]:
            yield f"| {' | '.join(_cells(row))} |"
    yield from ("", *_said(one), "")


def _cells(row: Mapping[str, Any]) -> Iterator[str]:
    yield from (row["variant"], row["engine"], row["status"], row["arithmetic"])
    forms = {"error": ".1e", "limit": "g", "p50_ms": ".1f", "speed": ".2f", "rank": "d"}
    forms |= {"load_ms": ".0f", "first_ms": ".0f", "threads": "d"}
    yield from (_NONE if row[key] is None else format(row[key], form) for key, form in forms.items())


def _said(one: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines below a table: winners, refusals, and what was skipped or failed, by its reason."""
    for winner in one["winners"]:
        ties = [f"{other['variant']} in {other['engine']}" for other in winner["tied_with"]]
        tied = f", not distinguishable from {', '.join(ties)}" if ties else ""
        yield f"- the winner: {winner['variant']} in {winner['engine']}{tied}"
    if one["ranking_refused"]:
        yield f"- no rank: {one_line(one['ranking_refused'])}"
    yield from (f"- `--precision {name}` is refused: {one_line(why)}" for name, why in one["refused"].items())
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for row in one["rows"]:
        if row["reason"]:
            key = row["status"], row["engine"], one_line(row["reason"])
            reasons.setdefault(key, []).append(row["variant"])
    for (status, engine, reason), names in reasons.items():
        yield f"- {status} in {engine}: {', '.join(names)}: {reason}"


def missed(document: Mapping[str, Any]) -> list[str]:
    """Say which targets are missed."""
    return [
        said
        for name, one in document["systems"].items()
        for said in (
            *(f"{name}: {precision} is refused" for precision in one["refused"]),
            *(
                f"{name}: {row['variant']} fails in {row['engine']}"
                for row in one["rows"]
                if row["status"] in ("failed", "incomplete")
            ),
        )
    ]


def main() -> None:
    """Measure, print, record."""
    parser = recording(__doc__)
    parser.add_argument("--systems", nargs="+", default=(*SYSTEMS, SYSTEM), help="the systems to export")
    parser.add_argument("--quick", action="store_true", help="time 10 runs of each variant")
    parser.add_argument("--budget", type=float, default=60, help="seconds that a variant's timing may take")
    parser.add_argument(
        "--crops", type=int, default=CALIBRATION, help="the number of crops on which plans are made"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="the time that one command may take")
    options = parser.parse_args()
    if options.table:
        write_table(options.table, BEGIN, END, text(json.loads(options.out.read_text())))
        return
    settings = {key: getattr(options, key) for key in ("miniature", "quick", "budget")}
    known = known_with(settings, options.out)
    result: dict[str, Any] = {
        **settings,
        "judged_crops": JUDGED,
        "systems": known.get("systems", {}),
    }
    for name in options.systems:
        if name not in result["systems"]:
            result["systems"][name] = compared(name, options)
            if options.out:
                save(result, options.out)
        print(text({**result, "systems": {name: result["systems"][name]}}), flush=True)
    failures = missed(result)
    print("; ".join(failures) or "every target is met")
    finish(result, not failures, options.out)


if __name__ == "__main__":
    main()
