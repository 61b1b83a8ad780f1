"""What a validation compares: the variants of an artifact, the original, and the reference."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from vconv import catalog
from vconv.convert import models
from vconv.convert.layouts import network
from vconv.convert.sources import Source, is_synthetic, open_source
from vconv.errors import InputError
from vconv.manifest import Manifest
from vconv.runtime.devices import Device
from vconv.runtime.images import natural_images, open_images
from vconv.runtime.preprocessing import preprocess
from vconv.runtime.sessions import Session, TorchSession
from vconv.runtime.variants import open_variant
from vconv.types import Array, Check, Say, Status
from vconv.validators import golden as golden_room
from vconv.validators.golden import Golden
from vconv.validators.validation import Candidate

SAMPLE_IMAGES = 2
"""Made-up images, where no photographs are given."""


def sample(folder: Path, images: Sequence[str | Path], seed: int) -> tuple[Array, tuple[str, ...]]:
    """Preprocess photographs, or made-up images where there are none.

    Args:
        folder: a folder with the system's ``preprocessor_config.json``.
        images: photographs.
        seed: of the made-up images.

    Returns:
        float32 (N, 3, H, W), and what each image is.
    """
    if images:
        opened = open_images(images)
        return preprocess(folder, opened), tuple(f"photograph {index + 1}" for index in range(len(opened)))
    made = natural_images(SAMPLE_IMAGES, seed)
    return preprocess(folder, made), tuple(f"synthetic:{seed + index}" for index in range(len(made)))


def candidates(
    folder: Path, made: Manifest, device: Device, engines: Sequence[str] = ("onnxruntime",)
) -> list[Candidate]:
    """List an artifact's variants, each graph once an engine."""
    return [
        Candidate(
            record.variant,
            engine,
            record.precision,
            partial(open_variant, folder, made, record, device, engine),
        )
        for record in made.variants
        for engine in (("torch",) if record.engine == "torch" else engines)
    ]


def live_source(made: Manifest, weights: str | None, scratch: Path, say: Say) -> Source | None:
    """Return the original's weights if they can be had here: given, or synthetic."""
    label = weights or (made.source.label if is_synthetic(made.source.label) else None)
    return open_source(catalog.find(made.system.name), label, scratch, say) if label else None


def original(source: Source, made: Manifest, device: Device, golden: Golden | None) -> Candidate:
    """Return the original, as its library builds it: measured and timed, not judged."""
    net = network(source.config, frozenset(source.entries))

    def open_original() -> Session:
        return TorchSession(models.load(source.folder, net), net, device, (), source.folder, made.size)

    corrected = golden is not None and golden.name != "original"
    reason = "not judged: the reference corrects it" if corrected else "not judged: it is the reference"
    return Candidate("original-torch-fp32", "torch", "fp32", open_original, unjudged=reason)


def reference(
    folder: Path,
    made: Manifest,
    source: Source | None,
    images: Sequence[str | Path],
    seed: int,
    checks: list[Check],
    say: Say,
) -> Golden | None:
    """Run the reference live, or take what was recorded, or neither; enter how the two agree."""
    recorded = golden_room.load(folder / made.golden.file) if made.golden else None
    if source is None:
        if images:
            raise InputError(
                "cannot judge on these images",
                got="no weights of the original",
                expected="the original, to run it on them",
                fix="give --weights, or leave --images out to use the recorded inputs",
            )
        checks.append(
            Check("golden", Status.SKIPPED, "the original's weights are not at hand to run it again")
        )
        if recorded is None or made.golden is None:
            return None
        record = made.golden
        return Golden(record.reference, *recorded, record.floor, record.to_stock_original)
    if images or recorded is None:
        pixel_values, _ = sample(folder, images, seed)
    else:
        pixel_values = recorded[0]
    say("running the reference in fp32 and float64")
    live = golden_room.run_reference(source, network(source.config, frozenset(source.entries)), pixel_values)
    checks.append(golden_room.agreement(live, recorded if not images else None))
    return live
