"""Measure what the limits stand on: how far clean variants lie from their reference, and how far faults.

Synthetic weights in the true architectures, and the trained weights of DINOv2-small (:mod:`trained_weights`),
with two made-up images. A distance is that of the worst output and image, in float32 on the CPU unless
another arithmetic is named.

- fp32: the patched checkpoint in torch, both graphs in ONNX Runtime and OpenVINO.
- hf32, and fp32 on fp16: the patched checkpoint and both graphs on the simulated NPU, profiles 910b, whose
  convolutions take HF32 operands, and 310p, whose products all take float16 ones. Simulated.
- fp16, bf16: the patched checkpoint in torch, its weights in that type or under autocast.
- int8: every Linear with its weight quantised symmetrically and its input asymmetrically, each by one scale,
  the input's chosen for each image: dynamic quantisation by tensor, simulated. Of trained weights alone: it
  depends on how values are distributed, which training decides.
- faults: see FAULTS. Of one that can be put into any one block, the block where it shows least.

Every clean variant must pass the strict limit of its precision and arithmetic, and every fault that is to be
caught there must fail it.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from record import finish
from torch import Tensor, nn
from trained_weights import SYSTEM, fetched

from vconv.artifact import manifest
from vconv.artifact.artifact import Artifact
from vconv.catalog.systems import SYSTEMS, find
from vconv.convert.architectures.outputs import output_names
from vconv.convert.libraries import corrections, models
from vconv.convert.sources.base import Source
from vconv.convert.sources.recipes.table import LATEST
from vconv.convert.sources.table import Request, open_source
from vconv.precisions import PRECISIONS
from vconv.runtime.devices.base import Settings
from vconv.runtime.devices.table import find_device
from vconv.runtime.simulation.arithmetic import PROFILES
from vconv.types import Arrays, Status, silent
from vconv.validators import validation
from vconv.validators.accuracy import golden
from vconv.validators.accuracy.golden import Reference
from vconv.validators.accuracy.limits import STRICT, Pair, open_limits
from vconv.validators.accuracy.metrics import measure
from vconv.validators.accuracy.verdicts import judge, overall
from vconv.workflows import candidates as listing
from vconv.workflows import export

SHOWN = ("vector_relative_error", "relative_error", "cosine", "token_cosine_min")
"""Metrics that limits bound."""
Change = Callable[[nn.Module], contextlib.AbstractContextManager[None]]
"""Alters a model while it is open."""


def to_int8(x: Tensor) -> Tensor:
    """Quantise to -127 .. 127 by one scale, and back: a weight's way in dynamic quantisation."""
    scale = x.abs().max() / 127
    return torch.round(x / scale) * scale


def to_uint8(x: Tensor) -> Tensor:
    """Quantise to 0 .. 255 by one scale and zero point, and back: an activation's way."""
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    scale = (high - low) / 255
    zero = torch.round(-low / scale)
    return (torch.clamp(torch.round(x / scale) + zero, 0, 255) - zero) * scale


@contextlib.contextmanager
def rounded(
    model: nn.Module,
    kind: type[nn.Module],
    weight: Callable[[Tensor], Tensor],
    data: Callable[[Tensor], Tensor],
) -> Iterator[None]:
    """Round the weights and the inputs of every module of a kind."""
    found = [module for module in model.modules() if isinstance(module, kind)]
    before = [module.weight.data for module in found]
    handles = []
    for module in found:
        module.weight.data = weight(module.weight.data)
        handles.append(module.register_forward_pre_hook(lambda _, inputs: (data(inputs[0]), *inputs[1:])))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, kept in zip(found, before, strict=True):
            module.weight.data = kept


