from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from vconv.convert.files import safetensors_file
from vconv.convert.files.safetensors_file import (
    ITEM_SIZES,
    PlannedTensor,
    laid_out,
    read_header,
    write,
)
from vconv.errors import WeightsError

Refused = Callable[..., AbstractContextManager[None]]

TORCH_DTYPES = {
    "F64": torch.float64, "I64": torch.int64, "U64": torch.uint64, "F32": torch.float32,
    "I32": torch.int32, "U32": torch.uint32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I16": torch.int16, "U16": torch.uint16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


def tensor_of(dtype: str, *shape: int) -> Tensor:
    numbers = torch.arange(int(torch.tensor(shape).prod()) if shape else 1).reshape(shape) % 100
    return numbers.to(TORCH_DTYPES[dtype])


def raw(tensor: Tensor) -> bytes:
    return tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def plan(name: str, dtype: str, tensor: Tensor) -> PlannedTensor:
    return PlannedTensor(name, dtype, tuple(tensor.shape), lambda: (raw(tensor),))


def file_of(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def f32(begin: Any, end: Any, shape: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


def test_every_dtype_is_known_to_torch_at_its_size() -> None:
    assert {name: dtype.itemsize for name, dtype in TORCH_DTYPES.items()} == dict(ITEM_SIZES)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 5), (4, 3, 2)])
