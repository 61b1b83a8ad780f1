"""Figures that others published for the systems, with their source. They are printed, but never judged.

Each figure was measured on another machine, by another protocol, on trained weights. Published figures are
shown beside the figures measured here on the same kind of device, and are never mixed with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedFigures:
    """Figures of one variant at one batch, or of one of its outputs.

    Args:
        source: the publisher, and the reference of the measurement.
        kind: the kind of device, as in :mod:`vconv.runtime.devices.table`.
        device: the source's name of the device.
        variant: vconv's name of the variant that was run.
        figures: the figures, under the names that reports use.
        batch: images per run; None for accuracy.
        output: the output that was compared; empty for latency.
    """

    source: str
    kind: str
    device: str
    variant: str
    figures: Mapping[str, float]
    batch: int | None = None
    output: str = ""


ORIGINAL, PATCHED = "original-torch-fp32", "patched-torch-fp32"


def _speeds(
    source: str,
    device: str,
    *rows: tuple[int, Mapping[str, float]],
    kind: str = "npu",
    variant: str = ORIGINAL,
) -> tuple[PublishedFigures, ...]:
    return tuple(PublishedFigures(source, kind, device, variant, figures, batch) for batch, figures in rows)


def _errors(
    source: str, device: str, *rows: tuple[str, Mapping[str, float]], variant: str = ORIGINAL
) -> tuple[PublishedFigures, ...]:
    return tuple(
        PublishedFigures(source, "npu", device, variant, figures, output=output) for output, figures in rows
    )


def _mean(mean_ms: float, images_per_second: float) -> dict[str, float]:
    return {"mean_ms": mean_ms, "images_per_second": images_per_second}


def _vector(error: float, cosine: float, mse: float, max_abs: float) -> dict[str, float]:
    return {"vector_relative_error": error, "cosine": cosine, "mse": mse, "max_abs": max_abs}


_DINOV3 = "model card Yanguan/dinov3-vits16-pretrain-lvd1689m, against CPU"
DINOV3_VITS16 = (
    *_speeds(
        _DINOV3,
        "Ascend910_9362",
        (1, _mean(7.89, 126.75)),
        (2, _mean(7.87, 254.18)),
        (4, _mean(7.84, 510.02)),
        (8, _mean(7.95, 1006.24)),
    ),
    *_errors(
        _DINOV3,
        "Ascend910_9362",
        ("pooled", _vector(0.003139, 0.999995, 1.6848e-6, 0.003499)),
        ("last_hidden_state", _vector(0.001936, 0.999999, 5.143e-7, 0.003881)),
    ),
)

_TIMM_DINOV3 = "model card weixin_72661020/vit_small_patch16_dinov3.lvd1689m, against CPU"
TIMM_DINOV3 = (
    *_speeds(
        _TIMM_DINOV3,
        "Ascend910B4",
        (1, _mean(32.38, 30.89)),
        (4, _mean(17.10, 233.97)),
        (8, _mean(17.27, 463.21)),
        (16, _mean(17.25, 927.35)),
    ),
    *_errors(_TIMM_DINOV3, "Ascend910B4", ("pooled", {"max_abs": 0.002358, "mean_abs": 0.000584})),
)

_DINOV2 = "model card Yanguan/dinov2-large, against a GPU"
DINOV2_LARGE = (
    *_speeds(
        _DINOV2,
        "Ascend NPU",
        (1, {"p50_ms_per_image": 12.754, "images_per_second": 78.51}),
        (2, {"p50_ms_per_image": 6.493, "images_per_second": 153.23}),
        (4, {"p50_ms_per_image": 4.566, "images_per_second": 218.98}),
        (8, {"p50_ms_per_image": 4.081, "images_per_second": 245.02}),
        variant=PATCHED,
    ),
    *_errors(
        _DINOV2,
        "Ascend NPU",
        ("cls", {"relative_error": 0.013325}),
        ("patches", {"relative_error": 0.008591}),
    ),
    *_errors(
        _DINOV2,
        "Ascend NPU",
        ("cls", {"relative_error": 0.00025075}),
        ("patches", {"relative_error": 0.00036940}),
        variant=PATCHED,
    ),
)

_REG4 = "adaptation page of timm/vit_small_patch14_reg4_dinov2.lvd142m on Ascend NPU, against CPU"
TIMM_DINOV2_REG4 = (
    *_speeds(
        _REG4,
        "Ascend910_9362",
        (1, _mean(5.15, 194.24)),
        (2, _mean(7.94, 251.98)),
        (4, _mean(13.37, 299.22)),
    ),
    *_errors(
        _REG4,
        "Ascend910_9362",
        ("pooled", _vector(0.007823, 0.999970, 9.13260e-5, 0.025931)),
        ("last_hidden_state", _vector(0.004343, 0.999990, 3.10854e-5, 0.060189)),
    ),
)

_VIT = "adaptation page of google/vit-base-patch16-224-in21k on Ascend NPU, a random classifier, against CPU"
VIT_BASE = (
    *_speeds(_VIT, "CPU", (1, {"mean_ms": 1761.40, "p50_ms": 1760.89}), kind="cpu"),
    *_speeds(
        _VIT,
        "Ascend910B4",
        (1, {"mean_ms": 12.42, "p50_ms": 12.21}),
        (4, {"mean_ms": 12.03, "p50_ms": 11.72}),
        (8, {"mean_ms": 11.91, "p50_ms": 11.81}),
    ),
    *_errors(
        _VIT,
        "Ascend910B4",
        ("logits", {"max_abs": 7.54e-4, "mean_abs": 4.52e-4, "max_rel": 0.0126, "mean_rel": 0.0076}),
    ),
)
