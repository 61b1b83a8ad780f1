"""How numbers are written in sentences."""

from __future__ import annotations

_MOST_DIGITS = 17
"""The digits that tell any two numbers of float64 apart."""


def told_apart(first: float, second: float, digits: int = 3) -> tuple[str, str]:
    """Return two numbers with the fewest significant digits that show that they differ.

    Equal numbers have the least number of digits.

    Args:
        first: a number.
        second: another one.
        digits: the least number of significant digits.
    """
    for count in range(digits, _MOST_DIGITS + 1):
        shown = f"{first:.{count}g}", f"{second:.{count}g}"
        if shown[0] != shown[1]:
            return shown
    return f"{first:.{digits}g}", f"{second:.{digits}g}"
