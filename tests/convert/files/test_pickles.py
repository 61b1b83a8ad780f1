from __future__ import annotations

import argparse
import os
import pickle
import random
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from vconv.convert.files import pickles, safetensors_file
from vconv.convert.files.pickles import DTYPES, PICKLE_SUFFIXES, WRAPPERS, rewrite
from vconv.errors import WeightsError

Refused = Callable[..., AbstractContextManager[None]]

RESAVE = (
    "load it with the library that wrote it, in an environment that you trust, "
    "and save its state dict as safetensors"
)
FORMATS = {"zip": True, "legacy": False}
ZIP_ONLY = ("F8_E4M3", "F8_E5M2", "U16", "U32", "U64")
"""Types that torch writes into its legacy format but cannot read from it."""


@pytest.fixture(params=sorted(FORMATS))
def zipped(request: pytest.FixtureRequest) -> bool:
    """Both formats of torch.save."""
    return FORMATS[request.param]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def save(content: object, path: Path, zipped: bool = True) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of formats that torch is about to drop
        torch.save(content, path, _use_new_zipfile_serialization=zipped)


def some(*names: str, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(3, 5, generator=generator) for name in names or ("a.weight", "b.weight")}


def assert_holds(target: Path, expected: Mapping[str, Tensor]) -> None:
    """Hold a file's tensors, read by the reference library, against these: names, dtypes and every bit."""
    actual = safetensors.torch.load_file(target)
    assert set(actual) == set(expected)
    for name, tensor in expected.items():
        assert (actual[name].dtype, actual[name].shape) == (tensor.dtype, tensor.shape), name
        assert bits(actual[name]) == bits(tensor), name


def bits(tensor: Tensor) -> bytes:
    return bytes(tensor.detach().clone().contiguous().flatten().view(torch.uint8).tolist())


@pytest.mark.parametrize("suffix", PICKLE_SUFFIXES)
def test_a_state_dict_is_rewritten_bit_by_bit(
    tmp_path: Path, target: Path, zipped: bool, suffix: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    save(some(), path, zipped)
    rewrite(path, target)
    assert_holds(target, some())


def test_the_state_dict_of_a_model_is_rewritten(path: Path, target: Path, zipped: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4))
    save(model.state_dict(), path, zipped)
    rewrite(path, target)
    assert_holds(target, model.state_dict())
    save(OrderedDict(model.named_parameters()), path, zipped)
    rewrite(path, target.with_name("parameters"))
    assert_holds(target.with_name("parameters"), dict(model.named_parameters()))


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 5), (7,), (4, 3, 2)])
def test_every_dtype_and_shape_is_kept(
    path: Path, target: Path, zipped: bool, shape: tuple[int, ...]
) -> None:
    count = int(torch.tensor(shape).prod()) if shape else 1
    tensors = {
        name: torch.randint(0, 2 if name == "BOOL" else 256, (count * dtype.itemsize,), dtype=torch.uint8)
        .view(dtype)
        .reshape(shape)
        for dtype, name in DTYPES.items()
        if zipped or name not in ZIP_ONLY
    }
    save(tensors, path, zipped)
    rewrite(path, target)
    assert_holds(target, tensors)


def test_the_dtypes_are_those_that_can_be_written() -> None:
    assert {name: dtype.itemsize for dtype, name in DTYPES.items()} == dict(safetensors_file.ITEM_SIZES)


def test_odd_bits_are_kept(path: Path, target: Path) -> None:
    words = torch.tensor([0x7F800001, 0x7FC12345, -1, 1, -(2**31)], dtype=torch.int32)
    tensors = {"nan": words.view(torch.float32)}
    save(tensors, path)
    rewrite(path, target)
    assert_holds(target, tensors)


