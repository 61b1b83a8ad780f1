"""Say what each precision costs of a real accuracy: that of a small ViT, trained here, on unseen images.

Synthetic weights tell how far outputs move, not whether an answer changes. So a small ViT of transformers is
trained on two thirds of scikit-learn's digits (1,797 images of 8 x 8, inside the library), exported as a
fine-tune of a catalog system, and asked for the held-out third: the original, the patched one, the graphs,
fp16 and bf16 in torch on the CPU, the simulated NPUs, which imitate arithmetic on the CPU, and the original
with the tanh GELU in place of the exact one. Some 600 images tell an accuracy to a percent or so: each has
its interval of 95 % (Wilson, 1927). How many answers differ from the reference's says more, and how near the
nearest came to it: by what share of the reference's lead the lead of its class over the next shrank at most.
From 1 on that is another answer. That the figures can move is shown by weights rounded to ever fewer bits.
The held-out images are also validated as files, with `vconv validate --dataset`.

Targets: the reference is right on at least 95 % of them, so that there is something to lose; and the patched
model and its graphs in fp32 on the CPU change no answer.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from record import finish, out_option
from sklearn.datasets import load_digits

import vconv
from vconv.artifact import manifest
from vconv.artifact.artifact import Artifact
from vconv.catalog.systems import find
from vconv.convert.libraries.base import quiet, stock_transformers
from vconv.convert.sources.table import Request, open_source
from vconv.precisions import PRECISIONS
from vconv.runtime.devices.base import Settings
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.base import in_batches
from vconv.runtime.inputs.preprocessing import preprocess
from vconv.runtime.simulation.arithmetic import GELU, PROFILES
from vconv.runtime.simulation.session import Simulated
from vconv.types import Array
from vconv.validators.accuracy import golden
from vconv.validators.accuracy.golden import Reference
from vconv.validators.accuracy.metrics import vector_relative_error
from vconv.validators.validation import Candidate
from vconv.workflows import candidates as listing

SYSTEM = "vit-base-patch16-224-in21k"
SIDE, PATCH, CLASSES = 32, 4, 10
SEED, EPOCHS, BATCH, RATE = 0, 40, 64, 1e-3
SHIFT = 2
"""Pixels by which a training image is moved at most, at random."""
PRECISE = ("fp32", "fp16", "bf16")
BITS = (8, 6, 4, 3)
LEAST_ACCURACY = 0.95
DEVIATIONS = 1.959963984540054
"""Standard deviations of a normal distribution that hold 95 % of it."""


def wilson(correct: int, images: int) -> tuple[float, float]:
    """Return Wilson's score interval of 95 % for a share (1927, J. Am. Stat. Assoc. 22, 209)."""
    share, square = correct / images, DEVIATIONS**2
    centre = (share + square / (2 * images)) / (1 + square / images)
    spread = math.sqrt(share * (1 - share) / images + square / (4 * images**2))
    half = DEVIATIONS * spread / (1 + square / images)
    return centre - half, centre + half


def digits() -> tuple[list[Image.Image], Array, Array]:
    """Return every image, its class, and whether it is held out: every third of a shuffled order."""
    found = load_digits()
    images = [Image.fromarray(image) for image in np.rint(found.images * (255 / 16)).astype(np.uint8)]
    order = np.random.Generator(np.random.PCG64(SEED)).permutation(len(images))
    held_out = np.zeros(len(images), bool)
    held_out[order[::3]] = True
    return images, found.target, held_out


