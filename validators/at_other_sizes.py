"""The judgement of a variant that takes images of any size, at sizes at which no graph was traced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vconv.errors import EngineError, MemoryShortError
from vconv.runtime.engines.base import Session, in_batches
from vconv.validators.accuracy.limits import Limit
from vconv.validators.accuracy.other_sizes import SizedReference
from vconv.validators.accuracy.verdicts import judge
from vconv.validators.report.rows import SizeRow

FAULT = "traced size"
"""The class of fault of a variant that agrees at the image processor's size only."""


def judged_at(references: Sequence[SizedReference], session: Session, limit: Limit) -> Iterator[SizeRow]:
    """Run a variant at other sizes, and judge each.

    Args:
        references: the reference at these sizes.
        session: the open variant.
        limit: the bounds on the metrics.

    Yields:
        One row a size. A size that the engine refuses has failed; one that is no gear of an offline model is
        skipped, with the reason.

    Raises:
        MemoryShortError: the engine has too little memory.
    """
    for one in references:
        row = SizeRow(size=one.size, batch=len(one.pixel_values), vector_relative_error=None)
        if session.size_gears and one.size not in session.size_gears:
            gears = ", ".join("{}x{}".format(*gear) for gear in session.size_gears)
            yield row.model_copy(update={"skipped": f"skipped: the model was compiled for {gears} only"})
            continue
        batch = session.batch or len(one.pixel_values)
        try:
            verdicts = judge(in_batches(session.run, one.pixel_values, batch), one.outputs, limit)
        except MemoryShortError:
            raise
        except EngineError as error:
            yield row.model_copy(update={"reasons": (error.got,)})
            continue
        errors = [verdict.metrics.get("vector_relative_error") for verdict in verdicts.values()]
        reasons = [f"{name}: {reason}" for name, verdict in verdicts.items() for reason in verdict.reasons]
        worst = max((error for error in errors if error is not None), default=None)
        yield row.model_copy(update={"vector_relative_error": worst, "reasons": tuple(reasons)})


def failure(rows: Sequence[SizeRow]) -> str:
    """Return how a variant that agrees at the image processor's size fails at another; empty if it passes."""
    wrong = next((one for one in rows if one.reasons), None)
    if wrong is None:
        return ""
    size = "{}x{}".format(*wrong.size)
    return f"it agrees at the image processor's size, and not at {size}: {wrong.reasons[0]}"
