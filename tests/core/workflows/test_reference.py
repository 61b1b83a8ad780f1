"""A reference that is recorded on one machine and validated against on another."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner
from safetensors import safe_open

import vconv
from vconv.artifact import manifest
from vconv.catalog.systems import System
from vconv.cli import main
from vconv.convert.sources.table import Request, open_source
from vconv.errors import ArtifactError, InputError
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import find_device
from vconv.types import INPUT, Array


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Device:
    """A GPU of which only its name is known: the CPU under another that torch takes too."""
    found = replace(find_device("cpu"), name="cpu:0", kind="cuda", model="a stand-in for a GPU")
    monkeypatch.setattr("vconv.workflows.reference.find_device", lambda name: found)
    return found


@pytest.fixture
def file(small_artifact: Path, gpu: Device, tmp_path: Path) -> Path:
    path = tmp_path / "reference.safetensors"
    vconv.reference(small_artifact, out=path, device="cuda")
    return path


def changed(path: Path, change: Callable[[dict[str, Array]], None]) -> None:
    """Change the tensors of a file, and keep what it says of them."""
    with safe_open(path, "numpy") as opened:
        told = opened.metadata()
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path, told)


def retold(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what a file says of its tensors."""
    with safe_open(path, "numpy") as opened:
        told = json.loads(opened.metadata()["vconv_reference"])
    tensors = safetensors.numpy.load_file(path)
    change(told)
    safetensors.numpy.save_file(tensors, path, {"vconv_reference": json.dumps(told)})


def test_the_file_holds_what_the_reference_gives(small_artifact: Path, file: Path) -> None:
    made = manifest.load(small_artifact)
    assert made.golden
    golden = safetensors.numpy.load_file(small_artifact / made.golden.path)
    found = {
        name: value
        for name, value in safetensors.numpy.load_file(file).items()
        if not name.startswith("stock.")
    }
    assert found.keys() == golden.keys()
    for name, value in golden.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)


def test_what_is_returned_says_where_and_how_it_was_run(
    small_artifact: Path, gpu: Device, tmp_path: Path
) -> None:
    out = tmp_path / "reference.safetensors"
    found = vconv.reference(small_artifact, out=out, device="cuda")
    assert (found["device"], found["device_model"]) == ("cpu:0", "a stand-in for a GPU")
    assert found["arithmetic"] == "fp32, TF32 off"
    assert (found["weights"], found["synthetic"]) == ("synthetic:1", True)
    assert found["nbytes"] == out.stat().st_size
    assert set(found["floor"]) == set(found["outputs"])
    assert all(0 < value < 1e-5 for value in found["floor"].values())
    assert [path.name for path in tmp_path.iterdir()] == ["reference.safetensors"]


def test_variants_are_held_to_what_the_other_machine_recorded(copied: Path, file: Path) -> None:
    found = vconv.validate(copied, reference=file, quick=True, budget=1.0)
    assert found.status == "passed"
    assert (found.reference.source, found.reference.device) == ("file", "cpu:0")
    recorded = found.reference.recorded
    assert recorded
    assert (recorded.file, recorded.device_model) == (str(file), "a stand-in for a GPU")
    assert (found.inputs.source, found.inputs.images) == ("file", ("synthetic:0", "synthetic:1"))
    (check,) = (check for check in found.checks if check.name == "reference")
    assert check.status == "passed"
    text = (copied / "README.md").read_text()
    assert "recorded with `vconv reference`" in text
    assert "a stand-in for a GPU" in text


def test_a_reference_that_computed_in_tf32_is_found_out(copied: Path, file: Path) -> None:
    def rounded(tensors: dict[str, Array]) -> None:
        for name in tensors.keys() - {INPUT}:
            bits = tensors[name].view(np.uint32)
            tensors[name] = ((bits + 0x1000) & np.uint32(0xFFFFE000)).view(np.float32)

    changed(file, rounded)
    found = vconv.validate(copied, reference=file, quick=True, budget=1.0)
    (check,) = (check for check in found.checks if check.name == "reference")
    assert (found.status, check.status, check.fault) == ("failed", "failed", "recording")
    assert "differs from the reference on the CPU here" in check.detail
    assert {row.status for row in found.variants} == {"skipped", "failed"}


