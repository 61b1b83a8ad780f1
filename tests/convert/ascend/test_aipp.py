from __future__ import annotations

import re

import numpy as np
import pytest

from vconv.convert.ascend.aipp import configuration, require_mode
from vconv.convert.libraries.image_processing import ImageProcessing, Start
from vconv.errors import VconvError

STEPS = ImageProcessing(None, None, Start.DOWN, 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def parsed(text: str) -> dict[str, str]:
    """Read a configuration as protobuf's text format does, where no value is nested."""
    (inside,) = re.findall(r"\Aaipp_op \{\n(.*)\}\n\Z", text, re.DOTALL)
    return dict(re.fullmatch(r"\s*(\w+):\s*(\S+)", line).groups() for line in inside.splitlines())  # type: ignore[union-attr, misc]


def test_the_formula_of_aipp_gives_the_pixel_values() -> None:
    found = parsed(configuration(STEPS, (224, 448)))
    assert (found["src_image_size_h"], found["src_image_size_w"]) == ("224", "448")
    assert (found["aipp_mode"], found["input_format"]) == ("static", "RGB888_U8")
    levels = np.arange(256)
    for channel, (mean, std) in enumerate(zip(STEPS.mean, STEPS.std, strict=True)):
        whole = int(found[f"mean_chn_{channel}"])
        rest, reciprocal = (np.float16(found[f"{name}_{channel}"]) for name in ("min_chn", "var_reci_chn"))
        actual = (levels - whole - float(rest)) * float(reciprocal)
        expected = (levels / 255 - mean) / std
        assert actual == pytest.approx(expected, abs=2e-3)


def test_the_rest_of_the_mean_is_below_one_level() -> None:
    found = parsed(configuration(STEPS, (224, 224)))
    assert all(0 <= float(found[f"min_chn_{channel}"]) < 1 for channel in range(3))


def test_with_gears_by_size_the_size_of_the_images_is_left_open() -> None:
    found = parsed(configuration(STEPS, (224, 448), by_size=True))
    assert (found["src_image_size_h"], found["src_image_size_w"], found["crop"]) == ("0", "0", "false")
    assert found["mean_chn_0"] == "123"


def test_dynamic_aipp_has_the_greatest_batch_in_bytes_and_the_numbers_as_comments() -> None:
    lines = configuration(STEPS, (224, 224), "dynamic", batch=4).splitlines()
    said = [line.strip() for line in lines if not line.strip().startswith("#")]
    assert said == [
        "aipp_op {",
        "aipp_mode: dynamic",
        "related_input_rank: 0",
        "max_src_image_size: 602112",
        "}",
    ]
    static = configuration(STEPS, (224, 224)).splitlines()
    numbers = [line.strip() for line in static if "_chn_" in line]
    assert [line.strip().removeprefix("# ") for line in lines if "_chn_" in line] == numbers


@pytest.mark.parametrize(
    ("mode", "with_preprocessing", "by_size", "said"),
    [
        ("fast", True, False, "unknown --aipp .*static"),
        ("static", False, False, "--aipp is only for .*add --with-preprocessing"),
        ("dynamic", True, True, "--aipp dynamic and --gears-size exclude each other .*greatest gear"),
    ],
)
def test_a_mode_that_cannot_be_used_is_refused(
    mode: str, with_preprocessing: bool, by_size: bool, said: str
) -> None:
    with pytest.raises(VconvError, match=said):
        require_mode(mode, with_preprocessing, by_size)


@pytest.mark.parametrize(
    "given", [(None, False, True), ("static", True, True), ("dynamic", True, False), ("static", True, False)]
)
def test_every_other_mode_is_allowed(given: tuple[str | None, bool, bool]) -> None:
    require_mode(*given)