def test_headers_of_the_reference_library_are_read_tensor_by_tensor(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    tensors = {f"the.{name}": tensor_of(name, *shape) for name in ITEM_SIZES}
    path = tmp_path / "library.safetensors"
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    entries = read_header(path)
    assert set(entries) == set(tensors)
    for name, entry in entries.items():
        assert (f"the.{entry.dtype}", entry.shape, entry.path) == (name, shape, path)
        assert b"".join(entry.chunks()) == raw(tensors[name])
        assert path.read_bytes()[entry.offset : entry.offset + entry.nbytes] == raw(tensors[name])


def test_the_reference_library_reads_what_is_written(tmp_path: Path) -> None:
    tensors = {name: tensor_of(name, 3, 5) for name in ITEM_SIZES}
    path = tmp_path / "model.safetensors"
    write(path, [plan(name, name, tensor) for name, tensor in tensors.items()])
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    loaded = safetensors.torch.load_file(path)
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        assert raw(loaded[name]) == raw(tensor)


@pytest.mark.parametrize("dtypes", [("F32",), ("F64", "F32", "F16", "U8"), ("F16", "BF16")])
def test_bytes_are_those_of_the_reference_library(tmp_path: Path, dtypes: tuple[str, ...]) -> None:
    tensors = {f"{name}.{dtype}": tensor_of(dtype, 3, 7) for name in ("b", "a10", "a9") for dtype in dtypes}
    safetensors.torch.save_file(tensors, tmp_path / "library", metadata={"format": "pt"})
    write(tmp_path / "own", [plan(name, name.split(".")[1], tensor) for name, tensor in tensors.items()])
    assert (tmp_path / "own").read_bytes() == (tmp_path / "library").read_bytes()


def test_the_order_of_the_tensors_does_not_change_the_file(tmp_path: Path) -> None:
    plans = [plan(name, "F32", tensor_of("F32", 4)) for name in "cab"]
    forth, back = write(tmp_path / "forth", plans), write(tmp_path / "back", plans[::-1])
    assert forth == back
    assert (tmp_path / "forth").read_bytes() == (tmp_path / "back").read_bytes()


def test_where_every_tensor_will_lie_is_known_before_it_is_written(tmp_path: Path) -> None:
    planned = [
        plan(f"{dtype}.{name}", dtype, tensor_of(dtype, 3, 2)) for dtype in ITEM_SIZES for name in "ba"
    ]
    expected = laid_out(tmp_path / "file", iter(planned))
    assert not (tmp_path / "file").exists()
    write(tmp_path / "file", planned)
    assert read_header(tmp_path / "file") == expected


def test_two_tensors_of_one_name_are_an_error(tmp_path: Path) -> None:
    planned = [plan("same", "F32", tensor_of("F32", 2)), plan("same", "F16", tensor_of("F16", 2))]
    for lay in (laid_out, write):
        with pytest.raises(ValueError, match="two tensors have the same name"):
            lay(tmp_path / "file", planned)
    assert not (tmp_path / "file").exists()


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    digest = write(tmp_path / "file", [plan("a", "F32", tensor_of("F32", 9))])
    assert digest == hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        write(path, [])
    assert path.read_text() == "precious"


@pytest.mark.parametrize("nbytes", [0, 11, 13])
def test_writing_another_number_of_bytes_than_planned_is_an_error(tmp_path: Path, nbytes: int) -> None:
    planned = PlannedTensor("short", "F32", (3,), lambda: (bytes(nbytes),))
    with pytest.raises(ValueError, match=f"short: wrote {nbytes} bytes, planned 12"):
        write(tmp_path / "file", [planned])


def test_chunks_are_bounded_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = tensor_of("F32", 10)
    write(tmp_path / "file", [plan("a", "F32", tensor)])
    monkeypatch.setattr(safetensors_file, "CHUNK_BYTES", 16)
    chunks = list(read_header(tmp_path / "file")["a"].chunks())
    assert [len(chunk) for chunk in chunks] == [16, 16, 8]
    assert b"".join(chunks) == raw(tensor)


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "file"
    write(path, [plan("a", "F32", tensor_of("F32", 10))])
    entry = read_header(path)["a"]
    path.write_bytes(path.read_bytes()[:-8])
    with refused(
        WeightsError, "file is not a valid safetensors file", "ended inside a tensor", "8 more bytes"
    ):
        list(entry.chunks())


LIES = {
    "gap": (file_of({"a": f32(0, 4, [1]), "b": f32(8, 12, [1])}, bytes(12)), "offset for tensor `b`"),
    "gap at the start": (file_of({"a": f32(4, 8, [1])}, bytes(8)), "invalid offset for tensor `a`"),
    "overlap": (file_of({"a": f32(0, 8, [2]), "b": f32(4, 12, [2])}, bytes(12)), "offset for tensor `b`"),
    "same place": (file_of({"a": f32(0, 4, [1]), "b": f32(0, 4, [1])}, bytes(4)), "offset for tensor"),
    "overrun": (file_of({"a": f32(0, 8, [2])}, bytes(7)), "not fully covered, in a file of 76 bytes"),
    "left over": (file_of({"a": f32(0, 8, [2])}, bytes(9)), "not fully covered, in a file of 78 bytes"),
    "no data": (file_of({"a": f32(0, 8, [2])}), "not fully covered, in a file of 69 bytes"),
    "too short for its shape": (file_of({"a": f32(0, 4, [2])}, bytes(4)), "invalid shape, data type"),
    "too long for its shape": (file_of({"a": f32(0, 8, [1])}, bytes(8)), "invalid shape, data type"),
    "backwards": (file_of({"a": f32(4, 0, [1])}, bytes(4)), "invalid offset for tensor `a`"),
    "negative offset": (file_of({"a": f32(-4, 0, [1])}), "integer `-4`"),
    "negative shape": (file_of({"a": f32(0, 4, [-1, -1])}, bytes(4)), "integer `-1`"),
    "fractional shape": (file_of({"a": f32(0, 4, [1.0])}, bytes(4)), "floating point `1.0`"),
    "boolean shape": (file_of({"a": f32(0, 4, [True])}, bytes(4)), "boolean `true`"),
    "shape of text": (file_of({"a": f32(0, 4, "1")}, bytes(4)), 'string "1"'),
    "shape of nothing": (file_of({"a": f32(0, 4, None)}, bytes(4)), "null, expected a sequence"),
    "offset that is not a number": (file_of({"a": f32(0, float("nan"), [1])}, bytes(4)), "expected value"),
    "three offsets": (
        file_of({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, bytes(4)),
        "invalid length 3",
    ),
    "unknown dtype": (
        file_of({"a": {"dtype": "F12", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        "unknown variant `F12`",
    ),
    "list as dtype": (
        file_of({"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        "invalid type: sequence",
    ),
    "no dtype": (file_of({"a": {"shape": [1], "data_offsets": [0, 4]}}, bytes(4)), "missing field `dtype`"),
    "tensor that is a list": (file_of({"a": [1]}, bytes(4)), "invalid type: integer `1`"),
    "not JSON": (file_of(b"{nonsense"), "invalid JSON in header"),
    "cut JSON": (file_of(b'{"a":{"dtype":"F32","shape":[1],"data_off'), "invalid JSON in header: EOF"),
    "not UTF-8": (file_of(b'{"\xff\xfe":1}'), "invalid UTF-8 in header"),
    "deep": (file_of(b'{"a":' + b"[" * 200_000), "recursion limit exceeded"),
    "UTF-16": (
        file_of(json.dumps({"a": f32(0, 4, [1])}).encode("utf-16-le"), bytes(4)),
        "invalid JSON in header",
    ),
    "a byte order mark": (
        file_of(b"\xef\xbb\xbf" + json.dumps({"a": f32(0, 4, [1])}).encode(), bytes(4)),
        "invalid JSON in header",
    ),
    "metadata that are no strings": (
        file_of({"__metadata__": {"format": 1}, "a": f32(0, 4, [1])}, bytes(4)),
        "integer `1`, expected a string",
    ),
    "metadata that are a list": (
        file_of({"__metadata__": [1], "a": f32(0, 4, [1])}, bytes(4)),
        "sequence, expected a map",
    ),
    "list": (file_of([1, 2]), "invalid type: sequence"),
    "number": (file_of(b"12"), "invalid type: integer `12`"),
    "empty file": (b"", "header too small, in a file of 0 bytes"),
    "seven bytes": (b"\x02\0\0\0\0\0\0", "header too small, in a file of 7 bytes"),
    "header beyond the file": (struct.pack("<Q", 90) + b"{}", "invalid header length, in a file of 10 bytes"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    "a page": (b"<!doctype html>\n<html>", "a text that begins with b'<!doctype html>"),
    "numbers without end": (file_of({"a": f32(0, 8, [2**62] * 16)}, bytes(8)), "overflow computing"),
    "a number above all": (file_of({"a": f32(0, 8, [2**63])}, bytes(8)), "overflow computing"),
    "dimensions without end": (file_of({"a": f32(0, 8, [2] * 50_000)}, bytes(8)), "overflow computing"),
    "huge header": (struct.pack("<Q", 2**63) + b"{}", "header too large"),
    "header of one byte": (struct.pack("<Q", 1) + b"{}", "invalid JSON in header: EOF"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused(tmp_path: Path, refused: Refused, lie: str) -> None:
    content, fragment = LIES[lie]
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with refused(WeightsError, "weights.safetensors is not a valid safetensors file", fragment):
        read_header(path)


OWN = {
    "name twice": (
        file_of(b'{"a":%b,"a":%b}' % ((json.dumps(f32(0, 4, [1])).encode(),) * 2), bytes(4)),
        "the name 'a' twice",
    ),
    "name twice, once escaped": (
        file_of(b'{"a":%b,"\\u0061":%b}' % ((json.dumps(f32(0, 4, [1])).encode(),) * 2), bytes(4)),
        "the name 'a' twice",
    ),
    "a dtype that torch has not": (
        file_of({"a": {"dtype": "F8_E8M0", "shape": [1], "data_offsets": [0, 1]}}, bytes(1)),
        "tensor 'a' of F8_E8M0 [1] | expected at most 16 dimensions, and one of BOOL, U8",
    ),
    "17 dimensions": (file_of({"a": f32(0, 4, [1] * 17)}, bytes(4)), "expected at most 16 dimensions"),
    "an empty tensor that is wider than any": (
        file_of({"a": f32(0, 0, [0, 2**63])}),
        "tensor 'a' of F32 [0, 9223372036854775808]",
    ),
}


@pytest.mark.parametrize("case", OWN)
def test_what_the_reference_library_accepts_and_vconv_cannot_use_is_refused(
    tmp_path: Path, refused: Refused, case: str
) -> None:
    content, fragment = OWN[case]
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with safetensors.safe_open(path, "np") as file:
        assert file.keys() == ["a"]
    with refused(WeightsError, fragment):
        read_header(path)


def test_a_tensor_that_the_library_reads_from_a_list_is_read_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(file_of({"b": ["F32", [1], [4, 8]], "a": f32(0, 4, [1])}, b"aaaabbbb"))
    assert {name: b"".join(entry.chunks()) for name, entry in read_header(path).items()} == {
        "a": b"aaaa",
        "b": b"bbbb",
    }


@pytest.mark.parametrize("lie", LIES)
def test_the_reference_library_refuses_the_same_lies(tmp_path: Path, lie: str) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(LIES[lie][0])
    with pytest.raises(safetensors.SafetensorError):
        safetensors.torch.load_file(path)


def test_a_header_above_the_limit_is_refused_before_the_library_parses_it(
    tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.safetensors"
    header = json.dumps({"a": f32(0, 4, [1])}).encode()
    path.write_bytes(file_of(header.ljust(2**23), b"data"))
    assert read_header(path)["a"].nbytes == 4
    path.write_bytes(file_of(header.ljust(2**23 + 1), b"data"))
    monkeypatch.setattr(safetensors_file, "safe_open", None)
    with refused(
        WeightsError,
        "weights.safetensors is not a valid safetensors file",
        "got a header of 8,388,609 bytes",
        "expected a header of at most 8,388,608 bytes",
    ):
        read_header(path)


def test_a_header_of_as_many_tensors_as_a_ledger_holds_is_within_the_limit(tmp_path: Path) -> None:
    name = "model.layers.{}.mlp.experts.128.gate_up_projection.weight"
    header = {name.format(index): f32(0, 0, [0, 4096]) for index in range(40_000)}
    path = tmp_path / "weights.safetensors"
    path.write_bytes(file_of(header))
    assert len(read_header(path)) == 40_000


def test_a_pipe_is_not_waited_for(tmp_path: Path, refused: Refused) -> None:
    os.mkfifo(tmp_path / "weights.safetensors")
    with refused(WeightsError, "cannot read", "got a named pipe, not a regular file"):
        read_header(tmp_path / "weights.safetensors")


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path, refused: Refused) -> None:
    with refused(WeightsError, "nothing.safetensors", "No such file or directory"):
        read_header(tmp_path / "nothing.safetensors")


def test_a_folder_is_not_a_file(tmp_path: Path, refused: Refused) -> None:
    with refused(WeightsError, "cannot read", "got a folder, not a regular file"):
        read_header(tmp_path)


def test_what_is_written_is_told_by_the_megabyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vconv.progress.EVERY_SECONDS", 0)
    said: list[str] = []
    tensors = {name: torch.zeros(3, 10**6 // 4) for name in "abc"}
    write(tmp_path / "out", [plan(name, "F32", tensor) for name, tensor in tensors.items()], said.append)
    assert [line.split(",")[0] for line in said] == ["MB written: 3 of 9", "MB written: 6 of 9"]