def test_without_the_original_the_file_is_enough(copied: Path, file: Path) -> None:
    content = json.loads((copied / "vconv.json").read_text())
    content["source"] |= {"kind": "folder", "synthetic": False, "label": "weights"}
    manifest.Manifest.model_validate(content).save(copied)
    found = vconv.validate(copied, reference=file, quick=True, budget=1.0)
    (check,) = (check for check in found.checks if check.name == "reference")
    assert (found.status, check.status) == ("passed", "skipped")
    assert found.reference.source == "file"


def _of_another_size(tensors: dict[str, Array]) -> None:
    tensors[INPUT] = tensors[INPUT][:, :, :-1]


def _with_fewer_images(tensors: dict[str, Array]) -> None:
    tensors["cls"] = tensors["cls"][:1]


def _without_an_output(tensors: dict[str, Array]) -> None:
    del tensors["patches"]


def _of_another_type(tensors: dict[str, Array]) -> None:
    tensors["cls"] = tensors["cls"].astype(np.float64)


def _not_finite(tensors: dict[str, Array]) -> None:
    tensors["cls"][0, 0] = np.nan


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_of_another_size, "does not fit the artifact"),
        (_with_fewer_images, "does not fit the artifact"),
        (_without_an_output, "does not fit the artifact"),
        (_not_finite, "does not fit the artifact | got NaN or Inf in cls"),
        (_of_another_type, "does not fit the artifact | got cls as float64"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    small_artifact: Path, file: Path, change: Callable[[dict[str, Array]], None], sentence: str
) -> None:
    changed(file, change)
    with pytest.raises((ArtifactError, InputError)) as refused:
        vconv.validate(small_artifact, reference=file)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"system": "another"}, "is of another system | got another"),
        ({"source": {"label": "other", "files": {}}}, "was recorded from other weights"),
        ({"schema_version": 99}, "schema_version"),
        ({"floor": None}, "cannot read the reference"),
        ({"facts": {}}, "cannot read the reference"),
        ({"floor": {"cls": "1e-6"}}, "floor.cls: Input should be a valid number"),
        ({"system": "x" * 2**20}, "a header of "),
        ({"floor": {"cls": 1e-6}}, "does not fit the artifact"),
    ],
)
def test_a_file_of_something_else_is_refused(
    small_artifact: Path, file: Path, change: dict[str, Any], sentence: str
) -> None:
    retold(file, lambda told: told.update(change))
    with pytest.raises((ArtifactError, InputError)) as refused:
        vconv.validate(small_artifact, reference=file)
    assert sentence in str(refused.value)


