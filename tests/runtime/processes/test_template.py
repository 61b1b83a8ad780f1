from __future__ import annotations

import faulthandler
import gc
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vconv.artifact.artifact import Artifact
from vconv.convert.sources.base import Source
from vconv.runtime.processes import template
from vconv.runtime.processes.measurer import TEMPLATE, PeakMeasurer
from vconv.runtime.processes.peak_memory import Peak, libraries, measure
from vconv.runtime.processes.request import OpenRequest

ONE = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
"""What does not depend on the system is tried with one."""
GRAPH = OpenRequest("", "onnx-fp32", "onnxruntime", "fp32", "cpu")
TORCH = OpenRequest("", "patched-torch-fp32", "torch", "fp32", "cpu")


def served(measuring: Callable[[OpenRequest], Peak], *lines: str) -> list[Peak]:
    answers = io.StringIO()
    # A session that was garbage would be freed in a fork, and wait there for threads that a fork lacks.
    gc.collect()
    template.serve(io.StringIO("".join(lines)), answers, measuring)
    return [Peak(**json.loads(line)) for line in answers.getvalue().splitlines()]


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """No artifact is read, and nothing is imported: torch needs a library, a graph none."""
    monkeypatch.setattr(template.Artifact, "open", lambda folder: None)
    monkeypatch.setattr(template, "libraries", lambda subject, made: "timm" * (subject.engine == "torch"))
    monkeypatch.setattr(template, "import_libraries", lambda subject, made: None)


def test_a_request_is_read_as_it_was_written() -> None:
    subject = replace(TORCH, hf32=None, original="somewhere", captured=True)
    assert template.read(template.write(subject)) == (subject, False)
    assert template.read(template.write(subject, prepare=True)) == (subject, True)


@pytest.mark.usefixtures("unread")
def test_every_variant_has_a_process_of_its_own_and_those_of_a_library_one_parent() -> None:
    def measuring(subject: OpenRequest) -> Peak:
        return Peak(os.getpid(), os.getppid())

    graph, graph_again, torch, torch_again = served(
        measuring, *map(template.write, (GRAPH, GRAPH, TORCH, TORCH))
    )
    processes = [found.peak_rss_bytes for found in (graph, graph_again, torch, torch_again)]
    assert len({os.getpid(), *processes}) == 5
    assert graph.before_bytes == graph_again.before_bytes == os.getpid()
    assert torch.before_bytes == torch_again.before_bytes != os.getpid()


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGKILL, "was killed: most likely"),
        pytest.param(signal.SIGSEGV, "ended by SIGSEGV", marks=pytest.mark.full),
    ],
)
def test_a_variant_whose_process_dies_has_the_reason_and_the_others_their_memory(
    number: int, said: str
) -> None:
    def measuring(subject: OpenRequest) -> Peak:
        if subject.precision == "bf16":
            faulthandler.disable()
            os.kill(os.getpid(), number)
        return Peak(7)

    for one in (GRAPH, TORCH):
        lines = [one, replace(one, precision="bf16"), one]
        before, died, after = served(measuring, *map(template.write, lines))
        assert before == after == Peak(7)
        assert died.peak_rss_bytes is None and said in died.reason


@pytest.mark.usefixtures("unread")
def test_libraries_that_cannot_be_imported_are_the_reason_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(subject: OpenRequest, made: object) -> None:
        raise ImportError("libodd.so is missing")

    monkeypatch.setattr(template, "import_libraries", broken)
    found = served(lambda subject: Peak(7), *map(template.write, (TORCH, GRAPH, TORCH)))
    reason = "its own process failed with status 1: ImportError: libodd.so is missing"
    assert found == [Peak(reason=reason), Peak(7), Peak(reason=reason)]


@pytest.mark.usefixtures("unread")
def test_what_is_prepared_is_not_measured() -> None:
    lines = [template.write(one, prepare=True) for one in (TORCH, TORCH, GRAPH)]
    assert served(lambda subject: Peak(reason="measured"), *lines) == [Peak(), Peak(), Peak()]


def test_a_variant_needs_its_engines_or_its_models_library(
    small_artifact: Path, small_source: Source
) -> None:
    artifact, place = Artifact.open(small_artifact), str(small_artifact)
    original = replace(TORCH, variant="", original=str(small_source.folder))
    wanted = {
        GRAPH: "onnxruntime",
        TORCH: artifact.manifest.system.library,
        original: artifact.manifest.system.library,
    }
    wanted[replace(GRAPH, engine="openvino")] = "openvino"
    for subject, needed in wanted.items():
        assert libraries(replace(subject, artifact=place), artifact) == needed


THREADS = """
import os, sys
from pathlib import Path
from vconv.artifact.artifact import Artifact
from vconv.runtime.processes import template
from vconv.runtime.processes.peak_memory import import_libraries
from vconv.runtime.processes.request import OpenRequest

def threads():
    return set(os.listdir("/proc/self/task"))

made, before = Artifact.open(sys.argv[1]), threads()
import_libraries(OpenRequest(sys.argv[1], "patched-torch-fp32", "torch", "fp32", "cpu"), made)
print(sorted(threads() - before))
"""


def test_building_a_model_without_data_starts_no_pool_that_a_fork_would_lack(
    small_artifact: Path, forked: Callable[..., tuple[str, ...]]
) -> None:
    command = forked("-c", THREADS, str(small_artifact))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@ONE
def test_forks_find_what_new_processes_find(small_artifact: Path) -> None:
    """Each in threads of its own: a fork that lacked its pool would wait for ever."""
    with PeakMeasurer(timeout_seconds=120) as measurer:
        for subject in (GRAPH, TORCH):
            one = replace(subject, artifact=str(small_artifact))
            forked, fresh = measurer.measure(one), measure(one)
            assert (forked.reason, fresh.reason) == ("", "")
            for key in ("before_bytes", "peak_rss_bytes"):
                assert getattr(forked, key) == pytest.approx(getattr(fresh, key), rel=0.04)


def test_the_process_that_is_forked_is_this_python_and_this_module() -> None:
    assert (sys.executable, "-P", "-m", template.__name__) == TEMPLATE
