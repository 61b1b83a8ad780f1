"""A stand-in for the readers of Huawei's msprobe 26.2.0, for tests without it.

It reads the layout that the comment and the tables of fields in ``msaccucmp/dump_parse/nano_dump_data.py`` of
PyPI's mindstudio-probe describe, and finds files by the patterns of ``msaccucmp/cmp_utils/reg_manager.py``.
benchmarks/msprobe_agreement.py runs the package itself.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

NUMBERS = {0: "<f4", 1: "<f2", 2: "<i1", 3: "<i4", 4: "<u1", 6: "<i2", 9: "<i8", 11: "<f8", 12: "?"}
GOLDEN = re.compile(r"^([.A-Za-z0-9_-]+\.[0-9]+)\.[0-9]{1,255}\.npy$")
TARGET = re.compile(r"^[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)\.[0-9]+\.[0-9]+\.[0-9]{1,255}$")


@dataclass
class Reader:
    """Takes numbers from the start of some bytes."""

    data: bytes
    place: int = 0

    def take(self, form: str) -> Any:
        found = struct.unpack_from("<" + form, self.data, self.place)
        self.place += struct.calcsize("<" + form)
        return found if len(found) > 1 else found[0]

    def tagged(self, wanted: int) -> bytes:
        tag, length = self.take("II")
        assert tag == wanted
        self.place += length
        return self.data[self.place - length : self.place]


def read_nano(path: Path) -> list[Any]:
    """Return the outputs in a dump; the inputs must be none."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    head = Reader(data[8 : 8 + length])
    assert head.take("II") == (0x5A5A5A5A, 0)
    assert head.tagged(4) == struct.pack("<I", 0)
    outputs = Reader(head.tagged(5))
    assert head.place == length
    place, found = 8 + length, []
    for _ in range(outputs.take("I")):
        kind, form, _, _, original, original_form = outputs.take("6i")
        _, _, nbytes = outputs.take("3Q")
        details = Reader(outputs.data[outputs.place + 4 : outputs.place + 4 + outputs.take("I")])
        outputs.place += len(details.data)
        sides = details.tagged(0)
        assert (kind, form) == (original, original_form)
        assert form == 2
        assert details.tagged(1) == sides
        details.tagged(2)
        shape = struct.unpack(f"<{len(sides) // 8}Q", sides)
        found.append(np.frombuffer(data[place : place + nbytes], NUMBERS[kind]).reshape(shape))
        place += nbytes
    assert place == len(data)
    return found


def pairs(folder: Path) -> dict[str, tuple[Any, Any]]:
    """Return the target and golden tensor of every operator's first output, found as msprobe finds them."""
    golden = {}
    table = folder / "golden" / "mapping.csv"
    names = dict(line.split(",") for line in table.read_text().splitlines()) if table.exists() else {}
    for path in (folder / "golden").glob("*.npy"):
        match = GOLDEN.match(names.get(path.name, path.name))
        assert match, path.name
        assert match[1] not in golden
        golden[match[1]] = path
    target = {}
    for path in (folder / "target").iterdir():
        match = TARGET.match(path.name)
        assert match, path.name
        assert match[1] not in target
        target[match[1]] = path
    found = {}
    for operator in json.loads((folder / "operators.json").read_text())["graph"][0]["op"]:
        if operator["type"] == "Data":
            continue
        origin = {one["key"]: one["value"] for one in operator["output_desc"][0]["attr"]}
        name = origin["_datadump_origin_name"]["s"].replace(".", "_").replace("/", "_")
        key = f"{name}.{origin['_datadump_origin_output_index']['i']}"
        dumped = target.pop(operator["name"].replace(".", "_").replace("/", "_"))
        found[operator["name"]] = (read_nano(dumped)[0], np.load(golden[key]))
    assert not target
    return found
