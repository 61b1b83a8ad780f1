from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers
from examples import EXAMPLES
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from vconv.catalog.systems import System
from vconv.convert.sources.base import Source
from vconv.errors import InputError
from vconv.runtime.inputs.images import natural_image, natural_images
from vconv.runtime.inputs.preprocessing import denormalised, load_processor, preprocess
from vconv.types import Array

INTERPOLATION = {0: InterpolationMode.NEAREST, 2: InterpolationMode.BILINEAR, 3: InterpolationMode.BICUBIC}
"""From Pillow's number, as configurations have it."""
GREY_LEVELS = 2.5
"""Tolerance against torchvision, in levels of 255: a processor may round to whole levels once an axis."""
SIZES = ((512, 384), (300, 500), (224, 224), (97, 640))
"""Width and height of images: the made-up ones' own, upright, square, and long."""


def by_transformers(system: System, folder: Path, image: Image.Image) -> Array:
    """Preprocess with the stock image processor."""
    stock = transformers.AutoImageProcessor.from_pretrained(folder)
    return np.asarray(stock(images=image, return_tensors="pt")["pixel_values"][0])


def by_timm(system: System, folder: Path, image: Image.Image) -> Array:
    """Preprocess with the stock transform of the stock model."""
    model: Any = timm.create_model(f"local-dir:{folder}", pretrained=False)
    return np.asarray(create_transform(**resolve_data_config({}, model=model), is_training=False)(image))


STOCK: Mapping[str, Callable[[System, Path, Image.Image], Array]] = {
    "transformers": by_transformers,
    "timm": by_timm,
}
"""By library: what a stock user does. A new library needs a row."""


def statistics(system: System) -> tuple[Array, Array]:
    """Return mean and standard deviation (3, 1, 1), as the catalog has them."""
    says = system.preprocessor or system.config["pretrained_cfg"]
    keys = ("image_mean", "image_std") if system.preprocessor else ("mean", "std")
    mean, std = (np.array(says[key])[:, None, None] for key in keys)
    return mean, std


def side(system: System) -> int:
    says = system.preprocessor
    if not says:
        return int(system.config["pretrained_cfg"]["input_size"][1])
    return int((says["crop_size"] if says.get("do_center_crop") else says["size"])["height"])


def by_torchvision(system: System, image: Image.Image, nearest: bool = False) -> Array:
    """Preprocess as the catalog says, in float32 throughout, without the library."""
    says, target = system.preprocessor, side(system)
    if says:
        whole = says["size"].get("shortest_edge")
        kind = INTERPOLATION[says["resample"]]
    else:
        whole, kind = target, InterpolationMode(system.config["pretrained_cfg"]["interpolation"])
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    kind = InterpolationMode.NEAREST if nearest else kind
    resized = tv.resize(values, [whole] if whole else [target, target], kind, antialias=True)
    levels = tv.center_crop(resized, [target, target]).clamp(0, 255)
    mean, std = statistics(system)
    return ((levels.numpy() / 255 - mean) / std).astype(np.float32)


def levels_apart(system: System, actual: Array, expected: Array) -> Array:
    return np.asarray(np.abs(actual - expected) * statistics(system)[1] * 255)


def test_every_library_has_its_stock_preprocessing_here() -> None:
    assert {system.library for system in EXAMPLES.values()} == set(STOCK)


@pytest.mark.parametrize("wh", SIZES)
def test_pixel_values_are_those_that_a_stock_user_gets(
    wh: tuple[int, int], processor_folder: Path, system: System
) -> None:
    image = natural_image(4).resize(wh)
    actual = preprocess(processor_folder, [image])
    assert np.array_equal(actual[0], STOCK[system.library](system, processor_folder, image))


