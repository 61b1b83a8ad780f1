"""Every error that a user can meet: one line that says how to fix it, exit status 2, nothing left behind."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
from click.testing import CliRunner

import vconv
from vconv.artifact import manifest
from vconv.catalog.systems import SYSTEMS, System
from vconv.cli import main
from vconv.convert.files.safetensors_file import read_header
from vconv.convert.sources.table import Request, open_source
from vconv.runtime.inputs.images import natural_image
from vconv.types import CONFIG_FILE, MANIFEST_FILE, PREPROCESSOR_FILE, WEIGHTS_FILE

NAME = "dinov3-vits16"
MINIATURES = (
    "-c",
    "from vconv.catalog import systems\n"
    "systems.SYSTEMS = {name: systems.miniature(system) for name, system in systems.SYSTEMS.items()}\n"
    "from vconv.cli import main\n"
    "main()",
)
"""Python's arguments for the command line with a catalog of miniatures."""
Damage = Callable[[Path], None]


@pytest.fixture
def weights(shrink: Callable[[System], System], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of small, sound weights, as a user would have it, for the system in the catalog's place."""
    system = shrink(SYSTEMS[NAME])
    monkeypatch.setattr("vconv.catalog.systems.SYSTEMS", {NAME: system})
    folder = tmp_path / "weights"
    folder.mkdir()
    open_source(Request(system, "synthetic:1"), folder)
    return folder


def refused(*arguments: str | Path) -> str:
    """Run vconv; return its one line of error, having checked it and the exit status."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 2, (result.exit_code, result.output, result.exception)
    assert result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert [line for line in result.stderr.splitlines() if line.startswith("error: ")] == [last]
    assert all(part in last for part in (" | got ", " | expected ", " | fix: "))
    return last


def header_of(folder: Path) -> tuple[dict[str, Any], bytes]:
    raw = (folder / WEIGHTS_FILE).read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def write(folder: Path, header: str, data: bytes) -> None:
    text = header.encode()
    (folder / WEIGHTS_FILE).write_bytes(struct.pack("<Q", len(text)) + text + data)


def offsets(change: Callable[[list[dict[str, Any]], int], None]) -> Damage:
    """Return what changes the entries of a header, given the length of the data."""

    def damage(folder: Path) -> None:
        header, data = header_of(folder)
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        change(sorted(entries, key=lambda entry: entry["data_offsets"][0]), len(data))
        write(folder, json.dumps(header), data)

    return damage


def overlap(entries: list[dict[str, Any]], length: int) -> None:
    entries[1]["data_offsets"] = entries[0]["data_offsets"]
    entries[1]["shape"], entries[1]["dtype"] = entries[0]["shape"], entries[0]["dtype"]


def overrun(entries: list[dict[str, Any]], length: int) -> None:
    begin, end = entries[-1]["data_offsets"]
    entries[-1]["data_offsets"] = [begin + length, end + length]


def overflow(entries: list[dict[str, Any]], length: int) -> None:
    entries[0]["shape"] = [2**62, 2**62]


def lie(entries: list[dict[str, Any]], length: int) -> None:
    entries[0]["shape"] = [entries[0]["shape"][0] + 1, *entries[0]["shape"][1:]]


def remove(folder: Path) -> None:
    (folder / WEIGHTS_FILE).unlink()


def truncate(folder: Path) -> None:
    os.truncate(folder / WEIGHTS_FILE, (folder / WEIGHTS_FILE).stat().st_size - 1000)


def corrupt(folder: Path) -> None:
    (folder / WEIGHTS_FILE).write_bytes(bytes(range(256)) * 40)


def gigabyte_header(folder: Path) -> None:
    (folder / WEIGHTS_FILE).write_bytes(struct.pack("<Q", 2**30) + b"{" + b" " * 100)


def duplicate_names(folder: Path) -> None:
    header, data = header_of(folder)
    name, entry = next((key, value) for key, value in header.items() if key != "__metadata__")
    text = json.dumps(header)
    write(folder, text[:-1] + f", {json.dumps(name)}: {json.dumps(entry)}}}", data)


def other_keys(folder: Path) -> None:
    tensors = safetensors.numpy.load_file(folder / WEIGHTS_FILE)
    renamed = {name.replace("layer.", "blocks."): value for name, value in tensors.items()}
    safetensors.numpy.save_file(renamed, folder / WEIGHTS_FILE)


def put(value: float) -> Damage:
    def damage(folder: Path) -> None:
        entry = next(iter(read_header(folder / WEIGHTS_FILE).values()))
        with (folder / WEIGHTS_FILE).open("r+b") as file:
            file.seek(entry.offset)
            file.write(struct.pack("<f", value))

    return damage


def explode(folder: Path) -> None:
    """Make weights that are finite, and outputs that are not."""
    tensors = safetensors.numpy.load_file(folder / WEIGHTS_FILE)
    tensors["norm.weight"][:] = 3e38
    safetensors.numpy.save_file(tensors, folder / WEIGHTS_FILE)


def edit(file: str, **values: Any) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return damage


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (remove, "no weights in "),
        (truncate, "model.safetensors is not a valid safetensors file | got incomplete metadata"),
        (corrupt, "model.safetensors is not a valid safetensors file | got header too large"),
        (
            offsets(overlap),
            "model.safetensors is not a valid safetensors file | got invalid offset for tensor",
        ),
        (
            offsets(overrun),
            "model.safetensors is not a valid safetensors file | got invalid offset for tensor",
        ),
        (
            offsets(overflow),
            "model.safetensors is not a valid safetensors file | got overflow computing buffer size",
        ),
        (
            offsets(lie),
            "model.safetensors is not a valid safetensors file | got invalid shape, data type, or offset",
        ),
        (gigabyte_header, "got header too large, in a file of 109 bytes"),
        (duplicate_names, "twice in the header"),
        (other_keys, "fits no known layout of this network | got nearest is "),
        (put(math.nan), "a weight is not finite in model.safetensors | got NaN or Inf in "),
        (put(math.inf), "a weight is not finite in model.safetensors | got NaN or Inf in "),
        (explode, "the original's outputs are not numbers | got NaN or Inf in "),
        (
            edit(CONFIG_FILE, model_type="vit"),
            "has weights of another architecture | got vit | expected dinov3_vit",
        ),
        (edit(CONFIG_FILE, model_type="resnet"), "has weights of another architecture | got resnet"),
        (
            edit(CONFIG_FILE, num_attention_heads=7),
            "config.json does not make sense | got hidden_size = 96 for",
        ),
        (
            edit(PREPROCESSOR_FILE, size={"height": 65, "width": 64}),
            "the image size does not fit the patches | got 65x64 | expected multiples of 16",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", "")[:20] if callable(value) else "",
)
def test_weights_that_are_not_sound_are_refused(
    damage: Damage, sentence: str, weights: Path, tmp_path: Path
) -> None:
    damage(weights)
    assert sentence in refused("export", NAME, "--weights", weights, "--out", tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weights"]


@pytest.mark.parametrize("golden", ["record", "none"])
@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"image_std": [0, 0, 0]},
            "image processor that cannot be | got image_std = [0, 0, 0] | expected finite numbers above 0",
        ),
        (
            {"image_processor_type": "Nope"},
            "transformers cannot make the image processor that preprocessor_config.json describes | got ",
        ),
    ],
)
def test_an_image_processor_that_cannot_be_is_refused_by_its_cause(
    values: dict[str, Any], sentence: str, golden: str, weights: Path, tmp_path: Path
) -> None:
    edit(PREPROCESSOR_FILE, **values)(weights)
    told = refused("export", NAME, "--weights", weights, "--golden", golden, "--out", tmp_path / "a")
    assert sentence in told
    assert len(told) < 600


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--batch", "0"], "--batch is out of range | got 0"),
        (["--device", "tpu"], "wrong use of vconv export"),
        (["--weights", "synthetic:-1"], "not a seed"),
        (["--weights", "hub:a b/c"], "a b/c"),
        (["--weights", "nowhere"], "no weights at nowhere"),
        (["--pool", "max"], "wrong use of vconv export"),
        (["--pool", "avg"], "--pool does not apply to this system"),
        (["--hub", "gitlab"], "wrong use of vconv export"),
    ],
)
def test_wrong_options_are_refused(options: list[str], sentence: str, weights: Path, tmp_path: Path) -> None:
    given = ["--weights", str(weights), *options]
    assert sentence in refused("export", NAME, *given, "--out", tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weights"]


def test_an_unknown_system_names_the_nearest(tmp_path: Path) -> None:
    line = refused("export", "dinov2-larg", "--out", tmp_path / "a")
    assert "unknown system | got 'dinov2-larg' | expected one of dinov2-large" in line
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_refused_even_with_force(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    for force in ([], ["--force"]):
        line = refused("export", NAME, "--weights", weights, "--out", tmp_path / "full", *force)
        assert "is in the way | got a folder that is not empty" in line
    assert (tmp_path / "full" / "thesis.tex").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "weights"]


def test_a_disk_without_room_is_noticed_before_anything_is_written(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    for given in (str(weights), "synthetic"):
        line = refused("export", NAME, "--weights", given, "--out", tmp_path / "a")
        assert "there is not enough space on the disk | got 0.00 GB free" in line
        assert "choose another --out" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weights"]


def test_a_disk_that_fills_up_is_survived(weights: Path, tmp_path: Path) -> None:
    """Let the kernel refuse to write past some bytes, as a full disk does."""
    script = f"""
import resource, sys
from vconv import catalog, cli, workflows
from vconv.convert.sources.table import open_source
resource.setrlimit(resource.RLIMIT_FSIZE, ({200_000}, {200_000}))
cli.main(sys.argv[1:])
"""
    command = ["export", "vit-base-patch16-224-in21k", "--weights", "synthetic", "--out", str(tmp_path / "a")]
    done = subprocess.run(
        [sys.executable, "-c", script, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: the disk is full | got File too large | expected")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weights"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 200_000


@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        ("cuda", "there is no cuda | got torch "),
        ("cuda:7", "there is no cuda"),
        ("npu", "there is no npu | got torch_npu: not installed"),
        ("cpu:1", "there is no cpu:1 | got 1 of them"),
        ("gpu", "unknown device | got 'gpu' | expected one of npu, cpu"),
    ],
)
def test_a_device_that_is_not_there_is_named(device: str, sentence: str, small_artifact: Path) -> None:
    import torch

    if device.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    before = sorted(small_artifact.rglob("*"))
    assert sentence in refused("validate", small_artifact, "--device", device)
    assert sorted(small_artifact.rglob("*")) == before


@pytest.mark.parametrize("command", ["validate", "compare"])
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "limits.toml has no limits | got no table"),
        ("[fp32", "limits.toml is not TOML | got "),
        ("[fp32.fp32]\nmse = -1", "mse in [fp32.fp32] of limits.toml is no bound | got -1"),
        ("[fp64.fp64]\nmse = 1", "unknown table in limits.toml | got 'fp64.fp64'"),
        ("[fp32.fp32]\ntop1_match = 1", "top1_match in [fp32.fp32] of limits.toml bounds nothing of "),
    ],
)
@pytest.mark.parametrize("system", [NAME], indirect=True)
def test_limits_that_cannot_be_held_to_are_refused_before_anything_runs(
    command: str, text: str, sentence: str, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vconv.validators.validation.run", lambda *args: pytest.fail("it ran"))
    (tmp_path / "limits.toml").write_text(text)
    assert sentence in refused(command, copied, "--within", "limits.toml", "--quick")
    assert not (copied / "reports").exists()


def test_a_manifest_of_a_newer_schema_is_refused(copied: Path) -> None:
    import hashlib

    text = (copied / MANIFEST_FILE).read_text().replace('"schema_version": 2', '"schema_version": 3')
    (copied / MANIFEST_FILE).write_text(text)
    (copied / manifest.DIGEST_FILE).write_text(hashlib.sha256(text.encode()).hexdigest())
    for command in ("info", "validate", "fill", "compare"):
        assert "got schema version 3 | expected schema version 1 or 2" in refused(command, copied)
    assert not (copied / "reports").exists()


@pytest.mark.parametrize("file", [WEIGHTS_FILE, "model.onnx", CONFIG_FILE, "golden/golden.safetensors"])
def test_a_file_whose_hash_differs_is_refused(copied: Path, file: str) -> None:
    raw = bytearray((copied / file).read_bytes())
    raw[len(raw) // 2] ^= 1
    (copied / file).write_bytes(raw)
    assert f"{copied / file} was changed | got sha256 " in refused("validate", copied, "--quick")
    assert not (copied / "reports").exists()


def test_two_exports_to_one_target_do_not_mix(tmp_path: Path, forked: Callable[..., tuple[str, ...]]) -> None:
    command = [*forked(*MINIATURES), "export", NAME, "--golden", "none", "--out", str(tmp_path / "a")]
    processes = [
        subprocess.Popen([*command, "--weights", f"synthetic:{seed}"], stderr=subprocess.PIPE, text=True)
        for seed in (1, 2)
    ]
    messages = [process.communicate()[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes) == [0, 2], messages
    winner, loser = codes.index(0), codes.index(2)
    assert "is in the way | got an artifact" in messages[loser].splitlines()[-1]
    assert manifest.load(tmp_path / "a").source.identity == str(winner + 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    report = vconv.validate(tmp_path / "a", quick=True, budget=1e-3)
    assert report.passed


@pytest.mark.parametrize("after", [pytest.param(0.5, marks=pytest.mark.full), 1.5])
def test_a_kill_leaves_no_artifact_and_the_retry_is_whole(
    after: float, weights: Path, tmp_path: Path
) -> None:
    """Kill an export once its stage is there, so many times later as writing its first line took."""
    target = tmp_path / "place" / "a"
    command = [sys.executable, *MINIATURES, "export", NAME, "--weights", "synthetic", "--out", str(target)]
    start = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    process.stderr.readline()
    time.sleep((time.perf_counter() - start) * (after - 0.5))
    process.kill()
    process.communicate()
    assert not target.exists()
    vconv.export(NAME, str(weights), target)
    assert [path.name for path in target.parent.iterdir()] == ["a"]
    assert vconv.validate(target, str(weights), quick=True, budget=1e-3).passed


def test_a_path_of_another_encoding_is_refused_escaped(small_artifact: Path, tmp_path: Path) -> None:
    other = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(small_artifact, other)
    shown = ascii(str(other))
    for command in (("validate", other), ("bisect", other), ("compare", other), ("info", other)):
        assert "the path of the artifact is not in UTF-8" in refused(*command)
    assert f"got {shown} |" in refused("export", NAME, "--weights", "synthetic", "--force", "--out", other)
    assert "caf\\udce9" in refused("export", NAME, "--weights", other / "none", "--out", tmp_path / "out")
    (tmp_path / "link").symlink_to(other)
    done = CliRunner().invoke(main, ["info", str(tmp_path / "link")])
    assert done.exit_code == 0


def test_weights_and_images_of_another_encoding_are_read(weights: Path, tmp_path: Path) -> None:
    other = weights.rename(tmp_path / os.fsdecode(b"caf\xe9"))
    image = other / os.fsdecode(b"p\xe9.png")
    natural_image(3).save(other / "p.png")
    (other / "p.png").rename(image)
    command = [
        "export",
        NAME,
        "--weights",
        str(other),
        "--images",
        str(image),
        "--out",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output


@pytest.mark.full
def test_a_python_without_docstrings_is_named_as_the_cause(tmp_path: Path) -> None:
    command = [sys.executable, "-OO", *MINIATURES, "export", NAME, "--weights", "synthetic"]
    done = subprocess.run([*command, "--out", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: transformers cannot run in a Python that drops docstrings | got PYTHONOPTIMIZE=2 or "
        "python -OO | expected docstrings, which transformers reads when it is imported | fix: unset "
        "PYTHONOPTIMIZE, or set it to 1"
    )
