"""The page in a real browser: `make test-browser`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_reports import upgraded

from vconv.validators.report.page import page
from vconv.validators.report.page.gallery import Gallery
from vconv.validators.report.saving import ReportFile

SCRIPT = Path(__file__).parents[4] / "docs" / "screenshots.py"
_found = importlib.util.spec_from_file_location("screenshots", SCRIPT)
assert _found and _found.loader
screenshots = importlib.util.module_from_spec(_found)
sys.modules[_found.name] = screenshots
_found.loader.exec_module(screenshots)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(screenshots.program() is None, reason="Chromium is not installed"),
]
SAVED = ReportFile("20261121T224100-validate.json", "0123456789abcdef" * 4)
PHONE = 360
CONTRAST = """
(() => {
  const channel = c => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4 };
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parsed = text => text.match(/[\\d.]+/g).map(Number);
  const behind = node => {
    for (let at = node; at; at = at.parentElement) {
      const found = parsed(getComputedStyle(at).backgroundColor);
      if (found.length < 4 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some(part => part.nodeType === 3 && part.data.trim());
    if (!own || !node.getClientRects().length || node.closest('title, desc')) continue;
    const style = getComputedStyle(node);
    const [a, b] = [parsed(node.closest('svg') ? style.fill : style.color), behind(node)].map(luminance);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${node.tagName}: ${node.textContent.trim().slice(0, 30)}: ${ratio}`);
  }
  return poor;
})()
"""
"""Every text whose contrast is under 4.5, which WCAG 2.2 asks for (success criterion 1.4.3)."""
OVERFLOWING = """
[...document.querySelectorAll('body *')]
  .filter(node => !node.closest('.scroll, svg, .skip'))
  .filter(node => node.getBoundingClientRect().right > innerWidth + 0.5)
  .map(node => node.tagName + '.' + node.className)
"""


def change(report: dict[str, Any]) -> None:
    """Let a report have everything that a page can show, failures and long names too."""
    report["status"] = "failed"
    long = "a-very-long-name-of-a-variant-that-nobody-would-choose-but-somebody-will-" * 2
    failed = report["variants"][1]
    failed |= {
        "status": "failed",
        "variant": long,
        "reason": "the engine refuses it: " + "0123456789abcdef" * 8,
    }
    output = failed["outputs"]["cls"]
    output |= {
        "status": "failed",
        "vector_relative_error": 0.5,
        "reasons": ["vector_relative_error is 5.0e-01"],
    }
    report["checks"][0] |= {"status": "failed", "detail": "model.onnx was changed"}
    report["checks"][1] |= {"status": "skipped", "detail": "nothing was recorded"}
    report["diagnosis"] = [
        {
            "class": "activation",
            "meaning": "GELU is not exact",
            "where": "onnx-fp32",
            "because": "Erf is gone",
        }
    ]
    report["published"] = [
        {
            **{"source": "a model card", "kind": "npu", "device": "Another NPU", "variant": "om-fp16"},
            **{"figures": {"mean_ms": 7.89}, "batch": 4, "output": ""},
        }
    ]


@pytest.fixture(params=["measured", "simulated"])
def path(request: pytest.FixtureRequest, hang: Callable[[dict[str, Any]], Gallery], tmp_path: Path) -> Path:
    report: dict[str, Any] = request.getfixturevalue(request.param)
    change(report)
    gallery = hang(report)
    (tmp_path / "page.html").write_bytes(page.render(upgraded(report), SAVED, gallery))
    return tmp_path / "page.html"


def open_details(browser: Any) -> None:
    browser.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")


@pytest.mark.parametrize("width", [PHONE, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_page_asks_nothing_of_a_network_and_complains_of_nothing(
    path: Path, width: int, dark: bool
) -> None:
    with screenshots.Browser() as browser:
        browser.open(path, width, 800, dark)
        open_details(browser)
        browser.picture()
        happened = browser.events
    asked = [
        event["params"]["request"]["url"]
        for event in happened
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert any(url.startswith("data:image/") for url in asked)
    complaints = (
        "Log.entryAdded",
        "Runtime.consoleAPICalled",
        "Runtime.exceptionThrown",
        "Network.loadingFailed",
    )
    assert [event for event in happened if event["method"] in complaints] == []


def test_the_browser_that_watches_would_see_a_request_and_a_complaint(tmp_path: Path) -> None:
    loud = tmp_path / "loud.html"
    loud.write_text(
        "<!doctype html><img src='http://example.org/x.png' alt=''><script>console.error('no')</script>"
    )
    with screenshots.Browser() as browser:
        browser.open(loud, 800, 600)
        seen = {event["method"] for event in browser.events}
        asked = [e["params"]["request"]["url"] for e in browser.events if "request" in e.get("params", {})]
    assert {"Runtime.consoleAPICalled", "Network.loadingFailed"} <= seen
    assert "http://example.org/x.png" in asked


@pytest.mark.parametrize("opened", [False, True], ids=["closed", "open"])
@pytest.mark.parametrize("width", [PHONE, 390, 719, 720, 1280])
def test_a_page_is_no_wider_than_its_window(path: Path, width: int, opened: bool) -> None:
    with screenshots.Browser() as browser:
        browser.open(path, width, 800)
        if opened:
            open_details(browser)
        assert browser.evaluate(OVERFLOWING) == []
        assert browser.evaluate("document.scrollingElement.scrollWidth") <= width
        # Charts are drawn for the width that there is.
        shown = browser.evaluate(
            "[...document.querySelectorAll('.chart svg')].filter(one => one.getClientRects().length)"
            ".map(one => [one.getAttribute('width'), one.getBoundingClientRect().width])"
        )
    assert len(shown) > 0 and {drawn for drawn, _ in shown} == {"960" if width >= 720 else "328"}
    assert all(0.7 <= wide / float(drawn) <= 1.3 for drawn, wide in shown)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(path: Path, dark: bool) -> None:
    with screenshots.Browser() as browser:
        browser.open(path, 1280, 800, dark)
        open_details(browser)
        assert browser.evaluate(CONTRAST) == []
        paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(18, 21, 25)" if dark else "rgb(255, 255, 255)")


def test_paper_is_white_whatever_the_screen_is(path: Path) -> None:
    with screenshots.Browser() as browser:
        browser.open(path, 1280, 800, dark=True, medium="print")
        assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert browser.evaluate(CONTRAST) == []
        assert browser.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"


@pytest.mark.parametrize("opened", [False, True], ids=["closed", "open"])
def test_no_table_is_cut_on_paper(path: Path, opened: bool) -> None:
    with screenshots.Browser() as browser:
        # The width of what A4 has between the margins, in CSS pixels.
        browser.open(path, 688, 1000, medium="print")
        if opened:
            open_details(browser)
        cut = browser.evaluate(
            "[...document.querySelectorAll('table:not(.broad)')].filter(one => one.getClientRects().length"
            " && one.getBoundingClientRect().right > innerWidth + 0.5).map(one => one.textContent)"
        )
    assert cut == []
