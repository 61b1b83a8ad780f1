"""Diagnosis: which class of fault explains how the outputs differ.

Each hypothesis is tried on a variant that failed: would it agree with the reference if height and width of
the images were swapped, or if two outputs were renamed? Faults that can be seen in files and graphs are named
by the checks of files and graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from vconv.convert.architectures.layer_outputs import FEATURE_MAP, Layer, find_layer
from vconv.precisions import FP16, FP32
from vconv.types import Array, Arrays, Check, Status
from vconv.validators.accuracy.golden import Reference
from vconv.validators.accuracy.limits import Limit
from vconv.validators.accuracy.metrics import METRICS, measure
from vconv.validators.accuracy.verdicts import OutputVerdict
from vconv.validators.faults import classes
from vconv.validators.report.document import DiagnosisRow
from vconv.validators.report.rows import VariantRow

SHIFTED_SHARE = 0.9
"""If at least this share of the tokens is found at other places, the order of the tokens is wrong."""

LEAST_TOKENS = 8
"""The least number of tokens that show whether a LayerNorm is between two outputs."""
_NORMED = ("last_hidden_state", "patches")
"""Outputs with tokens after the final norm."""
NORM_RESIDUAL = 1e-3
"""The greatest part of an output that a LayerNorm leaves unexplained: epsilon, and rounding to float16."""


@dataclass(frozen=True)
class FailedVariant:
    """A variant that failed.

    Args:
        run: runs the variant on images, float32 (N, 3, H, W).
        actual: the variant's outputs, by name.
        reference: the expected outputs, and the images.
        verdicts: the verdict on each output.
        limit: the limit that each output had to keep.
        precision: the precision whose limit it is.
    """

    run: Callable[[Array], Arrays]
    actual: Arrays
    reference: Reference
    verdicts: Mapping[str, OutputVerdict]
    limit: Limit
    precision: str = FP32

    @property
    def failed(self) -> list[str]:
        """The names of the outputs that failed."""
        return [name for name, verdict in self.verdicts.items() if verdict.status is Status.FAILED]

    def close(self, name: str, actual: Array, expected: Array) -> bool:
        """Return whether one array is within the limit of another."""
        if actual.shape != expected.shape or not np.isfinite(actual).all():
            return False
        found = measure(name, actual, expected)
        return all(
            METRICS[key].within(found[key], bound) for key, bound in self.limit.bounds.items() if key in found
        )

    def agrees_with_original(self, actual: Arrays) -> bool:
        """Return whether every output is within the limit of the reference's, or of the stock original's."""
        stock = self.reference.stock
        return self.agrees(actual, self.reference.outputs) or bool(stock and self.agrees(actual, stock))

    def agrees(self, actual: Arrays, expected: Arrays) -> bool:
        """Return whether every output is within the limit of the expected one."""
        return all(
            name in actual and self.close(name, actual[name], expected[name]) for name in self.verdicts
        )


@dataclass(frozen=True)
class Explanation:
    """The cause of a failure.

    Args:
        fault: the class of the fault.
        because: the evidence for it.
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


def _without_norm(evidence: FailedVariant) -> str:
    """Find an output that is the reference's before the final norm, or after it.

    A LayerNorm makes a token's mean 0 and its variance 1, and then scales and shifts each channel. So the
    output with the norm follows from the one without it by one factor and one shift a channel. The contrary
    is not so: the mean and the variance differ from token to token.
    """
    for name in evidence.failed:
        layer = find_layer(name)
        if name not in evidence.actual or (layer.kind.cut is None if layer else name not in _NORMED):
            continue
        actual, expected = (
            _tokens(one[name], layer) for one in (evidence.actual, evidence.reference.outputs)
        )
        if actual.shape != expected.shape or not np.isfinite(actual).all():
            continue
        normed = layer is None or layer.kind.normed
        before, after = (actual, expected) if normed else (expected, actual)
        if _is_norm_of(before, after) and not _is_norm_of(after, before):
            lack = "lacks the final norm" if normed else "has the final norm"
            return f"{name} {lack}: it follows from the reference's by a LayerNorm, token by token"
    return ""


def _tokens(value: Array, layer: Layer | None) -> Array:
    """Return an output as float64 tokens (N, D)."""
    wide = value.astype(np.float64)
    if layer is not None and layer.kind.name.endswith(FEATURE_MAP) and wide.ndim > 2:
        wide = np.moveaxis(wide, 1, -1)
    return wide.reshape(-1, wide.shape[-1])