def mild() -> Image.Image:
    """Make an image of middling levels: bicubic curves overshoot, and a processor clips once an axis."""
    return natural_image(4).point(lambda level: 64 + level // 2)


def test_pixel_values_are_those_of_torchvision(processor_folder: Path, system: System) -> None:
    image = mild()
    actual, expected = preprocess(processor_folder, [image])[0], by_torchvision(system, image)
    levels = levels_apart(system, actual, expected)
    assert actual.shape == expected.shape
    assert levels.max() < GREY_LEVELS
    assert levels.mean() < 0.5


def test_the_tolerance_tells_the_right_interpolation_from_another(
    processor_folder: Path, system: System
) -> None:
    image = mild()
    actual, wrong = preprocess(processor_folder, [image])[0], by_torchvision(system, image, nearest=True)
    assert levels_apart(system, actual, wrong).max() > 5 * GREY_LEVELS


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128), (1, 2, 3)])
def test_a_flat_colour_is_normalised_channel_by_channel(
    colour: tuple[int, int, int], processor_folder: Path, system: System
) -> None:
    actual = preprocess(processor_folder, [Image.new("RGB", (300, 200), colour)])[0]
    mean, std = statistics(system)
    expected = (np.array(colour)[:, None, None] / 255 - mean) / std
    assert np.abs(actual - expected).max() < 1e-5


@pytest.mark.parametrize("corner", ["left top", "right top", "left bottom"])
def test_an_image_is_neither_flipped_nor_turned(corner: str, processor_folder: Path) -> None:
    image = Image.new("RGB", (400, 400))
    left, top = 0 if "left" in corner else 250, 0 if "top" in corner else 250
    image.paste((255, 255, 255), (left, top, left + 150, top + 150))
    values = preprocess(processor_folder, [image])[0, 0]
    rows, columns = np.nonzero(values > values.mean())
    assert (columns.mean() < values.shape[1] / 2) == ("left" in corner)
    assert (rows.mean() < values.shape[0] / 2) == ("top" in corner)


def test_images_of_any_size_make_one_contiguous_float32_batch(processor_folder: Path, system: System) -> None:
    images = [natural_image(0).resize(wh) for wh in ((40, 300), (224, 224), (511, 17))]
    actual = preprocess(processor_folder, images)
    assert actual.shape == (3, 3, side(system), side(system))
    assert actual.dtype == np.float32
    assert actual.flags.c_contiguous


def test_an_image_does_not_depend_on_its_neighbours(processor_folder: Path) -> None:
    images = natural_images(3, 0)
    process = load_processor(processor_folder)
    together = process(images)
    alone = np.concatenate([process([image]) for image in images])
    assert np.array_equal(together, alone)


def test_two_images_keep_their_order(processor_folder: Path) -> None:
    black, white = Image.new("RGB", (9, 9)), Image.new("RGB", (9, 9), (255, 255, 255))
    first, second = preprocess(processor_folder, [black, white])
    assert first.max() < second.min()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_an_image_of_another_mode_is_taken_as_rgb(mode: str, processor_folder: Path) -> None:
    image = natural_image(2).convert(mode)
    expected = preprocess(processor_folder, [image.convert("RGB")])
    assert np.array_equal(preprocess(processor_folder, [image]), expected)


def test_preprocessing_is_the_same_every_time(processor_folder: Path) -> None:
    """Nothing is drawn: no crop or flip of a training transform."""
    process, image = load_processor(processor_folder), natural_image(3)
    assert np.array_equal(process([image]), process([image]))


TRANSFORMERS = [name for name, system in EXAMPLES.items() if system.library == "transformers"]


