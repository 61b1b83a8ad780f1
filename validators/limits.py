"""Limits: what an output may differ by, one table by precision and arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vconv.errors import UnknownNameError


@dataclass(frozen=True)
class Limit:
    """What a variant must keep to, at every output.

    Args:
        bounds: from metric to bound.
        source: the measurement that the bounds come from.
    """

    bounds: Mapping[str, float]
    source: str


_CARD_BOUNDS = {"vector_relative_error": 1e-2, "relative_error": 1e-2, "cosine": 0.999}
CARD = Limit(
    _CARD_BOUNDS,
    "the thresholds that published NPU adaptation reports use: relative error under 1 %, cosine over 0.999",
)

UNLIMITED = Limit({}, "none: what is held to this is measured, not judged")

STRICT: Mapping[tuple[str, str], Limit] = {
    ("fp32", "fp32"): Limit(
        {**_CARD_BOUNDS, "vector_relative_error": 1e-5},
        "ONNX Runtime differs from torch by 1.3e-6 to 2.2e-6; the least fault, one tanh GELU, by 1.3e-4",
    ),
    ("fp32", "hf32"): Limit(
        {**_CARD_BOUNDS, "vector_relative_error": 1e-3},
        "an HF32 patch embedding is predicted, on a simulated device, to differ by 2e-4 to 3.4e-4",
    ),
    ("fp16", "fp16"): Limit(
        {**_CARD_BOUNDS, "vector_relative_error": 5e-3},
        "torch in fp16 differs by 1.9e-3 to 2.8e-3 on synthetic weights",
    ),
    ("bf16", "bf16"): Limit(
        {"vector_relative_error": 3e-2, "token_cosine_min": 0.999},
        "torch in bf16 differs by 1.7e-2 to 2.2e-2 on synthetic weights",
    ),
    ("int8", "int8"): Limit(
        {"vector_relative_error": 0.15, "token_cosine_min": 0.98},
        "dynamic int8 by tensor differs by 0.08 to 0.14 on synthetic weights",
    ),
}
"""By (precision of the variant, arithmetic of the device)."""

LEVELS = ("strict", "card")
"""What ``--within`` takes: ``strict``, the default, or ``card``, what published reports use."""


def find_limit(level: str, precision: str, arithmetic: str) -> Limit:
    """Look up the limit for a variant.

    Raises:
        UnknownNameError: there is no such level, or none for this precision and arithmetic.
    """
    if level not in LEVELS:
        raise UnknownNameError("limit", level, LEVELS, fix="use --within strict or --within card")
    if level == "card":
        return CARD
    if (precision, arithmetic) not in STRICT:
        raise UnknownNameError(
            "strict limit",
            f"{precision} on {arithmetic}",
            [f"{known} on {where}" for known, where in STRICT],
            fix="use --within card",
        )
    return STRICT[precision, arithmetic]
