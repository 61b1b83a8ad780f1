from __future__ import annotations

import re

import numpy as np
import pytest

from vconv.convert.ascend.aipp import configuration
from vconv.convert.libraries.image_processing import ImageProcessing, Start

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