@pytest.mark.parametrize("system", TRANSFORMERS, indirect=True)
@pytest.mark.parametrize("fault", ["unknown type", "no type", "not there", "not JSON"])
def test_a_processor_that_transformers_does_not_know_is_an_error_that_the_user_can_mend(
    fault: str, processor_folder: Path, system: System
) -> None:
    path = processor_folder / "preprocessor_config.json"
    if fault == "not there":
        path.unlink()
    elif fault == "not JSON":
        path.write_text("{")
    else:
        kind = {"image_processor_type": "NoSuchProcessor"} if fault == "unknown type" else {}
        settings = {key: value for key, value in system.preprocessor.items() if key != "image_processor_type"}
        path.write_text(json.dumps({**settings, **kind}))
    if fault == "no type":
        # transformers then goes by config.json.
        assert preprocess(processor_folder, [natural_image(0)]).shape == (1, 3, side(system), side(system))
        return
    with pytest.raises(InputError, match=r"transformers cannot make the image processor") as caught:
        load_processor(processor_folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("system", TRANSFORMERS[:1], indirect=True)
@pytest.mark.parametrize("wrong", [{"resample": 99}, {"rescale_factor": "a"}, {"image_mean": [0.5] * 4}])
def test_a_processor_that_fails_on_an_image_is_an_error_that_the_user_can_mend(
    wrong: dict[str, object], processor_folder: Path, system: System
) -> None:
    path = processor_folder / "preprocessor_config.json"
    path.write_text(json.dumps({**system.preprocessor, **wrong}))
    with pytest.raises(InputError, match=r"cannot make .* that preprocessor_config\.json") as caught:
        preprocess(processor_folder, [natural_image(0)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("system", [*TRANSFORMERS[:1], "vit_small_patch16_dinov3.lvd1689m"], indirect=True)
@pytest.mark.parametrize(
    ("entry", "values", "expected"),
    [
        ("std", [0, 0, 0], "finite numbers above 0"),
        ("std", [0.2, 0.2, -0.1], "finite numbers above 0"),
        ("std", [0.2, float("inf"), 0.2], "finite numbers above 0"),
        ("mean", [float("nan"), 0.5, 0.5], "finite numbers"),
    ],
)
def test_a_normalisation_that_cannot_be_is_named(
    entry: str,
    values: list[Any],
    expected: str,
    processor_folder: Path,
    system: System,
    refused: Callable[..., AbstractContextManager[None]],
) -> None:
    file, key = (
        ("preprocessor_config.json", f"image_{entry}") if system.preprocessor else ("config.json", entry)
    )
    path = processor_folder / file
    says = json.loads(path.read_text())
    (says if system.preprocessor else says["pretrained_cfg"])[key] = values
    path.write_text(json.dumps(says))
    told = f"{file} describes an image processor that cannot be | got {key} = "
    with refused(InputError, told, f" | expected {expected} | "):
        load_processor(processor_folder)


@pytest.mark.parametrize("system", ["vit_small_patch16_dinov3.lvd1689m"], indirect=True)
def test_a_transform_that_timm_cannot_make_is_an_error_that_the_user_can_mend(processor_folder: Path) -> None:
    path = processor_folder / "config.json"
    config = json.loads(path.read_text())
    config["pretrained_cfg"]["interpolation"] = "foo"
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"timm cannot make .* that config\.json describes"):
        load_processor(processor_folder)


@pytest.mark.parametrize("system", TRANSFORMERS[:1], indirect=True)
def test_code_that_a_processor_names_is_not_run_and_nobody_is_asked(
    processor_folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran = tmp_path / "ran"
    (processor_folder / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Foo: pass\n")
    content = json.loads((processor_folder / "preprocessor_config.json").read_text())
    auto = ("AutoConfig", "AutoModel", "AutoModelForImageClassification", "AutoImageProcessor")
    (processor_folder / "preprocessor_config.json").write_text(
        json.dumps({**content, "auto_map": dict.fromkeys(auto, "evil.Foo")})
    )
    monkeypatch.setattr("builtins.input", lambda *prompt: print(*prompt) or "y")
    with contextlib.suppress(InputError):
        preprocess(processor_folder, [natural_image(0)])
    assert not ran.exists()
    assert capfd.readouterr() == ("", "")


def test_pixel_values_become_the_pictures_that_they_came_from(
    small_system: System, small_source: Source
) -> None:
    mean, std = statistics(small_system)
    pictures = np.random.default_rng(4).integers(0, 256, (2, 5, 6, 3), dtype=np.uint8)
    pixel_values = (pictures.transpose(0, 3, 1, 2) / 255 - mean) / std
    found = denormalised(small_source.folder, pixel_values.astype(np.float32))
    assert found.dtype == np.uint8 and np.array_equal(found, pictures)


def test_what_is_beyond_black_and_white_is_cut_off(small_source: Source) -> None:
    far = np.array([-1e3, 1e3], np.float32)[:, None, None, None] * np.ones((2, 3, 1, 1), np.float32)
    assert denormalised(small_source.folder, far).reshape(2, 3).tolist() == [[0] * 3, [255] * 3]
