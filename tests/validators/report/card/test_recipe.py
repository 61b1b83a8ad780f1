"""The recipe in the card does what the stock image processor does, picture by picture."""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vconv.artifact.manifest import Manifest
from vconv.catalog.systems import SYSTEMS, System
from vconv.runtime.inputs.images import natural_image
from vconv.types import Array, Config
from vconv.validators.report.card.card import render
from vconv.validators.report.card.recipe import InexpressibleError, recipe

SCRIPT = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def settings(system: System) -> Mapping[str, Any]:
    return system.config if system.library == "timm" else system.preprocessor


def by_recipe(made: Manifest, system: System, picture: Path, monkeypatch: pytest.MonkeyPatch) -> Array:
    """Run the card's preprocessing: the script up to where it opens the graph."""
    made = made.model_copy(update={"size": system.input})
    script = SCRIPT.findall(render(made, [], "en", processor=settings(system)))[2]
    assert "transformers" not in script and "torch." not in script and "import timm" not in script
    monkeypatch.setattr(sys, "argv", ["inference.py", str(picture)])
    space: dict[str, Any] = {}
    exec(script.split("\n# On an NPU")[0], space)
    found: Array = space["pixel_values"]
    return found


def by_stock(system: System, picture: Path, folder: Path) -> Array:
    """Run the library's own processor on the picture, upright."""
    image = Image.open(picture)
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if system.library == "timm":
        from timm.data.transforms_factory import create_transform

        known = system.config["pretrained_cfg"]
        keys = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")
        return np.asarray(create_transform(**{key: known[key] for key in keys})(image.convert("RGB")))[None]
    from transformers import AutoImageProcessor

    for name, content in (("preprocessor_config", system.preprocessor), ("config", system.config)):
        (folder / f"{name}.json").write_text(json.dumps(dict(content)))
    stock: Any = AutoImageProcessor.from_pretrained(folder)
    if not getattr(stock, "do_convert_rgb", False):
        image = image.convert("RGB")
    return np.asarray(stock(images=image, return_tensors="np")["pixel_values"])


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    natural_image(3).resize((300, 201)).save(path, exif=exif, quality=95)


def transparent(path: Path) -> None:
    image = natural_image(4).resize((250, 311)).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(path)


PICTURES = {
    "large.png": lambda path: natural_image(1).resize((641, 427)).save(path),
    "small.png": lambda path: natural_image(2).resize((97, 60)).save(path),
    "grey.png": lambda path: natural_image(5).convert("L").save(path),
    "rotated.jpg": rotated,
    "transparent.png": transparent,
}


@pytest.mark.every_system
@pytest.mark.parametrize("name", PICTURES)
def test_the_recipe_gives_the_pixel_values_of_the_stock_processor(
    made: Manifest, system: System, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    if transformers.__version__.startswith("4."):
        pytest.skip("without a report, the card is for transformers 5")
    PICTURES[name](tmp_path / name)
    found = by_recipe(made, system, tmp_path / name, monkeypatch)
    with contextlib.redirect_stderr(None):
        expected = by_stock(system, tmp_path / name, tmp_path)
    assert found.shape == expected.shape == (1, 3, *system.input)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)  # a level of 255 is 2e-2


BIT = SYSTEMS["dinov2-large"].preprocessor
TIMM = SYSTEMS["vit_small_patch16_dinov3.lvd1689m"].config


@pytest.mark.parametrize(
    ("library", "changed", "named"),
    [
        ("transformers", {**BIT, "do_pad": True}, "do_pad"),
        ("transformers", {**BIT, "resample": 1}, "1"),
        ("transformers", {**BIT, "do_normalize": False}, "do_normalize"),
        ("transformers", {**BIT, "image_processor_type": "CLIPImageProcessor"}, "CLIPImageProcessor"),
        ("transformers", {**BIT, "size": {"shortest_edge": 200}}, "crop_size"),
        ("transformers", {**BIT, "size": {"longest_edge": 256}}, "size"),
        ("transformers", {key: value for key, value in BIT.items() if key != "size"}, "size"),
        ("transformers", {key: value for key, value in BIT.items() if key != "image_mean"}, "image_mean"),
        (
            "transformers",
            {**BIT, "crop_size": {"height": -math.inf, "width": 224}},
            "one that has another form than usual",
        ),
        ("transformers", {**BIT, "image_std": 0.5}, "one that has another form than usual"),
        ("transformers", {}, "image_processor_type"),
        ("timm", {"pretrained_cfg": {**TIMM["pretrained_cfg"], "crop_mode": "border"}}, "crop_mode"),
        ("timm", {"pretrained_cfg": {**TIMM["pretrained_cfg"], "interpolation": "lanczos"}}, "interpolation"),
    ],
)
def test_settings_that_cannot_be_written_down_are_named(
    library: str, changed: Mapping[str, Any], named: str
) -> None:
    size = (224, 224) if library == "transformers" else (256, 256)
    with pytest.raises(InexpressibleError, match=named):
        recipe(library, changed, size, classic=False)


VIT = SYSTEMS["vit-base-patch16-224-in21k"].preprocessor


@pytest.mark.parametrize(("settings", "number"), [(BIT, 256), (VIT, 224)], ids=["Bit", "ViT"])
def test_a_size_of_one_number_is_what_its_class_takes_it_for(settings: Config, number: int) -> None:
    short = recipe("transformers", {**settings, "size": number}, (224, 224), classic=False)
    assert short == recipe("transformers", settings, (224, 224), classic=False)


def test_version_4_of_transformers_resizes_by_pillow_and_drops_transparency() -> None:
    found = recipe("transformers", BIT, (224, 224), classic=True)
    assert (found.resizer, found.white) == ("pillow", False)
    fast = {**BIT, "image_processor_type": "BitImageProcessorFast"}
    assert recipe("transformers", fast, (224, 224), classic=True).resizer == "torch"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_card_whose_processor_cannot_be_written_down_says_so(made: Manifest, language: str) -> None:
    text = render(
        made,
        [],
        language,
        processor={**settings(SYSTEMS[made.system.name]), "image_processor_type": "X", "pretrained_cfg": {}},
    )
    assert len(SCRIPT.findall(text)) == 2
    assert ("cannot be written in NumPy" if language == "en" else "无法在此用 NumPy 表达") in text


def test_a_processor_for_another_size_than_the_networks_is_named() -> None:
    with pytest.raises(InexpressibleError, match="^size$"):
        recipe("transformers", BIT, (256, 256), classic=False)