def test_a_tensor_longer_than_a_chunk_is_whole(
    path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vconv.convert.files.pickles.CHUNK_BYTES", 7)
    save(some(), path)
    rewrite(path, target)
    assert_holds(target, some())


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda base: base.t(),
    "strided": lambda base: base[::2, 1::3],
    "expanded": lambda base: base[:1].expand(5, -1),
    "in the middle of its storage": lambda base: base[2:4],
    "channels last": lambda base: base.reshape(2, 4, 3, 2).contiguous(memory_format=torch.channels_last),
    "negated lazily": lambda base: torch._neg_view(base),
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_written_as_the_tensor_that_it_shows(
    path: Path, target: Path, zipped: bool, view: str
) -> None:
    tensor = VIEWS[view](torch.arange(48.0).reshape(6, 8))
    save({"view": tensor}, path, zipped)
    rewrite(path, target)
    assert torch.equal(safetensors.torch.load_file(target)["view"], tensor)


def test_tied_tensors_are_written_twice(path: Path, target: Path, zipped: bool) -> None:
    tied = torch.arange(12.0).reshape(3, 4)
    tensors = {"embedding": tied, "head": tied, "part": tied[1]}
    save(tensors, path, zipped)
    rewrite(path, target)
    assert_holds(target, tensors)
    assert sum(entry.nbytes for entry in safetensors_file.read_header(target).values()) == 48 + 48 + 16


def test_a_small_file_whose_tensors_repeat_one_another_without_end_is_refused(
    path: Path, target: Path, refused: Refused, zipped: bool
) -> None:
    one = torch.ones(2**18)
    save({f"a{place}": one for place in range(100)}, path, zipped)
    with refused(WeightsError, "repeat each other's data", "104857600 bytes of tensors from 1048576 bytes"):
        rewrite(path, target)
    assert not target.exists()


def test_disk_space_is_checked_before_anything_is_written(
    path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, int, bool]] = []
    monkeypatch.setattr(
        pickles, "require_space", lambda folder, nbytes: asked.append((folder, nbytes, target.exists()))
    )
    save(some(), path)
    rewrite(path, target)
    assert asked == [(target.parent, 2 * 15 * 4, False)]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_state_dict_is_found_under_every_usual_wrapper(
    path: Path, target: Path, zipped: bool, wrapper: str
) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    save({"epoch": 3, "optimizer": optimizer, wrapper: some(), "best": torch.ones(())}, path, zipped)
    rewrite(path, target)
    assert_holds(target, some())


def test_a_prefix_that_every_name_has_is_stripped_once(path: Path, target: Path) -> None:
    save({"state_dict": {f"module.{name}": value for name, value in some("a", "module.b").items()}}, path)
    rewrite(path, target)
    assert_holds(target, some("a", "module.b"))


@pytest.mark.parametrize("names", [("module.a", "b"), ("modules.a", "modules.b"), ("a.module.b",)])
def test_a_prefix_that_some_names_lack_is_kept(path: Path, target: Path, names: tuple[str, ...]) -> None:
    save(some(*names), path)
    rewrite(path, target)
    assert_holds(target, some(*names))


def test_nothing_is_overwritten(path: Path, target: Path) -> None:
    save(some(), path)
    target.write_text("precious")
    with pytest.raises(FileExistsError):
        rewrite(path, target)
    assert target.read_text() == "precious"


RIVALS = {
    "two wrappers": (("model", "state_dict_ema"), ()),
    "three wrappers": (("state_dict", "model", "teacher"), ()),
    "an average": (("model", "model_ema"), ()),
    "a student": (("teacher", "student"), ()),
    "a parallel student": (("teacher", "the student"), ("the student",)),
    "a parallel teacher": (("teacher", "the student"), ("teacher",)),
}


