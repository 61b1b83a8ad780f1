from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import Manifest
from vconv.artifact.records import FileRecord
from vconv.convert.files.safetensors_file import TensorEntry, read_header
from vconv.convert.sources.base import Source
from vconv.convert.weights import ledger
from vconv.convert.weights.ledger import LEDGER_FILE, Line
from vconv.errors import ArtifactError
from vconv.progress import Counted
from vconv.types import WEIGHTS_FILE, Check, Status
from vconv.validators.checks import integrity
from vconv.validators.checks.integrity import (
    verify_architecture,
    verify_files,
    verify_ledger,
    verify_source,
    verify_tensors,
    verify_variants,
)

Entries = Mapping[str, TensorEntry]


def flip_a_bit(path: Path, position: int) -> None:
    """Flip the lowest bit of one byte; done twice, it changes nothing."""
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1]))


def lines_of(folder: Path) -> list[Line]:
    return ledger.load(folder / LEDGER_FILE)


def entries_of(folder: Path) -> dict[str, TensorEntry]:
    return read_header(folder / WEIGHTS_FILE)


def tensors_verified(
    lines: Iterable[Line], source: Mapping[str, TensorEntry], artifact: Mapping[str, TensorEntry]
) -> Check:
    return verify_tensors(lines, source, artifact, lambda key: f"of {key}")


def kept(lines: list[Line]) -> list[Line]:
    return [line for line in lines if line.target]


def assert_failed(check: Check, *words: str) -> None:
    assert check.status is Status.FAILED
    assert check.fault
    for word in words:
        assert word in check.detail


def rewritten(folder: Path, made: Manifest) -> Manifest:
    """Return a manifest whose hashes fit the folder, as one who tampers would write it."""
    files = {
        name: FileRecord(
            sha256=hashlib.sha256((folder / name).read_bytes()).hexdigest(),
            nbytes=(folder / name).stat().st_size,
        )
        for name in made.files
    }
    return made.model_copy(update={"files": files})


def test_files_as_exported_match(small: Artifact, made: Manifest) -> None:
    check = verify_files(small)
    assert check.status is Status.PASSED
    assert str(len(made.files)) in check.detail


