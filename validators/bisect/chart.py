"""Charts as SVG: the same figures give the same bytes."""

from __future__ import annotations

import io

from vconv.validators.bisect.localisation import Departure

_OWN, _TOTAL, _BOUND = "#d95f02", "#1b4f72", "#777777"
_LEAST = 1e-9
"""The value at which an error of zero is drawn: zero has no place on a logarithmic axis."""


def error_against_depth(departure: Departure, title: str) -> bytes:
    """Draw the error of each stage: of the stage alone, and accumulated from the first stage on."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = departure.stages
    places = range(len(rows))
    # Letters stay letters, so that the picture can be searched; identifiers are made from what is drawn.
    with mpl.rc_context({"svg.hashsalt": "vconv", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8.0, 4.2), layout="constrained")
        axes = figure.add_subplot()
        drawn = {"accumulated": (_TOTAL, "-", [row.total for row in rows])}
        drawn["stage alone"] = (_OWN, "--", [row.own for row in rows])
        for label, (colour, style, values) in drawn.items():
            heights = [max(value, _LEAST) for value in values]
            axes.semilogy(places, heights, style, color=colour, marker="o", markersize=4, label=label)
        axes.axhline(departure.bound, color=_BOUND, linewidth=1, linestyle=":", label="limit")
        axes.axvspan(departure.worst - 0.4, departure.worst + 0.4, color=_OWN, alpha=0.12)
        axes.set_xticks(places, [row.stage for row in rows], rotation=60, ha="right", fontsize=8)
        axes.set_ylabel("vector relative error")
        axes.set_title(title, fontsize=10)
        axes.grid(visible=True, which="major", axis="y", alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
        target = io.BytesIO()
        figure.savefig(target, format="svg", metadata={"Date": None})
    return target.getvalue()