@pytest.mark.parametrize("rivals", RIVALS)
def test_several_state_dicts_are_refused_by_name(
    path: Path, target: Path, refused: Refused, rivals: str
) -> None:
    names, parallel = RIVALS[rivals]
    content = {
        name: {f"module.{key}" if name in parallel else key: value for key, value in some(seed=seed).items()}
        for seed, name in enumerate(names)
    }
    save({**content, "epoch": 3}, path)
    with refused(WeightsError, "several state dicts in weights.pth", *map(repr, names), "one"):
        rewrite(path, target)
    assert not target.exists()


def test_one_of_several_state_dicts_can_be_chosen(path: Path, target: Path, refused: Refused) -> None:
    save({"model": some(seed=1), "model_ema": some(seed=2), "net": some(seed=3), "epoch": 3}, path)
    with refused(WeightsError, "no such state dict", "got 'ema'", "'model' or 'model_ema' or 'net'"):
        rewrite(path, target, entry="ema")
    assert rewrite(path, target, entry="model_ema").entry == "model_ema"
    assert_holds(target, some(seed=2))


def test_a_file_that_is_a_state_dict_has_no_choice(path: Path, target: Path) -> None:
    save(some(), path)
    assert rewrite(path, target, entry="model").entry == ""
    assert_holds(target, some())


def test_two_wrappers_are_rivals_even_with_other_tensors(path: Path, target: Path, refused: Refused) -> None:
    save({"model": some("a"), "teacher": some("b")}, path)
    with refused(WeightsError, "several state dicts", "'model', 'teacher'", "--state-dict teacher"):
        rewrite(path, target)


def test_what_has_other_tensors_and_is_no_wrapper_is_no_rival(path: Path, target: Path) -> None:
    save({"teacher": some(), "dino_loss": {"center": torch.zeros(4)}}, path)
    rewrite(path, target)
    assert_holds(target, some())


NO_STATE_DICTS: dict[str, tuple[object, str]] = {
    "number beside tensors": ({**some(), "epoch": 3}, "got the entry 'epoch', a int"),
    "text beside tensors": ({**some(), "arch": "vit"}, "got the entry 'arch', a str"),
    "number in a wrapper": ({"model": {**some(), "step": 1}}, "got the entry 'step', a int"),
    "numbered tensors": ({0: torch.ones(2)}, "got the entry 0, a Tensor"),
    "undeclared wrapper": ({"net": some()}, "got the entry 'net', a dict"),
    "empty": ({}, "got an empty state dict"),
    "empty wrapper": ({"model": {}}, "got the entry 'model', a dict"),
    "list": ([torch.ones(2)], "got a list"),
    "lone tensor": (torch.ones(2), "got a Tensor"),
    "nothing": (None, "got a NoneType"),
}


@pytest.mark.parametrize("kind", NO_STATE_DICTS)
def test_what_is_not_a_state_dict_is_refused(
    path: Path, target: Path, refused: Refused, zipped: bool, kind: str
) -> None:
    content, fragment = NO_STATE_DICTS[kind]
    save(content, path, zipped)
    with refused(WeightsError, "weights.pth is not a state dict", fragment, "state_dict, model, module"):
        rewrite(path, target)
    assert not target.exists()


FOREIGN: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "sparse": (lambda dense: dense.to_sparse(), "got a sparse tensor"),
    "compressed": (lambda dense: dense.to_sparse_csr(), "got a sparse tensor"),
    "quantised": (
        lambda dense: torch.quantize_per_tensor(dense, 0.1, 0, torch.qint8),
        "got a quantised tensor",
    ),
    "complex": (lambda dense: dense.to(torch.complex64), "got a tensor of torch.complex64"),
    "another float8": (
        lambda dense: dense.to(torch.float8_e4m3fnuz),
        "got a tensor of torch.float8_e4m3fnuz",
    ),
    "meta": (lambda dense: dense.to("meta"), "got a tensor without data"),
    "blown up": (lambda dense: dense[:1, :1].expand(10**6, 10**7), "got a tensor larger than its storage"),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.filterwarnings("ignore")
