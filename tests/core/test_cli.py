from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from vconv import manifest, workflows
from vconv.catalog import SYSTEMS
from vconv.cli import main
from vconv.runtime.doctor import Diagnosis, Finding, State
from vconv.runtime.simulation.device import lack

COMMANDS = sorted(main.commands)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def only_error(result: Result) -> str:
    """Return the one line that a user's error is, having checked that it is all there is."""
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert result.stderr.splitlines()[-1] == errors[0]
    assert all(part in errors[0] for part in (" | got ", " | expected ", " | fix: "))
    return errors[0]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_explains_itself_and_offers_json(command: str, flag: str) -> None:
    result = run(command, flag)
    assert result.exit_code == 0
    assert "Usage:" in result.stdout
    assert "--json" in result.stdout


def test_list_shows_every_system() -> None:
    result = run("list")
    assert result.exit_code == 0
    assert all(name in result.stdout and system.hub_id in result.stdout for name, system in SYSTEMS.items())
    assert [row["name"] for row in json.loads(run("list", "--json").stdout)] == list(SYSTEMS)


def test_info_shows_what_the_manifest_says(small_artifact: Path) -> None:
    result = run("info", small_artifact)
    assert result.exit_code == 0
    assert "synthetic:1 (synthetic: not trained weights)" in result.stdout
    recorded = json.loads((small_artifact / "vconv.json").read_text())
    found = {"artifact": str(small_artifact), "missing": [], "reports": [], "reports_trouble": ""}
    assert json.loads(run("info", small_artifact, "--json").stdout) == {**recorded, **found}
    height, width = manifest.load(small_artifact).size
    assert f"[batch, 3, {height}, {width}]" in result.stdout


