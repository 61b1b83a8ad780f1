"""Export image encoders that nobody picked, and the whole catalog, with vconv and with other exporters.

A rule draws the encoders (:mod:`encoders.draw`): each has synthetic weights, the default size of its
library, and at most 400 million parameters. The systems of the catalog have their true width and the blocks
of their miniature. Every model is exported by every exporter that takes its library, in a process with a time
limit, and judged by the same limits (:mod:`encoders.exporters`). Each result is recorded as soon as it is
known: a run that was interrupted goes on where it stopped, and several may run side by side.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from encoders import NO, OPTIMUM, UNSUPPORTED, VCONV, YES
from encoders.draw import COUNT, draw
from encoders.exporters import EXPORTERS, last_line, library_of, tried
from encoders.table import CATALOG, summary, write
from record import finish

from vconv.catalog.systems import SYSTEMS

LEAST_SHARE = 0.95
"""The share of the drawn encoders that must be exported and validated."""
SECONDS = 900
"""The time that one export may take by default, with the judgement of its graph."""
TANH = 1e-5
"""The strict limit in fp32, which a tanh GELU must exceed."""
PARTS = ("catalog", "drawn")
RESULT, LOG = "result.json", "log"
PROCESSES = multiprocessing.get_context("forkserver")
LIBRARIES = ("torch._dynamo", "torch.onnx", "onnxscript.optimizer", "onnxruntime", "timm", "transformers")
"""What is imported once, before the processes are forked."""


def in_a_process(name: str, exporter: str, optimum: Path | None, seconds: int = SECONDS) -> dict[str, Any]:
    """Try one exporter on one model in another process, so that a crash or a long run costs one result."""
    with tempfile.TemporaryDirectory(prefix="coverage-") as scratch:
        process = PROCESSES.Process(target=alone, args=(name, exporter, Path(scratch), optimum))
        process.start()
        process.join(seconds)
        if process.is_alive():
            os.killpg(process.pid or 0, signal.SIGKILL)
            process.join()
            return {"status": NO, "why": f"not done after {seconds} s", "seconds": seconds}
        if process.exitcode == 0:
            return dict(json.loads((Path(scratch) / RESULT).read_text()))
        return {"status": NO, "why": f"crash: {last_line((Path(scratch) / LOG).read_text())}"}


def alone(name: str, exporter: str, scratch: Path, optimum: Path | None) -> None:
    """Try one exporter on one model; write the result and all that is said into a folder."""
    os.setsid()
    with (scratch / LOG).open("w") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    (scratch / "run").mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
    (scratch / RESULT).write_text(json.dumps(tried(name, exporter, scratch / "run", optimum)))


def recorded(out: Path | None) -> dict[str, Any]:
    """Return what a file holds; draw the encoders if there is none."""
    if out and out.exists():
        return dict(json.loads(out.read_text()))
    return {"drawn": draw(), "rows": {}}


def record(out: Path, name: str, exporter: str, cell: dict[str, Any]) -> None:
    """Add one result to what the file holds now."""
    with out.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        document = recorded(out)
        document["rows"].setdefault(name, {})[exporter] = cell
        partial = out.with_suffix(".partial")
        partial.write_text(json.dumps(document, indent=2) + "\n")
        partial.replace(out)


def open_cells(document: dict[str, Any], options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Yield every model and exporter that has no result yet, or one to try again."""
    names = {"catalog": [CATALOG + name for name in SYSTEMS], "drawn": document["drawn"]}
    taken, of = options.share
    for place, name in enumerate(name for part in options.parts for name in names[part]):
        if place % of != taken - 1 or (options.only and name not in options.only):
            continue
        for exporter in options.exporters:
            known = document["rows"].get(name, {}).get(exporter)
            if known is None or (options.again and known["status"] == NO):
                yield name, exporter


def passes(document: dict[str, Any]) -> bool:
    """Return whether every target is met; print what is not."""
    rows, drawn = document["rows"], document["drawn"]
    ours = {name: row.get(VCONV, {}).get("status") for name, row in rows.items()}
    good = [name for name in drawn if ours.get(name) == YES]
    missed = [CATALOG + name for name in SYSTEMS if ours.get(CATALOG + name) != YES]
    peers = [
        f"{exporter} exports {name}"
        for name, row in rows.items()
        for exporter, cell in row.items()
        if cell["status"] == YES and ours.get(name) != YES
    ]
    blind = [
        name for name, row in rows.items()
        if row.get(VCONV, {}).get("gelus") and not (row[VCONV]["tanh"] or 0) > TANH
    ]  # fmt: skip
    print(summary(document))
    print(f"not yes in the catalog: {missed or 'none'}; exported by others alone: {peers or 'none'}")
    print(f"a tanh GELU stays within {TANH} in: {blind or 'none'}")
    return len(drawn) >= COUNT and len(good) >= LEAST_SHARE * len(drawn) and not (missed or peers or blind)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="a JSON file to record results in, and to go on from")
    parser.add_argument("--optimum", type=Path, help="the folder of a virtual environment with optimum-onnx")
    parser.add_argument("--exporters", nargs="+", choices=EXPORTERS, default=[*EXPORTERS])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--share", type=int, nargs=2, default=(1, 1), metavar=("K", "N"), help="the K-th of every N rows"
    )
    parser.add_argument("--seconds", type=int, default=SECONDS, help="the time that one export may take")
    parser.add_argument("--most", type=int, help="the number of results to add in this run")
    parser.add_argument("--again", action="store_true", help="try again what did not work")
    parser.add_argument("--table", type=Path, help="a page of Markdown, to write the recorded table into")
    parser.add_argument("--only", nargs="+", help="names of rows, to leave out all others")
    options = parser.parse_args()
    PROCESSES.set_forkserver_preload(["encoders.exporters", *LIBRARIES])
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    document = recorded(options.out)
    if not options.optimum:
        options.exporters = [name for name in options.exporters if name != OPTIMUM]
    for name, exporter in [*open_cells(document, options)][: options.most]:
        row = EXPORTERS[exporter]
        if library_of(name) in row.libraries:
            cell = in_a_process(name, exporter, options.optimum, options.seconds)
        else:
            cell = {"status": UNSUPPORTED, "why": row.unsupported}
        if not cell:
            print(f"{name:50} {exporter:22} not run: vconv draws no weights for it", flush=True)
            continue
        document["rows"].setdefault(name, {})[exporter] = cell
        print(f"{name:50} {exporter:22} {cell['status']:11} {cell['why'][:150]}", flush=True)
        if options.out:
            record(options.out, name, exporter, cell)
    document = recorded(options.out) if options.out else document
    if options.table:
        write(options.table, document)
    finish({"drawn": document["drawn"], "rows": document["rows"]}, passes(document), options.out)


if __name__ == "__main__":
    main()