def test_a_tensor_that_safetensors_lacks_is_refused(
    path: Path, target: Path, refused: Refused, kind: str
) -> None:
    make, fragment = FOREIGN[kind]
    save({**some(), "foreign": make(torch.ones(2, 3))}, path)
    with refused(WeightsError, "safetensors cannot contain 'foreign' of weights.pth", fragment, "F64, F32"):
        rewrite(path, target)
    assert not target.exists()


@pytest.mark.filterwarnings("ignore")
def test_nested_tensors_are_refused(path: Path, target: Path, refused: Refused) -> None:
    save({"nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])}, path)
    with refused(WeightsError, "nested"):  # newer versions of torch do not even load them
        rewrite(path, target)


def test_a_name_that_safetensors_keeps_for_itself_is_refused(
    path: Path, target: Path, refused: Refused
) -> None:
    save(some("__metadata__"), path)
    with refused(WeightsError, "cannot contain '__metadata__'", "a name that safetensors reserves"):
        rewrite(path, target)


class Calls:
    """What calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


CODE: dict[str, Callable[[Path], Calls]] = {
    "system": lambda mark: Calls(os.system, f"echo ran > '{mark}'"),
    "open": lambda mark: Calls(open, str(mark), "w"),
    "exec": lambda mark: Calls(exec, f"open({str(mark)!r}, 'w').close()"),
    "popen": lambda mark: Calls(subprocess.check_call, ["touch", str(mark)]),
    "method": lambda mark: Calls(Path.touch, mark),
}


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("place", ["entry", "beside tensors", "whole"])
def test_pickled_code_is_refused_and_does_not_run(
    tmp_path: Path, path: Path, target: Path, refused: Refused, zipped: bool, code: str, place: str
) -> None:
    mark = tmp_path / "mark"
    live = CODE[code](mark)
    save(
        {"entry": {"model": {"a": live}}, "beside tensors": {**some(), "z": live}}.get(place, live),
        path,
        zipped,
    )
    with refused(WeightsError, "cannot read weights.pth without running code", "a pickle", RESAVE):
        rewrite(path, target)
    assert not mark.exists()
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "the pickle does run when it is let"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_plain_pickle_does_not_run_in_any_protocol(
    tmp_path: Path, path: Path, target: Path, refused: Refused, protocol: int
) -> None:
    mark = tmp_path / "mark"
    path.write_bytes(pickle.dumps(CODE["open"](mark), protocol))
    with refused(WeightsError, "weights.pth", RESAVE):
        rewrite(path, target)
    assert not mark.exists()
    pickle.loads(path.read_bytes()).close()
    assert mark.exists()


def test_the_environment_cannot_let_code_run(
    tmp_path: Path, path: Path, target: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    save(CODE["open"](tmp_path / "mark"), path)
    with refused(WeightsError, "without running code"):
        rewrite(path, target)
    assert not (tmp_path / "mark").exists()


def test_a_whole_model_is_refused_by_its_class(
    path: Path, target: Path, refused: Refused, zipped: bool
) -> None:
    save(nn.Linear(2, 2), path, zipped)
    with refused(WeightsError, "without running code", "torch.nn.modules.linear.Linear", RESAVE):
        rewrite(path, target)


def test_arguments_beside_the_model_are_refused_by_their_class(
    path: Path, target: Path, refused: Refused, zipped: bool
) -> None:
    save({"model": some(), "args": argparse.Namespace(lr=0.1)}, path, zipped)
    with refused(WeightsError, "without running code", "argparse.Namespace", RESAVE):
        rewrite(path, target)


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_program_is_refused(path: Path, target: Path, refused: Refused) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    with refused(WeightsError, "without running code", "a TorchScript program", RESAVE):
        rewrite(path, target)


def zip_of(path: Path, records: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, content)


def test_a_zip_that_is_no_checkpoint_is_refused(path: Path, target: Path, refused: Refused) -> None:
    zip_of(path, {"photographs/cat.jpg": b"meow"})
    with refused(WeightsError, "weights.pth is not a valid PyTorch checkpoint", "a zip without data.pkl"):
        rewrite(path, target)


def test_a_zip_with_only_the_name_of_a_checkpoint_is_refused(
    path: Path, target: Path, refused: Refused
) -> None:
    zip_of(path, {"archive/data.pkl": b"not a pickle", "archive/version": b"3\n"})
    with refused(WeightsError, "weights.pth is not a valid PyTorch checkpoint"):
        rewrite(path, target)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_compressed_tensors_are_refused_and_not_read_as_weights(
    tmp_path: Path, path: Path, target: Path, refused: Refused, compression: int
) -> None:
    tensors = {"zeros": torch.zeros(64, 64), **some()}
    save(tensors, tmp_path / "original")
    with zipfile.ZipFile(tmp_path / "original") as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    records = {name: content for name, content in records.items() if not name.endswith(".storage_alignment")}
    zip_of(path, records, compression)
    if compression == zipfile.ZIP_STORED:
        rewrite(path, target)
        assert_holds(target, tensors)
        return
    with refused(WeightsError, "not a valid PyTorch checkpoint", "a zip that compresses its tensors"):
        rewrite(path, target)


@pytest.mark.parametrize("left", [1, 3, 5, 100, 0.25, 0.5, 0.9, -1])
def test_a_truncated_file_is_refused(
    path: Path, target: Path, refused: Refused, zipped: bool, left: float
) -> None:
    save(some(), path, zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole)) if isinstance(left, float) else left])
    with refused(WeightsError, "weights.pth is not a valid PyTorch checkpoint", "download or copy"):
        rewrite(path, target)
    assert not target.exists()


@pytest.mark.parametrize("seed", range(40))
def test_random_bytes_are_refused(path: Path, target: Path, refused: Refused, seed: int) -> None:
    generator = random.Random(seed)
    path.write_bytes(generator.randbytes(generator.randrange(1, 3000)))
    with refused(WeightsError, "weights.pth", "torch.save wrote", "download or copy the file again"):
        rewrite(path, target)


NEVER_SAVED = {
    "call of a number": (b"K\x01)R.", "a pickle that creates objects other than tensors"),
    "object of a number": (b"K\x01)\x81.", "a pickle that creates objects other than tensors"),
    "state of a number": (b"K\x01}b.", "a pickle that creates objects other than tensors"),
    "unknown instruction": (b"\x95.", "got Unsupported operand 149 |"),
    "nothing to take": (b"K\x01\x86.", "not a valid"),
    "short number": (b"G\x00", "not a valid"),
    "bytes that are not text": (b"X\x01\0\0\0\xff.", "not a valid"),
    "key that cannot be one": (b"}]K\x01s.", "not a valid"),
    "number for a storage": (b"K\x01Q.", "not a valid"),
    "huge size": (b"cbuiltins\nbytearray\n\x8a\x09" + bytes(8) + b"\x01\x85R.", "not a valid"),
    "more than memory": (b"cbuiltins\nbytearray\n\x8a\x08" + bytes(7) + b"\x40\x85R.", "got MemoryError |"),
    "endless": (b"", "got EOFError |"),
}


@pytest.mark.parametrize("kind", NEVER_SAVED)
def test_a_pickle_that_torch_never_saves_is_refused(
    path: Path, target: Path, refused: Refused, zipped: bool, kind: str
) -> None:
    content, fragment = NEVER_SAVED[kind]
    content = b"\x80\x02" + content
    if zipped:
        zip_of(path, {"archive/data.pkl": content, "archive/version": b"3\n"})
    else:
        path.write_bytes(content)
    with refused(WeightsError, "weights.pth", fragment, RESAVE):
        rewrite(path, target)


def test_the_tar_format_is_refused(tmp_path: Path, path: Path, target: Path, refused: Refused) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("storages", "tensors", "pickle"):
            (tmp_path / name).write_bytes(b"\x80\x02}.")
            archive.add(tmp_path / name, name)
    with refused(WeightsError, "without running code", "the tar format", RESAVE):
        rewrite(path, target)


@pytest.mark.parametrize("name", ZIP_ONLY)
def test_a_type_that_torch_cannot_read_back_is_refused(
    path: Path, target: Path, refused: Refused, name: str
) -> None:
    dtype = next(dtype for dtype in DTYPES if DTYPES[dtype] == name)
    save({"a": torch.zeros(3, dtype=dtype)}, path, zipped=False)
    with refused(WeightsError, "not a valid PyTorch checkpoint", RESAVE):
        rewrite(path, target)


def test_an_empty_file_is_refused(path: Path, target: Path, refused: Refused) -> None:
    path.write_bytes(b"")
    with refused(WeightsError, "weights.pth is not a valid PyTorch checkpoint", "a file of 0 bytes"):
        rewrite(path, target)


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer"),
        (b"<!doctype html>\n<html>", "a text that begins with b'<!doctype html>"),
        (b"Entry not found", "a text that begins with b'Entry not found'"),
    ],
)
def test_a_text_in_the_place_of_a_checkpoint_is_refused(
    path: Path, target: Path, refused: Refused, content: bytes, fragment: str
) -> None:
    path.write_bytes(content)
    with refused(WeightsError, "weights.pth is not a valid PyTorch checkpoint", fragment):
        rewrite(path, target)


def test_a_safetensors_file_by_another_name_is_refused(path: Path, target: Path, refused: Refused) -> None:
    safetensors.torch.save_file(some(), path)
    with refused(WeightsError, "weights.pth is not a valid PyTorch checkpoint"):
        rewrite(path, target)


def test_a_file_that_is_not_there_is_an_error(path: Path, target: Path, refused: Refused) -> None:
    with refused(WeightsError, "cannot read", "weights.pth", "No such file or directory"):
        rewrite(path, target)


def test_a_folder_is_not_a_file(tmp_path: Path, target: Path, refused: Refused) -> None:
    with refused(WeightsError, "cannot read", "Is a directory"):
        rewrite(tmp_path, target)


@pytest.mark.filterwarnings("error")
def test_nothing_warns(path: Path, target: Path) -> None:
    torch.save(some(), path, pickle_protocol=3)
    rewrite(path, target)
    assert_holds(target, some())


# Memory that is mapped from a file does not count, since the system takes it back when it needs it. What
# should be seen stays for as long as the target is being written, so that a sample a millisecond sees it.
MEASURE = """
import sys, threading
from pathlib import Path
import torch
from vconv.convert.files.pickles import rewrite

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

small, large, target, mapped = sys.argv[1:]
if mapped == "no":
    load = torch.load
    torch.load = lambda path, **options: load(path, **{**options, "mmap": False})
rewrite(Path(small), Path(target + ".small"))
before, peak, done = anonymous(), 0, threading.Event()

def sample():
    global peak
    while not done.wait(0.001):
        peak = max(peak, anonymous())

thread = threading.Thread(target=sample)
thread.start()
rewrite(Path(large), Path(target))
done.set()
thread.join()
print((peak - before) / 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to measure memory")
@pytest.mark.parametrize(("mapped", "low", "high"), [("yes", 0, 80), ("no", 150, 1000)])
def test_memory_does_not_grow_with_the_checkpoint(
    tmp_path: Path, path: Path, target: Path, mapped: str, low: float, high: float
) -> None:
    save(some(), tmp_path / "small.pth")
    save({f"layer.{index}": torch.full((2**21,), float(index)) for index in range(24)}, path)
    assert path.stat().st_size > 200e6
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "small.pth"), str(path), str(target), mapped]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert low <= float(done.stdout) <= high  # megabytes; without the mapping it is the whole checkpoint
