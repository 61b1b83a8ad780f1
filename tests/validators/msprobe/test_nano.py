from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from msprobe_reader import read_nano

from vconv.validators.msprobe import nano

EXPECTED = bytes.fromhex(
    # length of the head: 142
    "8e 00 00 00 00 00 00 00"
    # magic number, version; no inputs; a list of outputs in 114 bytes
    "5a 5a 5a 5a 00 00 00 00   04 00 00 00 04 00 00 00 00 00 00 00   05 00 00 00 72 00 00 00"
    # one output: int64, ND, address type 0; before fusion: index 0, int64, ND
    "01 00 00 00   09 00 00 00 02 00 00 00 00 00 00 00   00 00 00 00 09 00 00 00 02 00 00 00"
    # address, offset, 16 bytes; details in 58 bytes
    "00 00 00 00 00 00 00 00   00 00 00 00 00 00 00 00   10 00 00 00 00 00 00 00   3a 00 00 00"
    # shape [1, 2]; the same before fusion; the name of the node: fc
    "00 00 00 00 10 00 00 00 01 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00"
    "01 00 00 00 10 00 00 00 01 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00"
    "02 00 00 00 02 00 00 00 66 63"
    # the data: 3 and -1
    "03 00 00 00 00 00 00 00 ff ff ff ff ff ff ff ff"
)


def test_a_dump_is_written_byte_by_byte_as_msprobe_describes_it() -> None:
    file = io.BytesIO()
    nano.write(file, [np.array([[3, -1]])], "fc")
    assert file.getvalue() == EXPECTED


@pytest.mark.parametrize(
    "dtype", ["float32", "float16", "int8", "int32", "uint8", "int64", "float64", "bool"]
)
def test_what_is_written_is_read_again(dtype: str, tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    tensors = [chance.integers(0, 2, shape).astype(dtype) for shape in ((), (3,), (2, 3, 4))]
    tensors.append(tensors[-1].transpose(2, 0, 1))
    with (tmp_path / "dump").open("wb") as file:
        nano.write(file, tensors)
    found = read_nano(tmp_path / "dump")
    assert [one.dtype for one in found] == [one.dtype for one in tensors]
    for value, expected in zip(found, tensors, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_a_type_that_the_layout_does_not_have_is_an_error() -> None:
    with pytest.raises(KeyError, match="complex64"):
        nano.write(io.BytesIO(), [np.zeros(2, np.complex64)])
