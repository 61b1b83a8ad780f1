"""Arguments of another type than the functions of `vconv` take: refused, or taken as a list of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vconv
from vconv.arguments import checked_arguments
from vconv.errors import InputError
from vconv.types import Say, silent

Refused = Callable[..., AbstractContextManager[None]]
WRONG: dict[str, tuple[Callable[[], Any], str, str]] = {
    "a number as a text": (
        lambda: vconv.export("dinov3-vits16", batch="2"),
        "the argument batch is of another type | got '2', of the type str",
        "expected a whole number",
    ),
    "True as a number": (
        lambda: vconv.export("dinov3-vits16", batch=True),
        "the argument batch is of another type | got True, of the type bool",
        "expected a whole number",
    ),
    "a list as a text": (
        lambda: vconv.export("dinov3-vits16", format="om", soc="Ascend910B4", gears="1,2"),
        "the argument gears is of another type | got '1,2', of the type str",
        "expected a list, each item a whole number",
    ),
    "no name": (
        lambda: vconv.export(None),
        "the argument name is of another type | got None, of the type NoneType",
        "expected a text or a System",
    ),
    "no artifact": (
        lambda: vconv.load(None),
        "the argument path is of another type | got None",
        "expected a text or a path",
    ),
    "a list of another type": (
        lambda: vconv.validate("artifact", images=[b"cat.jpg"]),
        "the argument images is of another type | got [b'cat.jpg'], of the type list",
        "expected a list, each item a text or a path",
    ),
    "a text as yes": (
        lambda: vconv.validate("artifact", quick="yes"),
        "the argument quick is of another type | got 'yes', of the type str",
        "expected True or False",
    ),
    "a text as a function": (
        lambda: vconv.fill("artifact", say="print"),
        "the argument say is of another type | got 'print', of the type str",
        "expected a function",
    ),
    **{
        f"{name} of nothing": (
            lambda name=name: getattr(vconv, name)(None),
            "is of another type | got None, of the type NoneType",
            "expected a ",
        )
        for name in ("bisect", "card", "compare", "fill", "info", "validate")
    },
}


@pytest.mark.parametrize("case", WRONG)
def test_an_argument_of_another_type_is_refused_by_name(case: str, refused: Refused) -> None:
    call, told, expected = WRONG[case]
    with refused(InputError, told, expected):
        call()


@checked_arguments
def given(
    images: Sequence[str | Path] = (),
    engines: Sequence[str] | None = None,
    batch: int = 1,
    budget: float | None = None,
    say: Say = silent,
) -> tuple[Any, ...]:
    return images, engines, batch, budget, say


@pytest.mark.parametrize(
    ("arguments", "passed_on"),
    [
        ({"images": "cat.jpg"}, (("cat.jpg",), None, 1, None, silent)),
        ({"images": Path("cat.jpg")}, ((Path("cat.jpg"),), None, 1, None, silent)),
        ({"images": ["a", Path("b")]}, (["a", Path("b")], None, 1, None, silent)),
        ({"engines": "onnxruntime"}, ((), ("onnxruntime",), 1, None, silent)),
        ({"batch": np.int64(2), "budget": 3}, ((), None, 2, 3, silent)),
        ({"budget": np.float32(0.5), "say": print}, ((), None, 1, 0.5, print)),
    ],
)
def test_one_text_or_path_is_a_list_of_one(arguments: dict[str, Any], passed_on: tuple[Any, ...]) -> None:
    assert given(**arguments) == passed_on


def test_an_argument_that_does_not_exist_is_a_fault_of_the_program() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        given(image="cat.jpg")  # type: ignore[call-arg]


def test_a_plain_text_is_one_image_one_engine_and_one_artifact(refused: Refused, tmp_path: Path) -> None:
    with refused(InputError, "cannot use --images cat.jpg", "got no such file or folder"):
        vconv.validate("artifact", images="cat.jpg")
    with refused(vconv.VconvError, "unknown engine", "got 'onnx'"):
        vconv.validate("artifact", engines="onnx")
    with refused(vconv.VconvError, f"no artifact at {tmp_path}"):
        vconv.compare(str(tmp_path), "weights")
