from __future__ import annotations

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import made_reports
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from vconv.artifact import manifest
from vconv.catalog.systems import SYSTEMS, System
from vconv.cli import main
from vconv.cli.examples import EXAMPLES
from vconv.cli.options import GROUPS
from vconv.convert.libraries.table import LIBRARIES
from vconv.runtime.doctor.diagnosis import Diagnosis, Finding, State
from vconv.runtime.simulation.device import lack
from vconv.types import Status

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
    document = json.loads(run("info", small_artifact, "--json").stdout)
    former = [
        {key: row.pop(key) for key in ("file", "batch", "opset", "ir_version", "operators")}
        for row in document["variants"]
    ]
    assert [row["file"] for row in former] == [row["path"] for row in recorded["variants"]]
    assert [row["batch"] for row in former] == [None, None, 2]
    for row, kept in zip(former[1:], recorded["variants"][1:], strict=True):
        assert {key: row[key] for key in ("opset", "ir_version", "operators")}.items() <= kept[
            "graph"
        ].items()
    assert document.pop("weights_found_again") is True
    assert document["golden"].pop("file") == recorded["golden"]["path"]
    assert document["source"].pop("published") == recorded["source"]["from_catalog"]
    made = manifest.load(small_artifact)
    assert document.pop("outputs") == {name: list(shape) for name, shape in made.outputs.items()}
    assert document.pop("unlike_catalog")
    found = {"artifact": str(small_artifact), "missing": [], "altered": {}, "sides": None, "tensors": None}
    assert document == {**recorded, **found, "reports": [], "reports_trouble": ""}
    height, width = made.size
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
    assert re.search(r"original-torch-fp32 1 [\d.]+ [\d.]+ \d+ ", shown)
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
        (["export", "dinov3-vits16", "--npu-opset", "19"], "the opset for the NPU is not supported | got 19"),
        (["export", "dinov3-vits16", "--batch", "x"], "wrong use of vconv export | got Invalid value"),
        (["export", "dinov3-vits16", "--batch", "100000"], "--batch is out of range | got 100000"),
        (["export", "dinov3-vits16", "--out", ""], "'--out': an empty string"),
        (["export", "dinov3-vits16", "--weights", ""], "'--weights': an empty string"),
        (["export", "dinov3-vits16", "--weights", "hub:a/b@"], "the revision is empty | got 'hub:a/b@'"),
        (["validate", " "], "'PATH': an empty string"),
        (["validate", ".", "--images", ""], "'--images': an empty string"),
        (["compare"], "wrong use of vconv compare | got Missing argument"),
        (["compare", "a", "a"], "cannot compare these | got a and a, which is one artifact"),
        (
            ["export", "vit-base-patch16-224-in21k", "--weights", "synthetic", "--periods", "library"],
            "--periods does not apply to this system",
        ),
        (
            ["export", "dinov3-vits16", "--weights", "synthetic", "--positions", "authors"],
            "--positions does not apply to this system",
        ),
        (
            ["export", "dinov3-vits16", "--images", "x.png"],
            "cannot use --images x.png | got no such file or folder",
        ),
        (
            ["export", "dinov3-vits16", "--images", "x.png", "--golden", "none"],
            "--images is not used with --golden none",
        ),
        (["--nope"], "wrong use of vconv | got No such option"),
        (["nonsense"], "unknown command | got 'nonsense'"),
        (["validate", "no/such/artifact"], "no artifact at no/such/artifact | got no such folder"),
        (["info", "no/such/artifact"], "no artifact at no/such/artifact"),
        (["validate", ".", "--device", "tpu"], "unknown device | got 'tpu'"),
        (["validate", ".", "--hf32", "conv"], "--hf32 has no effect on cpu"),
        (["validate", ".", "--profile", "310p"], "--profile has no effect on cpu"),
        (["validate", ".", "--device", "npu-sim", "--hf32", "linear"], "unknown name for --hf32"),
        (["validate", ".", "--device", "npu-sim", "--profile", "910c"], "unknown profile | got '910c'"),
        (["validate", ".", "--device", "npu-sim:1"], "there is no npu-sim:1 | got 1 of them"),
        (["compare", "a", "--device", "npu-sim", "--capture"], "--capture cannot be met here"),
        (["doctor", "--device", "cpu"], "--device is only for --probe | got --device without --probe"),
        (["doctor", "--hf32", "none"], "--hf32 is only for --probe | got --hf32 without --probe"),
        (["doctor", "--probe", "--device", "tpu"], "unknown device | got 'tpu'"),
        (["validate", ".", "--within", "loose"], "no limits at loose | got No such file or directory"),
        (["compare", "a", "--within", "."], "no limits at . | got a folder, not a regular file"),
        (["validate", ".", "--within", ""], "'--within': an empty string"),
        (["validate", ".", "--capture"], "--capture cannot be met here | got cpu, which captures no graphs"),
        (["compare", "a", "--capture"], "--capture cannot be met here | got cpu, which captures no graphs"),
        (["validate", ".", "--engine", "tensorrt"], "unknown engine | got 'tensorrt'"),
        (["validate", ".", "--engine", "torch,tensorrt"], "unknown engine | got 'tensorrt'"),
        (["validate", ".", "--quick", "--full"], "--quick and --full exclude each other"),
        *(
            (["validate", ".", "--budget", value], f"--budget is out of range | got {float(value)} | ")
            for value in ("0", "-1", "inf", "nan", "1e999")
        ),
        (["info", "a", "b"], "wrong use of vconv info | got unexpected extra argument (b) | "),
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
    document = made_reports.report(status=Status(status))
    monkeypatch.setattr("vconv.workflows.validate.validate", lambda *args, **kwargs: document)
    result = run("validate", ".", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == document.as_json()


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("vconv.workflows.info.info", broken)
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
    def refuse(path: str, ledger: bool) -> None:
        raise error

    monkeypatch.setattr("vconv.workflows.info.info", refuse)
    result = run("info", ".")
    assert result.exit_code == 2
    assert sentence in only_error(result)


def test_an_error_of_the_system_that_names_no_file_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: str, ledger: bool) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr("vconv.workflows.info.info", broken)
    assert isinstance(run("info", ".").exception, OSError)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, id="terminate"),
        pytest.param(signal.SIGHUP, id="hang up", marks=pytest.mark.full),
    ],
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
    monkeypatch.setattr("vconv.runtime.doctor.diagnosis.examine", lambda: Diagnosis(tuple(found)))
    result = run("doctor")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "everything that is installed works"
    found.append(Finding("torch_npu", State.PROBLEM, "libhccl.so [is] not found", "`source set_env.sh`"))
    result = run("doctor")
    assert result.exit_code == 1
    assert "libhccl.so [is] not found" in result.stdout
    assert "to fix it: `source set_env.sh`" in result.stdout
    assert result.stdout.splitlines()[-1] == "problems: torch_npu"
    result = run("doctor", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["passed"] is False
    assert [row["state"] for row in document["findings"]] == ["ok", "note", "problem"]
    row = document["findings"][2]
    assert set(row) == {"name", "state", "found", "fix", "mend"}
    assert row["mend"] == row["fix"] == "`source set_env.sh`"


def test_help_fits_a_terminal_and_its_summaries_are_whole() -> None:
    for command in COMMANDS:
        assert max(map(len, run(command, "-h").stdout.splitlines())) <= 80
    shown = run("-h").stdout
    assert "..." not in shown.split("Commands:")[1]
    order = [line.split()[0] for line in shown.split("Commands:")[1].split("\n") if line.strip()]
    assert order == list(main.commands)


@pytest.mark.parametrize("command", COMMANDS)
def test_options_stand_in_groups_each_once(command: str) -> None:
    shown = run(command, "-h").stdout
    options = [option for one in main.commands[command].params for option in one.opts if option[:2] == "--"]
    assert [option for option in options if len(re.findall(rf"^  {option}\b(?!-)", shown, re.M)) != 1] == []
    headings = re.findall(r"^(\S.*):$", shown, re.M)
    groups = [heading for heading in headings if heading in GROUPS]
    assert groups == [heading for heading in GROUPS if heading in groups]


def test_every_group_is_of_options_that_there_are() -> None:
    known = {one.name for command in main.commands.values() for one in command.params}
    assert {name for names in GROUPS.values() for name in names} <= known


@pytest.mark.parametrize(
    ("command", "line"), [(command, line) for command, lines in EXAMPLES.items() for line in lines]
)
def test_every_example_can_be_parsed(command: str, line: str) -> None:
    assert f"vconv {command} {line}".strip() in run(command, "-h").stdout
    main.commands[command].make_context(command, shlex.split(line))


@pytest.mark.parametrize(
    ("arguments", "suggested"),
    [
        (["exprot"], "expected one of export"),
        (["valdate", "."], "expected one of validate"),
        (["export", "dinov3-vits16", "--weight", "x"], "--weights"),
        (["validate", ".", "--devise", "cpu"], "--device"),
        (["export", "dinov3-vits61", "--weights", "synthetic"], "expected one of dinov3-vits16"),
    ],
)
def test_a_typing_error_gets_the_nearest_name(arguments: list[str], suggested: str) -> None:
    assert suggested in only_error(run(*arguments))


def completed(line: str) -> list[tuple[str, str]]:
    """Return what a shell would offer after a line, the last word of which is not finished."""
    words = line.split(" ")[1:]
    found = ShellComplete(main, {}, "vconv", "_VCONV_COMPLETE").get_completions(words[:-1], words[-1])
    return [(item.type, item.value) for item in found]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("vconv exp", ["export"]),
        ("vconv export dinov2-l", ["dinov2-large"]),
        ("vconv export ", list(SYSTEMS)),
        ("vconv export timm/vit_small_patch16", ["timm/vit_small_patch16_dinov3.lvd1689m"]),
        ("vconv export nothing", []),
        ("vconv validate . --device np", ["npu", "npu-sim"]),
        ("vconv doctor --device cu", ["cuda"]),
        ("vconv validate . --within s", ["strict"]),
        ("vconv compare . --engine o", ["onnxruntime", "onnxruntime-tensorrt", "openvino"]),
        ("vconv bisect . --variant onnx", ["onnx-fp32", "onnx-fp32-npu"]),
        ("vconv validate . --precision b", ["bf16"]),
    ],
)
def test_a_shell_completes_names(line: str, offered: list[str]) -> None:
    assert completed(line) == [("plain", name) for name in offered]


