"""One picture: the pixel values of every mode, what is refused and why, and files that are no pictures."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import transformers
from examples import EXAMPLES
from made_pictures import ACCEPTED, ORIENTATION, REFUSED, TURNED, WIDE, colours, grey
from PIL import Image, ImageOps, PngImagePlugin
from timm.data import ImageDataset
from transformers.image_utils import load_image

from vconv.catalog.systems import System
from vconv.errors import InputError
from vconv.runtime.inputs import pictures
from vconv.runtime.inputs.image_folder import find_images, thumbnail
from vconv.runtime.inputs.images import open_images
from vconv.runtime.inputs.pictures import MAX_PIXELS, MODES, UnreadableError, open_picture, upright
from vconv.runtime.inputs.preprocessing import load_processor, preprocess

KINDS = [
    family + "ImageProcessor" + kind
    for family in ("Bit", "DINOv3ViT", "DeiT", "ViT")
    for kind in ("", "Fast", "Pil")
]
"""Classes of image processors, as transformers 4 or 5 names them."""
ONE_OF_EACH = [
    next(name for name, system in EXAMPLES.items() if system.library == library)
    for library in ("transformers", "timm")
]


def stock_processor(folder: Path) -> Any:
    return transformers.AutoImageProcessor.from_pretrained(folder)


def by_stock(stock: Any, picture: Image.Image) -> Any:
    return stock(images=picture, return_tensors="pt")["pixel_values"][0].numpy()


def makes_rgb(stock: Any) -> bool:
    """Return whether a processor turns a picture with an alpha channel into three channels."""
    with contextlib.suppress(ValueError, RuntimeError, TypeError):
        return len(by_stock(stock, Image.new("RGBA", (60, 90)))) == 3
    return False


def test_every_mode_of_pillow_is_accepted_or_refused() -> None:
    made = {build().mode: name for name, build in (*ACCEPTED.items(), *REFUSED.items())}
    assert set(made) >= set(Image.MODES)
    assert {build().mode for build in ACCEPTED.values()} == set(MODES)


@pytest.mark.parametrize("system", ONE_OF_EACH[:1], indirect=True)
@pytest.mark.parametrize("do_convert_rgb", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_pixel_values_of_every_mode_are_those_of_the_stock_processor(
    kind: str, do_convert_rgb: bool, processor_folder: Path, system: System
) -> None:
    settings = {**system.preprocessor, "image_processor_type": kind, "do_convert_rgb": do_convert_rgb}
    (processor_folder / "preprocessor_config.json").write_text(json.dumps(settings))
    try:
        stock = stock_processor(processor_folder)
    except ValueError:  # this version of transformers has no such class
        with pytest.raises(InputError, match="transformers cannot make the image processor"):
            load_processor(processor_folder)
        return
    load = ImageOps.exif_transpose if makes_rgb(stock) else load_image
    process = load_processor(processor_folder)
    different = [
        name
        for name, build in ACCEPTED.items()
        if not np.array_equal(process([build()])[0], by_stock(stock, load(build())))
    ]
    assert different == []


@pytest.mark.parametrize("system", ONE_OF_EACH[1:], indirect=True)
@pytest.mark.parametrize("mode", ACCEPTED)
def test_pixel_values_of_every_mode_are_those_of_timm(
    mode: str, processor_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = timm.create_model(f"local-dir:{processor_folder}", pretrained=False)
    settings = timm.data.resolve_data_config({}, model=model)
    transform: Any = timm.data.create_transform(**settings, is_training=False)
    reader: Any = [(ImageOps.exif_transpose(ACCEPTED[mode]()), 0)]
    with monkeypatch.context() as patching:
        patching.setattr(Image, "open", lambda picture: picture)  # some modes are in no file
        expected = ImageDataset("", reader=reader, transform=transform)[0][0]
    actual = preprocess(processor_folder, [ACCEPTED[mode]()])
    assert np.array_equal(actual[0], expected)


@pytest.mark.parametrize("mode", REFUSED)
def test_a_picture_of_more_than_8_bits_a_channel_is_refused_by_the_name_of_its_mode(
    mode: str, small_artifact: Path
) -> None:
    with pytest.raises(InputError) as caught:
        preprocess(small_artifact, [colours(), REFUSED[mode]()])
    error = caught.value
    assert error.what == "image 2 cannot be used"
    assert error.got == f"the mode {mode}, which has no exact form of 8 bits a channel"
    assert error.expected == f"one of the modes {', '.join(MODES)}"


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F"])
def test_the_advice_for_a_picture_of_more_than_8_bits_keeps_its_levels(mode: str) -> None:
    levels = np.linspace(0, 65535, WIDE[0] * WIDE[1]).reshape(WIDE[::-1]).round()
    image = Image.fromarray(levels.astype({"I": np.int32, "F": np.float32}.get(mode, np.uint16)))
    with pytest.raises(UnreadableError) as caught:
        upright(image)
    head, _, advice = caught.value.fix.partition(": ")
    assert head == "scale the levels that matter, LOW to HIGH, to 8 bits"
    followed = eval(advice, {"Image": Image, "numpy": np, "image": image, "LOW": 0, "HIGH": 65535})
    assert followed.mode == "L"
    assert np.abs(np.asarray(followed) - levels / 257).max() <= 0.5


def test_a_picture_of_16_bits_is_refused_from_a_file_and_skipped_in_a_folder(tmp_path: Path) -> None:
    grey("I;16").save(tmp_path / "deep.png")
    colours().save(tmp_path / "plain.png")
    with pytest.raises(InputError, match=r"cannot use the image .*deep\.png \| got the mode I;16,"):
        open_images([tmp_path])
    reason = "the mode I;16, which has no exact form of 8 bits a channel"
    assert find_images(tmp_path).read(0)[0] == reason


def test_a_picture_that_is_turned_gives_the_same_by_every_way(small_artifact: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED
    path = tmp_path / "photograph.png"
    colours().save(path, exif=exif)
    expected = preprocess(small_artifact, [colours().transpose(Image.Transpose.ROTATE_270)])
    for found in (
        open_images([path]),
        [Image.open(path)],
        [open_picture(path)],
        [find_images(tmp_path).open(0)],
    ):
        assert np.array_equal(preprocess(small_artifact, found), expected)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def second_header(whole: bytes) -> bytes:
    end = whole.index(b"IEND") - 4
    return whole[:end] + chunk(b"IHDR", b"") + whole[end:]


DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "a second header": second_header,
    "cut short": lambda whole: whole[: len(whole) // 2],
    "cut in its header": lambda whole: whole[:20],
    "other bytes in the middle": lambda whole: whole[:60] + b"\xff" * 30 + whole[90:],
    "empty": lambda whole: b"",
    "a text": lambda whole: b"<html>",
    "an EPS file": lambda whole: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n",
}


@pytest.fixture
def damaged(tmp_path: Path) -> Callable[[str], Path]:
    def make(damage: str) -> Path:
        path = tmp_path / "damaged.png"
        colours().save(path)
        path.write_bytes(DAMAGED[damage](path.read_bytes()))
        return path

    return make


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_picture_is_one_sentence_by_every_way(damage: str, damaged: Callable[[str], Path]) -> None:
    path = damaged(damage)
    with pytest.raises(UnreadableError) as caught:
        open_picture(path)
    reason = caught.value.got
    assert reason and "\n" not in reason and str(path) not in reason
    with pytest.raises(InputError) as refused:
        open_images([path])
    assert (refused.value.what, refused.value.got) == (f"cannot use the image {path}", reason)
    with pytest.raises(InputError, match=r"no image in .* can be read") as none:
        find_images(path.parent)
    assert none.value.got == f"damaged.png: {reason}"


@pytest.mark.parametrize(
    "kind", [SyntaxError, ValueError, struct.error, zlib.error, EOFError, RecursionError]
)
def test_whatever_pillow_raises_is_a_reason(
    kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(image: Image.Image) -> Image.Image:
        raise kind("of\nPillow")

    colours().save(tmp_path / "a.png")
    monkeypatch.setattr(pictures.ImageOps, "exif_transpose", broken)
    with pytest.raises(UnreadableError, match=rf"^{kind.__name__}: of Pillow$"):
        open_picture(tmp_path / "a.png")
    with pytest.raises(InputError, match=rf"got {kind.__name__}: of Pillow \|"):
        open_images([tmp_path / "a.png"])


def test_a_picture_that_was_not_yet_decoded_and_is_damaged_is_told(
    damaged: Callable[[str], Path], small_artifact: Path
) -> None:
    with Image.open(damaged("cut short")) as image, pytest.raises(InputError, match="image 1 cannot be used"):
        preprocess(small_artifact, [image])


def test_a_text_that_is_too_long_for_pillow_is_told(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "x" * 2_000_000, zip=True)
    colours().save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(InputError, match=r"got ValueError: Decompressed [Dd]ata [Tt]oo [Ll]arge"):
        open_images([tmp_path / "a.png"])


def test_a_picture_that_nobody_may_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    colours().save(tmp_path / "a.png")
    monkeypatch.setattr(pictures, "open_regular", refuse)
    with pytest.raises(InputError, match=r"a\.png \| got no permission to read it"):
        open_images([tmp_path / "a.png"])


@pytest.fixture
def in_time() -> Callable[[Callable[[], Any]], Any]:
    """Run something that may block in a thread, and wait for ten seconds."""

    def run(blocking: Callable[[], Any]) -> Any:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(blocking()), daemon=True)
        thread.start()
        thread.join(10)
        assert found, "it blocks"
        return found[0]

    return run


@pytest.mark.parametrize(
    ("kind", "reason"), [("a named pipe", "a named pipe"), ("/dev/zero", "a device"), ("folder", "a folder")]
)
@pytest.mark.parametrize("linked", [False, True], ids=["itself", "a link"])
def test_what_is_no_regular_file_is_not_opened(
    kind: str, reason: str, linked: bool, tmp_path: Path, in_time: Callable[[Callable[[], Any]], Any]
) -> None:
    special = Path(kind) if kind.startswith("/") else tmp_path / "special.png"
    if kind == "a named pipe":
        os.mkfifo(special)
    elif kind == "folder":
        special.mkdir()
    path = tmp_path / "a.png" if linked else special
    if linked:
        path.symlink_to(special)

    def told() -> str:
        with pytest.raises(UnreadableError) as caught:
            open_picture(path)
        return caught.value.got

    assert in_time(told) == f"{reason}, not a regular file"


def test_a_link_to_a_pipe_in_a_folder_is_skipped_with_the_reason(
    tmp_path: Path, in_time: Callable[[Callable[[], Any]], Any]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    folder = tmp_path / "images"
    folder.mkdir()
    colours().save(folder / "a.png")
    (folder / "b.png").symlink_to(tmp_path / "pipe")
    (folder / "c.png").symlink_to("/dev/zero")
    found = find_images(folder)
    assert found.names == ("a.png", "b.png", "c.png")
    assert in_time(lambda: found.read(1)) == ("a named pipe, not a regular file", "")
    assert in_time(lambda: found.read(2)) == ("a device, not a regular file", "")
    with pytest.raises(InputError, match=r"b\.png \| got a named pipe, not a regular file"):
        open_images([folder])


def header_of(width: int, height: int) -> bytes:
    """Return a PNG that has no pixels: whoever decodes it fails."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(13300, 13300), (14000, 7000), (MAX_PIXELS + 1, 1)])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(
    width: int, height: int, tmp_path: Path, small_artifact: Path
) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(header_of(width, height))
    got = f"{width} x {height}, which is {width * height / 1e6:.0f} megapixels"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=rf"got {got} \| expected 89 megapixels at most \|"):
            open_images([path])
        with pytest.raises(InputError, match=rf"no image .* got large\.png: {got}"):
            find_images(tmp_path)
    with warnings.catch_warnings(action="ignore"):
        image = Image.open(path)
    with image, pytest.raises(InputError, match=rf"image 1 cannot be used \| got {got}"):
        preprocess(small_artifact, [image])