@contextlib.contextmanager
def tanh_gelu(modules: Sequence[nn.Module], _: nn.Module) -> Iterator[None]:
    """Let some activations compute the tanh form."""
    handles = [
        module.register_forward_hook(lambda _, inputs, __: F.gelu(inputs[0], approximate="tanh"))
        for module in modules
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def no_biases(biases: Sequence[Tensor], _: nn.Module) -> Iterator[None]:
    """Drop biases."""
    before = [bias.clone() for bias in biases]
    for bias in biases:
        bias.zero_()
    try:
        yield
    finally:
        for bias, kept in zip(biases, before, strict=True):
            bias.copy_(kept)


@contextlib.contextmanager
def bgr(model: nn.Module) -> Iterator[None]:
    """Take the images' channels in reverse."""
    (first,) = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    handle = first.register_forward_pre_hook(lambda _, inputs: (inputs[0].flip(1),))
    try:
        yield
    finally:
        handle.remove()


def activations(model: nn.Module) -> list[nn.Module]:
    """List the GELUs, block by block."""
    return [module for module in model.modules() if type(module).__name__ in ("GELU", "GELUActivation")]


def value_biases(model: nn.Module) -> list[Tensor]:
    """List the biases of the values, block by block: views that can be changed. None where they are zero."""
    named = dict(model.named_parameters())
    alone = [bias.data for name, bias in named.items() if name.endswith(("value.bias", "v_proj.bias"))]
    joined = [bias.data.chunk(3)[2] for name, bias in named.items() if name.endswith("attn.qkv.bias")]
    return [bias for bias in alone + joined if bias.abs().max() > 0]


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with a model.

    Args:
        ways: lists the changes that each make this fault; the one that shows least counts.
        caught: the limits that it must fail.
    """

    ways: Callable[[nn.Module], Sequence[Change]]
    caught: tuple[Pair, ...]


FP32, HF32, CUBE_FP16, FP16, BF16, INT8 = STRICT
FAULTS: Mapping[str, Fault] = {
    "tanh GELU, one block": Fault(
        lambda model: [partial(tanh_gelu, [module]) for module in activations(model)], (FP32,)
    ),
    "tanh GELU, all blocks": Fault(lambda model: [partial(tanh_gelu, activations(model))], (FP32,)),
    "value bias dropped, one block": Fault(
        lambda model: [partial(no_biases, [bias]) for bias in value_biases(model)],
        (FP32, HF32, CUBE_FP16, FP16),
    ),
    "value bias dropped, all blocks": Fault(
        lambda model: [partial(no_biases, found)] if (found := value_biases(model)) else [], (BF16,)
    ),
    "images in BGR": Fault(lambda model: [bgr], (FP32, HF32, CUBE_FP16, FP16, BF16, INT8)),
}
TRAINED = f"{SYSTEM}, trained"
STOCK = "float32 RoPE periods"
"""The stock DINOv3, which the reference corrects: a fault that the artifact must not have."""
STOCK_CAUGHT = (FP32, HF32)
SIMULATED: Mapping[str, tuple[Pair, Change]] = {
    "dynamic int8 by tensor (simulated)": (INT8, lambda model: rounded(model, nn.Linear, to_int8, to_uint8)),
}


def distances(actual: Arrays, expected: Arrays) -> dict[str, float]:
    """Return the worst of each metric over all outputs."""
    found = [measure(name, actual[name], expected[name]) for name in expected]
    low = {key: max(one[key] for one in found) for key in SHOWN[:2]}
    return low | {key: min(one[key] for one in found) for key in SHOWN[2:]}


def clean(folder: Path, made: Any, against: Reference) -> Iterator[dict[str, Any]]:
    """Run every variant, engine and precision of an artifact on the CPU, and every profile of the NPU."""
    cpu, engines = find_device("cpu"), ("onnxruntime", "openvino")
    candidates = listing.candidates(Artifact(folder, made), cpu, against, engines, list(PRECISIONS.values()))
    for profile in PROFILES:
        place = find_device("npu-sim", Settings(profile=profile))
        candidates += listing.candidates(Artifact(folder, made), place, against)
    for row in validation.run(candidates, open_limits("strict"), None, silent).rows:
        outputs = [dict(output.metrics) for output in row.outputs.values()]
        assert outputs, row.reason
        worst: dict[str, Any] = {key: max(output[key] for output in outputs) for key in SHOWN[:2]}
        worst |= {key: min(output[key] for output in outputs) for key in SHOWN[2:]}
        yield {
            "what": f"{row.variant} ({row.engine}{', simulated' * row.simulated})",
            "limit": f"{row.precision}.{row.arithmetic}",
            "passes": row.passed,
            **worst,
        }


def altered(source: Source, against: Reference) -> Iterator[dict[str, Any]]:
    """Run the reference with every fault, and with trained weights in simulated arithmetic."""
    network, expected = source.network, against.outputs
    model = models.load(source.folder, network)
    names = output_names(network)
    outputs = models.Outputs(model, network).eval()

    def run(change: Change) -> dict[str, Any]:
        with torch.inference_mode(), change(model):
            runs = [outputs(torch.from_numpy(image[None])) for image in against.pixel_values]
        return {name: torch.cat(parts).numpy() for name, *parts in zip(names, *runs, strict=True)}

    def row(what: str, pair: Pair, actual: Arrays) -> dict[str, Any]:
        passes = overall(judge(actual, expected, STRICT[pair])) is Status.PASSED
        return {"what": what, "limit": ".".join(pair), "passes": passes, **distances(actual, expected)}

    stock = run(lambda _: contextlib.nullcontext())
    if corrections.correct(model, network.layout.family, source.config) != "original":
        for pair in STOCK_CAUGHT:
            yield row(STOCK, pair, stock)
    apart = {INT8} if source.origin.synthetic else set()
    for what, (pair, change) in SIMULATED.items():
        if pair not in apart:
            yield row(what, pair, run(change))
    for what, fault in FAULTS.items():
        found = [run(change) for change in fault.ways(model)]
        if found:
            least = min(found, key=lambda actual: distances(actual, expected)["vector_relative_error"])
            for pair in fault.caught:
                if pair not in apart:
                    yield row(what, pair, least)


def of_system(name: str) -> list[dict[str, Any]]:
    """Measure one system, with synthetic weights unless it is the trained one."""
    given = str(fetched()) if name == TRAINED else "synthetic:0"
    name = SYSTEM if name == TRAINED else name
    with tempfile.TemporaryDirectory() as place:
        folder, weights = Path(place) / "artifact", Path(place) / "weights"
        weights.mkdir()
        export.export(name, given, folder)
        made = manifest.load(folder)
        source = open_source(Request(find(name), given), weights)
        against = Reference("recorded", *golden.load(folder / made.golden.path), {}, {})
        floor = max(made.golden.floor.values())
        rows = [
            {"what": "floor: the reference in float32 from itself in float64", "vector_relative_error": floor}
        ]
        return [*rows, *clean(folder, made, against), *altered(source, against)]


def ranges(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Sum up, for each limit, the clean distances and those of the faults that it must catch."""
    found = {}
    for pair, limit in STRICT.items():
        key, bound = ".".join(pair), limit.bounds["vector_relative_error"]
        here = [row for row in rows if row.get("limit") == key]
        if not here:
            continue
        faulty = [row for row in here if row["what"] in (*FAULTS, STOCK)]
        good = [row["vector_relative_error"] for row in here if row not in faulty]
        bad = min(faulty, key=lambda row: row["vector_relative_error"])
        found[key] = {
            "bounds": dict(limit.bounds),
            "clean": [min(good), max(good)],
            "clean_token_cosine_min": min(row["token_cosine_min"] for row in here if row not in faulty),
            "limit_over_greatest_clean": bound / max(good),
            "least_fault": {"what": bad["what"], "vector_relative_error": bad["vector_relative_error"]},
            "least_fault_over_limit": bad["vector_relative_error"] / bound,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="a JSON file to record the result in")
    parser.add_argument(
        "--system", action="append", choices=[TRAINED, *sorted(SYSTEMS)], help="repeatable; all by default"
    )
    options = parser.parse_args()
    systems: dict[str, list[dict[str, Any]]] = {}
    for name in options.system or (TRAINED, *SYSTEMS):
        start = time.perf_counter()
        systems[name] = of_system(name)
        print(f"{name}, {time.perf_counter() - start:.0f} s", flush=True)
        for row in systems[name]:
            figures = ", ".join(f"{key} {row[key]:.5g}" for key in SHOWN if key in row)
            verdict = {True: "passes", False: "fails"}.get(row.get("passes"), "")
            print(f"  {row['what']:<45} {row.get('limit', ''):<10} {verdict:<7} {figures}", flush=True)
    rows = [row for system in systems.values() for row in system]
    summary = ranges(rows)
    for key, found in summary.items():
        print(
            f"{key}: clean {found['clean'][0]:.2g} to {found['clean'][1]:.2g}, "
            f"limit {found['limit_over_greatest_clean']:.2g} times the greatest; "
            f"{found['least_fault']['what']} is {found['least_fault_over_limit']:.2g} times the limit"
        )
    faults = (*FAULTS, STOCK)
    wrong = [row for row in rows if "passes" in row and row["passes"] == (row["what"] in faults)]
    print(
        "; ".join(f"{row['what']} {row['limit']}" for row in wrong) or "every limit tells clean from faulty"
    )
    result = {"weights": "synthetic:0", "recipe": LATEST, "limits": summary, "systems": systems}
    finish(result, passed=not wrong, out=options.out)


if __name__ == "__main__":
    main()