def test_an_export_and_a_validation_speak_json_on_standard_output_and_progress_on_standard_error(
    small_name: str, tmp_path: Path
) -> None:
    target = tmp_path / "a"
    result = run("export", small_name, "--weights", "synthetic:3", "--out", target, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["artifact"] == str(target)
    assert document["weights"] == "synthetic:3"
    assert document["ledger"]["tensors"] == document["ledger"]["copied"] + document["ledger"]["dropped"]
    assert {"seconds", "peak_rss_bytes", "patches", "files"} <= document.keys()
    assert "drawing synthetic weights" in result.stderr

    result = run("validate", target, "--quick", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["status"], report["passed"]) == ("passed", True)
    assert "timing" in result.stderr


def test_a_table_names_synthetic_weights(small_name: str, tmp_path: Path) -> None:
    result = run("export", small_name, "--weights", "synthetic", "--out", tmp_path / "a")
    assert "(synthetic: not trained weights)" in result.stdout
    result = run("validate", tmp_path / "a", "--quick")
    assert "(synthetic: not trained weights)" in result.stdout
    assert result.stdout.rstrip().endswith("passed")
    assert "ranking refused: " in result.stdout
    shown = " ".join(result.stdout.split())
    assert re.search(r"original-torch-fp32 1 [\d.]+ [\d.]+ 1\.00 \d+ ", shown)
    assert "launches: operators, for one image" in shown
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["export", "dinov3-vits15", "--weights", "synthetic"], "unknown system | got 'dinov3-vits15'"),
        (["export", "dinov3-vits16", "--weights", "hub:a b/c"], "not the name of a repository | got 'a b/c'"),
        (["export", "dinov3-vits16", "--weights", "no/such/file"], "no weights at no/such/file"),
        (["export", "dinov3-vits16", "--weights", "synthetic:x"], "not a seed | got 'synthetic:x'"),
        (
            ["export", "dinov3-vits16", "--weights", "synthetic", "--batch", "0"],
            "--batch is out of range | got 0",
        ),
        (["export", "dinov3-vits16", "--weights", "synthetic", "--opset", "9"], "the opset is not supported"),
        (["export", "dinov3-vits16", "--batch", "x"], "wrong use of vconv export | got Invalid value"),
        (["export", "dinov3-vits16", "--batch", "100000"], "--batch is out of range | got 100000"),
        (["export", "dinov3-vits16", "--out", ""], "'--out': an empty string"),
        (["export", "dinov3-vits16", "--weights", ""], "'--weights': an empty string"),
        (["export", "dinov3-vits16", "--weights", "hub:a/b@"], "not a revision | got 'hub:a/b@'"),
        (["validate", " "], "'PATH': an empty string"),
        (["validate", ".", "--images", ""], "'--images': an empty string"),
        (["compare"], "wrong use of vconv compare | got Missing argument"),
        (["compare", "a", "a"], "cannot compare these | got a and a, which is one artifact"),
        (
            ["export", "vit-base-patch16-224-in21k", "--weights", "synthetic", "--periods", "library"],
            "--periods has nothing to choose",
        ),
        (["export", "dinov3-vits16", "--images", "x.png"], "cannot read the image x.png | got no such file"),
        (["export", "dinov3-vits16", "--images", "x.png", "--golden", "none"], "--images has nothing to do"),
        (["--nope"], "wrong use of vconv | got No such option"),
        (["nonsense"], "wrong use of vconv | got No such command"),
        (["validate", "no/such/artifact"], "no artifact at no/such/artifact | got no such folder"),
        (["info", "no/such/artifact"], "no artifact at no/such/artifact"),
        (["validate", ".", "--device", "tpu"], "unknown device | got 'tpu'"),
        (["validate", ".", "--hf32", "conv"], "--hf32 says nothing about cpu"),
        (["validate", ".", "--profile", "310p"], "--profile says nothing about cpu"),
        (["validate", ".", "--device", "npu-sim", "--hf32", "linear"], "unknown name for --hf32"),
        (["validate", ".", "--device", "npu-sim", "--profile", "910c"], "unknown profile | got '910c'"),
        (["validate", ".", "--device", "npu-sim:1"], "there is no npu-sim:1 | got 1 of them"),
        (["compare", "a", "--device", "npu-sim", "--capture"], "--capture cannot be met here"),
        (["doctor", "--device", "cpu"], "there is nothing to do on a device | got --device without --probe"),
        (["doctor", "--hf32", "none"], "there is nothing to do on a device | got --hf32 without --probe"),
        (["doctor", "--probe", "--device", "tpu"], "unknown device | got 'tpu'"),
        (["validate", ".", "--within", "loose"], "no limits at loose | got No such file or directory"),
        (["compare", "a", "--within", "."], "no limits at . | got Is a directory"),
        (["validate", ".", "--within", ""], "'--within': an empty string"),
        (["validate", ".", "--capture"], "--capture cannot be met here | got cpu, which captures no graphs"),
        (["compare", "a", "--capture"], "--capture cannot be met here | got cpu, which captures no graphs"),
        (["validate", ".", "--engine", "tensorrt"], "unknown engine | got 'tensorrt'"),
        (["validate", ".", "--quick", "--full"], "--quick and --full exclude each other"),
        (["validate", ".", "--budget", "0"], "--budget is out of range | got 0.0"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "npu-sim" in arguments and lack():
        pytest.skip(lack())
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert sentence in only_error(result)
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("status", ["failed", "incomplete"])
def test_what_did_not_pass_exits_with_1(status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    document: dict[str, Any] = {"status": status, "passed": False}
    monkeypatch.setattr("vconv.judging.validate", lambda *args, **kwargs: document)
    result = run("validate", ".", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == document


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(workflows, "describe", broken)
    assert isinstance(run("info", ".").exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "/secret"),
            "cannot use /secret | got Permission",
        ),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", b"aaa"),
            "cannot use aaa | got File name too long",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full | got No space left on device"),
    ],
    ids=["forbidden", "too long", "full"],
)
def test_what_the_system_refuses_is_one_line(
    error: OSError, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise error

    monkeypatch.setattr(workflows, "describe", refuse)
    result = run("info", ".")
    assert result.exit_code == 2
    assert sentence in only_error(result)


def test_an_error_of_the_system_that_names_no_file_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: str) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(workflows, "describe", broken)
    assert isinstance(run("info", ".").exception, OSError)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=["Ctrl-C", "terminate", "hang up"]
)
def test_an_interrupted_export_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "vconv",
        "export",
        "vit-base-patch16-224-in21k",
        "--weights",
        "synthetic",
    ]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "a")],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a shell's background job ignores Ctrl-C
    )
    assert process.stderr is not None
    assert "drawing synthetic weights" in process.stderr.readline()
    assert list(tmp_path.iterdir()) != []
    os.kill(process.pid, number)
    out, err = process.communicate()
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == "interrupted: nothing half-made is left"
    assert list(tmp_path.iterdir()) == []


def test_colours_stay_away_when_asked(small_artifact: Path) -> None:
    environment = {**os.environ, "NO_COLOR": "1", "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "vconv", "info", str(small_artifact)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "\x1b[3" not in done.stdout


def test_the_doctor_exits_with_1_where_something_that_is_installed_does_not_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [Finding("torch", State.OK, "2.13.0"), Finding("atc", State.NOTE, "not on PATH")]
    monkeypatch.setattr("vconv.runtime.doctor.examine", lambda: Diagnosis(tuple(found)))
    result = run("doctor")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "everything that is installed works"
    found.append(Finding("torch_npu", State.PROBLEM, "libhccl.so [is] not found", "`source set_env.sh`"))
    result = run("doctor")
    assert result.exit_code == 1
    assert "libhccl.so [is] not found" in result.stdout
    assert "to mend it: `source set_env.sh`" in result.stdout
    assert result.stdout.splitlines()[-1] == "problems: torch_npu"
    result = run("doctor", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["passed"] is False
    assert [row["state"] for row in document["findings"]] == ["ok", "note", "problem"]
    assert set(document["findings"][2]) == {"name", "state", "found", "mend"}
