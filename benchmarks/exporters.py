"""What every exporter makes of the same models: `vconv compare NAME --exporters all`, for five systems.

The systems are those for which people wrote model cards by hand (docs/model-card.md). They have their full
size and synthetic weights. Each is compared in a process for itself. With --optimum, optimum-cli of a virtual
environment takes part. --miniature is a quick trial on shrunk systems. The result is recorded after each
system, and what --out has already is not measured again. With --table, the recorded result is written into a
page as a table, and nothing is measured.

Target: vconv exports every system; its graph is within the strict limit of the original, has no operator that
CANN does not list, and has no place in which a fusion pass of CANN would change a result.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from record import finish, known_with, one_line, recording, save, write_table

from vconv.catalog.systems import find, miniature
from vconv.convert.ascend.fusions.table import FUSIONS, GELU
from vconv.convert.sources.table import Request, open_source

SYSTEMS = (
    "dinov3-vits16",
    "vit_small_patch16_dinov3.lvd1689m",
    "dinov2-large",
    "vit_small_patch14_reg4_dinov2.lvd142m",
    "vit-base-patch16-224-in21k",
)
VCONV = "vconv"
WEIGHTS = "synthetic:0"
SECONDS = 3600
"""The time that the comparison of one system may take by default."""
BEGIN, END = "<!-- exporters: begin -->", "<!-- exporters: end -->"
"""The lines of a page between which the table is written."""
HEADINGS = (
    *("exporter", "status", "error", "seconds", "memory", "size", "nodes"),
    *("CANN lacks", "GELUs undone", "median ms", "rank"),
)
EXPORTED = (
    *("exported", "reason", "seconds", "peak_rss_bytes", "nbytes", "nodes", "opset"),
    *("npu_lacks", "fusions"),
)
"""The fields of a comparison's report on each exporter that are recorded."""
_NONE = "-"