def test_every_file_that_a_variant_or_the_ledger_needs_is_hashed(
    small_artifact: Path, made: Manifest
) -> None:
    files = {str(path.relative_to(small_artifact)) for path in small_artifact.rglob("*") if path.is_file()}
    assert files - set(made.files) == {"vconv.json", "vconv.json.sha256", "README.md", "results.json"}
    assert {record.path for record in made.variants} <= set(made.files)


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_flipped_bit_in_any_file_is_caught(place: str, copied: Path, made: Manifest) -> None:
    for name, record in made.files.items():
        position = {"first": 0, "middle": record.nbytes // 2, "last": record.nbytes - 1}[place]
        flip_a_bit(copied / name, position)
        with pytest.raises(ArtifactError, match=rf"{name} was changed.*got sha256.*expected sha256"):
            verify_files(Artifact(copied, made))
        flip_a_bit(copied / name, position)
    assert verify_files(Artifact(copied, made)).status is Status.PASSED


def test_a_file_that_is_cut_short_is_caught_by_its_size(copied: Path, made: Manifest) -> None:
    for name, record in made.files.items():
        whole = (copied / name).read_bytes()
        (copied / name).write_bytes(whole[:-1])
        with pytest.raises(ArtifactError, match=f"{name} was changed.*{record.nbytes - 1} bytes"):
            verify_files(Artifact(copied, made))
        (copied / name).write_bytes(whole)


def test_a_missing_file_is_caught(copied: Path, made: Manifest) -> None:
    for name in made.files:
        (copied / name).rename(copied / "elsewhere")
        with pytest.raises(ArtifactError, match=f"{name} is missing"):
            verify_files(Artifact(copied, made))
        (copied / "elsewhere").rename(copied / name)


def test_a_folder_in_place_of_a_file_is_named(copied: Path, made: Manifest) -> None:
    (copied / "model.npu.onnx").unlink()
    (copied / "model.npu.onnx").mkdir()
    with pytest.raises(
        ArtifactError, match=r"model.npu.onnx is no file \| got a folder \| expected \d+ bytes"
    ):
        verify_files(Artifact(copied, made))


@pytest.mark.parametrize(
    "name", ["adapter_config.json", "sub/evil.py", "hidden.py", "reports.py", "sub/README.md"]
)
def test_a_file_that_the_manifest_does_not_list_fails(copied: Path, made: Manifest, name: str) -> None:
    (copied / name).parent.mkdir(exist_ok=True)
    (copied / name).write_text("{}")
    assert_failed(verify_files(Artifact(copied, made)), "1 not in the manifest", name)


def test_a_link_to_a_folder_that_the_manifest_does_not_list_fails(copied: Path, made: Manifest) -> None:
    (copied / "more").symlink_to(".")
    assert_failed(verify_files(Artifact(copied, made)), "1 not in the manifest, such as more")


def test_folders_of_the_manifest_and_of_reports_may_be_links(
    copied: Path, made: Manifest, tmp_path: Path
) -> None:
    for name in ("golden", "original", "reports"):
        if (copied / name).is_dir():
            (copied / name).rename(tmp_path / name)
        (tmp_path / name).mkdir(exist_ok=True)
        (copied / name).symlink_to(tmp_path / name)
    (tmp_path / "reports" / "one.json").write_text("{}")
    assert verify_files(Artifact(copied, made)).status is Status.PASSED
    (tmp_path / "golden" / "again").symlink_to(tmp_path / "golden")
    (tmp_path / "original" / "evil.py").write_text("")
    check = verify_files(Artifact(copied, made))
    assert_failed(check, "2 not in the manifest, such as golden/again")


def test_what_vconv_writes_after_the_manifest_may_be_there(copied: Path, made: Manifest) -> None:
    for name in (
        "results.json",
        "README.md",
        "reports/a.log",
        ".filling-x/source/config.json",
        ".probe",
        ".gitattributes",
        ".cache/huggingface/x.metadata",
    ):
        (copied / name).parent.mkdir(exist_ok=True, parents=True)
        (copied / name).touch()
    assert verify_files(Artifact(copied, made)).status is Status.PASSED


def test_tensors_as_exported_match_their_source(small_artifact: Path, small_source: Source) -> None:
    lines = lines_of(small_artifact)
    check = tensors_verified(lines, small_source.entries, entries_of(small_artifact))
    assert check.status is Status.PASSED
    assert str(len(lines)) in check.detail


@pytest.mark.parametrize("place", [0, 7, -1])
def test_a_changed_weight_is_caught_when_the_hashes_are_rewritten(
    place: int, copied: Path, made: Manifest, small_source: Source
) -> None:
    line = kept(lines_of(copied))[place]
    entry = entries_of(copied)[line.target]
    flip_a_bit(copied / WEIGHTS_FILE, entry.offset + entry.nbytes - 4)
    assert verify_files(Artifact(copied, rewritten(copied, made))).status is Status.PASSED
    assert_failed(
        tensors_verified(lines_of(copied), small_source.entries, entries_of(copied)),
        "1 wrong",
        f"{line.target} differs from {line.source}",
    )


def test_a_changed_weight_is_caught_when_even_the_ledger_is_rewritten(
    copied: Path, small_source: Source
) -> None:
    lines = lines_of(copied)
    place, line = next((place, line) for place, line in enumerate(lines) if line.target)
    flip_a_bit(copied / WEIGHTS_FILE, entries_of(copied)[line.target].offset)
    digest = hashlib.sha256(b"".join(entries_of(copied)[line.target].chunks())).hexdigest()
    lines[place] = replace(line, sha256=digest)
    assert verify_ledger(lines, entries_of(copied)).status is Status.PASSED
    assert_failed(tensors_verified(lines, small_source.entries, entries_of(copied)), line.target)


def test_a_source_that_is_not_the_one_converted_is_caught(small_artifact: Path, small_source: Source) -> None:
    entries = dict(small_source.entries)
    same_shape: dict[tuple[int, ...], list[str]] = {}
    for name, entry in entries.items():
        same_shape.setdefault(entry.shape, []).append(name)
    first, second = next(names[-2:] for names in same_shape.values() if len(names) > 1)
    entries[first], entries[second] = entries[second], entries[first]
    check = tensors_verified(lines_of(small_artifact), entries, entries_of(small_artifact))
    assert_failed(check, "2 wrong")


def test_a_dropped_tensor_that_is_not_zero_is_caught(small_artifact: Path, small_source: Source) -> None:
    lines, entries = lines_of(small_artifact), entries_of(small_artifact)
    line = kept(lines)[3]
    del entries[line.target]
    lines[lines.index(line)] = replace(line, target="", action="dropped", proof="max|b| = 0")
    assert_failed(
        tensors_verified(lines, small_source.entries, entries), f"{line.source} was dropped, but max|b| is"
    )


def test_a_tensor_that_is_said_to_be_dropped_and_is_there_is_caught(
    small_artifact: Path, small_source: Source
) -> None:
    lines = lines_of(small_artifact)
    line = kept(lines)[3]
    lines[lines.index(line)] = replace(line, action="dropped")
    assert_failed(
        tensors_verified(lines, small_source.entries, entries_of(small_artifact)),
        "is dropped according to the ledger",
    )


def test_a_tensor_of_the_source_that_is_not_accounted_for_is_caught(
    small_artifact: Path, small_source: Source
) -> None:
    name, entry = next(iter(small_source.entries.items()))
    entries = {**small_source.entries, "more.weight": replace(entry, name="more.weight")}
    check = tensors_verified(lines_of(small_artifact), entries, entries_of(small_artifact))
    assert_failed(check, "more.weight of the source is not in the ledger")
    assert name not in check.detail


def test_a_tensor_of_the_artifact_that_is_not_accounted_for_is_caught(
    small_artifact: Path, small_source: Source
) -> None:
    entries = entries_of(small_artifact)
    entries["more.weight"] = replace(next(iter(entries.values())), name="more.weight")
    assert_failed(
        tensors_verified(lines_of(small_artifact), small_source.entries, entries),
        "more.weight of the artifact is not in the ledger",
    )


def test_a_line_of_the_ledger_that_is_gone_is_caught_from_both_sides(
    small_artifact: Path, small_source: Source
) -> None:
    lines = lines_of(small_artifact)
    lines.remove(kept(lines)[0])
    assert_failed(tensors_verified(lines, small_source.entries, entries_of(small_artifact)), "2 wrong")


def test_a_line_without_a_source_is_caught(small_artifact: Path, small_source: Source) -> None:
    lines = lines_of(small_artifact)
    lines.append(replace(lines[0], source="no.such.weight"))
    check = tensors_verified(lines, small_source.entries, entries_of(small_artifact))
    assert_failed(check, "no.such.weight is not in the source")


@pytest.mark.parametrize("change", [{"shape": (3, 3)}, {"dtype": "F16"}, None], ids=["shape", "type", "gone"])
def test_a_tensor_that_does_not_look_like_its_source_is_caught(
    change: dict[str, object] | None, small_artifact: Path, small_source: Source
) -> None:
    lines, entries = lines_of(small_artifact), entries_of(small_artifact)
    target = kept(lines)[2].target
    if change is None:
        del entries[target]
    else:
        entries[target] = replace(entries[target], **change)  # type: ignore[arg-type]
    assert_failed(
        tensors_verified(lines, small_source.entries, entries), f"{target} is not in the artifact as F32"
    )


@pytest.mark.parametrize("wrong", [False, True], ids=["right", "wrong"])
def test_a_widened_tensor_is_held_against_the_values_that_it_came_from(wrong: bool, tmp_path: Path) -> None:
    half = np.array([[1.0, -2.5, 3.14159, 6e-8]], np.float16)
    wide = half.astype(np.float32)
    wide[0, 2] += np.float32(1e-6) * wrong
    safetensors.numpy.save_file({"w": half}, tmp_path / "source.safetensors")
    safetensors.numpy.save_file({"w": wide}, tmp_path / WEIGHTS_FILE)
    line = Line("w", "w", "cast", "F16", (1, 4), "")
    check = tensors_verified([line], read_header(tmp_path / "source.safetensors"), entries_of(tmp_path))
    assert check.status is (Status.FAILED if wrong else Status.PASSED)


def test_tensors_as_exported_match_the_ledger(small_artifact: Path) -> None:
    check = verify_ledger(lines_of(small_artifact), entries_of(small_artifact))
    assert check.status is Status.PASSED
    assert str(len(kept(lines_of(small_artifact)))) in check.detail


def test_every_changed_weight_is_caught_by_the_ledger(copied: Path) -> None:
    lines, entries = lines_of(copied), entries_of(copied)
    for line in kept(lines):
        position = entries[line.target].offset + entries[line.target].nbytes // 2
        flip_a_bit(copied / WEIGHTS_FILE, position)
        assert_failed(verify_ledger([line], {line.target: entries[line.target]}), line.target)
        flip_a_bit(copied / WEIGHTS_FILE, position)
    assert verify_ledger(lines, entries).status is Status.PASSED


def test_a_tensor_that_is_gone_is_caught_by_the_ledger(small_artifact: Path) -> None:
    lines, entries = lines_of(small_artifact), entries_of(small_artifact)
    del entries[kept(lines)[5].target]
    assert_failed(verify_ledger(lines, entries), "1 tensors differ", kept(lines)[5].target)


def test_looking_changes_nothing(small: Artifact, small_artifact: Path, tmp_path: Path) -> None:
    before = shutil.copytree(small_artifact, tmp_path / "before")
    verify_files(small)
    verify_ledger(lines_of(small_artifact), entries_of(small_artifact))
    for path in before.rglob("*"):
        other = small_artifact / path.relative_to(before)
        assert path.is_dir() or path.read_bytes() == other.read_bytes()


def test_a_tensor_that_the_ledger_does_not_know_is_caught_without_the_source(
    small_artifact: Path, made: Manifest
) -> None:
    lines = ledger.load(small_artifact / LEDGER_FILE)
    entries = read_header(small_artifact / WEIGHTS_FILE)
    kept = [line for line in lines if line.target]
    assert_failed(verify_ledger(kept[1:], entries), kept[0].target)


def test_a_file_that_is_used_but_not_listed_is_an_error(small_artifact: Path, made: Manifest) -> None:
    files = {name: record for name, record in made.files.items() if name != "model.onnx"}
    with pytest.raises(ArtifactError, match=r"no hash for model\.onnx"):
        verify_files(Artifact(small_artifact, made.model_copy(update={"files": files})))


def test_the_source_that_was_exported_is_recognised_by_its_files(
    made: Manifest, small_source: Source
) -> None:
    digest = hashlib.sha256((small_source.folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    assert made.source.files == dict(small_source.files) == {WEIGHTS_FILE: digest}
    check = verify_source(made, small_source)
    assert (check.name, check.status) == ("source", Status.PASSED)
    assert check.detail.endswith("and the same file")


@pytest.mark.parametrize(
    "files",
    [{"other.safetensors": "same"}, {WEIGHTS_FILE: "0" * 64}, {WEIGHTS_FILE: "same", "more": "0" * 64}, {}],
    ids=["name", "hash", "shards", "none"],
)
def test_the_same_configuration_in_other_files_is_told(
    files: dict[str, str], made: Manifest, small_source: Source
) -> None:
    digest = small_source.files[WEIGHTS_FILE]
    other = {name: digest if value == "same" else value for name, value in files.items()}
    check = verify_source(made, replace(small_source, files=other))
    assert check.status is Status.PASSED
    assert check.detail.endswith("in another file")


@pytest.mark.parametrize("part", ["config", "preprocessor"])
def test_a_source_of_another_configuration_fails(part: str, made: Manifest, small_source: Source) -> None:
    changed = {**getattr(small_source, part), "layer_norm_eps": 1e-3}
    check = verify_source(made, replace(small_source, **{part: changed}))  # type: ignore[arg-type]
    assert_failed(check, "the configuration differs from the one that was exported")


def test_every_variant_of_the_table_is_there(made: Manifest) -> None:
    check = verify_variants(made)
    assert (check.status, check.detail) == (
        Status.PASSED,
        f"the {len(made.variants)} that every artifact has are there",
    )


def test_a_variant_that_is_gone_is_caught(made: Manifest) -> None:
    for record in made.variants:
        rest = tuple(other for other in made.variants if other is not record)
        assert_failed(verify_variants(made.model_copy(update={"variants": rest})), record.variant, "missing")


def test_the_configuration_files_of_the_library_must_be_listed(small_artifact: Path, made: Manifest) -> None:
    names = {"transformers": ("config.json", "preprocessor_config.json"), "timm": ("config.json",)}
    for name in names[made.system.library]:
        files = {key: record for key, record in made.files.items() if key != name}
        with pytest.raises(ArtifactError, match=f"no hash for {name}"):
            verify_files(Artifact(small_artifact, made.model_copy(update={"files": files})))


def test_an_artifact_that_was_passed_on_without_weights_says_how_to_fill_it(
    copied: Path, made: Manifest
) -> None:
    light = made.model_copy(update={"without_weights": True})
    assert verify_files(Artifact(copied, light)).status is Status.PASSED
    (copied / WEIGHTS_FILE).unlink()
    with pytest.raises(ArtifactError, match=r"has no weights .*vconv fill"):
        verify_files(Artifact(copied, light))


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ([], [], True),
        ([b"abcd"], [b"ab", b"cd"], True),
        ([b"a", b"bcd"], [b"abc", b"", b"d"], True),
        ([b"abcd"], [b"abc"], False),
        ([b"abc"], [b"abcd"], False),
        ([b"abcd"], [b"abce"], False),
        ([b"ab", b"cd"], [b"ab", b"ce"], False),
        ([], [b"a"], False),
    ],
)
def test_streams_are_compared_however_they_are_cut(
    first: list[bytes], second: list[bytes], same: bool
) -> None:
    assert integrity._same(first, second) is same


def test_an_altered_tensor_names_the_class_that_its_key_is_of(
    copied: Path, small_source: Source, small_artifact: Path
) -> None:
    line = next(line for line in kept(lines_of(copied)) if len(line.shape) == 1)
    flip_a_bit(copied / WEIGHTS_FILE, entries_of(copied)[line.target].offset)
    check = tensors_verified(lines_of(copied), small_source.entries, entries_of(copied))
    assert check.fault == f"of {line.target}"


def test_a_transposed_weight_is_told_from_an_altered_one(copied: Path, small_source: Source) -> None:
    entries = entries_of(copied)
    name, entry = next(
        (name, entry)
        for name, entry in entries.items()
        if len(entry.shape) == 2 and entry.shape[0] == entry.shape[1]
    )
    weight = np.frombuffer(b"".join(entry.chunks()), "<f4").reshape(entry.shape)
    with (copied / WEIGHTS_FILE).open("r+b") as file:
        file.seek(entry.offset)
        file.write(np.ascontiguousarray(weight.T).tobytes())
    check = tensors_verified(lines_of(copied), small_source.entries, entries_of(copied))
    assert check.fault == "transposed weight"
    assert_failed(check, f"{name} is the transpose of")


def test_the_architecture_of_an_artifact_is_its_originals(small_artifact: Path, small_source: Source) -> None:
    check = verify_architecture(Artifact.open(small_artifact).network, small_source.network)
    assert check.status is Status.PASSED


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("epsilon", 1e-3, "epsilon"),
        ("registers", 7, "registers"),
        ("image", (1, 1), "image size"),
        ("pooling", "max", "pooling"),
        ("exact_gelu", False, "activation"),
        ("heads", 3, "architecture"),
    ],
)
def test_another_number_in_the_configuration_fails_and_names_its_class(
    field: str, value: object, fault: str, small_artifact: Path, small_source: Source
) -> None:
    ours = Artifact.open(small_artifact).network
    other = replace(ours, known=replace(ours.numbers, **{field: value}))  # type: ignore[arg-type]
    check = verify_architecture(other, small_source.network)
    assert_failed(check, f"{field} is {value}")
    assert check.fault == fault


