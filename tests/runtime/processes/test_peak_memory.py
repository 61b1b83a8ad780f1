from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import Manifest
from vconv.convert.sources.base import Source
from vconv.errors import EngineError, MemoryShortError, UnavailableError
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import find_device
from vconv.runtime.processes import peak_memory
from vconv.runtime.processes.peak_memory import CHILD, Peak, measure, peak_of
from vconv.runtime.processes.request import OpenRequest

ONE = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
"""What does not depend on the system is tried with one."""
SUBJECT = OpenRequest("an artifact", "onnx-fp32", "onnxruntime", "fp32", "cpu", "", "pooler")


def child(code: str) -> list[str]:
    return [sys.executable, "-c", f"import json, os, signal, sys, time\n{code}"]


def test_what_a_child_found_comes_back_and_what_it_was_told_is_plain_data() -> None:
    found = Peak(300, 200, 50, "")
    answer = f"assert json.load(sys.stdin) == {asdict(SUBJECT)!r}\nprint(json.dumps({asdict(found)!r}))"
    assert measure(SUBJECT, child(answer)) == found


def test_a_child_that_is_killed_is_a_reason() -> None:
    found = measure(SUBJECT, child("os.kill(os.getpid(), signal.SIGKILL)"))
    assert found == Peak(reason="its own process was killed: most likely the machine ran out of memory")


def test_a_child_that_crashes_is_a_reason_with_its_signal() -> None:
    found = measure(SUBJECT, child("os.kill(os.getpid(), signal.SIGSEGV)"))
    assert found == Peak(reason="its own process ended by SIGSEGV")


@pytest.mark.parametrize(
    ("code", "said"),
    [("sys.exit(3)", "status 3: nothing was said"), ("raise KeyError('x')", "status 1: KeyError: 'x'")],
)
def test_a_child_that_fails_is_a_reason_with_its_last_words(code: str, said: str) -> None:
    assert measure(SUBJECT, child(code)) == Peak(reason=f"its own process failed with {said}")


def test_a_child_that_never_ends_is_given_up_with_a_reason() -> None:
    found = measure(SUBJECT, child("signal.pause()"), timeout_seconds=0.01)
    assert found == Peak(reason="its own process did not end within 0 s")


def test_a_child_is_told_to_load_no_backend_by_itself() -> None:
    code = "assert os.environ['TORCH_DEVICE_BACKEND_AUTOLOAD'] == '0'\nprint('{}')"
    assert measure(SUBJECT, child(code)) == Peak()


def test_a_child_is_told_not_to_use_the_network() -> None:
    code = "assert os.environ['HF_HUB_OFFLINE'] == os.environ['TRANSFORMERS_OFFLINE'] == '1'\nprint('{}')"
    assert measure(SUBJECT, child(code)) == Peak()


