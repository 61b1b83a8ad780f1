"""The page's style: a colour means one thing, lines are told apart without it, and tables fit a phone."""

from __future__ import annotations

import colorsys
import re
from pathlib import Path

import pytest

from vconv.validators.report.page import page, svg

STYLE = (Path(page.__file__).parents[1] / "templates" / "page.css").read_text("utf-8")
SCHEMES = re.findall(r"\{([^{}]*--s0:[^{}]*)\}", STYLE)
PHONE = STYLE.partition("@media (max-width: 719px) {")[2].partition("@media")[0]


def hue(colour: str) -> float:
    """Return the hue of a colour such as #00654f, in degrees."""
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return 360 * colorsys.rgb_to_hls(red, green, blue)[0]


@pytest.mark.parametrize("scheme", SCHEMES, ids=["light", "dark", "paper"])
def test_no_variant_but_the_eighth_has_the_green_of_what_passed(scheme: str) -> None:
    colours = dict(re.findall(r"--([\w-]+): (#\w{6});", scheme))
    series = [hue(colours[f"s{place}"]) for place in range(svg.STYLES)]
    apart = [abs((one - hue(colours["pass"]) + 180) % 360 - 180) for one in series]
    assert [place for place, degrees in enumerate(apart) if degrees < 15] == [7]


def test_every_second_line_of_a_chart_is_in_dashes() -> None:
    (dashed,) = re.findall(r"^(\.series\.s\d[^{]*)\{ stroke-dasharray:", STYLE, re.MULTILINE)
    assert re.findall(r"\.series\.s(\d)", dashed) == ["1", "3", "5", "7"]


def test_on_a_phone_each_cell_says_which_output_it_is_of() -> None:
    assert ".matrix tr { display: grid;" in PHONE
    assert ".matrix .cell::before { content: attr(data-output);" in PHONE


def test_text_is_as_wide_as_it_can_be_read() -> None:
    (width,) = re.findall(r"^p \{[^}]*max-width: (\d+)ch", STYLE, re.MULTILINE)
    assert int(width) == 100