def moved(pixel_values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Move each image (B, 3, H, W) at random; what comes in is its own edge."""
    padded = torch.nn.functional.pad(pixel_values, [SHIFT] * 4, mode="replicate")
    places = torch.randint(2 * SHIFT + 1, (len(padded), 2), generator=generator).tolist()
    parts = [image[:, y : y + SIDE, x : x + SIDE] for image, (y, x) in zip(padded, places, strict=True)]
    return torch.stack(parts)


def train(folder: Path, images: Sequence[Image.Image], classes: Array) -> None:
    """Train a ViT, and save it as transformers does, with its image processor."""
    torch.manual_seed(SEED)
    with stock_transformers() as transformers, quiet("transformers"):
        config = transformers.ViTConfig(
            hidden_size=64,
            num_hidden_layers=6,
            num_attention_heads=4,
            intermediate_size=128,
            image_size=SIDE,
            patch_size=PATCH,
            num_labels=CLASSES,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        model = transformers.ViTForImageClassification(config)
        transformers.ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    # The processor's folder is whole once it has a configuration to be chosen by.
    config.save_pretrained(folder)
    pixel_values, targets = torch.from_numpy(preprocess(folder, images)), torch.from_numpy(classes)
    generator = torch.Generator().manual_seed(SEED)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    steps = EPOCHS * math.ceil(len(images) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=RATE, total_steps=steps)
    model.train()
    for epoch in range(EPOCHS):
        losses = []
        for chosen in torch.randperm(len(images), generator=generator).split(BATCH):
            loss = model(moved(pixel_values[chosen], generator), labels=targets[chosen]).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1} of {EPOCHS}: loss {np.mean(losses):.4f}")
    with quiet("transformers"):
        model.eval().save_pretrained(folder)


def candidates(artifact: Path, weights: Path) -> Iterator[tuple[str, Candidate]]:
    """List what is asked, each with the NPU that it imitates: all on the CPU, then on every simulated NPU."""
    made = manifest.load(artifact)
    scratch = artifact.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    source = open_source(Request(find(SYSTEM), str(weights)), scratch)
    against = Reference("recorded", *golden.load(artifact / made.golden.path), {}, {})
    places = {"": find_device("cpu")}
    places |= {profile: find_device("npu-sim", Settings(profile=profile)) for profile in PROFILES}
    for profile, place in places.items():
        precisions = [PRECISIONS[name] for name in (PRECISE[:1] if profile else PRECISE)]
        common: Mapping[str, Any] = {"device": place, "reference": against, "precisions": precisions}
        for candidate in listing.originals(Artifact(artifact, made), source, **common):
            yield profile, candidate
        for candidate in listing.candidates(Artifact(artifact, made), **common):
            yield profile, candidate


def answers(artifact: Path, weights: Path, pixel_values: Array) -> Iterator[tuple[dict[str, Any], Array]]:
    """Yield each way of asking, and the logits (N, classes) that it gives."""
    for profile, candidate in candidates(artifact, weights):
        simulated = candidate.device.simulated
        row = {
            "variant": candidate.variant,
            "engine": candidate.engine,
            "device": candidate.device.name,
            "profile": profile,
            "precision": candidate.precision,
            "simulated": simulated,
            "only": "",
        }
        with candidate.open() as session:
            batch = session.batch or BATCH
            yield row, in_batches(session.run, pixel_values, batch)["logits"]
            if isinstance(session, Simulated) and candidate.variant.startswith("original"):
                assert candidate.device.simulates is not None
                session.configure(candidate.device.simulates.only(GELU))
                found = in_batches(session.run, pixel_values, batch)["logits"]
                yield row | {"only": "its tanh GELU"}, found
    for only, simulated, model in altered(weights):
        row = {"variant": "original-torch-fp32", "engine": "torch", "device": "cpu", "profile": ""}
        row |= {"precision": "fp32", "simulated": simulated, "only": only}
        with torch.inference_mode():
            yield row, model.eval()(torch.from_numpy(pixel_values)).logits.numpy()


def altered(weights: Path) -> Iterator[tuple[str, bool, Any]]:
    """Yield the original with something changed: what that is, whether it is simulated, and the model."""
    with stock_transformers() as transformers, quiet("transformers"):
        load = transformers.ViTForImageClassification.from_pretrained
        yield "tanh GELU in place of the exact one", False, load(weights, hidden_act="gelu_pytorch_tanh")
        for bits in BITS:
            model = load(weights)
            for module in model.modules():
                if isinstance(module, torch.nn.Linear):
                    step = module.weight.data.abs().max() / (2 ** (bits - 1) - 1)
                    module.weight.data = (module.weight.data / step).round() * step
            yield f"weights of {bits} bits, one scale a tensor", True, model


def leads(logits: Array, answers: Array) -> Array:
    """Return by how much the logit of an answer is greater than that of the next best class, (N,)."""
    rows = np.arange(len(logits))
    others = logits.astype(np.float64)
    others[rows, answers] = -np.inf
    return np.asarray(logits[rows, answers] - others.max(axis=1))


def figures(logits: Array, reference: Array, classes: Array) -> dict[str, Any]:
    """Return what answers are worth: right ones, and those that differ from the reference's."""
    right = logits.argmax(1) == classes
    correct, images = int(right.sum()), len(classes)
    low, high = wilson(correct, images)
    answered = reference.argmax(1)
    before = answered == classes
    return {
        "correct": correct,
        "accuracy": correct / images,
        "interval_95": [low, high],
        "answers_that_differ": int((logits.argmax(1) != answered).sum()),
        "nearest_to_another_answer": float((1 - leads(logits, answered) / leads(reference, answered)).max()),
        "right_before_wrong_now": int((before & ~right).sum()),
        "wrong_before_right_now": int((~before & right).sum()),
        "vector_relative_error": vector_relative_error(
            logits.astype(np.float64), reference.astype(np.float64)
        ),
    }


def validated(artifact: Path, weights: Path, images: Sequence[Image.Image], classes: Array) -> dict[str, Any]:
    """Validate on the images as files, a folder a class; return what is shown of each variant."""
    folder = artifact.parent / "held-out"
    for index, (image, name) in enumerate(zip(images, classes, strict=True)):
        path = folder / str(name) / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    report = vconv.validate(artifact, str(weights), dataset=folder, precision=PRECISE, quick=True)
    found = report.dataset
    assert found is not None
    shown = ("variant", "engine", "device", "status", "top1_agreement", "neighbours")
    rows = [{key: row.as_json()[key] for key in shown} for row in found.variants]
    return {"status": report.status, "images": found.images, "variants": rows}


def main() -> None:
    """Train, export, ask, validate."""
    out = out_option(__doc__)
    images, classes, held_out = digits()
    asked = [image for image, kept in zip(images, held_out, strict=True) if kept]
    taught = [image for image, kept in zip(images, held_out, strict=True) if not kept]
    with tempfile.TemporaryDirectory() as name:
        weights, artifact = Path(name) / "weights", Path(name) / "artifact"
        weights.mkdir()
        train(weights, taught, classes[~held_out])
        vconv.export(SYSTEM, str(weights), artifact, batch=8)
        pixel_values, wanted = preprocess(artifact, asked), classes[held_out]
        rows: list[dict[str, Any]] = []
        reference = None
        for row, logits in answers(artifact, weights, pixel_values):
            reference = logits if reference is None else reference
            rows.append(row | figures(logits, reference, wanted))
            one = rows[-1]
            where = f"{row['device']} {row['profile']}".strip() + " (simulated)" * row["simulated"]
            low, high = one["interval_95"]
            print(
                f"{row['variant']:22} {where:25} {row['only']:36} {100 * one['accuracy']:6.2f} % "
                f"({100 * low:.1f} to {100 * high:.1f}), {one['answers_that_differ']} answers differ, "
                f"nearest {one['nearest_to_another_answer']:.1e}, logits {one['vector_relative_error']:.1e}"
            )
        checked = validated(artifact, weights, asked, wanted)
    for row in checked["variants"]:
        print(f"validate --dataset: {row['variant']}: top-1 agreement {row['top1_agreement']:.4f}")
    precise = [
        row for row in rows if row["precision"] == "fp32" and row["device"] == "cpu" and not row["only"]
    ]
    same = not any(row["answers_that_differ"] for row in precise)
    passed = same and rows[0]["accuracy"] >= LEAST_ACCURACY
    print(
        f"answers that fp32 on the CPU changes: {'none' if same else 'some'}; validation {checked['status']}"
    )
    result = {
        "system": SYSTEM,
        "network": "ViT, 6 blocks of width 64, patches of 4 in images of 32, 10 classes",
        "data": "scikit-learn's digits, 8 x 8, two thirds for training",
        "trained_on": len(taught),
        "images": len(asked),
        "seed": SEED,
        "threads": torch.get_num_threads(),
        "reference": "original-torch-fp32 on the CPU",
        "rows": rows,
        "validate_dataset": checked,
        "targets": {"least_accuracy": LEAST_ACCURACY, "answers_that_fp32_on_the_cpu_changes": 0},
    }
    finish(result, passed=passed, out=out)


if __name__ == "__main__":
    main()