def test_what_lies_in_the_current_folder_is_not_taken_for_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.chdir(tmp_path)
    found = measure(SUBJECT)
    assert "the wrong json" not in found.reason
    assert "no artifact at an artifact" in found.reason


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A process that has 700 bytes and then 1000; returns what was done with its counters."""
    done: list[str] = []

    def resident() -> tuple[int, int]:
        done.append("read")
        return 700, 1000

    monkeypatch.setattr(peak_memory, "resident_memory", resident)
    monkeypatch.setattr(peak_memory, "reset_peak_memory", lambda: done.append("reset") or True)  # type: ignore[func-returns-value]
    return done


def subjects(folder: Path, made: Manifest, source: Source) -> list[OpenRequest]:
    """Describe every kind of variant that there is."""
    place = str(folder)
    found = [OpenRequest(place, record.variant, record.engine, "fp32", "cpu") for record in made.variants]
    found.append(OpenRequest(place, "onnx-fp32", "openvino", "fp32", "cpu"))
    found.append(OpenRequest(place, "patched-torch-fp32", "torch", "autocast-bf16", "cpu"))
    original = OpenRequest(place, "", "torch", "fp32", "cpu", str(source.folder), source.network.head)
    return [*found, original]


def test_every_kind_of_variant_is_opened_run_and_closed(
    small_artifact: Path,
    made: Manifest,
    small_source: Source,
    memory: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[tuple[str, tuple[int, ...]]] = []
    closed: list[str] = []
    opened = peak_memory.opened

    def watched(subject: OpenRequest, device: Device) -> Any:
        session = opened(subject, device)
        run, close = session.run, session.close
        monkeypatch.setattr(
            session, "run", lambda feed: (ran.append((session.engine, feed.shape)), run(feed))[1]
        )
        monkeypatch.setattr(session, "close", lambda: (closed.append(session.engine), close())[1])
        return session

    monkeypatch.setattr(peak_memory, "opened", watched)
    for subject in subjects(small_artifact, made, small_source):
        memory.clear()
        assert peak_of(subject) == Peak(1000, 700, None, "")
        assert memory == ["read", "reset", "read"]
    engines = ["torch", "onnxruntime", "onnxruntime", "openvino", "torch", "torch"]
    batches = [1, 1, 2, 1, 1, 1]
    assert ran == [(engine, (batch, 3, *made.size)) for engine, batch in zip(engines, batches, strict=True)]
    assert closed == engines


@ONE
@pytest.mark.parametrize("kind", [UnavailableError, EngineError, MemoryShortError])
def test_what_an_engine_refuses_is_a_reason(
    kind: Callable[..., Exception], small_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(subject: OpenRequest, device: Device) -> Any:
        raise kind("it cannot run here", got="no kernel", expected="one", fix="another")

    monkeypatch.setattr(peak_memory, "opened", refuse)
    subject = replace(SUBJECT, artifact=str(small_artifact))
    assert peak_of(subject) == Peak(reason="it cannot run here: no kernel")


@ONE
def test_a_bug_is_not_taken_for_a_refusal(small_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_memory, "opened", lambda subject, device: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        peak_of(replace(SUBJECT, artifact=str(small_artifact)))


@ONE
def test_on_an_accelerator_its_own_peak_is_told(
    small: Artifact, small_artifact: Path, memory: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[str] = []

    def growth(run: Callable[[], object]) -> int:
        run()
        return 4321

    cpu = find_device("cpu")
    device = replace(cpu, kind="cuda", growth=growth, synchronize=lambda: waited.append("waited"))
    monkeypatch.setattr(peak_memory, "find_device", lambda name, settings: device)
    monkeypatch.setattr(
        peak_memory,
        "opened",
        lambda subject, device: peak_memory.open_variant(small, small.variant("onnx-fp32"), cpu),
    )
    found = peak_of(replace(SUBJECT, artifact=str(small_artifact)))
    assert found == Peak(1000, 700, 4321, "")
    assert waited == ["waited"]


@ONE
def test_a_real_child_has_its_libraries_before_and_the_variant_after(small_artifact: Path) -> None:
    found = measure(replace(SUBJECT, artifact=str(small_artifact)))
    assert found.reason == ""
    assert found.peak_rss_bytes is not None and found.before_bytes is not None
    assert found.peak_rss_bytes >= found.before_bytes > 10**8
    assert found.device_bytes is None


@ONE
def test_a_child_says_nothing_but_its_result_on_standard_output(small_artifact: Path) -> None:
    loud = "import os, sys; print('from a library'); os.write(1, b'from its depths\\n')"
    run = "from vconv.runtime.processes import peak_memory as i; f = i.peak_of\n"
    run += "i.peak_of = lambda s: (exec(LOUD), f(s))[1]"
    command = [sys.executable, "-c", f"LOUD = {loud!r}\n{run}\ni.main()"]
    subject = json.dumps(asdict(replace(SUBJECT, artifact=str(small_artifact))))
    done = subprocess.run(command, input=subject, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["reason"] == ""
    assert "from a library" in done.stderr and "from its depths" in done.stderr


def test_the_child_is_this_python_and_this_module() -> None:
    assert (sys.executable, "-P", "-m", peak_memory.__name__) == CHILD