def test_a_bound_of_the_program_on_pillow_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colours().save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UnreadableError, match=r"DecompressionBombError: Image size \(5400 pixels\)"):
        open_picture(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)  # Pillow only warns
    assert open_picture(tmp_path / "a.png").size == WIDE


@pytest.mark.parametrize("system", ONE_OF_EACH, indirect=True)
@pytest.mark.parametrize("action", ["error", "always"])
def test_warnings_of_pillow_are_neither_printed_nor_raised(
    action: Any, processor_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    ACCEPTED["P, levels of alpha"]().save(folder / "a.png")  # on which convert("RGB") warns
    process = load_processor(processor_folder)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter(action)
        process(open_images([folder]))
        thumbnail(find_images(folder).open(0))
    assert told == []


def test_photographs_are_decoded_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in range(3):
        Image.new("RGB", (place + 1, 1)).save(tmp_path / f"{place}.png")
    found = open_images([tmp_path])
    opened: list[str] = []
    genuine = Image.open
    monkeypatch.setattr(Image, "open", lambda file: opened.append("") or genuine(file))
    assert len(found) == 3 and opened == []
    assert [found[1].width, *(image.width for image in found[1:])] == [2, 2, 3]
    assert len(opened) == 3
    (tmp_path / "1.png").unlink()
    with pytest.raises(InputError, match=r"1\.png \| got no such file"):
        found[1]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_a_file_of_several_frames_stands_for_its_first_and_an_image_for_its_current_one(
    kind: str, tmp_path: Path
) -> None:
    frames = [Image.new("RGB", (64, 48), colour) for colour in ("red", "lime", "blue")]
    path = tmp_path / f"frames.{kind.lower()}"
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], lossless=True)
    (found,) = open_images([path])
    assert np.array_equal(np.asarray(upright(found).convert("RGB")), np.asarray(load_image(str(path))))
    assert found.convert("RGB").getpixel((0, 0)) == (255, 0, 0)
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == 3
        image.seek(2)
        assert upright(image).convert("RGB").getpixel((0, 0)) == (0, 0, 255)
