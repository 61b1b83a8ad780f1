from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vconv.errors import InputError
from vconv.runtime.inputs import images
from vconv.runtime.inputs.images import (
    GREATEST_COUNT,
    NATURAL_SIZE,
    natural_image,
    natural_images,
    open_images,
)

SEEDS = (0, 1, 17)


def pixels(image: Image.Image) -> NDArray[np.float64]:
    return np.asarray(image).astype(np.float64)


def spectrum(plane: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the frequency, in cycles a pixel, and the amplitude of a plane, windowed; 2 to 40 % of it."""
    height, width = plane.shape
    window = np.outer(np.hanning(height), np.hanning(width))
    amplitude = np.abs(np.fft.fft2((plane - plane.mean()) * window))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij"))
    kept = (frequency > 0.02) & (frequency < 0.4)
    return frequency[kept], amplitude[kept]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("channel", range(3))
def test_the_amplitude_of_a_made_up_image_falls_as_one_over_frequency(seed: int, channel: int) -> None:
    frequency, amplitude = spectrum(pixels(natural_image(seed))[..., channel])
    slope, _ = np.polyfit(np.log(frequency), np.log(amplitude), 1)
    assert slope == pytest.approx(-1.0, abs=0.05)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_seed_gives_one_image(seed: int) -> None:
    first = natural_image(seed).tobytes()
    images._natural_levels.cache_clear()
    assert natural_image(seed).tobytes() == first


def test_who_draws_into_an_image_does_not_change_the_next_one() -> None:
    first = natural_image(0)
    before = first.tobytes()
    first.paste((255, 0, 0), (0, 0, 100, 100))
    assert natural_image(0).tobytes() == before != first.tobytes()


def test_different_seeds_give_images_that_have_nothing_in_common() -> None:
    first, second = (pixels(natural_image(seed)).mean(axis=2).ravel() for seed in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.3


def test_the_generator_of_numpy_is_left_alone() -> None:
    np.random.seed(5)
    expected = np.random.get_state()[1].tobytes()
    images._natural_levels.cache_clear()
    natural_image(0)
    assert np.random.get_state()[1].tobytes() == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_a_made_up_image_uses_the_range_and_seldom_clips(seed: int) -> None:
    image = natural_image(seed)
    values = np.asarray(image)
    assert image.mode == "RGB"
    assert values.shape == (*NATURAL_SIZE, 3)
    assert values.std() > 40
    assert np.isin(values, (0, 255)).mean() < 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_the_channels_share_most_of_their_luminance_but_are_not_grey(seed: int) -> None:
    shared = np.corrcoef(pixels(natural_image(seed)).reshape(-1, 3).T)
    assert shared[np.triu_indices(3, 1)].min() > 0.5
    assert shared[np.triu_indices(3, 1)].max() < 0.95


def test_images_are_numbered_on_from_the_first_seed() -> None:
    made = [image.tobytes() for image in natural_images(3, 7)]
    assert made == [natural_image(seed).tobytes() for seed in (7, 8, 9)]


def test_photographs_are_opened_in_their_own_modes_in_the_order_given(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), (255, 0, 0)).save(tmp_path / "b.png")
    Image.new("L", (5, 7), 128).save(tmp_path / "a.jpg")
    red, grey = open_images([tmp_path / "b.png", str(tmp_path / "a.jpg")])
    assert (red.mode, red.size, red.getpixel((0, 0))) == ("RGB", (8, 6), (255, 0, 0))
    assert (grey.mode, grey.size, grey.getpixel((0, 0))) == ("L", (5, 7), 128)


def test_a_folder_gives_its_images_by_name_and_nothing_else(tmp_path: Path) -> None:
    names = ("a.png", "b.PNG", "c.jpg", "d.jpeg", "e.webp", "f.gif", "g.BMP", "h.tif", "i.tiff", "j.avif")
    for place, name in enumerate(names):
        Image.new("RGB", (place + 1, 1)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "folder").mkdir()
    said: list[str] = []
    assert [image.width for image in open_images([tmp_path], said.append)] == list(range(1, 11))
    assert said == [f"1 file of another suffix is left out of {tmp_path}: notes.txt"]


def test_the_first_files_that_are_left_out_are_named(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    for name in ("d.heic", "b.ppm", "c.csv", "with\nlines", "z"):
        (tmp_path / name).write_text("")
    said: list[str] = []
    open_images([tmp_path], said.append)
    assert said == [f"5 files of other suffixes are left out of {tmp_path}: b.ppm, c.csv, d.heic, ..."]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images"):
        open_images([tmp_path])


def test_more_images_than_memory_is_made_for_are_refused(tmp_path: Path) -> None:
    for place in range(GREATEST_COUNT + 1):
        Image.new("RGB", (1, 1)).save(tmp_path / f"{place}.png")
    with pytest.raises(InputError, match=rf"too many images .* got {GREATEST_COUNT + 1} "):
        open_images([tmp_path])
    (tmp_path / "0.png").unlink()
    assert len(open_images([tmp_path])) == GREATEST_COUNT


def test_no_paths_at_all_are_refused() -> None:
    with pytest.raises(InputError, match="no images"):
        open_images([])


def test_a_missing_photograph_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--images .*nowhere\.png \| got no such file or folder"):
        open_images([tmp_path / "nowhere.png"])


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "page.png").write_text("<html>")
    with pytest.raises(InputError, match=r"page\.png.*not recognise as a picture"):
        open_images([tmp_path / "page.png"])


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_a_photograph_that_was_cut_short_is_refused(ending: str, tmp_path: Path) -> None:
    whole = tmp_path / f"whole.{ending}"
    natural_image(0).save(whole)
    cut = tmp_path / f"cut.{ending}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(InputError, match=rf"cut\.{ending}"):
        open_images([cut])
