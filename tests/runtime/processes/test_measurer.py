from __future__ import annotations

import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from vconv.runtime.processes import measurer, peak_memory
from vconv.runtime.processes.measurer import PeakMeasurer
from vconv.runtime.processes.peak_memory import Peak
from vconv.runtime.processes.request import OpenRequest

SUBJECT = OpenRequest("an artifact", "onnx-fp32", "onnxruntime", "fp32", "cpu", "", "pooler")


def process(code: str) -> list[str]:
    """A process that answers each request with what an expression makes of it."""
    loop = f"import json, os, sys, time\nfor line in sys.stdin:\n  given = json.loads(line)\n  {code}"
    return [sys.executable, "-c", loop]


def answer(expression: str) -> str:
    return f"print(json.dumps(dict(peak_rss_bytes={expression})), flush=True)"


def test_one_process_answers_for_all_variants_and_a_closed_one_is_started_again() -> None:
    with PeakMeasurer(process(answer("os.getpid()"))) as measuring:
        first, second = measuring.measure(SUBJECT), measuring.measure(SUBJECT)
        assert first == second != Peak()
        measuring.close()
        assert measuring.measure(SUBJECT) not in (first, Peak())


def test_the_process_is_told_what_to_open_in_plain_data() -> None:
    told = asdict(SUBJECT) | {"prepare": False}
    with PeakMeasurer(process(f"assert given == {told!r}; {answer('5')}")) as measuring:
        assert measuring.measure(SUBJECT) == Peak(5)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os.kill(os.getpid(), 9)", "was killed: most likely the machine ran out of memory"),
        ("os.kill(os.getpid(), 11)", "ended by SIGSEGV"),
        ("raise KeyError('x')", "failed with status 1: KeyError: 'x'"),
    ],
)
def test_a_process_that_ends_is_the_reason_of_one_variant_and_the_next_has_another(
    code: str, reason: str
) -> None:
    command = process(f"if given['variant'] == 'bad': {code}\n  {answer('5')}")
    with PeakMeasurer(command) as measuring:
        assert measuring.measure(SUBJECT) == Peak(5)
        found = measuring.measure(replace(SUBJECT, variant="bad"))
        assert found == Peak(reason=f"its own process {reason}")
        assert measuring.measure(SUBJECT) == Peak(5)


def test_a_variant_that_never_ends_is_given_up_and_the_next_is_measured() -> None:
    command = process(f"if given['variant'] == 'bad': time.sleep(999)\n  {answer('5')}")
    with PeakMeasurer(command, timeout_seconds=2) as measuring:
        found = measuring.measure(replace(SUBJECT, variant="bad"))
        assert found == Peak(reason="its own process did not end within 2 s")
        assert measuring.measure(SUBJECT) == Peak(5)


def test_closing_ends_the_process_and_its_forks(tmp_path: Path) -> None:
    """A fork that works for ever, and its parent, which waits for it."""
    pids = tmp_path / "pids"
    code = f"pid = os.fork() or os.getpid(); open({str(pids)!r}, 'a').write(f'{{pid}} '); time.sleep(999)"
    measuring = PeakMeasurer(process(code), timeout_seconds=2)
    assert "did not end" in measuring.measure(SUBJECT).reason
    known = pids.read_text().split()
    assert len(known) == 2
    until = time.monotonic() + 10
    while any(_runs(int(pid)) for pid in known):
        assert time.monotonic() < until
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_process_that_closes_its_answers_and_goes_on_is_given_up_with_a_reason() -> None:
    with PeakMeasurer(process("os.close(1); time.sleep(600)"), timeout_seconds=1.0) as measuring:
        assert measuring.measure(SUBJECT) == Peak(reason=peak_memory.TIMED_OUT.format(1.0))


def test_what_is_prepared_is_done_before_the_first_variant() -> None:
    code = f"time.sleep(0.2 * given['prepare']); {answer('1000 + given[`prepare`]')}".replace("`", '"')
    with PeakMeasurer(process(code)) as measuring:
        start = time.monotonic()
        measuring.prepare(SUBJECT)
        assert time.monotonic() - start < 0.2
        measuring.ready()
        assert time.monotonic() - start >= 0.2
        assert measuring.measure(SUBJECT) == Peak(1000)


def test_preparing_that_fails_is_the_reason_of_no_variant_that_can_be_measured() -> None:
    command = process(f"assert not given['prepare']; {answer('5')}")
    with PeakMeasurer(command) as measuring:
        measuring.prepare(SUBJECT)
        assert measuring.measure(SUBJECT) == Peak(5)


def test_on_an_accelerator_every_variant_has_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[OpenRequest] = []
    monkeypatch.setattr(
        peak_memory, "measure", lambda subject, timeout_seconds: asked.append(subject) or Peak(7)
    )
    monkeypatch.setattr(measurer.subprocess, "Popen", lambda *a, **k: pytest.fail("a process was started"))
    subject = replace(SUBJECT, device="cuda:0")
    with PeakMeasurer() as measuring:
        measuring.prepare(subject)
        assert measuring.measure(subject) == Peak(7)
    assert asked == [subject]


def test_a_measurer_that_measures_nothing_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurer.subprocess, "Popen", lambda *a, **k: pytest.fail("a process was started"))
    with PeakMeasurer() as measuring:
        measuring.ready()


def test_the_process_gets_no_network_and_no_backend_that_loads_itself() -> None:
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "TORCH_DEVICE_BACKEND_AUTOLOAD")
    code = f"assert [os.environ[name] for name in {names!r}] == ['1', '1', '0']; {answer('5')}"
    with PeakMeasurer(process(code)) as measuring:
        assert measuring.measure(SUBJECT) == Peak(5)