def _overflowed(evidence: FailedVariant) -> str:
    """Find Inf or NaN in an output of a variant in float16; bfloat16 ends where float32 does."""
    if evidence.precision != FP16:
        return ""
    for name in evidence.failed:
        value = evidence.actual.get(name)
        if value is not None and not np.isfinite(value).all():
            return f"{name} has Inf or NaN: a value is too large for float16"
    return ""


def _is_norm_of(before: Array, after: Array) -> bool:
    """Return whether tokens (N, D) are others after a LayerNorm, with any scale and shift of each channel."""
    if len(before) < LEAST_TOKENS:
        return False
    deviation = before.std(axis=1, keepdims=True)
    normed = (before - before.mean(axis=1, keepdims=True)) / np.where(deviation, deviation, 1)
    x, y = normed - normed.mean(axis=0), after - after.mean(axis=0)
    power = np.square(x).sum(axis=0)
    scale = (x * y).sum(axis=0) / np.where(power, power, 1)
    return bool(np.linalg.norm(y - scale * x) <= NORM_RESIDUAL * np.linalg.norm(y))


def _only_pooled(evidence: FailedVariant) -> str:
    tokens = {"cls", "patches", "last_hidden_state"}
    sound = evidence.verdicts.keys() - set(evidence.failed)
    if any(map(find_layer, evidence.failed)):
        return ""
    return "every token agrees, what is pooled from them does not" if tokens <= sound else ""


def _shifted_tokens(evidence: FailedVariant) -> str:
    """Find the reference token that is nearest to each patch token of the variant."""
    tokens = evidence.reference.outputs.get("last_hidden_state")
    if evidence.failed != ["patches"] or "patches" not in evidence.actual or tokens is None:
        return ""
    actual = evidence.actual["patches"]
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


def _stock(evidence: FailedVariant, corrected: str) -> str:
    stock = evidence.reference.stock if corrected in evidence.reference.name else {}
    agrees = bool(stock) and evidence.agrees(evidence.actual, stock)
    return f"it agrees with the stock original, whose {corrected} were not corrected" if agrees else ""


def _turned(evidence: FailedVariant) -> str:
    images = evidence.reference.pixel_values
    if images.shape[2] != images.shape[3]:
        return ""
    turned = evidence.run(np.ascontiguousarray(images.swapaxes(2, 3)))
    agrees = evidence.agrees_with_original(turned)
    return "it agrees when height and width of its images are swapped" if agrees else ""


def _reversed(evidence: FailedVariant) -> str:
    images = np.ascontiguousarray(evidence.reference.pixel_values[:, ::-1])
    agrees = evidence.agrees_with_original(evidence.run(images))
    return "it agrees when the channels of its images are reversed" if agrees else ""


HYPOTHESES: Mapping[str, Callable[[FailedVariant], str]] = {
    "overflow": _overflowed,
    "output names": _swapped_outputs,
    "final norm": _without_norm,
    "pooling": _only_pooled,
    "token order": _shifted_tokens,
    "rope periods": partial(_stock, corrected="periods"),
    "position embedding": partial(_stock, corrected="positions"),
    "height and width": _turned,
    "channel order": _reversed,
}
"""By class of fault: the function that returns the evidence for it, or an empty text."""


def diagnose(evidence: FailedVariant) -> list[Explanation]:
    """Try the hypotheses on a variant that failed, the cheap ones first; return the first that fits."""
    for fault, hypothesis in HYPOTHESES.items():
        because = hypothesis(evidence)
        if because:
            return [Explanation(fault, because)]
    return []


def diagnosis(fault: str, where: str, because: str) -> DiagnosisRow:
    """Lay out a class of fault for a report: its meaning, where it was seen, and the evidence."""
    return DiagnosisRow(fault=fault, meaning=classes.CLASSES[fault], where=where, because=because)


def conclude(checks: Iterable[Check], rows: Sequence[VariantRow]) -> list[DiagnosisRow]:
    """Collect the causes of all failures: the class that explains most comes first.

    Args:
        checks: every check of the validation.
        rows: the report's variants.

    Returns:
        The causes of the failures, each class of fault once.
    """
    found: dict[str, DiagnosisRow] = {}
    seen = [(check.fault, check.name, check.detail) for check in checks if check.status is Status.FAILED]
    seen += [(one.fault, row.variant, one.because) for row in rows for one in row.diagnosis]
    for fault, where, because in seen:
        found.setdefault(fault, diagnosis(fault, where, because))
    order = list(classes.CLASSES)
    return sorted(found.values(), key=lambda row: order.index(row.fault))