@pytest.mark.parametrize(
    "command", ["info", "validate", "compare", "selftest", "bisect", "fill", "card", "msprobe"]
)
def test_a_shell_completes_artifacts(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("artifacts/one", "artifacts/two", "artifacts/none", "elsewhere/three", "here"):
        (tmp_path / folder).mkdir(parents=True)
        if "none" not in folder:
            (tmp_path / folder / "vconv.json").touch()
    monkeypatch.chdir(tmp_path)
    found = {
        word: completed(f"vconv {command} {word}")
        for word in ("", "art", "artifacts/", "artifacts/t", "elsewhere/", "h", "nothing", "artifacts/none")
    }
    every = [("plain", "artifacts/one"), ("plain", "artifacts/two")]
    assert found == {
        "": [("plain", "here"), *every],
        "art": every,
        "artifacts/": every,
        "artifacts/t": every[1:],
        "elsewhere/": [("plain", "elsewhere/three")],
        "h": [("plain", "here")],
        "nothing": [("dir", "nothing")],
        "artifacts/none": [("dir", "artifacts/none")],
    }


def test_list_shows_what_each_system_takes_at_a_glance(system: System) -> None:
    (row,) = (row for row in json.loads(run("list", "--json").stdout) if row["name"] == system.name)
    library = LIBRARIES[system.library]
    assert tuple(row["input"]) == library.image_size(system.config, system.preprocessor)
    assert (row["licence"], row["gated"]) == (system.licence, system.gated)
    lines = run("list").stdout.splitlines()
    above = next(place for place, line in enumerate(lines) if line.startswith(f"{system.name} "))
    height, width = row["input"]
    assert lines[above].split() == [system.name, f"{height}x{width}", system.licence]
    assert lines[above + 1].replace(",", "").split() == [system.hub_id, *["gated"] * system.gated]
    assert system.family is not None
    headings = [line for line in lines[:above] if line.endswith(("(timm)", "(transformers)"))]
    assert headings[-1] == f"{system.family.title} ({system.library})"


SMALL = pytest.mark.parametrize("system", ["vit_small_patch14_reg4_dinov2.lvd142m"], indirect=True)


@SMALL
def test_info_fits_one_screen_and_says_how_to_validate(small_artifact: Path) -> None:
    shown = run("info", small_artifact).stdout
    made = json.loads((small_artifact / "vconv.json").read_text())
    assert shown.splitlines()[0] == made["system"]["name"]
    assert len(shown.splitlines()) <= 40
    assert "not validated yet: vconv validate" in shown
    for variant in made["variants"]:
        nodes = str(sum(variant["graph"]["operators"].values())) if variant["graph"] else "-"
        first = variant["contract"]["input"]["shape"][0]
        batch = "any" if first == "batch" else str(first)
        row = next(line.split() for line in shown.splitlines() if line.startswith(variant["variant"] + " "))
        assert (row[1], row[2], row[-1]) == (variant["engine"], batch, nodes)
    assert f"{made['complexity']['parameters'] / 1e3:.0f} thousand parameters" in shown
    total = sum(record["nbytes"] for record in made["files"].values())
    assert re.search(rf"^total +{total / 1e6:.1f} MB$", shown, re.M)


@SMALL
def test_info_shows_how_it_was_last_validated_and_survives_a_damaged_index(copied: Path) -> None:
    report = json.loads(run("validate", copied, "--quick", "--budget", "0.001", "--json").stdout)
    result = run("info", copied)
    day = Path(report["report"]).name[:8]
    when = f"{day[:4]}-{day[4:6]}-{day[6:]}"
    assert re.search(rf"^passed +validate +{when} \d\d:\d\d UTC on cpu$", result.stdout, re.M)
    refused = report["ranking"]["refused"]
    if refused:
        assert f"speed not ranked: {refused}" in " ".join(result.stdout.split())
    else:
        passed = [row for row in report["variants"] if row["status"] == "passed" and row["latency"]]
        best = min((row["latency"][0] for row in passed), key=lambda one: (one["batch"], one["p50_ms"]))
        assert f"{best['p50_ms']:.4g} ms at batch {best['batch']}" in result.stdout
    (copied / "results.json").write_text("{")
    (copied / "config.json").unlink()
    result = run("info", copied)
    assert result.exit_code == 0
    assert result.stdout.count("warning:") == 1
    assert "results.json:noJSON" in "".join(result.stdout.split())
    assert re.search(r"^config.json +\S+ kB +missing$", result.stdout, re.M)
    document = json.loads(run("info", copied, "--json").stdout)
    assert document["reports"] == [] and "no JSON" in document["reports_trouble"]
