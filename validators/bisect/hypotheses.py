"""Diagnosis: what class of fault makes outputs differ as they do.

Each hypothesis is tried on a variant that failed: if the images were turned, or the outputs named otherwise,
would it agree with the reference? What can be seen in files and graphs is named by the checks of those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vconv.types import Array, Arrays, Check, Status
from vconv.validators.accuracy.golden import Reference
from vconv.validators.accuracy.limits import Limit
from vconv.validators.accuracy.metrics import METRICS, measure
from vconv.validators.accuracy.verdicts import OutputVerdict
from vconv.validators.faults import classes
from vconv.validators.report.document import DiagnosisRow
from vconv.validators.report.rows import VariantRow

SHIFTED_SHARE = 0.9
"""Share of the tokens that must be found elsewhere for their order to be what is wrong."""


@dataclass(frozen=True)
class FailedVariant:
    """A variant that failed.

    Args:
        run: runs the variant on float32 (N, 3, H, W).
        actual: what it gave.
        reference: what it should have given, and on what.
        verdicts: how each output did.
        limit: what they were held to.
    """

    run: Callable[[Array], Arrays]
    actual: Arrays
    reference: Reference
    verdicts: Mapping[str, OutputVerdict]
    limit: Limit

    @property
    def failed(self) -> list[str]:
        """The outputs that failed."""
        return [name for name, verdict in self.verdicts.items() if verdict.status is Status.FAILED]

    def close(self, name: str, actual: Array, expected: Array) -> bool:
        """Tell whether one array would have passed for another."""
        if actual.shape != expected.shape or not np.isfinite(actual).all():
            return False
        found = measure(name, actual, expected)
        return all(
            METRICS[key].within(found[key], bound) for key, bound in self.limit.bounds.items() if key in found
        )

    def agrees(self, actual: Arrays, expected: Arrays) -> bool:
        """Tell whether outputs would have passed for others."""
        return all(
            name in actual and self.close(name, actual[name], expected[name]) for name in self.verdicts
        )


@dataclass(frozen=True)
class Explanation:
    """What a failure comes of.

    Args:
        fault: its class.
        because: what says so.
    """

    fault: str
    because: str


def _swapped_outputs(evidence: FailedVariant) -> str:
    expected, actual = evidence.reference.outputs, evidence.actual
    for first in evidence.failed:
        for second in evidence.failed:
            there = first < second and {first, second} <= actual.keys() & expected.keys()
            if (
                there
                and evidence.close(first, actual[first], expected[second])
                and evidence.close(second, actual[second], expected[first])
            ):
                return f"{first} is the reference's {second}, and {second} its {first}"
    return ""


def _only_pooled(evidence: FailedVariant) -> str:
    tokens = {"cls", "patches", "last_hidden_state"}
    sound = evidence.verdicts.keys() - set(evidence.failed)
    return "every token agrees, what is pooled from them does not" if tokens <= sound else ""


def _shifted_tokens(evidence: FailedVariant) -> str:
    """Look for each patch token among all tokens of the reference."""
    if evidence.failed != ["patches"] or "patches" not in evidence.actual:
        return ""
    actual, tokens = evidence.actual["patches"], evidence.reference.outputs["last_hidden_state"]
    if actual.ndim != 3 or actual.shape[1] > tokens.shape[1] or actual.shape[2] != tokens.shape[2]:
        return ""
    if not np.isfinite(actual).all():
        return ""
    first = tokens.shape[1] - evidence.reference.outputs["patches"].shape[1]
    a, e = actual[0].astype(np.float64), tokens[0].astype(np.float64)
    # |a - e|^2 = |a|^2 - 2 a.e + |e|^2, without an array of every difference.
    nearest = (np.square(e).sum(axis=1) - 2 * a @ e.T).argmin(axis=1)
    distances = np.linalg.norm(a - e[nearest], axis=1) / np.linalg.norm(e[nearest], axis=1)
    bound = evidence.limit.bounds.get("vector_relative_error", 0.0)
    moved = (distances <= 10 * bound) & (nearest != np.arange(len(a)) + first)
    share = float(moved.mean())
    return f"{share:.0%} of the patches are other tokens of the reference" if share >= SHIFTED_SHARE else ""


def _stock(evidence: FailedVariant) -> str:
    stock = evidence.reference.stock
    agrees = bool(stock) and evidence.agrees(evidence.actual, stock)
    return "it agrees with the stock original, whose periods were not put right" if agrees else ""


def _turned(evidence: FailedVariant) -> str:
    images = evidence.reference.pixel_values
    if images.shape[2] != images.shape[3]:
        return ""
    turned = evidence.run(np.ascontiguousarray(images.swapaxes(2, 3)))
    agrees = evidence.agrees(turned, evidence.reference.outputs)
    return "given images with height and width swapped, it agrees" if agrees else ""


def _reversed(evidence: FailedVariant) -> str:
    images = np.ascontiguousarray(evidence.reference.pixel_values[:, ::-1])
    agrees = evidence.agrees(evidence.run(images), evidence.reference.outputs)
    return "given images with their channels reversed, it agrees" if agrees else ""


HYPOTHESES: Mapping[str, Callable[[FailedVariant], str]] = {
    "output names": _swapped_outputs,
    "pooling": _only_pooled,
    "token order": _shifted_tokens,
    "rope periods": _stock,
    "height and width": _turned,
    "channel order": _reversed,
}
"""By class of fault: says what speaks for it; empty if nothing does."""


def diagnose(evidence: FailedVariant) -> list[Explanation]:
    """Try every hypothesis on a variant that failed; the cheap ones first, and the first that fits is it."""
    for fault, hypothesis in HYPOTHESES.items():
        because = hypothesis(evidence)
        if because:
            return [Explanation(fault, because)]
    return []


def diagnosis(fault: str, where: str, because: str) -> DiagnosisRow:
    """Name a class of fault, with what it means, where it was seen, and because of what."""
    return DiagnosisRow(fault=fault, meaning=classes.CLASSES[fault], where=where, because=because)


def conclude(checks: Iterable[Check], rows: Sequence[VariantRow]) -> list[DiagnosisRow]:
    """Put together what failures come of: the most telling class first.

    Args:
        checks: everything that was looked at.
        rows: a report's variants.

    Returns:
        What failures come of, each class of fault once.
    """
    found: dict[str, DiagnosisRow] = {}
    seen = [(check.fault, check.name, check.detail) for check in checks if check.status is Status.FAILED]
    seen += [(one.fault, row.variant, one.because) for row in rows for one in row.diagnosis]
    for fault, where, because in seen:
        found.setdefault(fault, diagnosis(fault, where, because))
    order = list(classes.CLASSES)
    return sorted(found.values(), key=lambda row: order.index(row.fault))