@pytest.mark.parametrize("what", ["hashed", "checked", "compared"])
@pytest.mark.parametrize("system", ["vit-base-patch16-224-in21k"], indirect=True)
def test_what_reads_many_bytes_tells_how_many(
    small: Artifact, what: str, small_artifact: Path, made: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vconv.progress.EVERY_SECONDS", 0)
    lines, entries, said = lines_of(small_artifact), entries_of(small_artifact), list[str]()
    weights = sum(entry.nbytes for entry in entries.values())
    calls: dict[str, tuple[Callable[[], Check], int]] = {
        "hashed": (
            lambda: verify_files(small, said.append),
            sum(record.nbytes for record in made.files.values()),
        ),
        "checked": (lambda: verify_ledger(lines, entries, said.append), weights),
        "compared": (lambda: verify_tensors(lines, entries, entries, str, said.append), weights),
    }
    call, total = calls[what]
    assert call().status is Status.PASSED
    counts = [line for line in said if isinstance(line, Counted)]
    assert len(counts) == len(said) >= 6
    assert {(line.what, line.total) for line in counts} == {(f"MB {what}", total // 10**6)}
    assert [line.done for line in counts] == sorted(line.done for line in counts)
    assert all(line.seconds_left is not None and line.seconds_left >= 0 for line in counts)
