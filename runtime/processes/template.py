"""The process that variants are measured in forks of: it imports the libraries once, and loads no model.

``python -m vconv.runtime.processes.template`` reads an :class:`OpenRequest` a line from standard input as
JSON, and writes a :class:`Peak` a line to standard output. It has imported what every variant needs. For each
further library it keeps a fork that has imported it; the variants that need it are forks of that. So the
process of a variant has the libraries that it needs, and no others. Where a request has
``"prepare": true``, the libraries are imported and nothing is measured.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TextIO

from vconv.artifact.artifact import Artifact
from vconv.runtime.processes.fork import STANDARD_ERROR, STANDARD_OUTPUT, Fork
from vconv.runtime.processes.peak_memory import Peak, import_libraries, libraries, peak_of
from vconv.runtime.processes.request import OpenRequest

PREPARE = "prepare"
Measuring = Callable[[OpenRequest], Peak]


def serve(requests: TextIO, answers: TextIO, measuring: Measuring = peak_of, has: str = "") -> None:
    """Answer requests until there are no more.

    Args:
        requests: a request a line.
        answers: takes an answer a line.
        measuring: opens a variant and measures it, in a fork.
        has: the further libraries that this process has imported.
    """
    forks: dict[str, Fork] = {}
    for line in requests:
        subject, prepare = read(line)
        needed = libraries(subject, Artifact.open(subject.artifact))
        if needed == has:
            answer = "" if prepare else _measured(line, measuring)
        else:
            if needed not in forks:
                forks[needed] = _template(subject, measuring, needed)
            answer = forks[needed].ask(line)
            if not answer:
                answer = _line(Peak(reason=forks.pop(needed).end()))
        answers.write(answer or _line(Peak()))
        answers.flush()


def read(line: str) -> tuple[OpenRequest, bool]:
    """Read a request, and whether to prepare for it alone."""
    given: dict[str, Any] = json.loads(line)
    prepare = bool(given.pop(PREPARE, False))
    return OpenRequest(**given), prepare


def write(subject: OpenRequest, prepare: bool = False) -> str:
    """Write a request as a line."""
    return json.dumps({**asdict(subject), PREPARE: prepare}) + "\n"


def _line(found: Peak) -> str:
    return json.dumps(asdict(found)) + "\n"


def _template(subject: OpenRequest, measuring: Measuring, needed: str) -> Fork:
    """Fork a process that has imported what a variant needs, and answers for all that need the same."""

    def answering(requests: TextIO, answers: TextIO) -> None:
        import_libraries(subject, Artifact.open(subject.artifact))
        serve(requests, answers, measuring, needed)

    return Fork(answering)


def _measured(line: str, measuring: Measuring) -> str:
    """Measure a variant in a fork of this process; return the answer, whatever becomes of the fork."""

    def answering(requests: TextIO, answers: TextIO) -> None:
        answers.write(_line(measuring(read(requests.readline())[0])))

    fork = Fork(answering)
    answer, ended = fork.ask(line), fork.end()
    return answer or _line(Peak(reason=ended))


def main() -> None:
    """Answer what standard input asks on standard output."""
    # Libraries print to standard output. That is kept for the answers; their output goes to standard error.
    with os.fdopen(os.dup(STANDARD_OUTPUT), "w") as answers:
        os.dup2(STANDARD_ERROR, STANDARD_OUTPUT)
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
