"""The table of processors. Expected values are written by hand from the documents that its module names."""

from __future__ import annotations

import re

import pytest

from vconv.convert.ascend.atc import OFFLINE_PRECISIONS
from vconv.convert.ascend.chips import CHIPS, PRECISIONS, chip_of, chosen_precision, remarks
from vconv.errors import InputError

FAMILIES = {
    "Ascend910A": "910",
    "Ascend910B": "910",
    "Ascend910ProA": "910",
    "Ascend910ProB": "910",
    "Ascend910PremiumA": "910",
    "Ascend910B1": "910B",
    "Ascend910B2C": "910B",
    "Ascend910B4": "910B",
    "Ascend910B4-1": "910B",
    "Ascend910_9362": "910_93",
    "Ascend910_9391": "910_93",
    "Ascend910_9589": "950",
    "Ascend950PR_957bx": "950",
    "Ascend950PR_950z": "950",
    "Ascend950DT_95A1": "950",
    "Ascend310P1": "310P",
    "Ascend310P7": "310P",
    "Ascend310B4": "310B",
    "Ascend310": "310",
}


@pytest.mark.parametrize(("soc", "family"), FAMILIES.items())
def test_a_name_belongs_to_one_family(soc: str, family: str) -> None:
    matching = [chip.family for chip in CHIPS.values() if re.fullmatch(chip.pattern, soc)]
    assert matching == [family]
    assert chip_of(soc) is CHIPS[family]


def test_every_listed_name_is_of_its_own_family() -> None:
    assert all(chip_of(name) is chip for chip in CHIPS.values() for name in chip.names)


