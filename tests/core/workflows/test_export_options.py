"""The options of an export: each combination that cannot be met is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import vconv
from vconv.convert.sources.sizes import SizeRequest
from vconv.errors import InputError, UnknownNameError, VconvError
from vconv.workflows.export_options import asked_outputs, check_options, reduced_precisions, size_request

Refused = Callable[..., AbstractContextManager[None]]
USUAL: dict[str, Any] = {
    "batch": 1,
    "opset": 18,
    "npu_opset": None,
    "seed": 0,
    "photographs": False,
    "golden": True,
    "out": "out",
}
WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no image at once": ({"batch": 0}, ("--batch is out of range", "got 0")),
    "a negative seed": ({"seed": -1}, ("the seed is out of range", "got -1")),
    "photographs that nothing runs": (
        {"photographs": True, "golden": False},
        ("--images is not used with --golden none", "got both"),
    ),
    "no folder": ({"out": ""}, ("--out is empty", "leave --out out")),
    "an opset too old": ({"opset": 17}, ("the opset is not supported", "got 17", "18 to 22")),
    "an opset too new": ({"opset": 23}, ("the opset is not supported", "got 23", "18 to 22")),
    "another opset for an NPU": (
        {"npu_opset": 12},
        ("the opset for the NPU is not supported", "got 12", "give --npu-opset 13"),
    ),
    "an opset for an NPU between two": ({"npu_opset": 10**6}, ("the opset for the NPU", "give --npu-opset")),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_option_that_cannot_be_met_is_refused(name: str, refused: Refused) -> None:
    given, told = WRONG[name]
    with refused(InputError, *told):
        check_options(**{**USUAL, **given})


def test_usual_options_are_accepted() -> None:
    check_options(**USUAL)
    check_options(**{**USUAL, "npu_opset": 13, "photographs": True, "out": Path("a"), "opset": 22})


REDUCED: dict[str, Any] = {
    "names": (),
    "max_drop": None,
    "calibrated": False,
    "kept_dtype": False,
    "without_weights": False,
}
EVERY = ["fp16", "bf16", "auto", "int8", "int8-dynamic"]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ((), ()),
        (("fp16",), ("fp16",)),
        (("auto",), ("mixed",)),
        (("int8", "fp16", "int8"), ("fp16", "int8")),
        (EVERY[::-1], ("fp16", "bf16", "mixed", "int8", "int8-dynamic")),
    ],
    ids=lambda value: ",".join(value) or "none",
)
def test_precisions_are_put_in_the_order_of_their_table(
    names: tuple[str, ...], found: tuple[str, ...]
) -> None:
    assert reduced_precisions(**{**REDUCED, "names": names}) == found


BAD: dict[str, tuple[type[VconvError], dict[str, Any], tuple[str, ...]]] = {
    "another precision": (UnknownNameError, {"names": ["fp8"]}, ("fp8", "fp16, bf16, auto, int8")),
    "float32": (UnknownNameError, {"names": ["fp16", "fp32"]}, ("fp32",)),
    "the folder's name of auto": (UnknownNameError, {"names": ["mixed"]}, ("mixed", "auto")),
    "a precision of torch alone": (UnknownNameError, {"names": ["autocast-fp16"]}, ("autocast-fp16",)),
    "a greatest loss without a precision": (
        InputError,
        {"max_drop": 0.1},
        ("--max-drop is used with --precision auto, int8 or int8-dynamic", "got no --precision"),
    ),
    "a greatest loss without a plan": (
        InputError,
        {"max_drop": 0.1, "names": ["fp16", "bf16"]},
        ("--max-drop is used with", "got --precision fp16,bf16", "leave --max-drop out"),
    ),
    "calibration without a plan": (
        InputError,
        {"calibrated": True, "names": ["bf16"]},
        ("--calibration is used with", "got --precision bf16", "leave --calibration out"),
    ),
    "calibration without a precision": (InputError, {"calibrated": True}, ("got no --precision",)),
    "weights in their own type": (
        InputError,
        {"kept_dtype": True, "names": ["fp16"]},
        ("--precision is not used with --keep-dtype", "got both"),
    ),
    "no weights": (
        InputError,
        {"without_weights": True, "names": ["int8"]},
        ("--precision is not used with --without-weights", "got both"),
    ),
    **{
        f"a loss of {value}": (
            InputError,
            {"max_drop": value, "names": ["auto"]},
            ("--max-drop is out of range", f"got {value}", "more than 0 and less than 1"),
        )
        for value in (0.0, 1.0, -0.1, 5.0, float("nan"), float("inf"))
    },
}


@pytest.mark.parametrize("name", BAD)
def test_options_about_reduced_precision_that_exclude_each_other_are_refused(
    name: str, refused: Refused
) -> None:
    kind, given, told = BAD[name]
    with refused(kind, *told):
        reduced_precisions(**{**REDUCED, **given})


@pytest.mark.parametrize("name", BAD)
def test_an_export_refuses_them_before_it_reads_or_makes_a_file(
    name: str, tmp_path: Path, refused: Refused
) -> None:
    kind, given, told = BAD[name]
    options = {
        "precision": given.get("names", ()),
        "max_drop": given.get("max_drop"),
        "calibration": ["nowhere.jpg"] if given.get("calibrated") else (),
        "keep_dtype": given.get("kept_dtype", False),
        "without_weights": given.get("without_weights", False),
    }
    with refused(kind, *told):
        vconv.export("dinov3-vits16", "synthetic", tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_calibration_images_that_are_not_there_are_an_error(tmp_path: Path, refused: Refused) -> None:
    with refused(InputError, "cannot use --calibration", "nowhere.jpg | got no such file or folder"):
        vconv.export(
            "dinov3-vits16",
            "synthetic",
            tmp_path / "out",
            precision=["int8"],
            calibration=[tmp_path / "nowhere.jpg"],
        )


def test_a_size_and_outputs_are_read_from_a_text_or_a_list() -> None:
    assert size_request(None) is None
    assert size_request("32,64") == size_request([32, 64]) == SizeRequest.read("32,64")
    assert asked_outputs(None) == ()
    assert asked_outputs("cls,pooled") == asked_outputs(["cls", "pooled"])
