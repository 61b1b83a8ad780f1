from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vconv.errors import EngineError
from vconv.runtime.simulation.arithmetic import EXACT, PROFILES, Arithmetic
from vconv.runtime.simulation.session import Counts, Simulated
from vconv.types import Array
from vconv.validators.accuracy.prediction import predict
from vconv.validators.report.rows import PredictedErrors, PredictionRow

EXPECTED = {"pooled": np.full((2, 4), 2.0, np.float32)}
EFFECT = {"gelu": 0.5, "convolution": 0.25, "matmul": 0.125}
"""What each cause adds to every element of the stand-in's output."""


class Adding(Simulated):
    """A stand-in of a simulated variant: every cause that is on adds something of its own.

    Args:
        changes: by cause, how many operators it changes where it is on.
        executed: operators of one run.
    """

    engine = "adding"

    def __init__(self, changes: dict[str, int], executed: int = 10) -> None:
        super().__init__(Path("nowhere"), (4, 4))
        self.changes, self.operators = changes, executed
        self.arithmetic, self.seen = EXACT, list[Arithmetic]()

    def configure(self, arithmetic: Arithmetic) -> None:
        self.arithmetic = arithmetic
        self.seen.append(arithmetic)

    def counts(self) -> Counts:
        changed = {cause: self.changes[cause] for cause in self.arithmetic.causes if self.changes[cause]}
        return Counts({"add": self.operators}, changed)

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        raise NotImplementedError

    def fetch(self, raw: Any) -> dict[str, Array]:
        raise NotImplementedError

    def outputs(self) -> dict[str, Array]:
        added = sum(EFFECT[cause] for cause in self.arithmetic.causes if self.changes[cause])
        return {"pooled": EXPECTED["pooled"] + np.float32(added)}


def predicted(session: Adding, arithmetic: Arithmetic) -> PredictionRow:
    return predict(session, session.outputs, EXPECTED, arithmetic)


def test_every_cause_is_switched_on_alone_and_the_device_computes_as_it_did_before() -> None:
    session, own = Adding({"gelu": 3, "convolution": 1, "matmul": 5}), PROFILES["310p"]
    found = predicted(session, own)
    errors = {cause: one.outputs["pooled"].relative_error for cause, one in found.causes.items()}
    assert errors == {cause: effect / 2 for cause, effect in EFFECT.items()}
    assert found.outputs["pooled"].relative_error == sum(EFFECT.values()) / 2
    assert found.outputs["pooled"].vector_relative_error == sum(EFFECT.values()) / 2
    assert found.rest["pooled"] == PredictedErrors(relative_error=0.0, vector_relative_error=0.0)
    assert found.executed == 10 and found.changed == {"gelu": 3, "convolution": 1, "matmul": 5}
    assert {cause: one.changed for cause, one in found.causes.items()} == found.changed
    assert found.arithmetic == {"gelu": "tanh", "convolution": "fp16", "matmul": "fp16"}
    assert session.arithmetic == own
    assert session.seen == [own, *(own.only(cause) for cause in EFFECT), EXACT, own]


def test_a_patched_model_has_no_gelu_to_change() -> None:
    found = predicted(Adding({"gelu": 0, "convolution": 1, "matmul": 5}), PROFILES["910b"])
    assert found.changed == {"gelu": 0, "convolution": 1, "matmul": 0}
    assert set(found.causes) == {"gelu", "convolution"}
    assert found.causes["gelu"].outputs["pooled"].relative_error == 0.0


@pytest.mark.parametrize(
    ("changes", "executed", "said"),
    [
        ({"gelu": 3, "convolution": 1, "matmul": 1}, 0, "ran no operator"),
        ({"gelu": 3, "convolution": 0, "matmul": 1}, 10, "changed no convolution"),
        ({"gelu": 3, "convolution": 1, "matmul": 0}, 10, "changed no matmul"),
    ],
)
def test_a_device_that_did_nothing_is_an_error_and_no_prediction(
    changes: dict[str, int], executed: int, said: str
) -> None:
    with pytest.raises(EngineError, match=f"computed nothing differently .* {said}"):
        predicted(Adding(changes, executed), PROFILES["310p"])
