"""What reduced precision keeps of trained DINOv2-small, and what a plan of float16 saves from an overflow.

1. Outliers: rows of the value projection in two blocks are multiplied by 2^17, and the matching columns
   behind the attention by its inverse, which changes nothing in float32. Plain float16 overflows.
   `--precision auto` must find the nodes that stay in float32. Random choices of as many nodes are tried
   beside it.
2. int8: `vconv export --precision int8 --max-drop 0.02`, beside int8 without a greatest drop, int8 with the
   ranges of each run, and ONNX Runtime's own quantisation of the same graph, by its defaults. All are
   calibrated on the same crops of photographs, and compared with the original on other crops, in ONNX
   Runtime.

The weights are those of :mod:`trained_weights`, the photographs those of :mod:`trained_dinov2`. --miniature
is a quick trial on a shrunk network with synthetic weights. What --out has already is not measured again.
With --table, the recorded result is written into a page, and nothing is measured.

Target: with outliers, the plan is finite and within the strict limit of fp16, has at least 0.8 of the
multiply-adds in float16, plain float16 is refused, and at most 2 of 20 random choices fit. The first row of
int8 keeps at least 0.95 of the ten nearest neighbours.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from record import finish, known_with, one_line, recording, save, write_table
from reduced_parts import int8, outliers
from reduced_parts.crops import NEIGHBOURS
from trained_dinov2 import photographs
from trained_weights import SYSTEM, fetched

from vconv.catalog.systems import System, find, miniature
from vconv.convert.sources.table import Request, open_source

LEAST_SHARE, MOST_FITTING, LEAST_KEPT = 0.8, 2, 0.95
TRAINED, SYNTHETIC = "trained", "synthetic:0"
BEGIN, END = "<!-- reduced precision: begin -->", "<!-- reduced precision: end -->"
"""The lines of a page between which the tables are written."""
HEADINGS = (
    *("int8 graph", "neighbours kept", "error", "least token cosine", "multiply-adds in int8"),
    *("products", "seconds"),
)


def subject(small: bool, scratch: Path) -> tuple[System, Path]:
    """Return the network, and a folder with its weights."""
    if not small:
        return find(SYSTEM), fetched()
    system, folder = miniature(find(SYSTEM)), scratch / "miniature"
    folder.mkdir()
    open_source(Request(system, SYNTHETIC), folder)
    return system, folder


def measure(result: dict[str, Any], small: bool, out: Path | None) -> None:
    """Measure what a result lacks, and record each part as soon as it is known."""

    def record() -> None:
        if out:
            save(result, out)

    with tempfile.TemporaryDirectory(prefix="reduced-") as name:
        scratch = Path(name)
        system, weights = subject(small, scratch)
        if "outliers" not in result:
            result["outliers"] = outliers.measured(system, weights, scratch / "outliers")
            record()
        rows = result.setdefault("int8", {"rows": {}})["rows"]
        if rows.keys() >= int8.WAYS.keys():
            return
        bench = int8.prepared(system, weights, scratch / "int8")
        result["int8"] |= {
            "crops": int8.CROPS,
            "calibration_crops": int8.CALIBRATION,
            "neighbours": NEIGHBOURS,
            "seconds_of_an_export_in_fp32": bench.seconds,
        }
        pixel_values, wanted, names = int8.expected(bench)
        for way in int8.WAYS:
            if way not in rows:
                rows[way] = int8.measured(way, bench, pixel_values, wanted, names)
                print(way, json.dumps(rows[way]), flush=True)
                record()


def text(document: Mapping[str, Any]) -> str:
    """Return a recorded result as Markdown."""
    return "\n".join([*_outliers(document), *_int8(document)])


def _outliers(document: Mapping[str, Any]) -> Iterator[str]:
    found = document["outliers"]
    fp16, mixed, random = found["fp16"], found["mixed"], found["random"]
    blocks = " and ".join(found["channels"])
    channels = len(next(iter(found["channels"].values())))
    difference = found["difference_of_the_references"]
    yield from (f"### Outliers: `{document['system']}`, {document['weights']}", "")
    yield f"Outliers are in {channels} channels each of blocks {blocks}, counted from 0."
    yield f"{found['judged_crops']} crops are judged; plans are made on {found['calibration_crops']} others."
    yield from ("", "| what | result |", "|---|---|")
    yield f"| the greatest difference that the outliers make in float32 | {difference:.1e} |"
    yield f"| plain float16, simulated | {_finite(fp16)}; the export is {_refused(fp16)} |"
    error = "" if mixed["error"] is None else f", error {mixed['error']:.1e}"
    yield f"| `--precision auto`, simulated | {_finite(mixed)}{error}; the limit is {mixed['limit']:g} |"
    yield f"| its share of the multiply-adds in float16 | {mixed['share']:.3f} |"
    yield f"| nodes that its plan keeps in float32 | {mixed['kept']} |"
    yield (
        f"| random choices of {random['nodes']} of {random['of']} nodes that fit | "
        f"{random['fit']} of {random['choices']} |"
    )
    yield ""
    if fp16["refused"]:
        yield from (f"- plain float16: {_wrong(fp16['refused'])}", "")


def _finite(one: Mapping[str, Any]) -> str:
    return "finite" if one["finite"] else "Inf or NaN"


def _refused(fp16: Mapping[str, Any]) -> str:
    return "refused" if fp16["refused"] else "made"


def _int8(document: Mapping[str, Any]) -> Iterator[str]:
    found = document["int8"]
    yield from (f"### int8: `{document['system']}`, {document['weights']}", "")
    taken, seconds = len(document["photographs"]), found["seconds_of_an_export_in_fp32"]
    yield f"{found['crops']} crops of {taken} photographs are compared, in ONNX Runtime;"
    yield f"{found['calibration_crops']} others are the calibration. The seconds of vconv are those of a"
    yield "whole export, with its reference and its checks; that of the graphs in float32 alone took"
    yield f"{seconds:.0f} seconds."
    yield from ("", f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}")
    for way, row in found["rows"].items():
        cells = ["refused", *["-"] * 5] if row["refused"] else [
            f"{row['kept']:.3f}", f"{row['error']:.3f}", f"{row['token_cosine_min']:.4f}",
            f"{row['share']:.3f}", str(row["quantised"]), f"{row['seconds']:.0f}",
        ]  # fmt: skip
        yield f"| {' | '.join([way, *cells])} |"
    yield ""
    reasons = [f"- {way}: {_wrong(row['refused'])}" for way, row in found["rows"].items() if row["refused"]]
    yield from ([*reasons, ""] if reasons else [])


def _wrong(refused: str) -> str:
    """Return what is wrong, and what was found, of the line of an error."""
    return one_line(refused.partition(" | expected")[0])


def missed(document: Mapping[str, Any]) -> list[str]:
    """Say which targets are missed."""
    row = document["int8"]["rows"][int8.JUDGED]
    found = [*outliers.missed(document["outliers"], LEAST_SHARE, MOST_FITTING)]
    if row["refused"]:
        return [*found, f"{int8.JUDGED}: {row['refused']}"]
    return found + ([f"{int8.JUDGED} keeps {row['kept']:.3f}"] if row["kept"] < LEAST_KEPT else [])


def main() -> None:
    """Measure, print, record."""
    parser = recording(__doc__)
    options = parser.parse_args()
    if options.table:
        write_table(options.table, BEGIN, END, text(json.loads(options.out.read_text())))
        return
    result: dict[str, Any] = {
        "system": SYSTEM,
        "weights": SYNTHETIC if options.miniature else TRAINED,
        "miniature": options.miniature,
        "photographs": sorted(photographs()),
    }
    known = known_with(result, options.out)
    result |= {key: known[key] for key in ("outliers", "int8") if key in known}
    measure(result, options.miniature, options.out)
    print(text(result))
    failures = missed(result)
    print("; ".join(failures) or "every target is met")
    finish(result, not failures, options.out)


if __name__ == "__main__":
    main()
