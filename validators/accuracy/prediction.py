"""The errors that a simulated device predicts, and how much each of their causes contributes.

A cause is a deviation in the device's arithmetic. The causes are switched on one at a time. Their
contributions need not add up, because errors may cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vconv.errors import EngineError
from vconv.runtime.simulation.arithmetic import CONVOLUTION, EXACT, MATMUL, Arithmetic, describe
from vconv.runtime.simulation.session import Simulated
from vconv.types import Arrays
from vconv.validators.accuracy.metrics import measure
from vconv.validators.report.rows import CauseRow, PredictedErrors, PredictionRow

SHOWN = ("relative_error", "vector_relative_error")
"""The metrics of a prediction; the first is the one that published reports on NPUs give."""
ALWAYS = (CONVOLUTION, MATMUL)
"""Causes that change at least one operator in every vision transformer."""
NOTHING_CHANGED = (
    "the simulated arithmetic changed no operator of it: it is computed as on a CPU, so nothing is predicted"
)


@dataclass(frozen=True)
class _Measured:
    """The result of one arithmetic: operators that ran, operators changed by each cause, errors by output."""

    executed: int
    changed: Mapping[str, int]
    outputs: Mapping[str, PredictedErrors]


def predict(
    session: Simulated, run: Callable[[], Arrays], expected: Arrays, arithmetic: Arithmetic
) -> PredictionRow:
    """Run a variant in a device's arithmetic, then with each cause alone, then without any.

    Args:
        session: the variant; afterwards it computes as ``arithmetic`` says.
        run: runs it on the reference's images.
        expected: the reference's outputs, by name.
        arithmetic: the device's arithmetic.

    Returns:
        The predicted errors, those of each cause alone, and the rest: the errors without any cause.

    Raises:
        EngineError: no operator ran on the device, or a cause that changes operators in any model changed
            none.
    """
    whole = _measured(session, run, expected, arithmetic)
    if not whole.executed:
        raise _implausible("it ran no operator", "the model's")
    idle = [cause for cause in arithmetic.causes if cause in ALWAYS and not whole.changed[cause]]
    if idle:
        raise _implausible(f"it changed no {idle[0]}", f"at least one in {getattr(arithmetic, idle[0])}")
    causes = {cause: _measured(session, run, expected, arithmetic.only(cause)) for cause in arithmetic.causes}
    rest = _measured(session, run, expected, EXACT)
    session.configure(arithmetic)
    return PredictionRow(
        arithmetic=describe(arithmetic),
        executed=whole.executed,
        changed=whole.changed,
        outputs=whole.outputs,
        causes={
            cause: CauseRow(changed=found.changed[cause], outputs=found.outputs)
            for cause, found in causes.items()
        },
        rest=rest.outputs,
    )


def _implausible(got: str, expected: str) -> EngineError:
    return EngineError(
        "the simulated NPU computed nothing differently",
        got=got,
        expected=expected,
        fix="report this as a bug of vconv: the predicted figures are meaningless",
    )


def _measured(
    session: Simulated, run: Callable[[], Arrays], expected: Arrays, arithmetic: Arithmetic
) -> _Measured:
    session.configure(arithmetic)
    actual = run()
    counts = session.counts()
    return _Measured(
        executed=sum(counts.executed.values()),
        changed={cause: counts.changed.get(cause, 0) for cause in describe(arithmetic)},
        outputs=_errors(actual, expected),
    )


def _errors(actual: Arrays, expected: Arrays) -> dict[str, PredictedErrors]:
    found = {name: measure(name, actual[name], expected[name]) for name in expected}
    return {
        name: PredictedErrors(**{metric: metrics[metric] for metric in SHOWN})
        for name, metrics in found.items()
    }
