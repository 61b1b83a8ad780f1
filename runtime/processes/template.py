"""The template process, whose forks measure variants: it imports the libraries once, and loads no model.

``python -m vconv.runtime.processes.template`` reads one :class:`OpenRequest` per line from standard input as
JSON, and writes one :class:`Peak` per line to standard output. It has imported the libraries that every
variant needs. For each further library, it keeps a fork that has imported this library. A variant that needs
the library is measured in a fork of this fork. So a variant's process has only the libraries that the variant
needs. If a request has ``"prepare": true``, the libraries are imported and nothing is measured.
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
        requests: the stream of requests, one per line.
        answers: the stream for the answers, one per line.
        measuring: opens a variant and measures it, in a fork.
        has: the further library that this process has imported; empty if there is none.
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
    """Parse a request, and whether to only import its libraries."""
    given: dict[str, Any] = json.loads(line)
    prepare = bool(given.pop(PREPARE, False))
    return OpenRequest(**given), prepare


def write(subject: OpenRequest, prepare: bool = False) -> str:
    """Return a request as a line."""
    return json.dumps({**asdict(subject), PREPARE: prepare}) + "\n"


def _line(found: Peak) -> str:
    return json.dumps(asdict(found)) + "\n"


def _template(subject: OpenRequest, measuring: Measuring, needed: str) -> Fork:
    """Fork a process that imports a variant's library, and answers for all variants that need it."""

    def answering(requests: TextIO, answers: TextIO) -> None:
        import_libraries(subject, Artifact.open(subject.artifact))
        serve(requests, answers, measuring, needed)

    return Fork(answering)


def _measured(line: str, measuring: Measuring) -> str:
    """Measure a variant in a fork of this process; return an answer even if the fork fails."""

    def answering(requests: TextIO, answers: TextIO) -> None:
        answers.write(_line(measuring(read(requests.readline())[0])))

    fork = Fork(answering)
    answer, ended = fork.ask(line), fork.end()
    return answer or _line(Peak(reason=ended))


def main() -> None:
    """Read requests from standard input, and write the answers to standard output."""
    # Standard output is only for the answers. What libraries print there goes to standard error.
    with os.fdopen(os.dup(STANDARD_OUTPUT), "w") as answers:
        os.dup2(STANDARD_ERROR, STANDARD_OUTPUT)
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
