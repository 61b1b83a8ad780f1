"""Whether the graph that takes images gives the features of the library's own processor and model.

The images are 20 of odd sizes: the photographs in scikit-image and scikit-learn, and cuts of them. Of each
image, the library's own image processor and its unpatched model give the expected outputs; the graph
`model.uint8.onnx` gets the same image as uint8. The least cosine of an output, over images and outputs, must
be at least 0.9999. That the bar can be missed is shown by the same outputs for the image in BGR. A system
that ``--out FILE`` has already is not measured again.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import finish, out_option
from trained_dinov2 import photographs
from trained_weights import SYSTEM, fetched

import vconv
from vconv.catalog.systems import find
from vconv.convert.sources.table import Request, open_source
from vconv.runtime.inputs.preprocessing import preprocess
from vconv.types import Array
from vconv.validators.accuracy import golden

IMAGES = 20
LEAST = 0.9999
SYSTEMS = (
    SYSTEM,
    "dinov3-vits16",
    "vit_small_patch16_dinov3.lvd1689m",
    "vit_small_patch14_reg4_dinov2.lvd142m",
    "vit-base-patch16-224",
    "dinov3-convnext-tiny",
)
"""One of each family. The first has trained weights, the others have synthetic ones."""


def odd(images: dict[str, Image.Image]) -> dict[str, Image.Image]:
    """Return images whose sides are odd, or of an odd ratio: each photograph, and cuts of them."""
    found, random = {}, np.random.Generator(np.random.PCG64(0))
    for name, image in images.items():
        found[name] = image.crop(
            (0, 0, image.width - 1 + image.width % 2, image.height - 1 + image.height % 2)
        )
    names = sorted(images)
    while len(found) < IMAGES:
        image = images[names[len(found) % len(names)]]
        width, height = (int(random.integers(97, side) | 1) for side in (image.width - 2, image.height - 2))
        left, top = int(random.integers(image.width - width)), int(random.integers(image.height - height))
        cut = image.crop((left, top, left + width, top + height))
        found[f"{names[len(found) % len(names)]} {width}x{height}+{left}+{top}"] = cut
    return found


def cosine(actual: Array, expected: Array) -> float:
    one, other = actual.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def measured(name: str, images: dict[str, Image.Image], scratch: Path) -> dict[str, Any]:
    """Return the least cosine of every image, and the greatest least cosine of a wrong one."""
    weights = str(fetched()) if name == SYSTEM else "synthetic:0"
    vconv.export(name, weights, scratch / "artifact", golden=False, with_preprocessing=True)
    (scratch / "original").mkdir()
    source = open_source(Request(find(name), weights), scratch / "original")
    cosines, wrong = {}, {}
    with golden.running(source) as run, vconv.load(scratch / "artifact", variant="onnx-fp32-uint8") as graph:
        for image_name, image in images.items():
            expected = run(preprocess(source.folder, [image]))
            levels = np.asarray(image)[None]
            for kept, given in ((cosines, levels), (wrong, np.ascontiguousarray(levels[..., ::-1]))):
                actual = graph(given)
                kept[image_name] = min(cosine(actual[key], expected[key]) for key in expected)
    return {
        "weights": "trained"
        if name == SYSTEM
        else f"{weights}, recipe {vconv.info(scratch / 'artifact')['source']['recipe']}",
        "least_cosine": cosines,
        "least_cosine_in_bgr": wrong,
    }


def main() -> None:
    """Measure every system."""
    out = out_option(__doc__)
    images = odd(photographs())
    found = json.loads(out.read_text())["systems"] if out and out.exists() else {}
    for name in SYSTEMS:
        if name not in found:
            with tempfile.TemporaryDirectory() as scratch:
                found[name] = measured(name, images, Path(scratch))
            if out:
                out.write_text(json.dumps({"systems": found}, indent=2) + "\n")
        least, wrong = (
            min(found[name]["least_cosine"].values()),
            max(found[name]["least_cosine_in_bgr"].values()),
        )
        print(
            f"{name}: cosine at least {least:.7f} over {len(images)} images; in BGR at most {wrong:.4f}",
            flush=True,
        )
    passed = all(
        min(row["least_cosine"].values()) >= LEAST > max(row["least_cosine_in_bgr"].values())
        for row in found.values()
    )
    sizes = {name: list(image.size) for name, image in images.items()}
    finish({"target": LEAST, "images_width_height": sizes, "systems": found}, passed, out)


if __name__ == "__main__":
    main()
