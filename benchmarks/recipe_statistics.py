"""How synthetic weights compare with trained ones: the statistics of their activations, and their errors.

The network is DINOv2-small. Its formulas are written out here in plain torch, so that the same code runs the
trained weights (:mod:`trained_weights`) and synthetic ones. The photographs are those of scikit-image and
scikit-learn (`pip install '.[benchmarks]'`). The photographs and seeds of the
fit are not judged.

Every figure is a ratio, synthetic to trained:

- statistics of every block: standard deviation of the attention logits of a query, mean and standard
  deviation of the values before the GELU, root mean square of the GELU, of what attention and the MLP add, of
  the residual stream, and of the class token in it, and the greatest value in the stream;
- errors of the output, mean|a - e| / mean|e|, of class token and patches: with the tanh GELU, in float16 and
  in bfloat16.

``--fit`` fits the numbers of :mod:`vconv.convert.sources.recipes.second.profile` to the trained statistics,
block after block, and prints them.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Mapping
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from record import finish
from torch import Tensor
from trained_dinov2 import photographs
from trained_weights import SYSTEM, fetched

from vconv.catalog.systems import find
from vconv.convert.libraries.readers import network
from vconv.convert.sources.recipes.base import Recipe
from vconv.convert.sources.recipes.second import profile
from vconv.convert.sources.recipes.second.channels import CLASS_CHANNEL, CLASS_TOKEN, FITTED_WIDTH, LAST
from vconv.convert.sources.recipes.table import LATEST, RECIPES
from vconv.runtime.inputs.preprocessing import preprocess

BLOCKS, HEADS, PATCH, EPSILON = 12, 6, 14, 1e-6
FITTED_TO = ("astronaut.png", "coffee.png", "rocket.jpg", "china.jpg")
"""The photographs that the recipe was fitted to."""
TOLERANCE = 1.5
"""The greatest ratio, up or down, that is asked for."""
APART = ("float16", "bfloat16")
"""Errors that are measured beside the others: nothing is asked of them but the limits."""
ROUNDS = 4
"""How often the fit measures each block again."""
SHARES = (0.72, 0.72, 0.74, 0.8, 0.9, *(1.0,) * 7)
"""By block: the share of the trained size of what attention and the MLP add that is fitted. Trained blocks at
the start cancel each other more than noise can; smaller ones give the residual stream its size."""
DEVIATIONS = {0: 0.8, 11: 1.2}
"""By block: the share of the trained deviation before the GELU, whose trained values are not normal there."""
FIRST_JUDGED = 10
"""The first seed that is judged; fits take seeds from 0 on."""
LOGITS = 0.82
"""The share of the trained deviation of attention logits that is fitted: rounding errors grow with it, and at
1.0 those in bfloat16 come near the limit."""
MOST_LOGITS = 8.0
"""The greatest deviation of attention logits that is fitted, before ``--logits``."""
LIMIT = 0.95
"""The greatest share of a weight that takes away what the block read."""
Weights = Mapping[str, Tensor]
Statistics = list[dict[str, float]]


def rms(x: Tensor) -> float:
    return float(x.double().pow(2).mean().sqrt())


def run(
    weights: Weights, pixels: Tensor, gelu: str = "none", blocks: int = BLOCKS
) -> tuple[Tensor, Statistics]:
    """Run DINOv2-small in the type of the weights; return its tokens after the final norm, and statistics."""
    batch, grid = len(pixels), pixels.shape[-1] // PATCH

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], EPSILON)

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)

    projection = "embeddings.patch_embeddings.projection"
    tokens = F.conv2d(pixels, weights[f"{projection}.weight"], weights[f"{projection}.bias"], stride=PATCH)
    tokens = torch.cat([weights["embeddings.cls_token"].expand(batch, -1, -1), tokens.flatten(2).mT], 1)
    tokens = tokens + _positions(weights["embeddings.position_embeddings"], grid)
    found: Statistics = []
    for number in range(blocks):
        block = f"encoder.layer.{number}"
        x = norm(tokens, f"{block}.norm1")
        query, key, value = (heads(linear(x, f"{block}.attention.attention.{name}")) for name in _PROJECTIONS)
        logits = query @ key.mT / math.sqrt(query.shape[-1])
        mixed = (logits.softmax(-1) @ value).transpose(1, 2).flatten(2)
        attention = (
            linear(mixed, f"{block}.attention.output.dense") * weights[f"{block}.layer_scale1.lambda1"]
        )
        between = tokens + attention
        hidden = linear(norm(between, f"{block}.norm2"), f"{block}.mlp.fc1")
        activated = F.gelu(hidden, approximate=gelu)
        mlp = linear(activated, f"{block}.mlp.fc2") * weights[f"{block}.layer_scale2.lambda1"]
        after = between + mlp
        found.append(
            {
                "attention logits": float((logits - logits.mean(-1, keepdim=True)).std()),
                "before the GELU, mean": float(hidden.mean()),
                "before the GELU, deviation": float(hidden.std()),
                "GELU": rms(activated),
                "attention": rms(attention),
                "MLP": rms(mlp),
                "residual stream": rms(after),
                "class token": rms(after[:, 0]),
                "greatest value": float(after.abs().max()),
                "_attention against": _cosine(attention.mean((0, 1)), tokens.mean((0, 1))),
                "_mlp against": _cosine(mlp, between),
                "_grown": float((after - between)[:, 0, CLASS_CHANNEL].mean()),
            }
        )
        tokens = after
    return norm(tokens, "layernorm"), found


_PROJECTIONS = ("query", "key", "value")


def _positions(embedding: Tensor, grid: int) -> Tensor:
    side = math.isqrt(embedding.shape[1] - 1)
    patches = embedding[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    resampled = F.interpolate(patches.float(), size=(grid, grid), mode="bicubic").to(embedding.dtype)
    return torch.cat([embedding[:, :1], resampled.flatten(2).mT], 1)


def _cosine(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / a.norm() / b.norm())


def errors(weights: Weights, pixels: Tensor, exact: Tensor) -> dict[str, dict[str, float]]:
    """Return the median error over the photographs, of class token and patches, of each way to compute."""
    runs = {"tanh GELU": run(weights, pixels, "tanh")[0]}
    for dtype in (torch.float16, torch.bfloat16):
        narrow = {name: value.to(dtype) for name, value in weights.items()}
        runs[str(dtype).removeprefix("torch.")] = run(narrow, pixels.to(dtype))[0].float()
    return {
        name: {
            part: statistics.median(_error(found[i, at], exact[i, at]) for i in range(len(exact)))
            for part, at in (("class token", slice(0, 1)), ("patches", slice(1, None)))
        }
        for name, found in runs.items()
    }


def _error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().mean() / expected.abs().mean())


def drawn(recipe: Recipe, seed: int, block: int | None = None) -> dict[str, Tensor]:
    """Draw the weights of a recipe; of one block alone if that is asked for."""
    net = network(find(SYSTEM).config)
    return {
        key: torch.from_numpy(recipe.draw(tensor, net, seed))
        for key, tensor in net.tensors().items()
        if block is None or tensor.block == block
    }


def measured(weights: Weights, pixels: Tensor) -> tuple[Statistics, dict[str, dict[str, float]]]:
    with torch.inference_mode():
        exact, found = run(weights, pixels)
        return found, errors(weights, pixels, exact)


def fit(pixels: Tensor, target: Statistics, seeds: int, logits: float) -> None:
    """Fit the profile block after block to the mean of the seeds, and print it."""
    rows, recipe = list(profile.PROFILE), RECIPES[LATEST]

    def redrawn(seed: int, block: int | None = None) -> dict[str, Tensor]:
        with mock.patch.object(profile, "PROFILE", tuple(rows)):
            return drawn(recipe, seed, block)

    weights = [redrawn(seed) for seed in range(seeds)]
    for number in range(BLOCKS):
        for _ in range(ROUNDS):
            with torch.inference_mode():
                runs = [run(one, pixels, blocks=number + 1)[1][number] for one in weights]
            found = {name: statistics.mean(one[name] for one in runs) for name in runs[0]}
            rows[number] = _nearer(rows, number, found, target[number], logits)
            for seed, one in enumerate(weights):
                one |= redrawn(seed, number)
        print(f"    Depth({', '.join(f'{value:.4g}' for value in astuple(rows[number]))}),", flush=True)


def _nearer(
    rows: list[profile.Depth],
    number: int,
    found: dict[str, float],
    wanted: dict[str, float],
    logits: float,
) -> profile.Depth:
    """Return the numbers of a depth, with those that are fitted moved towards the trained statistics."""
    row, share = rows[number], SHARES[number]
    mean, deviation = "before the GELU, mean", "before the GELU, deviation"
    spread = wanted[deviation] * DEVIATIONS.get(number, 1.0)
    ratio = min(wanted["attention logits"], MOST_LOGITS) * logits / found["attention logits"]
    last = sum(amount**2 for _, amount in LAST) / FITTED_WIDTH if number == BLOCKS - 1 else 0.0
    grown = row.class_token - (rows[number - 1].class_token if number else CLASS_TOKEN)
    attention = math.sqrt(
        max(0.1, (share * wanted["attention"]) ** 2 - last) / max(0.01, found["attention"] ** 2 - last)
    )
    return replace(
        row,
        query_key=row.query_key * math.sqrt(ratio),
        attention=row.attention * attention
        if last
        else row.attention * share * wanted["attention"] / found["attention"],
        attention_against=_within(
            row.attention_against + 0.8 * (found["_attention against"] - wanted["_attention against"])
        ),
        hidden=row.hidden * spread / found[deviation],
        middle=row.middle + wanted[mean] / spread - found[mean] / found[deviation],
        mlp=row.mlp * share * wanted["MLP"] / found["MLP"],
        mlp_against=_within(row.mlp_against + 0.8 * (found["_mlp against"] - wanted["_mlp against"])),
        found=row.found * float(np.clip(found["_grown"] / grown, 0.3, 3)) if abs(grown) > 0.05 else row.found,
    )


def _within(share: float) -> float:
    return float(np.clip(share, -LIMIT, LIMIT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6, help="number of seeds to judge (6), or to fit to")
    parser.add_argument("--recipe", type=int, action="append", choices=sorted(RECIPES), help="all by default")
    parser.add_argument("--fit", action="store_true", help="fit the profile and print it, instead")
    parser.add_argument(
        "--logits", type=float, default=LOGITS, help=f"share of the trained logits to fit ({LOGITS})"
    )
    parser.add_argument("--out", type=Path, help="a JSON file to record the result in")
    options = parser.parse_args()
    folder, pictures = fetched(), photographs()
    trained = safetensors.torch.load_file(folder / "model.safetensors")
    chosen = {name for name in pictures if (name in FITTED_TO) == options.fit}
    pixels = torch.from_numpy(preprocess(folder, [pictures[name] for name in sorted(chosen)]))
    expected, expected_errors = measured(trained, pixels)
    if options.fit:
        fit(pixels, expected, options.seeds, options.logits)
        return
    result: dict[str, Any] = {"trained": {"statistics": expected, "errors": expected_errors}, "recipes": {}}
    for version in options.recipe or RECIPES:
        ratios: dict[str, list[float]] = {}
        for seed in range(FIRST_JUDGED, FIRST_JUDGED + options.seeds):
            found, found_errors = measured(drawn(RECIPES[version], seed), pixels)
            for name in expected[0]:
                if not name.startswith("_"):
                    ratios.setdefault(name, []).extend(
                        ours[name] / theirs[name] for ours, theirs in zip(found, expected, strict=True)
                    )
            for name, parts in expected_errors.items():
                for part, value in parts.items():
                    ratios.setdefault(f"{name}, {part}", []).append(found_errors[name][part] / value)
                orders = [
                    one[name]["class token"] / one[name]["patches"] for one in (found_errors, expected_errors)
                ]
                ratios.setdefault(f"{name}, class token to patches", []).append(orders[0] / orders[1])
        result["recipes"][str(version)] = {
            name: [min(values), max(values)] for name, values in ratios.items()
        }
        for name, values in ratios.items():
            outside = "" if min(values) >= 1 / TOLERANCE and max(values) <= TOLERANCE else "  outside"
            print(f"recipe {version}: {name:<42} {min(values):.2f} to {max(values):.2f}{outside}", flush=True)
    latest = result["recipes"].get(str(LATEST), {})
    result["outside"] = sorted(
        name
        for name, (least, most) in latest.items()
        if not name.startswith(APART) and not 1 / TOLERANCE <= least <= most <= TOLERANCE
    )
    finish(result, passed=not result["outside"], out=options.out)


if __name__ == "__main__":
    main()
