"""The format of figures for readers: short, and the same everywhere."""

from __future__ import annotations

import math

DASH = "\N{EN DASH}"
"""Stands for a value that is not known."""


def error(value: float | None) -> str:
    """Format a small number with two significant digits: ``2.0e-6``."""
    if value is None:
        return DASH
    mantissa, exponent = f"{value:.1e}".split("e")
    return "0" if value == 0 else f"{mantissa}e{int(exponent)}"


def bound(value: float | None) -> str:
    """Format a limit without a zero after the point: ``1e-5``."""
    return error(value).replace(".0e", "e")


def number(value: float | None) -> str:
    """Format a number with three digits, or as an integer: ``0.0213``, ``7.25``, ``45.9``, ``1,204``."""
    if value is None:
        return DASH
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def cosine(value: float | None) -> str:
    """Format a cosine with seven digits after the point."""
    return DASH if value is None else f"{value:.7f}"


def percent(share: float | None) -> str:
    """Format a share in percent, with four digits after the point, as in published reports."""
    return DASH if share is None else f"{100 * share:.4f} %"


def size(nbytes: float | None) -> str:
    """Format a size, with units in powers of ten."""
    if nbytes is None:
        return DASH
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= least:
            return f"{number(nbytes / least)} {unit}"
    return f"{nbytes:.0f} B"


def badness(error: float | None) -> float:
    """Return an error as a sort key: None, an error that JSON cannot hold, is worse than any number."""
    return math.inf if error is None else error