def compared(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Compare the exporters on one system; return the report.

    Raises:
        RuntimeError: there is no report.
    """
    with tempfile.TemporaryDirectory(prefix="exporters-") as folder:
        where = [name, "--weights", WEIGHTS]
        if options.miniature:
            source = Path(folder, "source")
            source.mkdir()
            open_source(Request(miniature(find(name)), WEIGHTS), source)
            where = [str(source)]
        exporters = ["all", *([f"optimum={options.optimum.absolute()}"] if options.optimum else [])]
        command = [sys.executable, "-m", "vconv", "compare", *where, "--json"]
        command += [argument for one in exporters for argument in ("--exporters", one)]
        command += ["--reports", str(Path(folder, "reports"))]
        command += ["--budget", str(options.budget), *(["--quick"] if options.quick else [])]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, timeout=options.seconds, check=False
        )
        if done.returncode not in (0, 1):
            raise RuntimeError(f"no comparison of {name}: vconv compare ended with {done.returncode}")
    return dict(json.loads(done.stdout))


def row_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is recorded of a report: a cell per exporter, and what holds for all of them."""
    ranks = {one["variant"]: one for one in report["ranking"]["rows"]}
    runs = {one["variant"]: one for one in report["rows"]}
    (original,) = (runs[name] for name in runs if name.startswith("original-"))
    cells = {
        one["exporter"]: {
            **{key: one[key] for key in EXPORTED},
            "gelus_undone": sum(
                count for key, count in one["fusions"].items() if FUSIONS[key].becomes == GELU
            ),
            **_run_of(runs.get(one["exporter"]), report["statuses"].get(one["exporter"], "")),
            "rank": ranks.get(one["exporter"], {}).get("rank"),
        }
        for one in report["exports"]
    }
    return {
        "status": report["status"],
        "exporters": cells,
        "original": {"p50_ms": original["p50_ms"], "error": original["vector_relative_error"]},
        "causes": [{key: one[key] for key in ("class", "where", "because")} for one in report["diagnosis"]],
        "ranking_refused": report["ranking"]["refused"],
        "machine": report["machine"],
    }


def _run_of(run: Mapping[str, Any] | None, status: str) -> dict[str, Any]:
    """Return how a graph ran; ``run`` is None if there is none, or it could not be judged."""
    keys = {"error": "vector_relative_error", "p50_ms": "p50_ms", "p50_ms_interval": "p50_ms_interval"}
    found = {key: run[name] if run else None for key, name in keys.items()}
    return {"status": status, **found, "runs": run["runs"] if run else None}


def text(document: Mapping[str, Any]) -> str:
    """Return a recorded result as Markdown: a table for each system, and what must be said of it."""
    return "\n".join(line for name, row in document["systems"].items() for line in _table(name, row))


def _table(name: str, row: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"### `{name}`", "", f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}")
    for exporter, cell in row["exporters"].items():
        yield f"| {' | '.join(_shown(exporter, cell))} |"
    yield ""
    said = [
        f"{exporter}: {one_line(cell['reason'])}"
        for exporter, cell in row["exporters"].items()
        if cell["reason"]
    ]
    said += [f"{one['where']}, {one['class']}: {one_line(one['because'])}" for one in row["causes"]]
    said += [f"no rank: {one_line(row['ranking_refused'])}"] if row["ranking_refused"] else []
    yield from (f"- {line}" for line in said)
    yield from ([""] if said else [])


def _shown(exporter: str, cell: Mapping[str, Any]) -> Iterator[str]:
    yield from (exporter, cell["status"] or ("not judged" if cell["exported"] else "no graph"))
    yield _number(cell["error"], ".1e")
    yield _number(cell["seconds"] or None, ".1f")
    yield _number(cell["peak_rss_bytes"] or None, ".2f", 1e9, " GB")
    yield _number(cell["nbytes"], ".1f", 1e6, " MB")
    yield _number(cell["nodes"], "d")
    yield ", ".join(cell["npu_lacks"]) or (_NONE if cell["nodes"] is None else "none")
    yield _NONE if cell["nodes"] is None else str(cell["gelus_undone"])
    yield _number(cell["p50_ms"], ".1f")
    yield _number(cell["rank"], "d")


def _number(value: float | None, form: str, unit: float = 1, name: str = "") -> str:
    """Format a number; ``unit`` is what it is counted in, if that is not one."""
    return _NONE if value is None else format(value if unit == 1 else value / unit, form) + name


def missed(document: Mapping[str, Any]) -> list[str]:
    """Say which targets vconv's graphs miss."""
    found = []
    for name, row in document["systems"].items():
        ours = row["exporters"][VCONV]
        found += [f"{name}: {ours['status'] or ours['reason']}"] if ours["status"] != "passed" else []
        found += [f"{name}: CANN lacks {', '.join(ours['npu_lacks'])}"] if ours["npu_lacks"] else []
        found += [f"{name}: fused: {ours['fusions']}"] if ours["fusions"] else []
    return found


def main() -> None:
    """Measure, print, record."""
    parser = recording(__doc__)
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, help="the systems to export")
    parser.add_argument("--optimum", type=Path, help="the folder of a virtual environment with optimum-onnx")
    parser.add_argument("--quick", action="store_true", help="time 10 runs of each graph")
    parser.add_argument("--budget", type=float, default=60, help="seconds that a graph's timing may take")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="the time that one system may take")
    options = parser.parse_args()
    if options.table:
        write_table(options.table, BEGIN, END, text(json.loads(options.out.read_text())))
        return
    settings = {key: getattr(options, key) for key in ("miniature", "quick", "budget")}
    settings |= {"weights": WEIGHTS, "optimum": options.optimum is not None}
    known = known_with(settings, options.out)
    result: dict[str, Any] = {**settings, "systems": known.get("systems", {})}
    for name in options.systems:
        if name not in result["systems"]:
            result["systems"][name] = row_of(compared(name, options))
            if options.out:
                save(result, options.out)
        print(text({"systems": {name: result["systems"][name]}}), flush=True)
    failures = missed(result)
    print("; ".join(failures) or "every target is met")
    finish(result, not failures, options.out)


if __name__ == "__main__":
    main()
