"""Take the screenshots of a report's page: ``python docs/screenshots.py PAGE``, with Chromium installed.

Chromium is spoken to over two pipes, in the DevTools protocol
(https://chromedevtools.github.io/devtools-protocol/), so that nothing else is needed.
"""

from __future__ import annotations

import argparse
import base64
import io
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from PIL import Image

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FOLDER = Path(__file__).parent
LARGE = 400_000
"""Bytes of a picture that is better kept with a palette."""


@dataclass(frozen=True)
class View:
    """One screenshot.

    Args:
        name: of it.
        width: of the window, in CSS pixels.
        until: what is not shown any more.
        dark: whether the screen is dark.
        scale: pixels of the picture a CSS pixel.
    """

    name: str
    width: int
    until: str
    dark: bool = False
    scale: float = 1.0


VIEWS = (
    View("wide", 1280, "#speed"),
    View("phone", 390, "#maps h3 ~ h3", scale=1.5),
    View("dark", 1280, "#speed", dark=True),
)
_SETTLED = (
    "(async () => { await document.fonts.ready; await new Promise(requestAnimationFrame); return 1 })()"
)


def program() -> str | None:
    """Return the path of Chromium; None where it is not installed."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class Browser:
    """Chromium without a window. It keeps what happened: ``events``, by DevTools' names."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
        options = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"),
            *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
            # Nothing answers there: what the page asks of a network fails, and is noted.
            *("--proxy-server=127.0.0.1:9", f"--user-data-dir={self._profile.name}", "about:blank"),
        ]
        # Chromium reads commands from descriptor 3 and writes to 4.
        command = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", command, str(program()), *options],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._out, self._in = os.fdopen(ours_out, "wb", 0), os.fdopen(ours_in, "rb")
        self._session = ""
        (page, *_) = (one for one in self("Target.getTargets")["targetInfos"] if one["type"] == "page")
        attached = self("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give a command and wait for its result."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == number:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']['message']}")
                return dict(found["result"])
            self.events.append(found)

    def _next(self) -> dict[str, Any]:
        taken = bytearray()
        while (byte := self._in.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("Chromium has ended")
            taken += byte
        return dict(json.loads(taken))

    def open(self, page: Path, width: int, height: int, dark: bool = False, medium: str = "screen") -> None:
        """Show a page in a window of that many pixels, and wait until it is drawn."""
        phone = width < 720
        self(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", media=medium, features=[scheme])
        found = self("Page.navigate", url=page.resolve().as_uri())
        if found.get("errorText"):
            raise RuntimeError(f"{page}: {found['errorText']}")
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        self.evaluate(_SETTLED)

    def evaluate(self, expression: str) -> Any:
        """Return what an expression of JavaScript is worth in the page."""
        found = self("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["text"])
        return found["result"].get("value")

    def picture(self, top: int = 0, height: int | None = None, scale: float = 1.0) -> Image.Image:
        """Return what is shown; from ``top`` on, ``height`` pixels, or the whole page."""
        size = self("Page.getLayoutMetrics")["cssContentSize"]
        clip = {
            "x": 0,
            "y": top,
            "width": size["width"],
            "height": height or size["height"] - top,
            "scale": scale,
        }
        found = self("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return Image.open(io.BytesIO(base64.b64decode(found["data"]))).convert("RGB")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = ""
        self("Browser.close")
        self._process.wait()
        self._out.close()
        self._in.close()
        self._profile.cleanup()


def keep(picture: Image.Image, path: Path) -> None:
    """Save a picture, with a palette where it would else be large."""
    picture.save(path, optimize=True)
    if path.stat().st_size > LARGE:
        picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=3).save(path, optimize=True)
    print(f"{path}: {picture.width} x {picture.height}, {path.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    """Take them."""
    parser = argparse.ArgumentParser(description="Take the screenshots of a report's page.")
    parser.add_argument("page", type=Path, help="what is shown wide and on a phone")
    parser.add_argument("--dark", type=Path, help="what is shown dark; the same by default")
    parser.add_argument("--into", type=Path, default=FOLDER)
    asked = parser.parse_args()
    for view in VIEWS:
        page = asked.dark if view.dark and asked.dark else asked.page
        with Browser() as browser:
            browser.open(page, view.width, 900, view.dark)
            end = browser.evaluate(f"document.querySelector('{view.until}').getBoundingClientRect().top")
            keep(browser.picture(height=int(end), scale=view.scale), asked.into / f"page-{view.name}.png")


if __name__ == "__main__":
    main()