def test_what_is_no_reference_is_a_sentence(small_artifact: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.safetensors"
    safetensors.numpy.save_file({INPUT: np.zeros((1, 3, 4, 4), np.float32)}, plain)
    text = tmp_path / "text"
    text.write_text("no tensors")
    (tmp_path / "device").symlink_to("/dev/zero")
    for path, got in (
        (plain, "a file of other tensors"),
        (text, "Error while deserializing header"),
        (tmp_path, "a folder"),
        (tmp_path / "missing", "No such file or directory"),
        (tmp_path / "device", "a device, not a regular file"),
    ):
        with pytest.raises(ArtifactError, match=f"got {got}.* expected a file that `vconv reference` wrote"):
            vconv.validate(small_artifact, reference=path)


def test_photographs_and_a_reference_exclude_each_other(
    small_artifact: Path, file: Path, photographs: list[str]
) -> None:
    with pytest.raises(InputError, match="--reference and --images exclude each other"):
        vconv.validate(small_artifact, reference=file, images=photographs)
    with pytest.raises(InputError, match="--reference and --dataset exclude each other"):
        vconv.validate(small_artifact, reference=file, dataset=Path(photographs[0]).parent)


def test_photographs_are_recorded_where_they_are_given(
    copied: Path, gpu: Device, photographs: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "reference.safetensors"
    found = vconv.reference(copied, out=out, device="cuda", images=photographs)
    assert found["images"] == ["one.png", "two.jpg"]
    assert vconv.validate(copied, reference=out, quick=True, budget=1.0).status == "passed"


@pytest.mark.parametrize("name", ["npu-sim"])
def test_a_device_that_computes_in_ways_of_its_own_gives_no_reference(
    small_artifact: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InputError, match=r"a reference cannot be recorded there .* expected cpu or cuda"):
        vconv.reference(small_artifact, out=tmp_path / "file", device=name)
    assert not (tmp_path / "file").exists()


def test_nothing_is_overwritten_unless_it_is_asked_for(small_artifact: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("kept")
    for out in (there, tmp_path, small_artifact / "new", tmp_path / "missing" / "new"):
        with pytest.raises(ArtifactError, match="cannot write the reference"):
            vconv.reference(small_artifact, out=out)
    assert there.read_text() == "kept"
    vconv.reference(small_artifact, out=there, force=True)
    assert there.stat().st_size > 1000


@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a link"])
def test_only_a_file_is_replaced(small_artifact: Path, tmp_path: Path, kind: str) -> None:
    there = tmp_path / "special"
    if kind == "a named pipe":
        os.mkfifo(there)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(there))
    else:
        there.symlink_to(tmp_path / "elsewhere")
    before = there.lstat()
    with pytest.raises(ArtifactError, match=f"cannot write the reference to .* got {kind} ") as refused:
        vconv.reference(small_artifact, out=there, force=True)
    assert refused.value.fix == "choose another --out"
    assert there.lstat() == before
    found = "No such file" if kind == "a link" else kind
    with pytest.raises(ArtifactError, match=f"got {found}"):
        vconv.validate(small_artifact, reference=there if kind != "a link" else tmp_path / "elsewhere")


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_a_link_to_a_file_is_not_replaced_either(small_artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("kept")
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(ArtifactError, match=r"cannot write the reference to .* got a link \|"):
        vconv.reference(small_artifact, out=tmp_path / "link", force=True)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "elsewhere").read_text() == "kept"


def test_a_disk_that_is_full_is_that_of_the_file(
    small_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.setattr(Path, "write_bytes", full)
    command = ["reference", str(small_artifact), "--out", str(folder / "file")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == (
        f"error: the disk is full | got No space left on device | expected free space in {folder} | fix: "
        "free some space, or choose another --out; nothing was kept"
    )
    assert list(folder.iterdir()) == []


def test_a_reference_that_may_not_be_read_says_so(
    small_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "reference.safetensors"
    file.write_bytes(b"")

    def refuse(path: Path) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("vconv.validators.accuracy.reference_file.open_regular", refuse)
    with pytest.raises(ArtifactError, match=r"cannot read the reference .* got Permission denied"):
        vconv.validate(small_artifact, reference=file)


def test_other_weights_are_refused(small_artifact: Path, small_system: System, tmp_path: Path) -> None:
    out = tmp_path / "reference.safetensors"
    (tmp_path / "given").mkdir()
    open_source(Request(small_system, "synthetic:2"), tmp_path / "given")
    with pytest.raises(InputError, match="these are not the weights that the artifact was made of"):
        vconv.reference(small_artifact, tmp_path / "given", out=out)
    assert not out.exists()


def test_without_the_original_there_is_nothing_to_record(copied: Path, tmp_path: Path) -> None:
    content = json.loads((copied / "vconv.json").read_text())
    content["source"] |= {"kind": "folder", "synthetic": False, "label": "weights"}
    manifest.Manifest.model_validate(content).save(copied)
    with pytest.raises(InputError, match="there is nothing to run as the reference"):
        vconv.reference(copied, out=tmp_path / "file")


def test_the_file_can_be_moved(copied: Path, file: Path, tmp_path: Path) -> None:
    moved = shutil.move(file, tmp_path / "moved.bin")
    assert vconv.validate(copied, reference=moved, quick=True, budget=1.0).status == "passed"
