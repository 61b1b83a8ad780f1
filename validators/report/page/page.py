"""The page of a validation: one HTML file that loads no other file and runs no script."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vconv.validators.report.document import Report
from vconv.validators.report.page.gallery import Gallery
from vconv.validators.report.page.views import agreement, insight, provenance, speed
from vconv.validators.report.page.views.verdict import verdict
from vconv.validators.report.saving import ReportFile

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parents[1] / "templates"
_PAGE = "page.html"
_FIGURE = re.compile(r"\d[\d.,]*(?:e-\d+|(?=\s(?:%|ms|[kMG]B)))(?:\s(?:%|ms|[kMG]B))?")
"""A number with an exponent or a unit: a line must not break inside it."""
GLYPHS: Mapping[str, str] = {"passed": "✓", "failed": "✕", "skipped": "\N{EN DASH}", "incomplete": "?"}
"""The symbol of each status, so that colour is not the only distinction."""


def render(report: Report, saved: ReportFile, gallery: Gallery) -> bytes:
    """Return the page as bytes. The same report and pictures give the same bytes.

    Args:
        report: the report of a validation.
        saved: its JSON file.
        gallery: the images of the validation, and the maps of the variants.
    """
    from markupsafe import Markup

    environment = _environment()
    style = Markup((_TEMPLATES / "page.css").read_text("utf-8"))
    return environment.get_template(_PAGE).render(style=style, **sections(report, saved, gallery)).encode()


@functools.cache  # to compile the templates takes longer than to render them
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup, escape

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["drawn"] = Markup
    environment.filters["figured"] = lambda text: Markup(
        _FIGURE.sub(r'<span class="unbroken">\g<0></span>', str(escape(text)))
    )
    environment.globals["glyphs"] = GLYPHS
    return environment


def sections(report: Report, saved: ReportFile, gallery: Gallery) -> dict[str, Any]:
    """Return the data that the template shows, by section."""
    return {
        "artifact": report.artifact,
        "synthetic": report.synthetic,
        "simulated": report.simulated,
        "verdict": verdict(report),
        "matrix": agreement.matrix(report),
        "folder": agreement.folder(report),
        "limits": agreement.limits(report),
        "maps": insight.maps(report, gallery),
        "depth": insight.depth(report),
        "prediction": insight.prediction(report),
        "speed": speed.speed(report),
        "costs": provenance.costs(report),
        "checks": provenance.checks(report),
        "published": provenance.published(report),
        "provenance": provenance.provenance(report, saved.name, saved.sha256),
        "vconv": report.environment.get("vconv", ""),
    }