@pytest.mark.parametrize(
    ("soc", "nearest"),
    [
        ("910B4", "Atlas A2"),
        ("Ascend910C", "Atlas training series, the first generation"),
        ("Ascend910_9", "Atlas A3"),
        ("Ascend950", "Ascend 950PR"),
        ("Ascend310P", "Atlas inference series"),
        ("Ascend310X1", "Atlas 200"),
        ("", "Ascend910A"),
        ("Ascend 910B4", "Ascend910B"),
        ("Ascend910B4 --mode=1", "Ascend910B"),
        ("ascend910b4", "Ascend910"),
        ("Ascend910B4-", "Ascend910B"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_families_and_how_names_are_formed(
    soc: str, nearest: str
) -> None:
    with pytest.raises(InputError) as caught:
        chip_of(soc)
    assert caught.value.what == "--soc is not the name of a processor"
    assert nearest in caught.value.expected
    assert caught.value.expected.count(";") == 2
    assert "npu-smi info -t board" in caught.value.fix and "Chip Name, _ and NPU Name" in caught.value.fix
    assert "\n" not in str(caught.value)


HF32 = {"910": False, "910B": True, "910_93": True, "950": True, "310P": False, "310B": False, "310": None}
OVERFLOW = {
    "910": ("saturates", False),
    "910B": ("inf", True),
    "910_93": ("inf", True),
    "950": ("inf", False),
    "310P": ("saturates", False),
    "310B": ("saturates", False),
    "310": (None, None),
}
FP32 = {
    "910": (False, False),
    "910B": (True, True),
    "910_93": (True, True),
    "950": (True, True),
    "310P": (False, False),
    "310B": (True, False),
    "310": (None, None),
}
"""Whether Conv2D, and whether matrix products, have a float32 form on the AI core."""


@pytest.mark.parametrize("family", CHIPS)
def test_the_rows_are_what_the_documents_say(family: str) -> None:
    chip = CHIPS[family]
    assert chip.hf32 is HF32[family]
    assert (chip.overflow, chip.overflow_is_set) == OVERFLOW[family]
    assert (chip.fp32_convolutions, chip.fp32_products) == FP32[family]
    assert chip.greatest_gears == (256 if family == "950" else 100)
    assert {*chip.refused, *chip.doubtful} <= {*OFFLINE_PRECISIONS}


def test_the_chips_that_saturate_and_those_whose_cube_takes_no_float32() -> None:
    assert [chip.family for chip in CHIPS.values() if chip.overflow == "saturates"] == ["910", "310P", "310B"]
    narrow = [family for family, chip in CHIPS.items() if chip.cube and "fp32" not in chip.cube]
    assert narrow == ["910", "310P"]


DEFAULTS = {
    **dict.fromkeys(("Ascend910B4", "Ascend910_9391", "Ascend950PR_9599"), "origin"),
    **dict.fromkeys(("Ascend910B", "Ascend310P3", "Ascend310B4", "Ascend310"), "cube_fp16in_fp32out"),
}


@pytest.mark.parametrize(("soc", "precision"), DEFAULTS.items())
def test_the_default_is_origin_where_float32_exists(soc: str, precision: str) -> None:
    assert chosen_precision(soc, None) == precision


@pytest.mark.parametrize("soc", ["Ascend910A", "Ascend910B", "Ascend910ProA", "Ascend310P3"])
def test_origin_is_refused_where_conv2d_has_no_float32_form(soc: str) -> None:
    with pytest.raises(InputError, match=f"origin is not for {soc} .*Conv2D") as caught:
        chosen_precision(soc, "origin")
    assert "--om-precision cube_fp16in_fp32out" in caught.value.fix and "or fp16" in caught.value.expected
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("soc", "precision", "doubted"),
    [
        ("Ascend310B4", "origin", True),
        ("Ascend310B4", "cube_fp16in_fp32out", True),
        ("Ascend310B4", "fp16", False),
        ("Ascend310P3", "cube_fp16in_fp32out", False),
        ("Ascend310", "fp16", True),
        ("Ascend910B4", "origin", False),
    ],
)
def test_a_doubt_is_said_and_nothing_is_refused(soc: str, precision: str, doubted: bool) -> None:
    said = remarks(soc, precision)
    assert chosen_precision(soc, precision) == precision
    assert [line.startswith(f"warning: {soc} may not compute") for line in said] == [True] * doubted


@pytest.mark.parametrize(
    ("soc", "meant"),
    [
        ("Ascend910B9", "Ascend910B"),
        ("Ascend910B44", "Ascend910B4"),
        ("Ascend910B0", "Ascend910B"),
        ("Ascend910B4-7", "Ascend910B4-1"),
        ("Ascend310P99", "Ascend310P"),
        ("Ascend310B9", "Ascend310B"),
        ("Ascend910_9500", "Ascend950"),
        ("Ascend950PR_1", "Ascend950PR_"),
    ],
)
def test_a_name_that_no_document_has_is_accepted_with_a_warning(soc: str, meant: str) -> None:
    first, *others = remarks(soc, "fp16")
    assert first.startswith(f"warning: no document that vconv knows names {soc}; did you mean {meant}")
    assert others == []


@pytest.mark.parametrize("soc", [name for chip in CHIPS.values() for name in chip.names])
def test_a_name_of_the_documents_is_accepted_without_that_warning(soc: str) -> None:
    assert not any("no document" in line for line in remarks(soc, "fp16"))


def test_letters_and_digits_of_other_scripts_are_in_no_name() -> None:
    with pytest.raises(InputError, match="--soc is not the name of a processor"):
        chip_of("Ascend910B\u0664")


@pytest.mark.parametrize("soc", ["Ascend310P3", "Ascend910A"])
def test_a_refused_precision_names_every_other(soc: str) -> None:
    with pytest.raises(InputError) as caught:
        chosen_precision(soc, "origin")
    assert caught.value.expected == "cube_fp16in_fp32out, the default there, or fp16 or mixed_float16"


def test_the_two_tables_of_precisions_agree() -> None:
    assert tuple(OFFLINE_PRECISIONS) == PRECISIONS
